//! The undisturbed run, with a copy of the hosts and of the store at each of its moments.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flow_core::run::{Outcome, RunId, TaskName};
use flow_core::store::Store;
use flow_core::testing::{MemoryStore, Moment, Point, PointStore};
use flow_core::workflow::{ArgumentKind, Documents, StepDef};

use super::compare::{End, state_differences};
use super::error::RehearsalError;
use super::process::{Crew, Ended};
use super::report::Again;
use super::stage::{Subject, no_answer};
use crate::host::sim::{SimWorld, WorldState};

/// What a process that is killed at a moment leaves behind.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) world: WorldState,
    pub(super) store: MemoryStore,
}

/// A task that changed something, from its intent to its result.
pub(super) struct Course {
    pub(super) task: TaskName,
    /// It says of itself that it may be run again.
    pub(super) repeatable: bool,
    pub(super) at: BTreeMap<Point, Snapshot>,
    /// After each of its effects.
    pub(super) effects: Vec<Snapshot>,
}

/// An undisturbed run.
pub(super) struct Recording {
    pub(super) workflow: String,
    pub(super) run: RunId,
    pub(super) release: &'static str,
    pub(super) end_state: WorldState,
    pub(super) end: End,
    /// The tasks that changed something, in order.
    pub(super) courses: Vec<Course>,
    /// The steps of all tasks and their types, each once, in order.
    pub(super) steps: Vec<(String, String)>,
    /// Which of the step types have an undo.
    pub(super) undoable: Vec<String>,
    /// How many tasks there are.
    pub(super) tasks: usize,
}

/// What is noted while the run goes on.
#[derive(Default)]
struct Tape {
    store: Option<MemoryStore>,
    current: Option<TaskName>,
    notes: BTreeMap<TaskName, Note>,
    order: Vec<TaskName>,
}

#[derive(Default)]
struct Note {
    at: BTreeMap<Point, Snapshot>,
    effects: Vec<Snapshot>,
}

type SharedTape = Arc<Mutex<Tape>>;

fn open(tape: &SharedTape) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tape {
    /// After a change that a task has made.
    fn effect(&mut self, world: &WorldState) {
        if let (Some(task), Some(store)) = (&self.current, &self.store) {
            let snapshot = Snapshot { world: world.clone(), store: store.fork() };
            if let Some(note) = self.notes.get_mut(task) {
                note.effects.push(snapshot);
            }
        }
    }

    /// Right before or after a commit.
    fn moment(&mut self, moment: &Moment<'_>, world: &WorldState) {
        let Some(store) = self.store.clone() else { return };
        for (task, point) in moment.points() {
            let task = TaskName::from_text(task);
            if !self.notes.contains_key(&task) {
                self.order.push(task.clone());
            }
            let note = self.notes.entry(task.clone()).or_default();
            let snapshot = Snapshot { world: world.clone(), store: store.fork() };
            match point {
                // The first attempt's, where there were several.
                Point::BeforeIntent | Point::AfterIntent => {
                    note.at.entry(point).or_insert(snapshot);
                }
                Point::AfterEffect | Point::AfterResult => {
                    note.at.insert(point, snapshot);
                }
            }
            self.current = matches!(point, Point::AfterIntent | Point::AfterEffect).then_some(task);
        }
    }
}

impl Recording {
    /// Runs the workflow on hosts in that state.
    pub(super) fn make(crew: &Crew, subject: &Subject, start: WorldState) -> Result<Self, RehearsalError> {
        let plan = subject.plan(crew)?;
        let workflow = plan.workflow.name.value.clone();
        let documents = Documents::load(&subject.bundle, crew.engine.registry())?;
        let tape = SharedTape::default();
        let store = MemoryStore::new();
        open(&tape).store = Some(store.clone());
        let of_world = Arc::clone(&tape);
        let release = match start.settings.release {
            crate::host::sim::Release::Bookworm => "bookworm",
            crate::host::sim::Release::Trixie => "trixie",
        };
        let world = SimWorld::watched(start, move |state| open(&of_world).effect(state));
        let (of_store, hosts) = (Arc::clone(&tape), world.clone());
        let watched = PointStore::new(store.clone(), move |moment| {
            // The world first: its watch takes the tape while it holds the world.
            if moment.points().next().is_some()
                && let Ok(state) = hosts.state()
            {
                open(&of_store).moment(moment, &state);
            }
        });
        let mut steps = Vec::new();
        let mut undoable = Vec::new();
        for info in plan.tasks() {
            let step = (info.name.step().to_owned(), info.uses.to_owned());
            if info.undo == flow_core::step::Undoability::Possible {
                undoable.push(step.0.clone());
            }
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        let tasks = plan.len();
        let ended = crew.start(&world, Box::new(watched), plan);
        no_answer(&workflow, &world)?;
        let failures = match ended {
            Ended::With { outcome: Outcome::Succeeded, .. } => None,
            Ended::With { ref failures, .. } => Some(failures.clone()),
            Ended::Stuck(_) | Ended::Error(_) => Some(Vec::new()),
        };
        if let Some(failures) = failures {
            let ended = match &ended {
                Ended::With { .. } => "a task failed".to_owned(),
                other => other.words(),
            };
            return Err(RehearsalError::Undisturbed { workflow, ended, failures });
        }
        let end_state = world.state().map_err(|e| broken(&workflow, &e))?;
        let run = store.runs().ok().and_then(|mut runs| runs.pop()).map(|row| row.id);
        let Tape { mut notes, order, .. } = std::mem::take(&mut *open(&tape));
        let course = |task: TaskName| {
            let note = notes.remove(&task)?;
            Some(Course {
                repeatable: is_repeatable(&documents, &task),
                at: note.at,
                effects: note.effects,
                task,
            })
        };
        Ok(Self {
            run: run.unwrap_or_else(|| RunId::from_text("")),
            release,
            end: End::of(&end_state),
            end_state,
            courses: order.into_iter().filter_map(course).filter(|course| course.is_whole()).collect(),
            steps,
            undoable,
            tasks,
            workflow,
        })
    }

    /// The whole workflow once more, by another run: what it would change.
    pub(super) fn again(&self, crew: &Crew, subject: &Subject) -> Result<Again, RehearsalError> {
        let mut state = self.end_state.clone();
        state.effects.clear();
        let world = SimWorld::in_memory(state.clone());
        let ended = crew.start(&world, Box::new(MemoryStore::new()), subject.plan(crew)?);
        no_answer(&self.workflow, &world)?;
        let after = world.state().map_err(|e| broken(&self.workflow, &e))?;
        Ok(Again {
            succeeded: ended.outcome() == Some(Outcome::Succeeded),
            ended: ended.words(),
            effects: after.effect_counts().into_keys().collect(),
            differences: state_differences(&state, &after),
        })
    }
}

impl Course {
    /// Whether all its moments were seen.
    fn is_whole(&self) -> bool {
        flow_core::testing::POINTS.iter().all(|point| self.at.contains_key(point))
    }

    /// The texts of its effects, as [`WorldState::effect_counts`] has them.
    pub(super) fn effect_texts(&self) -> Vec<String> {
        let last = |snapshot: &Snapshot| {
            let effect = snapshot.world.effects.last()?;
            Some(format!("{} {} {}", effect.host, effect.kind, effect.text))
        };
        self.effects.iter().filter_map(last).collect()
    }
}

fn broken(workflow: &str, error: &dyn std::fmt::Display) -> RehearsalError {
    RehearsalError::Undisturbed {
        workflow: workflow.to_owned(),
        ended: error.to_string(),
        failures: Vec::new(),
    }
}

/// Whether the step says of itself that it may be run again: `command` with `repeatable = true`.
fn is_repeatable(documents: &Documents, task: &TaskName) -> bool {
    let name = task.step().rsplit('/').next().unwrap_or_default();
    let says_so = |def: &StepDef| {
        let given = def.with.value.get("repeatable").map(|argument| &argument.kind);
        def.uses.value == "command" && matches!(given, Some(ArgumentKind::Plain(value)) if value == true)
    };
    documents.files.values().filter_map(|workflow| workflow.steps.get(name)).any(says_so)
}
