//! Rehearsals: a workflow is run on simulated hosts, and at every task that changes something its
//! process is killed, its calls fail and lose their answers, and the task is done twice and taken back.
//! What comes of it is compared with a run that nobody disturbed, and with how the hosts were before.
//!
//! No process and no connection is made: every "process" is an engine of its own in this one, on a
//! runtime without I/O, and all hosts are simulated. The undisturbed run is recorded: a copy of the
//! hosts and of the store is kept at each of its moments, which is exactly what a process killed there
//! leaves behind. Each case goes on from such a copy, so that what all have in common is run once.

mod back;
mod compare;
mod error;
mod file;
mod invent;
mod mishap;
mod process;
mod recording;
mod report;
mod stage;
mod tape;
mod trial;

#[cfg(test)]
mod tests;

pub use back::TakenBack;
pub use error::RehearsalError;
pub use file::{Accept, Before, BeforeWith, ParamValue, TestFile};
pub use invent::invent;
pub use mishap::Mishap;
pub use report::{Again, Failure, Report, StepReport, UnknownReport};
pub use stage::{Accident, Stage, Subject};
pub use trial::Trial;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flow_core::engine::Engine;
use flow_core::step::Registry;

use process::Crew;
use recording::{Course, Recording};
use trial::{Case, Tried};

/// Among the resources of a rehearsal's processes: a step touches nothing at the operator, where nothing is
/// simulated, and what else would be random is made of names.
pub struct Rehearsed;

/// How a rehearsal is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many cases are at work at once.
    pub jobs: usize,
    /// How long one process may take before it counts as stuck.
    pub patience: Duration,
    /// Only the cases of this task or step, `TASK`, or one of them, `TASK/POINT`.
    pub only: Option<String>,
    /// What the author accepts.
    pub accept: Accept,
}

impl Default for Options {
    /// As many jobs as there are processors, 60 s of patience, every case.
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        Self { jobs, patience: Duration::from_secs(60), only: None, accept: Accept::default() }
    }
}

/// Rehearses a workflow. `progress` is told how many cases of how many are done.
///
/// Blocks until all is done; must not be called on a thread of a tokio runtime.
///
/// # Errors
/// The workflow, the inventory or the params are wrong; the simulation lacks an answer; the start state
/// or the undisturbed run doesn't come to its end. What goes wrong in a case is no error: it stands
/// in the report.
pub fn rehearse(
    registry: Registry,
    stage: &Stage,
    subject: &Subject,
    options: &Options,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report, RehearsalError> {
    let crew = Crew {
        engine: Engine::new(registry),
        inventory: stage.inventory.clone(),
        patience: options.patience,
    };
    let start = stage.build(&crew)?;
    let recording = Recording::make(&crew, subject, start)?;
    let again = recording.again(&crew, subject)?;
    let taken_back = options.only.is_none().then(|| recording.taken_back(&crew)).flatten();
    let cases = chosen(&recording, options.only.as_deref())?;
    let done = AtomicUsize::new(0);
    progress(0, cases.len());
    let tried = each(&cases, options.jobs, |case| {
        let tried = case.run(&crew, &recording);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, cases.len());
        tried
    });
    Ok(report::make(&recording, tried, again, taken_back, &options.accept, options.only.is_some()))
}

/// The cases, or those that were asked for.
fn chosen<'r>(recording: &'r Recording, only: Option<&str>) -> Result<Vec<Case<'r>>, RehearsalError> {
    let all = recording
        .courses
        .iter()
        .flat_map(|course| course.trials().into_iter().map(move |trial| Case { course, trial }));
    let Some(only) = only else { return Ok(all.collect()) };
    let (task, trial) = match only.rsplit_once('/').map(|(task, point)| (task, point.parse::<Trial>())) {
        Some((task, Ok(trial))) => (task, Some(trial)),
        _ => (only, None),
    };
    let named = |course: &Course| course.task.as_str() == task || course.task.step() == task;
    let chosen: Vec<Case<'r>> =
        all.filter(|case| named(case.course) && trial.is_none_or(|trial| trial == case.trial)).collect();
    if chosen.is_empty() {
        let tasks = recording.courses.iter().map(|course| course.task.to_string()).collect();
        return Err(RehearsalError::NoCase { only: only.to_owned(), tasks });
    }
    Ok(chosen)
}

/// Runs every case, some at once; the results are in the cases' order.
fn each<'c, 'r>(
    cases: &'c [Case<'r>],
    jobs: usize,
    run: impl Fn(&'c Case<'r>) -> Tried<'r> + Sync,
) -> Vec<Tried<'r>> {
    let next = AtomicUsize::new(0);
    let tried = Mutex::new(Vec::with_capacity(cases.len()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { break };
                    let result = run(case);
                    tried.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut tried = tried.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tried.sort_by_key(|(number, _)| *number);
    tried.into_iter().map(|(_, result)| result).collect()
}
