//! Where runs and their events are kept. The trait is small so that other stores can follow; an
//! [`Store::append`] that returned `Ok` is durable.

mod signal;
mod sqlite;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::run::{Record, RunId};

pub use signal::{Answer, Signal};
pub use sqlite::SqliteStore;

/// A run as it is created.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// When it began.
    pub started: Timestamp,
    /// What is pinned: JSON of a [`Definition`](crate::plan::Definition). No secrets.
    pub definition: String,
}

/// A run as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// When it began.
    pub started: Timestamp,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be opened, written or read.
    #[error("the store {path} {problem}: {source}")]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What went wrong, as a verb: `can't be written`.
        problem: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was written by a newer version.
    #[error("the store {path} has format {found}, this flow reads up to {known}")]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// Something in it makes no sense.
    #[error("the store {path} is damaged: {what}")]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What and where.
        what: String,
    },
    /// What is at the path is no store. It was left as it is.
    #[error("{path} is no store but {what}; it was left as it is")]
    NoStore {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The newest events of a run are gone: its log was damaged or removed, or an older copy was put back.
    #[error(
        "the store {path} is damaged: run {run} has {found} events, but {noted} were recorded: the newest are gone"
    )]
    CutShort {
        /// The store's file.
        path: PathBuf,
        /// The run.
        run: RunId,
        /// How many events there are.
        found: u64,
        /// How many were durable once.
        noted: u64,
        /// The file that says so.
        mark: PathBuf,
    },
    /// A run of that id is there already.
    #[error("run {run} is in the store already")]
    Exists {
        /// The run.
        run: RunId,
    },
    /// This kind of store doesn't do it.
    #[error("this kind of store {0}")]
    Unable(&'static str),
    /// A run that was imported can't be worked on.
    #[error("run {run} was imported: it can be looked at here, and gone on with only where it was started")]
    Imported {
        /// The run.
        run: RunId,
    },
    /// No run of that id, or more than one.
    #[error("{0}")]
    NoRun(String),
    /// Another process works on the run.
    #[error("run {run} is being worked on by another process ({owner})")]
    Busy {
        /// The run.
        run: RunId,
        /// What the other process said of itself.
        owner: String,
    },
}

impl StoreError {
    /// The next action.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { path, .. } => format!(
                "see that {} has room and can be written; what was recorded so far is kept",
                path.parent().unwrap_or(path).display()
            ),
            Self::Newer { .. } => {
                "use the newer flow, or another store with `--store sqlite:PATH`".to_owned()
            }
            Self::Damaged { path, .. } => {
                format!("keep a copy; `sqlite3 {} .recover` may bring events back", path.display())
            }
            Self::NoStore { .. } => "name a file of its own: `--store sqlite:PATH`".to_owned(),
            Self::CutShort { mark, .. } => format!(
                "put the newer copy back, with the file that ends in -wal; what was done since is known to the hosts alone. To go on with what is there, look at the hosts first, then remove {}",
                mark.display()
            ),
            Self::Exists { run } => format!("`flow show {run}` shows it"),
            Self::Imported { run } => format!(
                "`flow show {run}` shows it; where its store is lost, `flow unlock {run}` frees the hosts and a new run does what is left"
            ),
            Self::Unable(_) => "use a store in a file: `--store sqlite:PATH`".to_owned(),
            Self::NoRun(_) => "`flow runs` lists the runs".to_owned(),
            Self::Busy { run, .. } => {
                format!("wait for it, or end that process; `flow show {run}` tells its state")
            }
        })
    }
}

/// Held while a process works on a run; nobody else can claim it meanwhile. Ends with the process.
pub trait Claim: Send {}

/// Runs and their events.
pub trait Store: Send {
    /// Creates a run, durably.
    fn create(&mut self, run: &NewRun) -> Result<(), StoreError>;

    /// Appends events in one commit: all of them, durably, or none. Sequence numbers must follow
    /// the last one of the run; a gap or a number that is there already is refused.
    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError>;

    /// What was pinned when the run was created.
    fn definition(&self, run: &RunId) -> Result<String, StoreError>;

    /// Gives the events of a run in order, one after another, until `visit` says false: a long run is
    /// never held as a whole.
    fn scan(&self, run: &RunId, visit: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError>;

    /// All events of a run in order.
    fn events(&self, run: &RunId) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        self.scan(run, &mut |record| {
            records.push(record);
            true
        })?;
        Ok(records)
    }

    /// The latest events of a run, newest first, at most `count`.
    fn last_events(&self, run: &RunId, count: usize) -> Result<Vec<Record>, StoreError>;

    /// Leaves a signal for the process that works on a run, durably. Any process may.
    fn post(&mut self, run: &RunId, signal: &Signal) -> Result<(), StoreError>;

    /// The signals of a run that were not taken off yet, oldest first, each with its number. Cheap, to be
    /// asked often.
    fn signals(&self, run: &RunId) -> Result<Vec<(i64, Signal)>, StoreError>;

    /// Takes a signal off, once what follows from it is recorded.
    fn take_off(&mut self, run: &RunId, number: i64) -> Result<(), StoreError>;

    /// All runs, newest first.
    fn runs(&self) -> Result<Vec<RunRow>, StoreError>;

    /// The one run whose id begins with `prefix`.
    fn find(&self, prefix: &str) -> Result<RunRow, StoreError>;

    /// Adds a run of elsewhere with its events, all in one commit. One whose id is taken is refused.
    fn import(&mut self, run: &NewRun, records: &[Record]) -> Result<(), StoreError> {
        let _ = (run, records);
        Err(StoreError::Unable("takes in no runs of elsewhere"))
    }

    /// Whether a run came by [`Store::import`]: it is gone on with where it was started, and nowhere else.
    fn is_imported(&self, run: &RunId) -> Result<bool, StoreError> {
        let _ = run;
        Ok(false)
    }

    /// Removes runs with their events, and gives their room back. The caller holds their claims. Gives the
    /// store's size in bytes before and after.
    fn remove(&mut self, runs: &[RunId]) -> Result<(u64, u64), StoreError> {
        let _ = runs;
        Err(StoreError::Unable("removes no runs"))
    }

    /// Takes a run for this process. `owner` is what others are told.
    fn claim(&self, run: &RunId, owner: &str) -> Result<Box<dyn Claim>, StoreError>;

    /// The key with which secrets are fingerprinted. Made once, kept outside the database.
    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError>;
}
