//! Where runs and their events are kept. The trait is small so that other stores can follow; an
//! [`Store::append`] that returned `Ok` is durable.

mod sqlite;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::run::{Record, RunId};

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

    /// All runs, newest first.
    fn runs(&self) -> Result<Vec<RunRow>, StoreError>;

    /// The one run whose id begins with `prefix`.
    fn find(&self, prefix: &str) -> Result<RunRow, StoreError>;

    /// Takes a run for this process. `owner` is what others are told.
    fn claim(&self, run: &RunId, owner: &str) -> Result<Box<dyn Claim>, StoreError>;

    /// The key with which secrets are fingerprinted. Made once, kept outside the database.
    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError>;
}
