//! What came of a rehearsal, step by step.

use flow_core::step::Undoability;
use serde::Serialize;

use super::back::TakenBack;
use super::file::Accept;
use super::recording::Recording;
use super::trial::{Came, Trial, Tried};

/// What came of a rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The workflow's name.
    pub workflow: String,
    /// The hosts' Debian release.
    pub release: &'static str,
    /// How many hosts were simulated.
    pub hosts: usize,
    /// How many tasks the workflow has there.
    pub tasks: usize,
    /// How many of them changed something.
    pub changed: usize,
    /// How many cases were played.
    pub cases: usize,
    /// Every step with its cases, in order.
    pub steps: Vec<StepReport>,
    /// The whole workflow, run once more by another run. Told, never held against it.
    pub again: Again,
    /// The whole run, taken back; null where none of it can be, or only some cases were asked for.
    pub taken_back: Option<TakenBack>,
    /// What did not hold.
    pub failures: Vec<Failure>,
    /// What can't be told after a crash or a lost answer.
    pub unknown: Vec<UnknownReport>,
    /// `held`, `unknown` (nothing failed, but there is something that isn't accepted under `unknown`) or
    /// `failed`.
    pub verdict: &'static str,
    /// Whether only some cases were asked for.
    pub partial: bool,
}

/// A step over all its tasks.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: String,
    /// Its type.
    pub uses: String,
    /// How many of its tasks changed something; 0: there was nothing to do.
    pub changed: usize,
    /// `nothing`: done twice, the second time there is nothing to do. `each_time`: it is done again, as
    /// it says it may be, with the same end. `changes`: it changes something the second time.
    /// `not_tried`: it changed nothing the first time, or its cases weren't asked for.
    pub again: &'static str,
    /// What taking it back comes to. `exact`: the hosts are as right before it; `leaves`: but for what its type
    /// says that stays; `differs`: they are not; `impossible`, `kept`, `nothing`: it isn't taken back, since it
    /// can't be, the workflow keeps it, or it changes nothing; `past_pivot`: it comes after the point of no return;
    /// `not_tried`: it changed nothing, or its cases weren't asked for.
    pub undo: &'static str,
    /// Why it can't be taken back, or what it leaves.
    pub undo_why: Option<String>,
    /// How many cases were played.
    pub cases: usize,
    /// How many of them came to the end of the undisturbed run, unasked.
    pub held: usize,
    /// The points at which it leaves an outcome that only a person can settle.
    pub unknown: Vec<String>,
    /// The points at which it did not hold.
    pub failed: Vec<String>,
}

/// What a second run of the whole workflow does.
#[derive(Debug, Clone, Serialize)]
pub struct Again {
    /// It came to a good end.
    pub succeeded: bool,
    /// How it ended, in words.
    pub ended: String,
    /// What it changed, each once.
    pub effects: Vec<String>,
    /// The lines by which the hosts' state then differs, `-` before and `+` after.
    pub differences: Vec<String>,
}

/// Something that did not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The task.
    pub task: String,
    /// The point: what `--only TASK/POINT` takes.
    pub point: String,
    /// What befell it, in words.
    pub story: String,
    /// What came of it.
    pub what: String,
    /// The lines by which hosts and effects differ from the undisturbed run's.
    pub differences: Vec<String>,
    /// It stands in the test file's `[accept]`.
    pub accepted: bool,
}

/// A task that leaves an outcome which only a person can settle.
#[derive(Debug, Clone, Serialize)]
pub struct UnknownReport {
    /// The task.
    pub task: String,
    /// At which points.
    pub points: Vec<String>,
    /// Why it can't be told.
    pub why: String,
    /// It stands in the test file's `[accept]`.
    pub accepted: bool,
}

pub(super) fn make(
    recording: &Recording,
    tried: Vec<Tried<'_>>,
    again: Again,
    taken_back: Option<TakenBack>,
    accept: &Accept,
    partial: bool,
) -> Report {
    let steps =
        recording.steps.iter().map(|(step, uses)| step_report(recording, &tried, step, uses)).collect();
    let cases = tried.len();
    let mut failures: Vec<Failure> = Vec::new();
    let mut unknown: Vec<UnknownReport> = Vec::new();
    for Tried { course, trial, came } in tried {
        let step = course.task.step();
        let of = |what: String, differences: Vec<String>, accepted: bool| Failure {
            task: course.task.to_string(),
            point: trial.to_string(),
            story: trial.words(),
            what,
            differences,
            accepted,
        };
        match came {
            Came::Held | Came::EachTime | Came::Leaves => {}
            Came::NotUndone { what, differences } => {
                failures.push(of(what, differences, names(&accept.undo, step)));
            }
            Came::Failed { what, differences } => failures.push(of(what, differences, false)),
            Came::NotIdempotent { what, differences } => {
                failures.push(of(what, differences, names(&accept.not_idempotent, step)));
            }
            Came::Unknown(why) => match unknown.iter_mut().find(|known| known.task == course.task.as_str()) {
                Some(known) => known.points.push(trial.to_string()),
                None => unknown.push(UnknownReport {
                    task: course.task.to_string(),
                    points: vec![trial.to_string()],
                    why,
                    accepted: names(&accept.unknown, step),
                }),
            },
        }
    }
    // What isn't taken back as it should be is told of the task by itself, where it is accepted.
    let undo_held = taken_back.as_ref().is_none_or(|back| back.held) || !accept.undo.is_empty();
    let verdict = if !undo_held || failures.iter().any(|failure| !failure.accepted) {
        "failed"
    } else if unknown.iter().any(|unknown| !unknown.accepted) {
        "unknown"
    } else {
        "held"
    };
    Report {
        workflow: recording.workflow.clone(),
        release: recording.release,
        hosts: recording.end_state.hosts.len(),
        tasks: recording.tasks,
        changed: recording.courses.len(),
        cases,
        steps,
        again,
        taken_back,
        failures,
        unknown,
        verdict,
        partial,
    }
}

fn names(accepted: &[String], step: &str) -> bool {
    accepted.iter().any(|name| name == step)
}

fn step_report(recording: &Recording, tried: &[Tried<'_>], step: &str, uses: &str) -> StepReport {
    let mine: Vec<&Tried<'_>> = tried.iter().filter(|tried| tried.course.task.step() == step).collect();
    let points = |pick: fn(&Came) -> bool| -> Vec<String> {
        let mut trials: Vec<Trial> =
            mine.iter().filter(|tried| pick(&tried.came)).map(|tried| tried.trial).collect();
        trials.sort_by_key(|trial| trial.rank());
        trials.dedup();
        trials.iter().map(ToString::to_string).collect()
    };
    let second: Vec<&Came> =
        mine.iter().filter(|tried| tried.trial == Trial::Again).map(|tried| &tried.came).collect();
    let again = if second.is_empty() {
        "not_tried"
    } else if second.iter().any(|came| matches!(came, Came::NotIdempotent { .. })) {
        "changes"
    } else if second.iter().any(|came| matches!(came, Came::EachTime)) {
        "each_time"
    } else {
        "nothing"
    };
    let (undo, undo_why) = undo(recording, &mine, step);
    let held = |came: &Came| matches!(came, Came::Held | Came::EachTime | Came::Leaves);
    StepReport {
        step: step.to_owned(),
        uses: uses.to_owned(),
        changed: recording.courses.iter().filter(|course| course.task.step() == step).count(),
        again,
        undo,
        undo_why,
        cases: mine.len(),
        held: mine.iter().filter(|tried| held(&tried.came)).count(),
        unknown: points(|came| matches!(came, Came::Unknown(_))),
        failed: points(|came| {
            matches!(came, Came::Failed { .. } | Came::NotIdempotent { .. } | Came::NotUndone { .. })
        }),
    }
}

/// What taking a step's tasks back comes to, and why not or what it leaves.
fn undo(recording: &Recording, mine: &[&Tried<'_>], step: &str) -> (&'static str, Option<String>) {
    let Some(facts) = recording.facts_of(step) else { return ("nothing", None) };
    match &facts.undo {
        Undoability::Nothing => return ("nothing", None),
        Undoability::Kept => return ("kept", None),
        Undoability::Impossible(why) => return ("impossible", Some(why.clone())),
        Undoability::Possible => {}
    }
    let mut courses = recording.courses.iter().filter(|course| course.task.step() == step).peekable();
    if courses.peek().is_some() && courses.all(|course| course.back.is_none()) {
        return ("past_pivot", None);
    }
    let undone = mine.iter().filter(|tried| tried.trial == Trial::Undone).map(|tried| &tried.came);
    let found = undone.map(|came| match came {
        Came::Held => "exact",
        Came::Leaves => "leaves",
        _ => "differs",
    });
    // In this order the last one is the worst.
    let worst =
        found.max_by_key(|found| ["exact", "leaves", "differs"].iter().position(|word| word == found));
    let why = (worst == Some("leaves")).then_some(facts.leaves).flatten().map(str::to_owned);
    (worst.unwrap_or("not_tried"), why)
}
