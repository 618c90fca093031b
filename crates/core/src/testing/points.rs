//! The moments at which a process may be killed, as a store sees them: right before and right after
//! its commits. [`PointStore`] stops there and lets a test look, copy, kill or sleep.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::run::{Event, Record, RunId};
use crate::store::{Claim, NewRun, RunRow, Signal, Store, StoreError};

/// Where in a task's course its process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// The check said pending; the intent isn't durable.
    BeforeIntent,
    /// The intent is durable; nothing was done yet.
    AfterIntent,
    /// The effect is there; the result isn't durable.
    AfterEffect,
    /// The result is durable.
    AfterResult,
}

/// All of them, in a task's order.
pub const POINTS: [Point; 4] =
    [Point::BeforeIntent, Point::AfterIntent, Point::AfterEffect, Point::AfterResult];

impl Point {
    /// Its name: `after-effect`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeIntent => "before-intent",
            Self::AfterIntent => "after-intent",
            Self::AfterEffect => "after-effect",
            Self::AfterResult => "after-result",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        POINTS.into_iter().find(|point| point.as_str() == text).ok_or_else(|| format!("no point `{text}`"))
    }
}

/// A moment right before or right after a commit.
pub struct Moment<'a> {
    /// Which commit of this store object it is, from 1.
    pub commit: usize,
    /// Before the commit is durable, or after.
    pub before: bool,
    /// The run.
    pub run: &'a RunId,
    /// What the commit holds.
    pub records: &'a [Record],
}

impl<'a> Moment<'a> {
    /// The tasks that are at one of their points at this moment.
    pub fn points(&self) -> impl Iterator<Item = (&'a str, Point)> {
        self.points_of(|event| match event {
            Event::TaskIntended { .. } => Some(false),
            Event::TaskDone { .. } | Event::TaskNotDone { .. } | Event::TaskFailed { .. } => Some(true),
            _ => None,
        })
    }

    /// The tasks that are at one of their points of being taken back.
    pub fn points_back(&self) -> impl Iterator<Item = (&'a str, Point)> {
        self.points_of(|event| match event {
            Event::UndoIntended { .. } => Some(false),
            Event::TaskUndone { .. } | Event::UndoNotDone { .. } | Event::UndoFailed { .. } => Some(true),
            _ => None,
        })
    }

    /// `result` tells whether an event is an intent or a result.
    fn points_of(&self, result: fn(&Event) -> Option<bool>) -> impl Iterator<Item = (&'a str, Point)> {
        let before = self.before;
        self.records.iter().filter_map(move |record| {
            let point = match (result(&record.event)?, before) {
                (false, true) => Point::BeforeIntent,
                (false, false) => Point::AfterIntent,
                (true, true) => Point::AfterEffect,
                (true, false) => Point::AfterResult,
            };
            Some((record.event.task()?.as_str(), point))
        })
    }

    /// Whether a task is at that point.
    pub fn is_at(&self, task: &str, point: Point) -> bool {
        self.points().any(|at| at == (task, point))
    }

    /// Whether a task is at that point of being taken back.
    pub fn is_back_at(&self, task: &str, point: Point) -> bool {
        self.points_back().any(|at| at == (task, point))
    }
}

/// What is called at every moment.
type Watch = Box<dyn FnMut(&Moment<'_>) + Send>;

/// Another store, with a watch that is called right before and right after every commit.
///
/// The watch is called on the scheduler's thread, which waits for it: whatever it sees is what a
/// process that is killed at that moment leaves behind.
pub struct PointStore<S> {
    inner: S,
    watch: Watch,
    commits: usize,
}

impl<S: Store> PointStore<S> {
    /// Watches a store.
    pub fn new(inner: S, watch: impl FnMut(&Moment<'_>) + Send + 'static) -> Self {
        Self { inner, watch: Box::new(watch), commits: 0 }
    }

    /// Ends the engine's work the first time that a task is at that point, as a kill would: nothing
    /// more is recorded, no lock is given back. What other tasks have begun goes on to its end.
    ///
    /// [`RunHandle::wait`](crate::engine::RunHandle::wait) then gives an error.
    pub fn killing(inner: S, task: &str, point: Point) -> Self {
        let task = task.to_owned();
        Self::new(inner, move |moment| {
            if moment.is_at(&task, point) {
                // Without the panic's message: this is no defect.
                std::panic::resume_unwind(Box::new("killed by a test"));
            }
        })
    }

    fn watch(&mut self, before: bool, run: &RunId, records: &[Record]) {
        (self.watch)(&Moment { commit: self.commits, before, run, records });
    }
}

impl<S: Store> Store for PointStore<S> {
    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
        self.commits += 1;
        self.watch(true, run, records);
        self.inner.append(run, records)?;
        self.watch(false, run, records);
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

    fn post(&mut self, run: &RunId, signal: &Signal) -> Result<(), StoreError> {
        self.inner.post(run, signal)
    }

    fn signals(&self, run: &RunId) -> Result<Vec<(i64, Signal)>, StoreError> {
        self.inner.signals(run)
    }

    fn take_off(&mut self, run: &RunId, number: i64) -> Result<(), StoreError> {
        self.inner.take_off(run, number)
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        self.inner.runs()
    }

    fn find(&self, prefix: &str) -> Result<RunRow, StoreError> {
        self.inner.find(prefix)
    }

    fn import(&mut self, run: &NewRun, records: &[Record]) -> Result<(), StoreError> {
        self.inner.import(run, records)
    }

    fn is_imported(&self, run: &RunId) -> Result<bool, StoreError> {
        self.inner.is_imported(run)
    }

    fn remove(&mut self, runs: &[RunId]) -> Result<(u64, u64), StoreError> {
        self.inner.remove(runs)
    }

    fn claim(&self, run: &RunId, owner: &str) -> Result<Box<dyn Claim>, StoreError> {
        self.inner.claim(run, owner)
    }

    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError> {
        self.inner.fingerprint_key()
    }
}
