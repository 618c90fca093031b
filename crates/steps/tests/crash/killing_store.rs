//! A store that ends its process by SIGKILL just before or just after a task's event is durable.

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

/// When a process is killed: at a point of a task, the first time that it gets there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kill {
    pub(crate) task: String,
    pub(crate) point: Point,
}

impl Kill {
    pub(crate) fn at(task: &str, point: Point) -> Self {
        Self { task: task.to_owned(), point }
    }

    fn is_about(&self, event: &Event) -> bool {
        let of_task = event.task().is_some_and(|task| task.as_str() == self.task);
        of_task
            && match self.point {
                Point::BeforeIntent | Point::AfterIntent => matches!(event, Event::TaskIntended { .. }),
                Point::AfterEffect | Point::AfterResult => matches!(
                    event,
                    Event::TaskDone { .. } | Event::TaskNotDone { .. } | Event::TaskFailed { .. }
                ),
            }
    }
}

/// The store of a process that is to be killed.
pub(crate) struct KillingStore {
    pub(crate) inner: SqliteStore,
    pub(crate) kill: Option<Kill>,
}

/// Ends this process at once; nothing is flushed, no destructor runs.
fn die() -> ! {
    let _ = std::process::Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status();
    std::process::abort();
}

impl Store for KillingStore {
    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
        let due = |kill: &&Kill| records.iter().any(|record| kill.is_about(&record.event));
        let point = self.kill.as_ref().filter(due).map(|kill| kill.point);
        if matches!(point, Some(Point::BeforeIntent | Point::AfterEffect)) {
            die();
        }
        self.inner.append(run, records)?;
        if point.is_some() {
            die();
        }
        Ok(())
    }

    fn create(&mut self, run: &NewRun) -> Result<(), StoreError> {
        self.inner.create(run)
    }

    fn definition(&self, run: &RunId) -> Result<String, StoreError> {
        self.inner.definition(run)
    }

    fn events(&self, run: &RunId) -> Result<Vec<Record>, StoreError> {
        self.inner.events(run)
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
