//! A store that ends its process by SIGKILL just before or just after an event is durable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flow_core::run::{Event, Record, RunId};
use flow_core::store::{Claim, NewRun, RunRow, SqliteStore, Store, StoreError};
use serde::{Deserialize, Serialize};

/// Where in a task's course its process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Point {
    /// The check said pending; the intent isn't durable.
    BeforeIntent,
    /// The intent is durable; nothing was done yet.
    AfterIntent,
    /// The effect is there; the result isn't durable.
    AfterEffect,
    /// The result is durable.
    AfterResult,
}

pub(crate) const POINTS: [Point; 4] =
    [Point::BeforeIntent, Point::AfterIntent, Point::AfterEffect, Point::AfterResult];

/// When a process is ended, the first time that it gets there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kill {
    /// At a point of a task.
    Task { task: String, point: Point },
    /// Before or after the n-th commit of this process becomes durable, whatever is in it.
    Commit { number: usize, before: bool },
    /// At a point of a task, but it only falls asleep: it makes a file `asleep` in this folder, and
    /// goes on once there is a file `wake`.
    Sleep { task: String, point: Point, folder: PathBuf },
}

impl Kill {
    pub(crate) fn at(task: &str, point: Point) -> Self {
        Self::Task { task: task.to_owned(), point }
    }

    /// Whether it is due before this commit, or after it; none: not at this one.
    fn due(&self, commit: usize, records: &[Record]) -> Option<bool> {
        let (task, point) = match self {
            Self::Commit { number, before } => return (*number == commit).then_some(*before),
            Self::Task { task, point } | Self::Sleep { task, point, .. } => (task, point),
        };
        let intent = matches!(point, Point::BeforeIntent | Point::AfterIntent);
        let before = matches!(point, Point::BeforeIntent | Point::AfterEffect);
        let mut of_task = records
            .iter()
            .map(|record| &record.event)
            .filter(|event| event.task().is_some_and(|name| name.as_str() == task));
        let is_result = |event: &Event| {
            matches!(event, Event::TaskDone { .. } | Event::TaskNotDone { .. } | Event::TaskFailed { .. })
        };
        let found = of_task.any(|event| match event {
            Event::TaskIntended { .. } => intent,
            other => !intent && is_result(other),
        });
        found.then_some(before)
    }

    /// Ends this process at once: nothing is flushed, no destructor runs. Or sends it to sleep.
    fn strike(&self) {
        if let Self::Sleep { folder, .. } = self {
            std::fs::write(folder.join("asleep"), "").unwrap();
            wait_for(&folder.join("wake"));
            return;
        }
        let me = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-KILL", &me]).status().unwrap().success());
        // The signal is on its way; nothing more happens on this thread.
        loop {
            std::thread::park();
        }
    }
}

/// Waits until there is such a file.
pub(crate) fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The store of a process that is to be killed.
pub(crate) struct KillingStore {
    pub(crate) inner: SqliteStore,
    pub(crate) kill: Option<Kill>,
    pub(crate) commits: usize,
}

impl Store for KillingStore {
    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
        self.commits += 1;
        let due = self.kill.as_ref().and_then(|kill| kill.due(self.commits, records));
        let kill = self.kill.take_if(|_| due.is_some());
        if let Some(kill) = kill.as_ref().filter(|_| due == Some(true)) {
            kill.strike();
        }
        self.inner.append(run, records)?;
        if let Some(kill) = kill.filter(|_| due == Some(false)) {
            kill.strike();
        }
        Ok(())
    }

    fn create(&mut self, run: &NewRun) -> Result<(), StoreError> {
        self.inner.create(run)
    }

    fn definition(&self, run: &RunId) -> Result<String, StoreError> {
        self.inner.definition(run)
    }

    fn scan(&self, run: &RunId, visit: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        self.inner.scan(run, visit)
    }

    fn last_events(&self, run: &RunId, count: usize) -> Result<Vec<Record>, StoreError> {
        self.inner.last_events(run, count)
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        self.inner.runs()
    }

    fn find(&self, prefix: &str) -> Result<RunRow, StoreError> {
        self.inner.find(prefix)
    }

    fn claim(&self, run: &RunId, owner: &str) -> Result<Box<dyn Claim>, StoreError> {
        self.inner.claim(run, owner)
    }

    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError> {
        self.inner.fingerprint_key()
    }
}
