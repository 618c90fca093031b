//! The undisturbed run, with a copy of the hosts and of the store at each of its moments, and each of its
//! tasks taken back.

use std::collections::BTreeMap;

use flow_core::run::{Outcome, RunId, TaskName};
use flow_core::step::Undoability;
use flow_core::store::Store;
use flow_core::testing::MemoryStore;
use flow_core::workflow::{ArgumentKind, Documents, StepDef};

use super::back::Back;
use super::compare::{End, state_differences};
use super::error::RehearsalError;
use super::process::{Crew, Ended};
use super::report::Again;
use super::stage::{Subject, no_answer};
use super::tape::{self, Moments, Snapshot, Way};
use crate::host::sim::{SimWorld, WorldState};

/// A task that changed something, from its intent to its result.
pub(super) struct Course {
    pub(super) task: TaskName,
    /// It says of itself that it may be run again.
    pub(super) repeatable: bool,
    pub(super) moments: Moments,
    /// What is known of its undo without trying it.
    pub(super) facts: Facts,
    /// How it was taken back; none where it says that it can't be, or comes after a pivot.
    pub(super) back: Option<Back>,
}

/// What is known of a task's undo without trying it.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) undo: Undoability,
    /// What its step type says that stays.
    pub(super) leaves: Option<&'static str>,
    pub(super) pivot: bool,
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
    /// What is known of each task's undo.
    facts: BTreeMap<TaskName, Facts>,
    /// How the hosts were before.
    pub(super) start: WorldState,
    /// How many tasks there are.
    pub(super) tasks: usize,
}

impl Recording {
    /// Runs the workflow on hosts in that state.
    pub(super) fn make(crew: &Crew, subject: &Subject, start: WorldState) -> Result<Self, RehearsalError> {
        let plan = subject.plan(crew)?;
        let workflow = plan.workflow.name.value.clone();
        let documents = Documents::load(&subject.bundle, crew.engine.registry())?;
        let store = MemoryStore::new();
        let release = match start.settings.release {
            crate::host::sim::Release::Bookworm => "bookworm",
            crate::host::sim::Release::Trixie => "trixie",
        };
        let (world, watched, tape) = tape::watch(start.clone(), store.clone(), Way::Forward);
        let mut steps = Vec::new();
        let mut facts = BTreeMap::new();
        for info in plan.tasks() {
            let step = (info.name.step().to_owned(), info.uses.to_owned());
            let leaves = crew.engine.registry().get(info.uses).and_then(|info| info.undo_leaves);
            facts.insert(info.name.clone(), Facts { undo: info.undo, leaves, pivot: info.pivot });
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
        let course = |(task, moments): (TaskName, Moments)| {
            let facts = facts.get(&task).filter(|_| moments.are_whole())?.clone();
            Some(Course { repeatable: is_repeatable(&documents, &task), moments, facts, back: None, task })
        };
        let mut recording = Self {
            run: run.unwrap_or_else(|| RunId::from_text("")),
            release,
            end: End::of(&end_state),
            end_state,
            courses: tape.take().into_iter().filter_map(course).collect(),
            steps,
            start,
            tasks,
            workflow,
            facts,
        };
        recording.take_back(crew)?;
        Ok(recording)
    }

    /// Takes each task back for itself, as far as that is possible, and keeps how that went.
    fn take_back(&mut self, crew: &Crew) -> Result<(), RehearsalError> {
        for number in 0..self.before_pivot().len() {
            let course = &self.courses[number];
            if course.facts.undo == Undoability::Possible {
                self.courses[number].back = Some(Back::record(crew, self, course)?);
            }
        }
        Ok(())
    }

    /// The tasks that were done before the point of no return, where there is one.
    pub(super) fn before_pivot(&self) -> &[Course] {
        let pivot = self.courses.iter().position(|course| course.facts.pivot);
        &self.courses[..pivot.unwrap_or(self.courses.len())]
    }

    /// What is known of the undo of a step's tasks.
    pub(super) fn facts_of(&self, step: &str) -> Option<&Facts> {
        self.facts.iter().find(|(task, _)| task.step() == step).map(|(_, facts)| facts)
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
    /// The texts of its effects, as [`WorldState::effect_counts`] has them.
    pub(super) fn effect_texts(&self) -> Vec<String> {
        let last = |snapshot: &Snapshot| {
            let effect = snapshot.world.effects.last()?;
            Some(format!("{} {} {}", effect.host, effect.kind, effect.text))
        };
        self.moments.effects.iter().filter_map(last).collect()
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
