//! The whole state of a simulated world, as it is kept in its file. Data only.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::files::FileTree;
use crate::host::{LockClaim, Reply};

/// The Debian release that all hosts run: it decides versions, formats and package names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// Debian 12: Patroni 3.0.2, PostgreSQL 15, etcd 3.4.23.
    #[default]
    Bookworm,
    /// Debian 13: Patroni 4.0.7, PostgreSQL 17, etcd 3.5.16.
    Trixie,
}

/// What holds for the whole world.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// The release of all hosts.
    pub release: Release,
    /// A script or a query that is neither understood nor canned is an error, and noted as unknown.
    /// Else a script to be run answers 0 and counts as an effect.
    #[serde(default)]
    pub strict: bool,
}

/// Everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorldState {
    /// What holds for the whole world.
    pub settings: Settings,
    /// The machines, in the order in which they were named.
    pub hosts: IndexMap<String, HostState>,
    /// The one etcd keyspace.
    pub etcd: EtcdState,
    /// Where numbers come from.
    pub counters: Counters,
    /// Every change that was made by a caller, in order.
    pub effects: Vec<Effect>,
    /// Faults that wait for their call.
    pub faults: Vec<Fault>,
    /// Answers to scripts.
    pub replies: Vec<CannedReply>,
    /// Answers to SQL.
    pub sql: Vec<CannedSql>,
}

/// What the world was asked and has no answer to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// What it is.
    pub kind: UnknownKind,
    /// The script or query.
    pub text: String,
    /// On which host it was asked.
    pub host: String,
}

/// What is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnknownKind {
    /// A script that only looks.
    Probe,
    /// A script that may change something.
    Run,
    /// An SQL query.
    Query,
}

impl WorldState {
    /// Bare hosts of that release, booted. Where no address is given, they are 198.18.0.11 and on.
    pub fn bare(release: Release, hosts: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        let mut state = Self::default();
        state.settings.release = release;
        for (name, address) in hosts {
            let mut host = HostState::bare(state.hosts.len());
            if let Some(address) = address {
                host.address = address;
            }
            state.hosts.insert(name, host);
        }
        for name in state.host_names() {
            super::units::boot(&mut state, &name);
        }
        state
    }

    /// The names of all hosts.
    pub fn host_names(&self) -> Vec<String> {
        self.hosts.keys().cloned().collect()
    }

    /// A host by name.
    pub(super) fn host(&self, name: &str) -> Result<&HostState, String> {
        self.hosts.get(name).ok_or_else(|| format!("no host {name}"))
    }

    /// A host by name, to be changed.
    pub(super) fn host_mut(&mut self, name: &str) -> Result<&mut HostState, String> {
        self.hosts.get_mut(name).ok_or_else(|| format!("no host {name}"))
    }

    /// The host that answers at an address as seen from another one, where its network allows it.
    pub(super) fn reach(&self, from: &str, address: &str) -> Option<&str> {
        let local = matches!(address, "localhost" | "127.0.0.1" | "::1" | "") || address.starts_with('/');
        let found = |(name, host): &(&String, &HostState)| match local {
            true => name.as_str() == from,
            false => host.address == address || name.as_str() == address,
        };
        let held = || self.hosts.get_key_value(super::balancers::holder(self, address)?);
        let (name, host) = self.hosts.iter().find(found).or_else(held)?;
        let connected = host.connected() && self.hosts.get(from).is_some_and(HostState::connected);
        (host.powered && (name == from || connected)).then_some(name.as_str())
    }

    /// Counts a change that a caller made.
    pub(super) fn count(&mut self, host: &str, kind: &str, text: &str, attempt: Option<String>) {
        let (host, kind, text) = (host.to_owned(), kind.to_owned(), text.to_owned());
        self.effects.push(Effect { host, kind, text, attempt });
    }
}

/// Numbers that are given out once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Process ids.
    pub pid: u32,
    /// Invocations of units.
    pub invocation: u64,
    /// Boots.
    pub boot: u64,
    /// PostgreSQL's system identifiers.
    pub identifier: u64,
}

/// One change that a caller made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The host by way of which it was made.
    pub host: String,
    /// `change`, `run`, `http`, `etcd`.
    pub kind: String,
    /// What was done, as in the call's text.
    pub text: String,
    /// The attempt's name, where the call carries one.
    pub attempt: Option<String>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// Where it is reached.
    pub address: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Changes with each boot.
    pub boot_id: String,
    /// The SSH key that it shows.
    pub key_fingerprint: String,
    /// Off after a kill, until it boots again.
    pub powered: bool,
    /// Its network cable is pulled.
    pub cut: bool,
    /// Files.
    pub files: FileTree,
    /// Users (each with a group of the same name).
    pub users: BTreeSet<String>,
    /// systemd units by full name.
    pub units: BTreeMap<String, UnitState>,
    /// Processes by id.
    pub processes: BTreeMap<u32, SimProcess>,
    /// Installed packages: name to version.
    pub packages: BTreeMap<String, String>,
    /// Who holds the host's lock.
    pub lock: Option<LockClaim>,
    /// Attempts by name.
    pub attempts: BTreeMap<String, AttemptRecord>,
    /// Log lines by unit.
    pub journal: BTreeMap<String, Vec<String>>,
    /// The running PostgreSQL that Patroni keeps.
    pub postgres: Option<Postgres>,
    /// How often a detached command is seen running before it has ended.
    pub detached_polls: u32,
}

impl HostState {
    /// On, and its network works.
    pub fn connected(&self) -> bool {
        self.powered && !self.cut
    }

    /// Adds a line to a unit's log, but never the same line twice in a row.
    pub(super) fn log(&mut self, unit: &str, line: impl Into<String>) {
        let line = line.into();
        let lines = self.journal.entry(unit.to_owned()).or_default();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
}

/// One systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnitState {
    /// A unit file is there.
    pub loaded: bool,
    /// Starts at boot.
    pub enabled: bool,
    /// Can't be started.
    pub masked: bool,
    /// `ActiveState`; empty is `inactive`.
    pub active: String,
    /// `SubState`; empty is `dead`.
    pub sub: String,
    /// `InvocationID`.
    pub invocation: String,
    /// `MainPID`.
    pub main_pid: u32,
    /// Files with this inode or a higher one were written after it was started or reloaded.
    #[serde(default)]
    pub has_read: u64,
}

impl UnitState {
    /// Started, and running.
    pub fn running(&self) -> bool {
        self.active == "active"
    }

    /// Started: running, or about to be started again by systemd.
    pub fn wanted(&self) -> bool {
        self.active == "active" || self.active == "activating"
    }
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimProcess {
    /// Owner.
    pub user: String,
    /// The executable's name.
    pub comm: String,
    /// Arguments joined by blanks.
    pub command: String,
    /// Working directory.
    pub directory: String,
    /// The unit whose control group it is in.
    pub unit: Option<String>,
}

/// What PostgreSQL is to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresRole {
    /// Accepts writes.
    Primary,
    /// In recovery.
    Replica,
}

/// A running PostgreSQL under Patroni.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postgres {
    /// Its data directory.
    pub data_dir: String,
    /// The data directory's inode when it was started.
    pub inode: u64,
    /// Its postmaster.
    pub pid: u32,
    /// Its TCP port.
    pub port: u16,
    /// Primary or replica.
    pub role: PostgresRole,
    /// The settings that count from its next start on, as they were at this one.
    #[serde(default)]
    pub started_with: serde_json::Map<String, serde_json::Value>,
}

/// What is known of an attempt on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The run that it belongs to.
    pub run: String,
    /// The boot in which it was started.
    pub boot_id: String,
    /// The detached script that is still running, and how often it is yet seen so.
    pub running: Option<(String, u32)>,
    /// The last command's reply: code, standard output, standard error.
    pub reply: Option<(i32, String, String)>,
}

/// etcd's keys. One keyspace for the world; which hosts serve it is a matter of their files and units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EtcdState {
    /// The revision of the last change.
    pub revision: i64,
    /// Keys.
    pub keys: BTreeMap<String, StoredKey>,
    /// Leases: id to the host whose Patroni keeps it alive.
    pub leases: BTreeMap<i64, String>,
    /// Alarms that are raised, as in `NOSPACE`.
    pub alarms: Vec<String>,
}

/// The value of one etcd key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    /// The text.
    pub value: String,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// Its lease; 0 for none.
    pub lease: i64,
}

/// How a script is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptMatch {
    /// The whole script.
    Exact(String),
    /// The whole script, but for blanks around it.
    Trimmed(String),
    /// Its beginning.
    Prefix(String),
    /// A part of it.
    Containing(String),
}

impl ScriptMatch {
    /// Whether it is this script.
    pub fn matches(&self, script: &str) -> bool {
        match self {
            Self::Exact(text) => script == text,
            Self::Trimmed(text) => script.trim() == text,
            Self::Prefix(text) => script.starts_with(text.as_str()),
            Self::Containing(text) => script.contains(text.as_str()),
        }
    }
}

/// What a script answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CannedReply {
    /// On which host; `None`: any.
    pub host: Option<String>,
    /// Which script.
    pub script: ScriptMatch,
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How often it is seen running where it is detached; `None`: as the host says.
    pub polls: Option<u32>,
    /// Only where this path exists.
    #[serde(default)]
    pub where_exists: Option<String>,
    /// Only where this path doesn't exist.
    #[serde(default)]
    pub where_absent: Option<String>,
    /// The files that it makes when it is run, with the directories above them.
    #[serde(default)]
    pub creates: Vec<String>,
    /// What it removes when it is run.
    #[serde(default)]
    pub removes: Vec<String>,
    /// It changes nothing when it is run.
    #[serde(default)]
    pub only_looks: bool,
}

impl CannedReply {
    /// Exit 0 with this output, on any host.
    pub fn new(script: ScriptMatch, stdout: impl Into<String>) -> Self {
        Self {
            host: None,
            script,
            code: 0,
            stdout: stdout.into(),
            stderr: String::new(),
            polls: None,
            where_exists: None,
            where_absent: None,
            creates: Vec::new(),
            removes: Vec::new(),
            only_looks: false,
        }
    }

    /// Whether it is the answer to that script on a host.
    pub(super) fn fits(&self, name: &str, host: &HostState, script: &str) -> bool {
        self.host.as_deref().is_none_or(|wanted| wanted == name)
            && self.script.matches(script)
            && self.where_exists.as_ref().is_none_or(|path| host.files.exists(path))
            && self.where_absent.as_ref().is_none_or(|path| !host.files.exists(path))
    }

    /// The same, with this exit status.
    #[must_use]
    pub fn with_code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// As a reply.
    pub(super) fn reply(&self) -> Reply {
        Reply {
            code: self.code,
            stdout: self.stdout.clone().into_bytes(),
            stderr: self.stderr.clone().into_bytes(),
        }
    }
}

/// Rows as JSON objects.
pub type CannedRows = Vec<serde_json::Map<String, serde_json::Value>>;

/// What a query answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CannedSql {
    /// On which host's PostgreSQL; `None`: any.
    pub host: Option<String>,
    /// Which query.
    pub query: ScriptMatch,
    /// The rows, or the server's message.
    pub result: Result<CannedRows, String>,
}
