//! A store in memory. It outlives the engines that use it, and can be copied as it stands.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::run::{Record, RunId};
use crate::store::{Claim, NewRun, RunRow, Signal, Store, StoreError};

/// Runs and events in memory. A clone is the same store; a [`fork`](MemoryStore::fork) is another one.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    runs: Vec<Kept>,
    claims: BTreeMap<RunId, String>,
}

#[derive(Clone)]
struct Kept {
    run: Arc<NewRun>,
    records: Vec<Arc<Record>>,
    signals: Vec<(i64, Signal)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store of its own that holds what this one holds now. Nobody has claimed anything in it: it
    /// is what a process that is killed at this moment leaves behind.
    #[must_use]
    pub fn fork(&self) -> Self {
        let runs = self.inner().runs.clone();
        Self(Arc::new(Mutex::new(Inner { runs, claims: BTreeMap::new() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_run<T>(&self, run: &RunId, then: impl FnOnce(&mut Kept) -> T) -> Result<T, StoreError> {
        let mut inner = self.inner();
        let found = inner.runs.iter_mut().find(|kept| kept.run.id == *run);
        found.map(then).ok_or_else(|| StoreError::NoRun(format!("there is no run {run}")))
    }
}

fn damaged(what: String) -> StoreError {
    StoreError::Damaged { path: PathBuf::from("in memory"), what }
}

impl Store for MemoryStore {
    fn create(&mut self, run: &NewRun) -> Result<(), StoreError> {
        let mut inner = self.inner();
        if inner.runs.iter().any(|kept| kept.run.id == run.id) {
            return Err(damaged(format!("run {} is there already", run.id)));
        }
        inner.runs.push(Kept { run: Arc::new(run.clone()), records: Vec::new(), signals: Vec::new() });
        Ok(())
    }

    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
        self.with_run(run, |kept| {
            let last = kept.records.len() as u64;
            for (expected, record) in (last + 1..).zip(records) {
                if record.seq <= last {
                    let owner = "it has appended events".to_owned();
                    return Err(StoreError::Busy { run: run.clone(), owner });
                }
                if record.seq != expected {
                    return Err(damaged(format!("run {run}: event {} can't follow", record.seq)));
                }
            }
            kept.records.extend(records.iter().cloned().map(Arc::new));
            Ok(())
        })?
    }

    fn post(&mut self, run: &RunId, signal: &Signal) -> Result<(), StoreError> {
        self.with_run(run, |kept| {
            let number = kept.signals.last().map_or(1, |(number, _)| number + 1);
            kept.signals.push((number, signal.clone()));
        })
    }

    fn signals(&self, run: &RunId) -> Result<Vec<(i64, Signal)>, StoreError> {
        self.with_run(run, |kept| kept.signals.clone())
    }

    fn take_off(&mut self, run: &RunId, number: i64) -> Result<(), StoreError> {
        self.with_run(run, |kept| kept.signals.retain(|(known, _)| *known != number))
    }

    fn definition(&self, run: &RunId) -> Result<String, StoreError> {
        self.with_run(run, |kept| kept.run.definition.clone())
    }

    fn scan(&self, run: &RunId, visit: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        // A copy of the list, so that whoever visits may use the store.
        let records = self.with_run(run, |kept| kept.records.clone())?;
        for record in records {
            if !visit((*record).clone()) {
                break;
            }
        }
        Ok(())
    }

    fn last_events(&self, run: &RunId, count: usize) -> Result<Vec<Record>, StoreError> {
        self.with_run(run, |kept| {
            kept.records.iter().rev().take(count).map(|record| (**record).clone()).collect()
        })
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        Ok(self.inner().runs.iter().rev().map(row).collect())
    }

    fn find(&self, prefix: &str) -> Result<RunRow, StoreError> {
        let inner = self.inner();
        let found: Vec<&Kept> =
            inner.runs.iter().filter(|kept| kept.run.id.as_str().starts_with(prefix)).collect();
        match found.as_slice() {
            [one] => Ok(row(one)),
            [] => Err(StoreError::NoRun(format!("no run's id begins with `{prefix}`"))),
            more => Err(StoreError::NoRun(format!("{} runs begin with `{prefix}`", more.len()))),
        }
    }

    fn claim(&self, run: &RunId, owner: &str) -> Result<Box<dyn Claim>, StoreError> {
        let mut inner = self.inner();
        if let Some(holder) = inner.claims.get(run) {
            return Err(StoreError::Busy { run: run.clone(), owner: holder.clone() });
        }
        inner.claims.insert(run.clone(), owner.to_owned());
        Ok(Box::new(MemoryClaim { store: self.clone(), run: run.clone() }))
    }

    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError> {
        Ok([7; 32])
    }
}

fn row(kept: &Kept) -> RunRow {
    RunRow { id: kept.run.id.clone(), workflow: kept.run.workflow.clone(), started: kept.run.started }
}

struct MemoryClaim {
    store: MemoryStore,
    run: RunId,
}

impl Claim for MemoryClaim {}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        self.store.inner().claims.remove(&self.run);
    }
}
