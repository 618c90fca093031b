//! Simulated hosts: a small world of machines with files, systemd units, packages, etcd and Patroni.
//!
//! The world outlives the process: it is one JSON file, changed under a file lock and replaced by a
//! rename, so that a process killed at any instruction leaves it before an effect or after it, never
//! between; or it is kept in memory, where a rehearsal goes on from copies of it. It counts effects, and can be told to fail, hang or lose the answer at any call. That is
//! what crash tests need. It proves nothing about real systems: where it models one, the model is only
//! as true as what was seen on real ones.
//!
//! [`SimWorld`] is the way in: it makes hosts, places faults, reboots machines, and shows the state.

mod apt;
mod attempts;
mod balancers;
mod error;
mod etcd;
mod etcd_members;
mod fault;
mod files;
mod host;
mod kept;
mod outline;
mod patroni;
mod patroni_config;
mod patroni_loop;
mod rest;
mod settings;
mod shell;
mod sql;
mod state;
mod units;
mod world;

pub use error::WorldError;
pub use fault::{Call, Fault, FaultKind};
pub use files::{FileTree, Node, NodeKind};
pub use host::SimHost;
pub use state::{
    AttemptRecord, CannedReply, CannedRows, CannedSql, Counters, Effect, EtcdState, HostState, Postgres,
    PostgresRole, Release, ScriptMatch, Settings, SimProcess, StoredKey, UnitState, Unknown, UnknownKind,
    WorldState,
};
pub use world::SimWorld;
