//! `flow undo`: show what would be taken back, ask, take it back.

use std::io::{IsTerminal, Write};

use clap::Args;
use flow_core::engine::{UndoAction, UndoOptions, read_definition};
use flow_core::run::{Event, Outcome, RunId};
use flow_core::store::{RunRow, Store};

use super::run::follow;
use super::runs::{Next, short};
use crate::args::{Format, Global, InventoryArg};
use crate::exit::{Error, Exit};
use crate::screen::Screen;
use crate::{context, screen};

#[derive(Args, Clone)]
#[command(after_help = "\
Taken back is what the run changed, never what it found as it should be: each task before those that \
it needed. A task whose work was changed by somebody else since is left alone, and stops the undo. An \
undo that fails or is stopped is gone on with by the same command; once something was taken back, the \
run can't be resumed.")]
pub struct UndoArgs {
    /// The run, by the beginning of its id [default: the newest one that has changed something].
    pub run: Option<String>,

    #[command(flatten)]
    pub inventory: InventoryArg,

    /// Go ahead without being asked. Without it and without a terminal, only what would be done is shown.
    #[arg(long, short)]
    pub yes: bool,

    /// Leave this task as it is and go on around it; can be given several times.
    #[arg(long, value_name = "TASK")]
    pub keep: Vec<String>,

    /// Leave all tasks on this host as they are, and neither reach nor lock it: for a host that is down. Can be
    /// given several times.
    #[arg(long, value_name = "HOST")]
    pub keep_host: Vec<String>,

    /// Leave all that can't be taken back as it is and go on around it.
    #[arg(long)]
    pub keep_impossible: bool,
}

pub async fn undo(global: &Global, args: UndoArgs) -> Result<Exit, Error> {
    let (engine, _hosts) = context::engine();
    let store = context::store(global)?;
    let all = store.runs()?;
    let row = match &args.run {
        Some(prefix) => store.find(prefix)?,
        None => newest_undoable(&*store, &all)?,
    };
    let definition = read_definition(&row.id, &store.definition(&row.id)?)?;
    let inventory = context::inventory_again(&args.inventory, &definition)?;
    let next = Next::of(global, &all, &row.id);
    let session = engine.open(store, &row.id, inventory.as_ref())?;
    let options = UndoOptions {
        keep: args.keep.clone(),
        keep_hosts: args.keep_host.clone(),
        keep_impossible: args.keep_impossible,
    };
    let tasks = session.to_undo(&options)?;
    screen::undo::before(&row, short(&all, &row.id), &tasks, global.output);
    if global.output == Format::Text {
        tell_of_later_runs(&*context::store(global)?, &all, &row)?;
    }
    session.may_undo(&options)?;
    if !args.yes && tasks.iter().any(|task| task.action == UndoAction::TakeBack) {
        confirm(&next)?;
    }
    let mut screen = Screen::new(global.output, session.plan());
    screen.takes_back(&tasks);
    let handle = session.undo(&options)?;
    follow(handle, screen, &next).await
}

/// Says which later runs have changed something: they may stand on what is taken back.
fn tell_of_later_runs(store: &dyn Store, all: &[RunRow], row: &RunRow) -> Result<(), Error> {
    const SHOWN: usize = 3;
    let mut later = Vec::new();
    for other in all.iter().filter(|other| other.started > row.started) {
        if !is_undone(store, other)? && changed_something(store, &other.id)? {
            later.push(format!("{} ({})", short(all, &other.id), other.workflow));
        }
    }
    if later.is_empty() {
        return Ok(());
    }
    let more = later.len().saturating_sub(SHOWN);
    later.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    screen::tell(&format!(
        "{} later runs have changed something, and may stand on this: {}{more}\n",
        console::style("note:").for_stderr().cyan(),
        later.join(", ")
    ));
    Ok(())
}

fn is_undone(store: &dyn Store, row: &RunRow) -> Result<bool, Error> {
    let last = store.last_events(&row.id, 1)?.pop();
    Ok(last.is_some_and(|last| matches!(last.event, Event::RunEnded { outcome: Outcome::Undone, .. })))
}

fn confirm(next: &Next) -> Result<(), Error> {
    let go_ahead = format!("to go ahead: {}", next.command("undo", "--yes"));
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Error::refused("not confirmed; nothing was changed", go_ahead));
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "Take it back? [y/N] ");
    let _ = stderr.flush();
    let mut typed = String::new();
    let _ = std::io::stdin().read_line(&mut typed);
    if ["y", "yes"].contains(&typed.trim().to_ascii_lowercase().as_str()) {
        Ok(())
    } else {
        Err(Error::refused("not confirmed; nothing was changed", go_ahead))
    }
}

/// The newest run that has changed something. Where that is taken back already, the one before it must be
/// named: the same words typed twice must not go back through history.
fn newest_undoable(store: &dyn Store, all: &[RunRow]) -> Result<RunRow, Error> {
    for row in all {
        let Some(last) = store.last_events(&row.id, 1)?.pop() else { continue };
        match last.event {
            Event::RunEnded { outcome: Outcome::Undone, .. } => {
                return Err(Error::refused(
                    format!(
                        "run {} ({}), the newest, is taken back already",
                        short(all, &row.id),
                        row.workflow
                    ),
                    "to take back an earlier one, name it: `flow runs` lists them, `flow undo RUN`",
                ));
            }
            Event::RunEnded { outcome: Outcome::Refused, .. } => {}
            _ if changed_something(store, &row.id)? => return Ok(row.clone()),
            _ => {}
        }
    }
    Err(Error::refused("there is no run to take back", "`flow runs` lists the runs"))
}

fn changed_something(store: &dyn Store, run: &RunId) -> Result<bool, Error> {
    Ok(store.events(run)?.iter().any(|record| matches!(record.event, Event::TaskIntended { .. })))
}
