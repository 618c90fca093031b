//! One case: a task of the recorded run, and what befalls it. The process that goes on from there must
//! come to the end of the undisturbed run, or say that it can't tell.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use flow_core::engine::Verdict;
use flow_core::run::{Event, Outcome};
use flow_core::step::Attempt;
use flow_core::store::Store;
use flow_core::testing::{MemoryStore, POINTS, Point, PointStore};

use super::compare::End;
use super::process::{Crew, Ended, TakingUp};
use super::recording::{Course, Recording, Snapshot};
use crate::host::sim::{Call, Fault, FaultKind, SimWorld};

/// How long a task that hangs is waited for.
const HANGS: Duration = Duration::from_millis(150);

/// Of so many effects of a task each is disturbed; of more, only the first ones.
const EFFECTS: usize = 6;

/// What befalls a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trial {
    /// The process is killed at a point.
    Killed(Point),
    /// The process is killed after the n-th of several effects.
    KilledWithin(usize),
    /// It is done a second time, right after the first.
    Again,
    /// The call of its n-th effect fails.
    Fails(usize),
    /// The request of its n-th effect is lost, nothing is done.
    RequestLost(usize),
    /// Its n-th effect is done, the answer is lost.
    AnswerLost(usize),
    /// No answer ever comes, until the step's time is over.
    TimesOut,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(point) => write!(f, "{point}"),
            Self::KilledWithin(n) => write!(f, "within-{n}"),
            Self::Again => f.write_str("again"),
            Self::Fails(n) => write!(f, "fails-{n}"),
            Self::RequestLost(n) => write!(f, "request-lost-{n}"),
            Self::AnswerLost(n) => write!(f, "answer-lost-{n}"),
            Self::TimesOut => f.write_str("times-out"),
        }
    }
}

impl FromStr for Trial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(point) = text.parse() {
            return Ok(Self::Killed(point));
        }
        let (name, number) = match text.rsplit_once('-') {
            Some((name, number)) if number.parse::<usize>().is_ok() => (name, number.parse().unwrap_or(1)),
            _ => (text, 1),
        };
        match name {
            "within" => Ok(Self::KilledWithin(number)),
            "again" => Ok(Self::Again),
            "fails" => Ok(Self::Fails(number)),
            "request-lost" => Ok(Self::RequestLost(number)),
            "answer-lost" => Ok(Self::AnswerLost(number)),
            "times-out" => Ok(Self::TimesOut),
            _ => Err(format!("no point `{text}`")),
        }
    }
}

impl Trial {
    /// In words, after the task's name.
    pub(super) fn words(self) -> String {
        match self {
            Self::Killed(Point::BeforeIntent) => "killed before its intent was recorded".to_owned(),
            Self::Killed(Point::AfterIntent) => {
                "killed after its intent, before anything was done".to_owned()
            }
            Self::Killed(Point::AfterEffect) => {
                "killed after it was done, before that was recorded".to_owned()
            }
            Self::Killed(Point::AfterResult) => "killed after its result was recorded".to_owned(),
            Self::KilledWithin(n) => format!("killed after change {n} of several"),
            Self::Again => "done a second time".to_owned(),
            Self::Fails(n) => format!("change {n} failed"),
            Self::RequestLost(n) => format!("the request of change {n} was lost"),
            Self::AnswerLost(n) => format!("the answer to change {n} was lost"),
            Self::TimesOut => "no answer came until its time was over".to_owned(),
        }
    }

    /// Whether the effect is there after that: what a person who looks would say.
    fn truth(self) -> Verdict {
        match self {
            Self::Killed(Point::AfterEffect | Point::AfterResult) | Self::AnswerLost(_) => Verdict::Done,
            _ => Verdict::NotDone,
        }
    }

    fn fault(self) -> Option<Fault> {
        let (n, kind) = match self {
            Self::Fails(n) => (n, FaultKind::Fail("it was made to fail".to_owned())),
            Self::RequestLost(n) => (n, FaultKind::LoseRequest),
            Self::AnswerLost(n) => (n, FaultKind::LoseAnswer),
            Self::TimesOut => (1, FaultKind::Hang),
            Self::Killed(_) | Self::KilledWithin(_) | Self::Again => return None,
        };
        Some(Fault { host: None, call: Call::Effect(u32::try_from(n).unwrap_or(u32::MAX)), kind })
    }
}

impl Course {
    /// What is tried with it.
    pub(super) fn trials(&self) -> Vec<Trial> {
        let effects = self.effects.len().min(EFFECTS);
        let mut trials: Vec<Trial> = POINTS.map(Trial::Killed).to_vec();
        trials.extend((1..self.effects.len()).take(EFFECTS).map(Trial::KilledWithin));
        trials.push(Trial::Again);
        for n in 1..=effects {
            trials.extend([Trial::Fails(n), Trial::RequestLost(n), Trial::AnswerLost(n)]);
        }
        if effects > 0 {
            trials.push(Trial::TimesOut);
        }
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
    /// Another end, or none.
    Failed { what: String, differences: Vec<String> },
}

/// Hosts and store of one case.
struct Place {
    world: SimWorld,
    store: MemoryStore,
}

impl Place {
    fn of(snapshot: &Snapshot) -> Self {
        Self { world: SimWorld::in_memory(snapshot.world.clone()), store: snapshot.store.fork() }
    }
}

impl<'r> Case<'r> {
    /// Plays it.
    pub(super) fn run(&self, crew: &Crew, recording: &Recording) -> Tried<'r> {
        let came = match self.trial {
            Trial::Killed(point) => self.go_on(crew, recording, &Place::of(&self.course.at[&point])),
            Trial::KilledWithin(n) => self.go_on(crew, recording, &Place::of(&self.course.effects[n - 1])),
            Trial::Again => self.again(crew, recording),
            _ => self.disturbed(crew, recording),
        };
        Tried { course: self.course, trial: self.trial, came }
    }

    /// Resumes until the run has ended well, and compares.
    fn go_on(&self, crew: &Crew, recording: &Recording, place: &Place) -> Came {
        let task = &self.course.task;
        let mut taking_up = TakingUp::default();
        let mut unknown = None;
        // A call that failed or was lost may cost an attempt; a kill may not.
        let mut may_fail = u32::from(self.trial.fault().is_some());
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
                    taking_up.verdict = Some((task, self.trial.truth()));
                    continue;
                }
                Ended::With { outcome: Outcome::Failed, .. } if may_fail > 0 => may_fail -= 1,
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
    fn disturbed(&self, crew: &Crew, recording: &Recording) -> Came {
        let place = Place::of(&self.course.at[&Point::BeforeIntent]);
        let (world, task) = (place.world.clone(), self.course.task.to_string());
        let mut fault = self.trial.fault();
        let store = PointStore::new(place.store.clone(), move |moment| {
            if moment.is_at(&task, Point::AfterIntent)
                && let Some(fault) = fault.take()
            {
                let _ = world.inject(fault);
            }
        });
        let timeout = (self.trial == Trial::TimesOut).then_some((&self.course.task, HANGS));
        let ended =
            crew.resume(&place.world, Box::new(store), &recording.run, &TakingUp { verdict: None, timeout });
        let fired = place.world.state().is_ok_and(|state| state.faults.is_empty());
        if !fired {
            let what =
                "the task made fewer changes than in the undisturbed run; this case could not be played";
            return failed(what.to_owned());
        }
        match ended.outcome() {
            Some(Outcome::Succeeded) => match self.compare(recording, &place) {
                Ok(()) => Came::Held,
                Err(came) => came,
            },
            Some(Outcome::Failed | Outcome::Undecided) => self.go_on(crew, recording, &place),
            _ => failed(format!("the process ended: {}", ended.words())),
        }
    }

    /// The store knows nothing of the task yet; the hosts have what it did. Its commands' traces are
    /// removed: it is as if another run had done it.
    fn again(&self, crew: &Crew, recording: &Recording) -> Came {
        let mut snapshot = Snapshot {
            store: self.course.at[&Point::BeforeIntent].store.clone(),
            ..self.course.at[&Point::AfterEffect].clone()
        };
        let attempt =
            Attempt { run: recording.run.clone(), task: self.course.task.clone(), number: 1, epoch: 1 }
                .name();
        let of_task = attempt.trim_end_matches('1').to_owned();
        for host in snapshot.world.hosts.values_mut() {
            host.attempts.retain(|name, _| !name.starts_with(&of_task));
        }
        let place = Place::of(&snapshot);
        let ended =
            crew.resume(&place.world, Box::new(place.store.clone()), &recording.run, &TakingUp::default());
        let events = place.store.events(&recording.run).unwrap_or_default();
        let second = events.iter().find_map(|record| match &record.event {
            Event::TaskIntended { task, change, .. } if *task == self.course.task => Some(change.clone()),
            _ => None,
        });
        let Some(change) = second else {
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

fn failed(what: String) -> Came {
    Came::Failed { what, differences: Vec::new() }
}
