//! What was seen: of each host, and of the cluster's keys in etcd as that host sees them.
//!
//! What could not be seen is `Unknown`, `Unreadable` or `None`, never an empty value: it counts for nothing, least of all for harmless.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clients::NoEtcd;
use crate::patroni::archive::Archive;
use crate::patroni::rest::Report;
use crate::patroni::settings::Settings;
pub(crate) use crate::postgres::WalRecord as Record;
use crate::postgres::{Fork, Lsn};

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Why nothing of it could be seen; then all else is unknown.
    #[serde(default)]
    pub(crate) unreachable: Option<String>,
    /// What its Patroni is configured to be.
    pub(crate) configuration: Configuration,
    /// Patroni's unit.
    pub(crate) patroni: Option<PatroniUnit>,
    /// What its REST API says; none where it doesn't answer.
    pub(crate) report: Option<Report>,
    /// What is at the place of the data directory.
    pub(crate) data: Data,
    /// The keys, asked for from this host.
    pub(crate) store: Store,
    /// Copies that were set aside beside it, by path.
    #[serde(default)]
    pub(crate) set_aside: Vec<String>,
    /// What Patroni and PostgreSQL complained of last, where the member neither leads nor follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) complaints: Vec<String>,
    /// What archives its WAL, and of which cluster the backups are.
    #[serde(default)]
    pub(crate) archive: Archive,
}

/// A host's configuration of Patroni.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Configuration {
    /// It can't be read; the reason.
    Unknown(String),
    /// It names a store that flow doesn't speak to; the words that say so.
    Unsupported(String),
    /// What it says.
    Of(Box<Settings>),
}

/// Patroni's unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PatroniUnit {
    /// `active`, `inactive`, `failed`, `activating`.
    pub(crate) active: String,
    /// `running`, `dead`, `auto-restart`.
    pub(crate) sub: String,
    /// It can't be started.
    pub(crate) masked: bool,
}

/// What is at the place of a data directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Data {
    /// It could not be looked at, or what lies there might be hidden (an unmounted file system); the reason.
    Unknown(String),
    /// Nothing, or an empty directory: it holds no row.
    Nothing,
    /// Files that are no readable cluster: half initialised, or something else.
    Unreadable(String),
    /// A cluster.
    Cluster(Box<Cluster>),
}

/// A data directory with a control file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// The system identifier, decimal.
    pub(crate) identifier: String,
    /// `in production`, `shut down`, `shut down in recovery` ...
    pub(crate) state: String,
    /// A PostgreSQL runs on it.
    pub(crate) running: Option<bool>,
    /// PostgreSQL's major version.
    pub(crate) major: Option<String>,
    /// The highest timeline of its WAL.
    pub(crate) timeline: u32,
    /// The latest checkpoint's REDO location.
    pub(crate) redo: Option<Lsn>,
    /// The minimum recovery ending location; 0/0 on a primary.
    pub(crate) minimum_recovery: Option<Lsn>,
    /// How that timeline came about, oldest first; none where its history file is missing or can't be read.
    /// Timeline 1 has an empty one.
    pub(crate) history: Option<Vec<Fork>>,
    /// When the last transaction in that WAL was committed.
    pub(crate) last_commit: Option<String>,
    /// The last records of its valid WAL, oldest first, without a gap; what was received and never replayed is among
    /// them. Empty where they can't be read.
    pub(crate) records: Vec<Record>,
    /// Others' last records that were looked for further back in its WAL, and found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) looked_up: Vec<Record>,
    /// The links that lead out of it: `pg_wal -> /srv/wal`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) links: Vec<String>,
    /// The file system that it lies on, where that isn't the root's: `/srv (ext4, /dev/sdb1)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mount: Option<String>,
    /// Its bytes, with WAL and tablespaces; none where that can't be told.
    #[serde(default)]
    pub(crate) bytes: Option<u64>,
    /// Patroni would rewind it where that is needed: `use_pg_rewind` is on, and its data has checksums or hints in the WAL.
    #[serde(default)]
    pub(crate) rewindable: bool,
    /// Whether a relation, tablespace, database or large object of a user may be in it.
    pub(crate) user_data: Option<bool>,
}

/// The cluster's keys, as one host sees them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Store {
    /// They were not asked for; the reason.
    Unknown(String),
    /// etcd gave no answer: of what kind that is, and what was said.
    Silent(NoEtcd, String),
    /// What they say.
    Keys(Box<Keys>),
}

/// The cluster's keys.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Keys {
    /// `initialize`: absent, empty, or a system identifier.
    pub(crate) initialize: Option<Key>,
    /// `leader`: a member's name.
    pub(crate) leader: Option<Key>,
    /// `members/NAME`: where it says that its REST API is.
    pub(crate) members: BTreeMap<String, Option<String>>,
    /// `sync`: the members that may be promoted while replication is synchronous; empty where it isn't.
    pub(crate) sync: Vec<String>,
    /// `failsafe`: the members that may lead while failsafe mode is on; empty where it isn't.
    #[serde(default)]
    pub(crate) failsafe: Vec<String>,
    /// `failover`: the member that was asked to take over.
    #[serde(default)]
    pub(crate) failover: Option<String>,
    /// `status`, of Patroni before 3 `optime/leader`: how far the last leader had written.
    #[serde(default)]
    pub(crate) written: Option<Written>,
    /// `maximum_lag_on_failover` of `config`, in bytes.
    #[serde(default)]
    pub(crate) maximum_lag: Option<u64>,
    /// `postgresql.use_pg_rewind` of `config`.
    #[serde(default)]
    pub(crate) use_pg_rewind: Option<bool>,
    /// `standby_cluster` of `config`: whom the cluster follows. None where it stands by itself.
    #[serde(default)]
    pub(crate) standby_of: Option<String>,
    /// `config` says that the cluster is in pause; none where there is no `config`.
    pub(crate) paused: Option<bool>,
}

/// `maximum_lag_on_failover`'s default, in bytes.
pub(crate) const MAXIMUM_LAG: u64 = 1 << 20;

/// How far a leader had written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The key that says so.
    pub(crate) key: String,
    /// The position in the WAL, in bytes.
    pub(crate) position: u64,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// Its value.
    pub(crate) value: String,
    /// The revision of its last change.
    pub(crate) revision: i64,
    /// The lease that it hangs on; 0 for none.
    pub(crate) lease: i64,
}

impl Node {
    /// A host that can't be reached.
    pub(crate) fn unreachable(why: impl Into<String>) -> Self {
        let why = why.into();
        let unknown = || "the host can't be reached".to_owned();
        Self {
            unreachable: Some(why),
            configuration: Configuration::Unknown(unknown()),
            patroni: None,
            report: None,
            data: Data::Unknown(unknown()),
            store: Store::Unknown(unknown()),
            set_aside: Vec::new(),
            complaints: Vec::new(),
            archive: Archive::default(),
        }
    }

    pub(in crate::patroni) fn settings(&self) -> Option<&Settings> {
        match &self.configuration {
            Configuration::Of(settings) => Some(settings),
            _ => None,
        }
    }

    /// Its member's name.
    pub(in crate::patroni) fn member(&self) -> Option<&str> {
        self.settings().map(|settings| settings.name.as_str())
    }

    pub(in crate::patroni) fn cluster(&self) -> Option<&Cluster> {
        match &self.data {
            Data::Cluster(cluster) => Some(cluster),
            _ => None,
        }
    }

    pub(in crate::patroni) fn leads(&self) -> bool {
        self.report.as_ref().is_some_and(Report::leads)
    }
}

/// When a system identifier was made, in seconds since 1970: its upper 32 bits (`xlog.c`, `BootStrapXLOG`).
pub(crate) fn made(identifier: &str) -> Option<i64> {
    identifier.parse::<u64>().ok().map(|identifier| (identifier >> 32).cast_signed())
}
