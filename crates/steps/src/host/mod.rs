//! How a step reaches a machine: a few typed verbs, the same over SSH, locally and simulated.
//!
//! Looking (`probe`, `stat`, `read`, `unit` ...) changes nothing and needs no lock. Every change
//! goes through [`Host::change`] or [`Host::run`], carries the [`Attempt`] it belongs to, and on the
//! host verifies the run's lock, under `flock`, in the same command.

pub mod codes;
#[doc(hidden)]
pub mod doors;
mod fleet;
mod local;
mod posix;
mod shell;
pub mod sim;
mod ssh;
pub(crate) mod transport;
mod types;

pub use fleet::{HostContext, HostFactory, Hosts, HostsConfig};
pub use shell::quote;
pub use ssh::{Patience, SshEnvironment};
pub use types::*;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use flow_core::step::Attempt;

use crate::clients::{Etcd, EtcdEndpoint, HttpReply, HttpRequest, Sql, SqlTarget};

/// One machine.
#[async_trait]
pub trait Host: Send + Sync + Debug {
    /// The inventory's name.
    fn name(&self) -> &str;

    /// The address under which it is reached, for messages.
    fn address(&self) -> &str;

    /// Who it is: identity and system. Read once for a connection and remembered.
    async fn facts(&self) -> Result<Arc<Facts>, HostError>;

    /// Runs a script that changes nothing, as root (through `become` where that is set).
    ///
    /// Scripts asked for together share a round trip. A non-zero exit is a [`Reply`], not an error.
    async fn probe(&self, script: &str) -> Result<Reply, HostError>;

    /// What is at a path; a link is not followed. `None`: nothing.
    async fn stat(&self, path: &str) -> Result<Option<Stat>, HostError>;

    /// The bytes of a file, up to `limit`; a longer one is an error. `None`: no such file.
    async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, HostError>;

    /// The names in a directory, sorted. `None`: no such directory.
    async fn list(&self, path: &str) -> Result<Option<Vec<String>>, HostError>;

    /// The state of a systemd unit.
    async fn unit(&self, unit: &str) -> Result<Unit, HostError>;

    /// Those of these files that were written after the unit last changed its state (it was started, or its reload
    /// came to an end); where its last reload failed, all that are there.
    async fn written_since(&self, unit: &str, files: &[String]) -> Result<Vec<String>, HostError>;

    /// The processes that match.
    async fn processes(&self, query: &ProcessQuery) -> Result<Vec<Process>, HostError>;

    /// The installed version of each package that is installed.
    async fn packages(&self, names: &[String]) -> Result<Packages, HostError>;

    /// Makes one change. An exit other than 0 of what carries it out is an error.
    async fn change(&self, by: &Attempt, change: &HostChange) -> Result<(), HostError>;

    /// Runs a command that may change anything. A non-zero exit is a [`Reply`], not an error.
    ///
    /// With [`Command::detached`] it runs as a transient systemd unit named [`Attempt::name`], so
    /// that it survives the connection; run again under the same attempt it re-attaches.
    async fn run(&self, by: &Attempt, command: &Command) -> Result<Reply, HostError>;

    /// What became of an attempt's processes on this host.
    async fn attempt(&self, by: &Attempt) -> Result<AttemptState, HostError>;

    /// Takes the host's lock for a run, or renews it with a higher epoch.
    async fn lock(&self, claim: &LockClaim) -> Result<(), HostError>;

    /// Who holds the lock.
    async fn lock_holder(&self) -> Result<Option<LockClaim>, HostError>;

    /// The attempts of a run that are alive on this host, by [`Attempt::name`].
    async fn alive(&self, run: &str) -> Result<Vec<String>, HostError>;

    /// Gives the lock back where `claim`'s run holds it. With `force`, whichever process of that run
    /// does: refused while an attempt of it is alive on the host.
    async fn unlock(&self, claim: &LockClaim, force: bool) -> Result<(), HostError>;

    /// A byte stream to an address as seen from the host (through the SSH connection).
    async fn dial(&self, address: &str, port: u16) -> Result<BoxStream, HostError>;

    /// Proves, without changing anything, that this attempt's lock still holds: for changes that are
    /// made elsewhere than on a host's disk, such as in etcd.
    async fn fence(&self, by: &Attempt) -> Result<(), HostError>;

    /// One HTTP exchange with a service as seen from the host. Any status is a reply, not an error.
    async fn http(&self, request: &HttpRequest) -> Result<HttpReply, HostError>;

    /// A client of one etcd member as seen from the host.
    async fn etcd(&self, endpoint: &EtcdEndpoint) -> Result<Box<dyn Etcd>, HostError>;

    /// A PostgreSQL connection as seen from the host.
    async fn sql(&self, target: &SqlTarget) -> Result<Box<dyn Sql>, HostError>;

    /// Ends the connection. The host connects again when it is next asked.
    async fn close(&self);
}
