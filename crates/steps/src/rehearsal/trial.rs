//! One case: a task of the recorded run, and what befalls it. The process that goes on from there must
//! come to the end of the undisturbed run, or say that it can't tell. What befalls it while it is taken
//! back is played in `back`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use flow_core::run::{Event, Outcome, RunId, TaskName};
use flow_core::step::{Attempt, Change};
use flow_core::store::Store;
use flow_core::testing::{MemoryStore, Point, PointStore};

use super::back;
use super::compare::End;
use super::mishap::Mishap;
use super::process::{Crew, Ended, TakingUp};
use super::recording::{Course, Recording};
use super::tape::Snapshot;
use crate::host::sim::{SimWorld, WorldState};

/// How long a task that hangs is waited for.
pub(super) const HANGS: Duration = Duration::from_millis(150);

/// What is tried with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// This befalls it.
    Hit(Mishap),
    /// It is done a second time, right after the first.
    Again,
    /// It is taken back, right after it was done.
    Undone,
    /// This befalls it while it is taken back.
    UndoHit(Mishap),
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit(mishap) => mishap.fmt(f),
            Self::Again => f.write_str("again"),
            Self::Undone => f.write_str("undone"),
            Self::UndoHit(mishap) => write!(f, "undo-{mishap}"),
        }
    }
}

impl FromStr for Trial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("undo-")) {
            ("again", _) => Ok(Self::Again),
            ("undone", _) => Ok(Self::Undone),
            (_, Some(mishap)) => mishap.parse().map(Self::UndoHit),
            _ => text.parse().map(Self::Hit),
        }
    }
}

impl Trial {
    /// In words, after the task's name.
    pub(super) fn words(self) -> String {
        match self {
            Self::Hit(mishap) => mishap.words(),
            Self::Again => "done a second time".to_owned(),
            Self::Undone => "taken back".to_owned(),
            Self::UndoHit(mishap) => format!("while it was taken back: {}", mishap.words()),
        }
    }

    /// The order in which points are told.
    pub(super) fn rank(self) -> (u8, Option<Mishap>) {
        match self {
            Self::Hit(mishap @ (Mishap::Killed(_) | Mishap::KilledWithin(_))) => (0, Some(mishap)),
            Self::Again => (1, None),
            Self::Hit(mishap) => (2, Some(mishap)),
            Self::Undone => (3, None),
            Self::UndoHit(mishap) => (4, Some(mishap)),
        }
    }
}

impl Course {
    /// What is tried with it.
    pub(super) fn trials(&self) -> Vec<Trial> {
        let effects = self.moments.effects.len();
        let mut trials: Vec<Trial> = Mishap::kills(effects).map(Trial::Hit).collect();
        trials.push(Trial::Again);
        trials.extend(Mishap::faults(effects).map(Trial::Hit));
        trials.extend(self.back.iter().flat_map(back::Back::trials));
        trials
    }
}

/// A task and what befalls it.
pub(super) struct Case<'r> {
    pub(super) course: &'r Course,
    pub(super) trial: Trial,
}

/// What came of a case.
pub(super) struct Tried<'r> {
    pub(super) course: &'r Course,
    pub(super) trial: Trial,
    pub(super) came: Came,
}

/// What came of it.
pub(super) enum Came {
    /// The end of the undisturbed run.
    Held,
    /// The same, after it said that it can't tell and was told.
    Unknown(String),
    /// Done twice as it says it may be; the end is the same.
    EachTime,
    /// Done twice, it changes something the second time.
    NotIdempotent { what: String, differences: Vec<String> },
    /// Taken back, it leaves what its step type says that it leaves.
    Leaves,
    /// Taken back, it leaves something.
    NotUndone { what: String, differences: Vec<String> },
    /// Another end, or none.
    Failed { what: String, differences: Vec<String> },
}

/// Hosts and store of one case.
pub(super) struct Place {
    pub(super) world: SimWorld,
    pub(super) store: MemoryStore,
}

impl Place {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self { world: SimWorld::in_memory(snapshot.world.clone()), store: snapshot.store.fork() }
    }

    /// Where the fault of a case is still waiting for its call.
    pub(super) fn not_played(&self) -> Option<Came> {
        let fired = self.world.state().is_ok_and(|state| state.faults.is_empty());
        let what = "the task made fewer changes than in the undisturbed run; this case could not be played";
        (!fired).then(|| failed(what.to_owned()))
    }
}

impl<'r> Case<'r> {
    /// Plays it.
    pub(super) fn run(&self, crew: &Crew, recording: &Recording) -> Tried<'r> {
        let moments = &self.course.moments;
        let came = match self.trial {
            Trial::Hit(Mishap::Killed(point)) => self.go_on_from(crew, recording, &moments.at[&point]),
            Trial::Hit(Mishap::KilledWithin(n)) => self.go_on_from(crew, recording, &moments.effects[n - 1]),
            Trial::Hit(mishap) => self.disturbed(crew, recording, mishap),
            Trial::Again => self.again(crew, recording),
            Trial::Undone => back::undone(crew, recording, self.course),
            Trial::UndoHit(mishap) => back::disturbed(crew, recording, self.course, mishap),
        };
        Tried { course: self.course, trial: self.trial, came }
    }

    fn go_on_from(&self, crew: &Crew, recording: &Recording, snapshot: &Snapshot) -> Came {
        self.go_on(crew, recording, &Place::of(snapshot), 0)
    }

    /// Resumes until the run has ended well, and compares. A call that failed or was lost may cost an
    /// attempt; a kill may not.
    fn go_on(&self, crew: &Crew, recording: &Recording, place: &Place, mut may_fail: u32) -> Came {
        let task = &self.course.task;
        let mut taking_up = TakingUp::default();
        let mut unknown = None;
        loop {
            let ended = crew.resume(&place.world, Box::new(place.store.clone()), &recording.run, &taking_up);
            match &ended {
                Ended::With { outcome: Outcome::Succeeded, .. } => break,
                Ended::With { outcome: Outcome::Undecided, failures } if unknown.is_none() => {
                    let why = failures
                        .iter()
                        .find(|(name, _)| name == task)
                        .map(|(_, error)| error.message.clone());
                    unknown = Some(why.unwrap_or_else(|| ended.words()));
                    let Trial::Hit(mishap) = self.trial else { return failed(ended.words()) };
                    taking_up.verdict = Some((task, mishap.truth()));
                    continue;
                }
                Ended::With { outcome: Outcome::Failed, .. } if may_fail > 0 => may_fail -= 1,
                Ended::With { outcome: Outcome::Undone, .. } => return recording.unwound(place),
                ended => {
                    let decided = if unknown.is_some() {
                        "resumed once a person had said what became of it"
                    } else {
                        "resumed"
                    };
                    return failed(format!("{decided}, the run doesn't come to its end: {}", ended.words()));
                }
            }
            taking_up.verdict = None;
        }
        match self.compare(recording, place) {
            Ok(()) => unknown.map_or(Came::Held, Came::Unknown),
            Err(came) => came,
        }
    }

    fn compare(&self, recording: &Recording, place: &Place) -> Result<(), Came> {
        let state = place.world.state().map_err(|error| failed(error.to_string()))?;
        let differences = if self.course.repeatable {
            let mine = self.course.effect_texts();
            End::of(&recording.end_state).without(&mine).differences(&End::of(&state).without(&mine))
        } else {
            recording.end.differences(&End::of(&state))
        };
        if differences.is_empty() {
            return Ok(());
        }
        let what = "resumed, the run ends well, but not as undisturbed".to_owned();
        Err(Came::Failed { what, differences })
    }

    /// A process takes the run up right before the task; once the task's intent is durable, the fault
    /// is there. Then the run is gone on with.
    fn disturbed(&self, crew: &Crew, recording: &Recording, mishap: Mishap) -> Came {
        let place = Place::of(self.course.moments.before());
        let (world, task) = (place.world.clone(), self.course.task.to_string());
        let mut fault = mishap.fault();
        let store = PointStore::new(place.store.clone(), move |moment| {
            if moment.is_at(&task, Point::AfterIntent)
                && let Some(fault) = fault.take()
            {
                let _ = world.inject(fault);
            }
        });
        let timeout = (mishap == Mishap::TimesOut).then_some((&self.course.task, HANGS));
        let how = TakingUp { timeout, ..TakingUp::default() };
        let ended = crew.resume(&place.world, Box::new(store), &recording.run, &how);
        if let Some(came) = place.not_played() {
            return came;
        }
        match ended.outcome() {
            Some(Outcome::Succeeded) => match self.compare(recording, &place) {
                Ok(()) => Came::Held,
                Err(came) => came,
            },
            Some(Outcome::Failed | Outcome::Undecided) => self.go_on(crew, recording, &place, 1),
            Some(Outcome::Undone) => recording.unwound(&place),
            _ => failed(format!("the process ended: {}", ended.words())),
        }
    }

    /// The store knows nothing of the task yet; the hosts have what it did. Its commands' traces are
    /// removed: it is as if another run had done it.
    fn again(&self, crew: &Crew, recording: &Recording) -> Came {
        let moments = &self.course.moments;
        let mut snapshot =
            Snapshot { store: moments.before().store.clone(), ..moments.at[&Point::AfterEffect].clone() };
        forget_attempts(&mut snapshot.world, &recording.run, &self.course.task);
        let place = Place::of(&snapshot);
        let ended =
            crew.resume(&place.world, Box::new(place.store.clone()), &recording.run, &TakingUp::default());
        let Some(change) = intended(&place.store, &recording.run, &self.course.task) else {
            return match ended.outcome() {
                Some(Outcome::Succeeded) => match self.compare(recording, &place) {
                    Ok(()) => Came::Held,
                    Err(came) => came,
                },
                _ => failed(format!("done before, the run doesn't come to its end: {}", ended.words())),
            };
        };
        let state = match place.world.state() {
            Ok(state) => state,
            Err(error) => return failed(error.to_string()),
        };
        let mut differences = recording.end.differences(&End::of(&state));
        if self.course.repeatable {
            let mine = self.course.effect_texts();
            differences =
                End::of(&recording.end_state).without(&mine).differences(&End::of(&state).without(&mine));
            if differences.is_empty() && ended.outcome() == Some(Outcome::Succeeded) {
                return Came::EachTime;
            }
        }
        let mut what = format!("the second time it still has something to do: {}", change.summary);
        if ended.outcome() != Some(Outcome::Succeeded) {
            what = format!("{what}; {}", ended.words());
        }
        if let Some(diff) = change.diff {
            differences.splice(0..0, diff.lines().map(str::to_owned));
        }
        Came::NotIdempotent { what, differences }
    }
}

/// The traces of a task's commands on the hosts are removed: it is as if it had never been begun.
pub(super) fn forget_attempts(world: &mut WorldState, run: &RunId, task: &TaskName) {
    let attempt = Attempt { run: run.clone(), task: task.clone(), number: 1, epoch: 1 }.name();
    let of_task = attempt.trim_end_matches('1').to_owned();
    for host in world.hosts.values_mut() {
        host.attempts.retain(|name, _| !name.starts_with(&of_task));
    }
}

/// What a task's first intent says.
pub(super) fn intended(store: &MemoryStore, run: &RunId, task: &TaskName) -> Option<Change> {
    let events = store.events(run).unwrap_or_default();
    events.into_iter().find_map(|record| match record.event {
        Event::TaskIntended { task: named, change, .. } if named == *task => Some(change),
        _ => None,
    })
}

pub(super) fn failed(what: String) -> Came {
    Came::Failed { what, differences: Vec::new() }
}
