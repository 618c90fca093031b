//! The way back. Each task that says it can be taken back is taken back right after it was done, while all
//! before it is kept: the hosts must then be as they were right before it. Then the same is disturbed, and
//! must come to the same end. And the whole run is taken back, as far as its point of no return.

use std::collections::BTreeSet;

use flow_core::engine::{UndoOptions, Verdict};
use flow_core::run::{Event, Outcome, RunId, TaskName};
use flow_core::step::Undoability;
use flow_core::store::Store;
use flow_core::testing::{MemoryStore, Point, PointStore};
use serde::Serialize;

use super::compare::state_differences;
use super::error::RehearsalError;
use super::mishap::Mishap;
use super::process::{Crew, Ended, TakingUp};
use super::recording::{Course, Recording};
use super::stage::no_answer;
use super::tape::{self, Moments, Snapshot, Way};
use super::trial::{Came, HANGS, Place, Trial, failed, forget_attempts, intended};
use crate::host::sim::{SimWorld, WorldState};

/// How a task was taken back when nobody disturbed it.
pub(super) struct Back {
    moments: Moments,
    end: WorldState,
    /// The lines by which the hosts differ from how they were right before the task.
    left: Vec<String>,
    /// It did not come to its end; how it ended.
    stopped: Option<String>,
}

impl Back {
    /// Takes a task back, and nothing else.
    pub(super) fn record(
        crew: &Crew,
        recording: &Recording,
        course: &Course,
    ) -> Result<Self, RehearsalError> {
        let from = course.moments.after();
        let options = only(&from.store, &recording.run, &course.task);
        let store = from.store.fork();
        let (world, watched, tape) = tape::watch(from.world.clone(), store, Way::Back);
        let how = TakingUp { back: Some(&options), ..TakingUp::default() };
        let ended = crew.resume(&world, Box::new(watched), &recording.run, &how);
        no_answer(&recording.workflow, &world)?;
        let end = world.state().unwrap_or_default();
        let moments = tape.take().into_iter().find(|(task, _)| *task == course.task);
        let moments = moments.map(|(_, moments)| moments).unwrap_or_default();
        let undone = ended.outcome() == Some(Outcome::Undone) && moments.are_whole();
        Ok(Self {
            left: state_differences(&course.moments.before().world, &end),
            stopped: (!undone).then(|| ended.words()),
            moments,
            end,
        })
    }

    /// What is tried with it. One that doesn't even come to its end undisturbed isn't disturbed.
    pub(super) fn trials(&self) -> Vec<Trial> {
        let mut trials = vec![Trial::Undone];
        if self.stopped.is_none() {
            let effects = self.moments.effects.len();
            trials.extend(Mishap::kills(effects).chain(Mishap::faults(effects)).map(Trial::UndoHit));
        }
        trials
    }
}

/// Takes one task back, and keeps all others that were begun.
fn only(store: &MemoryStore, run: &RunId, task: &TaskName) -> UndoOptions {
    let events = store.events(run).unwrap_or_default();
    let others = events.iter().filter_map(|record| match &record.event {
        Event::TaskIntended { task: begun, .. } if begun != task => Some(begun.to_string()),
        _ => None,
    });
    UndoOptions {
        keep: others.collect::<BTreeSet<_>>().into_iter().collect(),
        keep_impossible: true,
        ..UndoOptions::default()
    }
}

/// What the undisturbed undo has left, and whether the task can be done again afterwards.
pub(super) fn undone(crew: &Crew, recording: &Recording, course: &Course) -> Came {
    let Some(back) = &course.back else { return failed("it was not taken back".to_owned()) };
    if let Some(stopped) = &back.stopped {
        let what = format!("it can't be taken back: {stopped}");
        return Came::NotUndone { what, differences: back.left.clone() };
    }
    if back.left.is_empty() {
        return Came::Held;
    }
    if course.facts.leaves.is_none() || back.left.iter().any(|line| is_of_unit(line)) {
        let what = "taken back, the hosts are not as they were right before it".to_owned();
        return Came::NotUndone { what, differences: back.left.clone() };
    }
    let before = course.moments.before();
    let mut world = back.end.clone();
    forget_attempts(&mut world, &recording.run, &course.task);
    let place = Place::of(&Snapshot { world, store: before.store.clone() });
    let ended =
        crew.resume(&place.world, Box::new(place.store.clone()), &recording.run, &TakingUp::default());
    let summary = |store| intended(store, &recording.run, &course.task).map(|change| change.summary);
    let (first, again) = (summary(&course.moments.after().store), summary(&place.store));
    if first != again {
        let words = |summary: Option<String>| summary.unwrap_or_else(|| "nothing to do".to_owned());
        let what = format!("taken back and done again: {}, and not: {}", words(again), words(first));
        return Came::NotUndone { what, differences: back.left.clone() };
    }
    match ended.outcome() {
        Some(Outcome::Succeeded) => Came::Leaves,
        _ => failed(format!("taken back and done again, the run doesn't come to its end: {}", ended.words())),
    }
}

/// The undo is disturbed, and gone on with.
pub(super) fn disturbed(crew: &Crew, recording: &Recording, course: &Course, mishap: Mishap) -> Came {
    let Some(back) = &course.back else { return failed("it was not taken back".to_owned()) };
    let options = only(&course.moments.after().store, &recording.run, &course.task);
    let undo = Undo { crew, run: &recording.run, task: &course.task, options: &options, back };
    match mishap {
        Mishap::Killed(point) => undo.go_on(&Place::of(&back.moments.at[&point]), 0),
        Mishap::KilledWithin(n) => undo.go_on(&Place::of(&back.moments.effects[n - 1]), 0),
        mishap => undo.with_a_fault(&Place::of(course.moments.after()), mishap),
    }
}

/// An undo that something befalls.
struct Undo<'a> {
    crew: &'a Crew,
    run: &'a RunId,
    task: &'a TaskName,
    options: &'a UndoOptions,
    back: &'a Back,
}

impl Undo<'_> {
    fn with_a_fault(&self, place: &Place, mishap: Mishap) -> Came {
        let (world, task) = (place.world.clone(), self.task.to_string());
        let mut fault = mishap.fault();
        let store = PointStore::new(place.store.clone(), move |moment| {
            if moment.is_back_at(&task, Point::AfterIntent)
                && let Some(fault) = fault.take()
            {
                let _ = world.inject(fault);
            }
        });
        let timeout = (mishap == Mishap::TimesOut).then_some((self.task, HANGS));
        let how = TakingUp { timeout, back: Some(self.options), ..TakingUp::default() };
        let ended = self.crew.resume(&place.world, Box::new(store), self.run, &how);
        if let Some(came) = place.not_played() {
            return came;
        }
        match ended.outcome() {
            Some(Outcome::Undone) => self.compare(place).err().unwrap_or(Came::Held),
            Some(Outcome::Failed | Outcome::Undecided) => self.go_on(place, 1),
            _ => failed(format!("the process ended: {}", ended.words())),
        }
    }

    /// Takes back until it is done, and compares.
    fn go_on(&self, place: &Place, mut may_fail: u32) -> Came {
        let mut how = TakingUp { back: Some(self.options), ..TakingUp::default() };
        let mut unknown = None;
        loop {
            let ended = self.crew.resume(&place.world, Box::new(place.store.clone()), self.run, &how);
            match &ended {
                Ended::With { outcome: Outcome::Undone, .. } => break,
                // An undo may be made again, so a person can always say that it wasn't done.
                Ended::With { outcome: Outcome::Undecided, .. } if unknown.is_none() => {
                    unknown = Some(ended.words());
                    how.verdict = Some((self.task, Verdict::NotDone));
                    continue;
                }
                Ended::With { outcome: Outcome::Failed, .. } if may_fail > 0 => may_fail -= 1,
                ended => {
                    return failed(format!(
                        "gone on with, the undo doesn't come to its end: {}",
                        ended.words()
                    ));
                }
            }
            how.verdict = None;
        }
        match self.compare(place) {
            Ok(()) => unknown.map_or(Came::Held, Came::Unknown),
            Err(came) => came,
        }
    }

    fn compare(&self, place: &Place) -> Result<(), Came> {
        let state = place.world.state().map_err(|error| failed(error.to_string()))?;
        let differences = state_differences(&self.back.end, &state);
        if differences.is_empty() {
            return Ok(());
        }
        let what = "gone on with, the undo ends otherwise than undisturbed".to_owned();
        Err(Came::Failed { what, differences })
    }
}

/// The whole run, taken back.
#[derive(Debug, Clone, Serialize)]
pub struct TakenBack {
    /// The task before which it was, the first that is a point of no return; null: it was at its end.
    pub before: Option<String>,
    /// The hosts are as before, but for what the workflow keeps, what can't be taken back, and what
    /// steps say that they leave.
    pub held: bool,
    /// The undo came to its end.
    pub undone: bool,
    /// How it ended, in words.
    pub ended: String,
    /// The steps that stay as they are.
    pub kept: Vec<String>,
    /// The lines by which the hosts then differ from before the run, `-` before and `+` after; without those
    /// of what was kept.
    pub differences: Vec<String>,
}

impl Recording {
    /// Takes the whole run back; nothing where none of it can be.
    pub(super) fn taken_back(&self, crew: &Crew) -> Option<TakenBack> {
        let courses = self.before_pivot();
        let last = courses.last().filter(|_| courses.iter().any(|course| course.back.is_some()))?;
        let pivot = self.courses.get(courses.len());
        let from = pivot.map_or_else(|| last.moments.after(), |pivot| pivot.moments.before());
        let (world, store) = (SimWorld::in_memory(from.world.clone()), from.store.fork());
        let options = UndoOptions { keep_impossible: true, ..UndoOptions::default() };
        let how = TakingUp { back: Some(&options), ..TakingUp::default() };
        let ended = crew.resume(&world, Box::new(store), &self.run, &how);
        let differences = self.unexplained(courses, &world.state().unwrap_or_default());
        let undone = ended.outcome() == Some(Outcome::Undone);
        let mut kept: Vec<String> = stays(courses).map(|course| course.task.step().to_owned()).collect();
        kept.dedup();
        Some(TakenBack {
            before: pivot.map(|course| course.task.to_string()),
            held: undone && explained(&differences, courses),
            undone,
            ended: ended.words(),
            kept,
            differences,
        })
    }

    /// A run that has taken itself back.
    pub(super) fn unwound(&self, place: &Place) -> Came {
        let state = match place.world.state() {
            Ok(state) => state,
            Err(error) => return failed(error.to_string()),
        };
        let differences = self.unexplained(&self.courses, &state);
        if explained(&differences, &self.courses) {
            return Came::Held;
        }
        let what = "the run has taken itself back, and the hosts are not as before".to_owned();
        Came::Failed { what, differences }
    }

    /// The lines by which the hosts differ from before the run, without those that the tasks which stay
    /// have brought.
    fn unexplained(&self, courses: &[Course], after: &WorldState) -> Vec<String> {
        let of = |course: &Course| {
            state_differences(&course.moments.before().world, &course.moments.after().world)
        };
        let explained: BTreeSet<String> = stays(courses).flat_map(of).collect();
        let mut lines = state_differences(&self.start, after);
        lines.retain(|line| !explained.contains(line));
        lines
    }
}

/// Those that aren't taken back though they changed something.
fn stays(courses: &[Course]) -> impl Iterator<Item = &Course> {
    let stays = |course: &&Course| !matches!(course.facts.undo, Undoability::Possible | Undoability::Nothing);
    courses.iter().filter(stays)
}

/// Whether a line is about how a unit stands. That is what a step is for, and never what it only leaves.
fn is_of_unit(line: &str) -> bool {
    line.split(' ').nth(2) == Some("unit")
}

/// Whether there are no differences, or such as one of the tasks may have left by its step type's word.
fn explained(differences: &[String], courses: &[Course]) -> bool {
    let left = |course: &Course| course.back.as_ref().is_some_and(|back| !back.left.is_empty());
    let leaves = courses.iter().any(|course| course.facts.leaves.is_some() && left(course));
    differences.is_empty() || (leaves && !differences.iter().any(|line| is_of_unit(line)))
}
