//! What befalls a task, on its way forward or back.

use std::fmt;
use std::str::FromStr;

use flow_core::engine::Verdict;
use flow_core::testing::Point;

use crate::host::sim::{Call, Fault, FaultKind};

/// What befalls a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// The process is killed at a point.
    Killed(Point),
    /// The process is killed after the n-th of several effects.
    KilledWithin(usize),
    /// The call of its n-th effect fails.
    Fails(usize),
    /// The request of its n-th effect is lost, nothing is done.
    RequestLost(usize),
    /// Its n-th effect is done, the answer is lost.
    AnswerLost(usize),
    /// No answer ever comes, until the step's time is over.
    TimesOut,
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(point) => write!(f, "{point}"),
            Self::KilledWithin(n) => write!(f, "within-{n}"),
            Self::Fails(n) => write!(f, "fails-{n}"),
            Self::RequestLost(n) => write!(f, "request-lost-{n}"),
            Self::AnswerLost(n) => write!(f, "answer-lost-{n}"),
            Self::TimesOut => f.write_str("times-out"),
        }
    }
}

impl FromStr for Mishap {
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
            "fails" => Ok(Self::Fails(number)),
            "request-lost" => Ok(Self::RequestLost(number)),
            "answer-lost" => Ok(Self::AnswerLost(number)),
            "times-out" => Ok(Self::TimesOut),
            _ => Err(format!("no point `{text}`")),
        }
    }
}

impl Mishap {
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
            Self::Fails(n) => format!("change {n} failed"),
            Self::RequestLost(n) => format!("the request of change {n} was lost"),
            Self::AnswerLost(n) => format!("the answer to change {n} was lost"),
            Self::TimesOut => "no answer came until its time was over".to_owned(),
        }
    }

    /// Whether the effect is there after that: what a person who looks would say.
    pub(super) fn truth(self) -> Verdict {
        match self {
            Self::Killed(Point::AfterEffect | Point::AfterResult) | Self::AnswerLost(_) => Verdict::Done,
            _ => Verdict::NotDone,
        }
    }

    /// What is wrong with the hosts then; nothing where only the process is killed.
    pub(super) fn fault(self) -> Option<Fault> {
        let (n, kind) = match self {
            Self::Fails(n) => (n, FaultKind::Fail("it was made to fail".to_owned())),
            Self::RequestLost(n) => (n, FaultKind::LoseRequest),
            Self::AnswerLost(n) => (n, FaultKind::LoseAnswer),
            Self::TimesOut => (1, FaultKind::Hang),
            Self::Killed(_) | Self::KilledWithin(_) => return None,
        };
        Some(Fault { host: None, call: Call::Effect(u32::try_from(n).unwrap_or(u32::MAX)), kind })
    }

    /// The kills of a task that has so many effects.
    pub(super) fn kills(effects: usize) -> impl Iterator<Item = Self> {
        let within = (1..effects).take(EFFECTS).map(Self::KilledWithin);
        flow_core::testing::POINTS.into_iter().map(Self::Killed).chain(within)
    }

    /// What can go wrong with the calls of a task that has so many effects.
    pub(super) fn faults(effects: usize) -> impl Iterator<Item = Self> {
        let each = |n| [Self::Fails(n), Self::RequestLost(n), Self::AnswerLost(n)];
        (1..=effects.min(EFFECTS)).flat_map(each).chain((effects > 0).then_some(Self::TimesOut))
    }
}

/// Of so many effects of a task each is disturbed; of more, only the first ones.
const EFFECTS: usize = 6;
