//! What is said before a run is taken back, and which of its tasks can be.

use flow_core::engine::{UndoAction, UndoTask};
use flow_core::step::Undoability;
use flow_core::store::RunRow;
use serde_json::{Value, json};

use super::{local_time, tell};
use crate::args::Format;

/// Lists what an undo would do, in its order.
pub fn before(row: &RunRow, short: &str, tasks: &[UndoTask], format: Format) {
    if format == Format::Json {
        let tasks: Vec<Value> = tasks.iter().map(as_json).collect();
        let list = json!({ "type": "undo", "run": row.id, "workflow": row.workflow, "tasks": tasks });
        super::line(&list.to_string());
        return;
    }
    let began = local_time(row.started);
    tell(&format!("run {} ({short}), {}, begun {began}", row.id, row.workflow));
    if tasks.is_empty() {
        tell("Nothing of it is left to take back.\n");
        return;
    }
    tell("What it did, in the order in which it is taken back:");
    let width = tasks.iter().map(|task| task.name.as_str().len()).max().unwrap_or(0);
    for task in tasks {
        let (mark, text) = match &task.action {
            UndoAction::TakeBack => ("undo", &task.summary),
            UndoAction::Keep(why) => ("keep", why),
            UndoAction::Impossible(why) => ("can't", why),
        };
        let mark = console::style(format!("{mark:5}")).for_stderr();
        let mark = match &task.action {
            UndoAction::TakeBack => mark.yellow(),
            UndoAction::Keep(_) => mark.dim(),
            UndoAction::Impossible(_) => mark.red(),
        };
        tell(&format!("  {mark} {:width$}  {text}", task.name.as_str()));
    }
    for (leaves, steps) in left(tasks) {
        tell(&format!("  stays: {leaves} ({})", steps.join(", ")));
    }
    tell("");
}

/// What stays though its task is taken back, each once, with the steps.
fn left(tasks: &[UndoTask]) -> Vec<(&'static str, Vec<&str>)> {
    let mut left: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for (leaves, task) in tasks.iter().filter_map(|task| Some((task.leaves?, task))) {
        let step = task.name.step();
        match left.iter_mut().find(|(known, _)| *known == leaves) {
            Some((_, steps)) if steps.contains(&step) => {}
            Some((_, steps)) => steps.push(step),
            None => left.push((leaves, vec![step])),
        }
    }
    left
}

fn as_json(task: &UndoTask) -> Value {
    let (action, why) = match &task.action {
        UndoAction::TakeBack => ("undo", None),
        UndoAction::Keep(why) => ("keep", Some(why)),
        UndoAction::Impossible(why) => ("impossible", Some(why)),
    };
    json!({
        "task": task.name, "action": action, "why": why, "change": task.summary, "leaves": task.leaves
    })
}

/// A word for programs, and why not.
pub fn words(undo: &Undoability) -> (&'static str, Option<&str>) {
    match undo {
        Undoability::Nothing => ("nothing", None),
        Undoability::Possible => ("possible", None),
        Undoability::Kept => ("kept", None),
        Undoability::Impossible(why) => ("impossible", Some(why)),
    }
}
