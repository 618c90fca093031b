//! What was seen of a member beyond whose data it has: its server, its disks, its etcd. Only data.
//!
//! As in the evidence of a verdict, what could not be seen is unknown and counts for nothing, least of all for well.

use serde::{Deserialize, Serialize};

use crate::clients::{EtcdAlarm, NoEtcd};

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Condition {
    /// From where on something is told.
    pub(crate) limits: Limits,
    /// Patroni's configuration file.
    pub(crate) config_file: String,
    /// Another run of flow that has locked the host.
    pub(crate) locked_by: Option<Lock>,
    /// What is at the place of the data directory, and on which disks; none where it can't be told.
    pub(crate) place: Option<Place>,
    /// What PostgreSQL says of itself.
    pub(crate) server: Server,
    /// etcd's members.
    pub(crate) etcd: Etcd,
}

/// From where on something is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// How far a replica may be behind, in bytes of WAL.
    pub(crate) lag: u64,
    /// How much WAL a replication slot that nobody reads may hold, in bytes.
    pub(crate) slot_wal: u64,
    /// How much of a disk must be free, in percent.
    pub(crate) disk_free: u64,
}

/// Whose lock it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lock {
    /// The run's id.
    pub(crate) run: String,
    /// Its workflow.
    pub(crate) workflow: String,
    /// Who works on it.
    pub(crate) owner: String,
}

/// What is at the place of the data directory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) directory: String,
    /// The version that its file `PG_VERSION` names; none where it names none.
    pub(crate) version: Option<String>,
    /// It has a control file.
    pub(crate) control: bool,
    /// The major version of the programs that would run on it: `15`.
    pub(crate) programs: Option<String>,
    /// The disks of the data and of the WAL.
    pub(crate) disks: Vec<Disk>,
    /// Directories beside it that were set aside, or left by a failed bootstrap.
    pub(crate) copies: Vec<Aside>,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// `data` or `wal`: what of the data directory is on it.
    pub(crate) holds: String,
    /// Where it is mounted.
    pub(crate) mount: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes that PostgreSQL can still write.
    pub(crate) free: u64,
}

/// A directory beside the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Aside {
    /// Its path.
    pub(crate) path: String,
    /// Its bytes; none where counting took too long.
    pub(crate) bytes: Option<u64>,
}

/// What PostgreSQL says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    /// None runs on the data directory.
    Stopped,
    /// It could not be asked; the reason.
    Unknown(String),
    /// What it says.
    Says(Box<Says>),
}

/// What a running PostgreSQL says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Says {
    /// It is in recovery: no primary.
    pub(crate) recovery: bool,
    /// WAL position in bytes: written by a primary, received by a replica.
    pub(crate) position: Option<u64>,
    /// On a replica: up to where it has replayed, in bytes.
    pub(crate) replayed: Option<u64>,
    /// On a replica: when the last transaction that it has replayed was committed.
    pub(crate) replayed_at: Option<String>,
    /// On a replica: the state of what receives its WAL; none where nothing does.
    pub(crate) receiver: Option<String>,
    /// The replication slots.
    pub(crate) slots: Vec<Slot>,
    /// What archives WAL; none where nothing does.
    pub(crate) archiver: Option<Archiver>,
    /// Settings that count after a restart only.
    pub(crate) restart: Vec<String>,
    /// `max_slot_wal_keep_size` in MiB; -1 for no limit.
    pub(crate) slot_limit: Option<i64>,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// Its name.
    pub(crate) name: String,
    /// `physical` or `logical`.
    pub(crate) kind: String,
    /// Somebody reads from it.
    pub(crate) active: bool,
    /// WAL that it holds back, in bytes; none where it holds none.
    pub(crate) held: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost` (`wal_status`).
    pub(crate) state: Option<String>,
}

/// What archives WAL (`pg_stat_archiver`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Archiver {
    /// `on` or `always` (`archive_mode`).
    pub(crate) mode: String,
    /// `archive_command`, or the library in its place.
    pub(crate) command: String,
    /// The last failure is newer than the last success.
    pub(crate) failing: bool,
    /// How often it has failed since the statistics were reset.
    pub(crate) failures: u64,
    /// The file that it failed at last.
    pub(crate) failed_file: Option<String>,
    /// When that was.
    pub(crate) failed_at: Option<String>,
    /// When it last succeeded.
    pub(crate) archived_at: Option<String>,
    /// How many files wait to be archived.
    pub(crate) waiting: u64,
}

/// etcd, as one host sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Etcd {
    /// The endpoints that the host's Patroni names.
    pub(crate) members: Vec<Member>,
    /// Alarms that members have raised; none where etcd can't be asked.
    pub(crate) alarms: Option<Vec<EtcdAlarm>>,
    /// Peer URLs of members that were added and have never started.
    pub(crate) unstarted: Vec<String>,
}

/// One endpoint of etcd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// `address:port`.
    pub(crate) endpoint: String,
    /// What it is called in etcd, where a member that answers knows.
    pub(crate) name: Option<String>,
    /// What it says.
    pub(crate) says: MemberSays,
}

/// What a member of etcd says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MemberSays {
    /// Nothing: of what kind that is, and why.
    Silent(NoEtcd, String),
    /// It answers.
    Answers {
        /// Its id.
        id: u64,
        /// `3.4.23`
        version: String,
        /// The id of the leader that it knows; 0 for none.
        leader: u64,
        /// It has no vote yet.
        learner: bool,
    },
}
