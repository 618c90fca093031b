//! What is noted while a run goes on, on either way: a copy of the hosts and of the store at each moment
//! of each task, which is what a process that is killed there leaves behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flow_core::run::TaskName;
use flow_core::testing::{MemoryStore, Moment, Point, PointStore};

use crate::host::sim::{SimWorld, WorldState};

/// What a process that is killed at a moment leaves behind.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) world: WorldState,
    pub(super) store: MemoryStore,
}

/// The moments of a task, from an intent to its result.
#[derive(Default)]
pub(super) struct Moments {
    pub(super) at: BTreeMap<Point, Snapshot>,
    /// After each of its effects.
    pub(super) effects: Vec<Snapshot>,
}

impl Moments {
    /// Right before the task.
    pub(super) fn before(&self) -> &Snapshot {
        &self.at[&Point::BeforeIntent]
    }

    /// Right after its result.
    pub(super) fn after(&self) -> &Snapshot {
        &self.at[&Point::AfterResult]
    }

    /// Whether all of them were seen.
    pub(super) fn are_whole(&self) -> bool {
        flow_core::testing::POINTS.iter().all(|point| self.at.contains_key(point))
    }
}

/// Which way a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Tasks are done.
    Forward,
    /// Tasks are taken back.
    Back,
}

/// What is noted.
pub(super) struct Tape {
    store: MemoryStore,
    current: Option<TaskName>,
    moments: BTreeMap<TaskName, Moments>,
    order: Vec<TaskName>,
}

/// A tape that the hosts and the store write on.
#[derive(Clone)]
pub(super) struct SharedTape(Arc<Mutex<Tape>>);

/// Hosts in that state and the store, both watched.
pub(super) fn watch(
    start: WorldState,
    store: MemoryStore,
    way: Way,
) -> (SimWorld, PointStore<MemoryStore>, SharedTape) {
    let (moments, order) = (BTreeMap::new(), Vec::new());
    let tape = Tape { store: store.clone(), current: None, moments, order };
    let tape = SharedTape(Arc::new(Mutex::new(tape)));
    let of_world = tape.clone();
    let world = SimWorld::watched(start, move |state| of_world.open().effect(state));
    let (of_store, hosts) = (tape.clone(), world.clone());
    let watched = PointStore::new(store, move |moment| {
        let points = points(moment, way);
        // The world first: its watch takes the tape while it holds the world.
        if !points.is_empty()
            && let Ok(state) = hosts.state()
        {
            of_store.open().moment(points, &state);
        }
    });
    (world, watched, tape)
}

fn points(moment: &Moment<'_>, way: Way) -> Vec<(TaskName, Point)> {
    let named = |(task, point)| (TaskName::from_text(task), point);
    match way {
        Way::Forward => moment.points().map(named).collect(),
        Way::Back => moment.points_back().map(named).collect(),
    }
}

impl SharedTape {
    fn open(&self) -> MutexGuard<'_, Tape> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noted, task by task, in the order in which they were begun.
    pub(super) fn take(&self) -> Vec<(TaskName, Moments)> {
        let mut tape = self.open();
        let (order, mut moments) = (std::mem::take(&mut tape.order), std::mem::take(&mut tape.moments));
        order.into_iter().filter_map(|task| moments.remove(&task).map(|moments| (task, moments))).collect()
    }
}

impl Tape {
    /// After a change that a task has made.
    fn effect(&mut self, world: &WorldState) {
        let Some(task) = &self.current else { return };
        let snapshot = Snapshot { world: world.clone(), store: self.store.fork() };
        if let Some(moments) = self.moments.get_mut(task) {
            moments.effects.push(snapshot);
        }
    }

    /// Right before or after a commit.
    fn moment(&mut self, points: Vec<(TaskName, Point)>, world: &WorldState) {
        for (task, point) in points {
            if !self.moments.contains_key(&task) {
                self.order.push(task.clone());
            }
            let moments = self.moments.entry(task.clone()).or_default();
            let snapshot = Snapshot { world: world.clone(), store: self.store.fork() };
            match point {
                // The first attempt's, where there were several.
                Point::BeforeIntent | Point::AfterIntent => {
                    moments.at.entry(point).or_insert(snapshot);
                }
                Point::AfterEffect | Point::AfterResult => {
                    moments.at.insert(point, snapshot);
                }
            }
            self.current = matches!(point, Point::AfterIntent | Point::AfterEffect).then_some(task);
        }
    }
}
