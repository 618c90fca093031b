//! `flow approve`: an answer to what a run waits for, from anywhere with its store.

use clap::Args;
use flow_core::run::{Asked, RunId};
use flow_core::store::{Answer, Signal, Store};
use serde_json::json;

use super::runs::{Next, names, status, waits_for_approval};
use crate::args::{Format, Global};
use crate::exit::{Error, Exit};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct ApproveArgs {
    /// The run, by the beginning of its id.
    pub run: String,

    /// The task [default: the one that waits, where there is only one].
    pub task: Option<String>,

    /// Reject it: the task fails, and what needs it does not start.
    #[arg(long)]
    pub reject: bool,

    /// Why it is rejected; recorded and shown.
    #[arg(long, value_name = "TEXT", requires = "reject")]
    pub reason: Option<String>,
}

pub fn approve(global: &Global, args: ApproveArgs) -> Result<Exit, Error> {
    let mut store = context::store(global)?;
    let run = store.find(&args.run)?.id;
    let asked = pick(&*store, &run, args.task.as_deref())?;
    let answer = if args.reject { Answer::Reject(args.reason) } else { Answer::Approve };
    let signal = Signal {
        task: asked.task.clone(),
        attempt: asked.attempt,
        by: context::person(),
        when: jiff::Timestamp::now(),
        answer,
    };
    store.post(&run, &signal)?;
    let running = status(&*store, &run)? == "running";
    let word = if args.reject { "rejected" } else { "approved" };
    if global.output == Format::Json {
        screen::json(&json!({ "run": run, "task": asked.task, "answer": word, "at_work": running }));
        return Ok(Exit::Success);
    }
    screen::line(&format!("{word}: {} of run {run}: {}", asked.task, asked.message));
    if !running {
        let next = Next::of(global, &store.runs()?, &run);
        screen::tell(&format!("no process works on the run; go on with: {}", next.resume()));
    }
    Ok(Exit::Success)
}

/// The task that is meant, among those that wait.
fn pick(store: &dyn Store, run: &RunId, task: Option<&str>) -> Result<Asked, Error> {
    let mut waiting = waits_for_approval(store, run, status(store, run)?)?;
    if let Some(task) = task {
        if let Some((_, signal)) =
            store.signals(run)?.into_iter().find(|(_, signal)| signal.task.as_str() == task)
            && waiting.iter().all(|asked| asked.task.as_str() != task)
        {
            return Err(Error::refused(
                format!("{task} was answered already, by {}", signal.by),
                "`flow resume` takes the answer in, where no process works on the run",
            ));
        }
        let at = waiting.iter().position(|asked| asked.task.as_str() == task);
        return match at {
            Some(at) => Ok(waiting.swap_remove(at)),
            None => {
                Err(Error::refused(format!("{task} of run {run} waits for no approval"), hint(&waiting, run)))
            }
        };
    }
    match waiting.len() {
        1 => Ok(waiting.swap_remove(0)),
        0 => Err(Error::refused(format!("run {run} waits for no approval"), hint(&waiting, run))),
        _ => Err(Error::refused(
            format!("run {run} waits for more than one approval"),
            format!("name the task: {}", names(&waiting)),
        )),
    }
}

fn hint(waiting: &[Asked], run: &RunId) -> String {
    match waiting {
        [] => format!("`flow show {run}` tells where its tasks stand"),
        waiting => format!("these do: {}", names(waiting)),
    }
}
