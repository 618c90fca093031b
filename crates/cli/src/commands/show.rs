//! `flow show`: where a run stands, from its events alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use flow_core::engine::read_definition;
use flow_core::plan::Plan;
use flow_core::run::{Event, Record, RunId, Settler};
use flow_core::step::Undoability;
use flow_core::store::{RunRow, Store};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::runs::{Next, outcome_word, short, status, waits_for_approval};
use crate::args::{Format, Global, ShowArgs};
use crate::codes::NO_RUN;
use crate::exit::{Error, Exit};
use crate::{context, screen};

/// A task as its events tell it.
#[derive(Default)]
pub struct Row {
    pub state: &'static str,
    pub attempts: u32,
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub change: Option<String>,
    pub diff: Option<String>,
    pub output: Option<Value>,
    pub error: Option<Value>,
    pub message: Option<String>,
    /// Where the plan has it.
    place: usize,
    /// Something of it may be on its host: an attempt was begun, and it wasn't taken back.
    left: bool,
    /// Whether it can be taken back; none where the definition can't be read any more.
    undo: Option<Undoability>,
    pivot: bool,
}

pub fn show(global: &Global, args: &ShowArgs) -> Result<Exit, Error> {
    let store = context::store(global)?;
    let all = store.runs()?;
    let row = match &args.run {
        Some(prefix) => store.find(prefix)?,
        None => all
            .first()
            .cloned()
            .ok_or_else(|| Error::coded(NO_RUN, "there is no run", "`flow run` makes one"))?,
    };
    let records = store.events(&row.id)?;
    let status = status(&*store, &row.id)?;
    let tasks = rows(&*store, &row, &records);
    if global.output == Format::Json {
        screen::json(&as_json(&row, status, &records, &tasks));
        return Ok(Exit::Success);
    }
    let id = short(&all, &row.id);
    screen::line(&format!("run {} ({id}), {}: {status}", row.id, row.workflow));
    for record in &records {
        if let Some(text) = history_line(&record.event) {
            screen::line(&format!("  {}  {text}", screen::local_time(record.at)));
        }
    }
    screen::line("");
    let width = tasks.keys().map(|name| name.len()).max().unwrap_or(0);
    for (name, task) in in_order(&tasks) {
        show_task(name, task, width, args.verbose);
    }
    if store.is_imported(&row.id)? {
        screen::line("\nimported: it can be looked at here, and gone on with only where it was started");
        return Ok(Exit::Success);
    }
    let next = Next::of(global, &all, &row.id);
    let turned_back = records.iter().any(|record| record.event.is_of_undo());
    let unknown = tasks.iter().filter(|(_, task)| matches!(task.state, "unknown" | "undo unknown"));
    let unknown: Vec<String> = unknown.map(|(name, _)| next.command("resolve", name)).collect();
    let waiting = waits_for_approval(&*store, &row.id, status)?;
    let approve = waiting.iter().map(|asked| next.command("approve", asked.task.as_str()));
    let open = matches!(status, "killed" | "failed" | "interrupted" | "undecided");
    let go_on = if turned_back { next.undo() } else { next.resume() };
    for (what, command) in approve
        .map(|command| ("approve with", command))
        .chain(unknown.into_iter().map(|command| ("see what is known with", command)))
        .chain(open.then_some(("go on with", go_on)))
    {
        screen::line(&format!("\n{what}: {command}"));
    }
    if status != "running" && !(open && turned_back) {
        show_undo(&tasks, &next);
    }
    Ok(Exit::Success)
}

/// The state of every task of a run, in this command's words.
pub fn states(store: &dyn Store, row: &RunRow) -> Result<BTreeMap<String, &'static str>, Error> {
    let tasks = rows(store, row, &store.events(&row.id)?);
    Ok(tasks.into_iter().map(|(name, task)| (name, task.state)).collect())
}

/// Every task of a run as its events tell it, those that wait included.
pub fn rows(store: &dyn Store, row: &RunRow, records: &[Record]) -> BTreeMap<String, Row> {
    let mut tasks = fold(records);
    add_waiting(store, row, &mut tasks);
    tasks
}

/// What of it could be taken back, and what not.
fn show_undo(tasks: &BTreeMap<String, Row>, next: &Next) {
    let rows = in_order(tasks);
    let left = rows.iter().filter(|(_, row)| row.left);
    if let Some((name, _)) = left.clone().find(|(_, row)| row.pivot) {
        screen::line(&format!("can't be taken back: {name} was begun, the point of no return"));
        return;
    }
    let can = left.clone().filter(|(_, row)| row.undo == Some(Undoability::Possible)).count();
    if can > 0 {
        screen::line(&format!("take back what {} did: {}", screen::tasks(can), next.undo()));
    }
    // What failed is in nobody's way.
    let mut told = Vec::new();
    for (name, row) in left.filter(|(_, row)| row.state != "failed") {
        let step = name.rsplit_once('@').map_or(*name, |(step, _)| step);
        if let Some(Undoability::Impossible(why)) = &row.undo
            && !told.contains(&step)
        {
            told.push(step);
            screen::line(&format!("can't be taken back: {step}: {why}"));
        }
    }
}

fn show_task(name: &str, task: &Row, width: usize, verbose: bool) {
    let duration = match (task.began, task.ended) {
        (Some(began), Some(ended)) => screen::seconds(began, ended),
        _ => String::new(),
    };
    let attempts = if task.attempts > 1 { format!("  [{} attempts]", task.attempts) } else { String::new() };
    let text = task.message.as_deref().or(task.change.as_deref()).unwrap_or_default();
    screen::line(&format!("{:10}  {name:width$}  {duration:>9}  {text}{attempts}", task.state));
    if !verbose {
        return;
    }
    if let Some(diff) = &task.diff {
        screen::indented(diff, 13);
    }
    if let Some(output) =
        task.output.as_ref().filter(|output| output.as_object().is_some_and(|o| !o.is_empty()))
    {
        show_output(output);
    }
    for (key, before) in [("detail", ""), ("hint", "hint: ")] {
        if let Some(text) = task.error.as_ref().and_then(|error| error[key].as_str()) {
            screen::indented(&format!("{before}{text}"), 13);
        }
    }
}

/// Adds the tasks that no event tells of yet, in the plan's order. A definition that can't be read
/// any more leaves them out: what happened is shown all the same.
fn add_waiting(store: &dyn Store, row: &RunRow, tasks: &mut BTreeMap<String, Row>) {
    let Ok(Ok(definition)) = store.definition(&row.id).map(|text| read_definition(&row.id, &text)) else {
        return;
    };
    let Ok(plan) = Plan::without_secrets(definition, &Arc::new(context::registry())) else { return };
    for (place, info) in plan.tasks().into_iter().enumerate() {
        let task =
            tasks.entry(info.name.to_string()).or_insert_with(|| Row { state: "waiting", ..Row::default() });
        task.place = place;
        task.undo = Some(info.undo);
        task.pivot = info.pivot;
    }
}

/// An output field by field; what is empty says nothing.
fn show_output(output: &Value) {
    for (name, value) in output.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::String(text) if text.lines().count() > 1 => {
                screen::indented(&format!("{name}:"), 13);
                screen::indented(text, 15);
            }
            Value::String(text) => screen::indented(&format!("{name}: {text}"), 13),
            Value::Object(_) | Value::Array(_) => screen::indented(&format!("{name}: {value:#}"), 13),
            value => screen::indented(&format!("{name}: {value}"), 13),
        }
    }
}

fn history_line(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { owner, .. } => format!("started by {owner}"),
        Event::RunResumed { owner, epoch } => format!("resumed by {owner} (epoch {epoch})"),
        Event::UndoStarted { owner, epoch } => format!("taken back by {owner} (epoch {epoch})"),
        Event::RunInterrupted { at_once: false } => "asked to stop".to_owned(),
        Event::RunInterrupted { at_once: true } => "asked to stop at once".to_owned(),
        Event::TaskDone { task, by: Some(Settler::Operator(who)), .. } => {
            format!("{task} settled as done by {who}")
        }
        Event::TaskNotDone { task, by: Settler::Operator(who), .. } => {
            format!("{task} settled as not done by {who}")
        }
        Event::TaskApproved { task, by, .. } => format!("{task} approved by {by}"),
        Event::TaskRejected { task, by, reason: None, .. } => format!("{task} rejected by {by}"),
        Event::TaskRejected { task, by, reason: Some(reason), .. } => {
            format!("{task} rejected by {by}: {reason}")
        }
        Event::TaskUndone { task, by: Some(Settler::Operator(who)), .. } => {
            format!("{task} settled as taken back by {who}")
        }
        Event::UndoNotDone { task, by: Settler::Operator(who), .. } => {
            format!("{task} settled as not taken back by {who}")
        }
        Event::RunEnded { outcome, error } => {
            let word = outcome_word(*outcome);
            error.as_ref().map_or_else(|| word.to_owned(), |error| format!("{word}: {}", error.message))
        }
        _ => return None,
    })
}

/// Tasks in the order in which they were first heard of.
pub fn in_order(tasks: &BTreeMap<String, Row>) -> Vec<(&str, &Row)> {
    let mut rows: Vec<(&str, &Row)> = tasks.iter().map(|(name, row)| (name.as_str(), row)).collect();
    rows.sort_by_key(|(_, row)| {
        let heard = row.began.or(row.ended);
        (heard.is_none(), heard, row.place)
    });
    rows
}

fn fold(records: &[Record]) -> BTreeMap<String, Row> {
    let mut tasks: BTreeMap<String, Row> = BTreeMap::new();
    for Record { at, event, .. } in records {
        let Some(name) = event.task() else { continue };
        let row = tasks.entry(name.to_string()).or_default();
        row.ended = Some(*at);
        match event {
            Event::TaskSkipped { why, .. } => {
                row.state = "skipped";
                row.message = Some(why.clone());
            }
            Event::TaskSatisfied { output, .. } => {
                row.state = "ok";
                row.output = Some(json!(output));
            }
            Event::HostsChosen { hosts, .. } => {
                row.state = "ok";
                row.output = Some(json!({ "hosts": hosts }));
                row.message = Some(format!("in this order: {}", hosts.join(", ")));
            }
            Event::TaskIntended { attempt, change, .. } => {
                row.state = "begun";
                row.attempts = *attempt;
                row.left = true;
                row.began.get_or_insert(*at);
                row.ended = None;
                row.change = Some(change.summary.clone());
                row.diff.clone_from(&change.diff);
                row.message = None;
            }
            Event::TaskDone { output, .. } => {
                row.state = "changed";
                row.output = Some(json!(output));
                row.error = None;
            }
            Event::TaskFailed { attempt, error, retry_in_ms, .. } => {
                row.state = if retry_in_ms.is_some() { "retrying" } else { "failed" };
                row.attempts = *attempt;
                row.message = Some(error.message.clone());
                row.error = Some(json!(error));
            }
            Event::TaskUnknown { error, .. } => {
                row.state = "unknown";
                row.message = Some(error.message.clone());
                row.error = Some(json!(error));
            }
            Event::TaskNotDone { .. } => {
                row.state = "not done";
                row.message = Some("an attempt was begun and had no effect".to_owned());
            }
            Event::TaskAsked { attempt, message, .. } => {
                row.state = "asked";
                row.attempts = *attempt;
                row.began.get_or_insert(*at);
                row.ended = None;
                row.message = Some(message.clone());
            }
            Event::TaskApproved { by, when, .. } => {
                row.state = "approved";
                row.output = Some(json!({ "by": by, "at": when }));
                row.message = Some(format!("by {by}"));
            }
            Event::TaskRejected { by, reason, .. } => {
                row.state = "rejected";
                row.message =
                    Some(reason.as_ref().map_or(format!("by {by}"), |why| format!("by {by}: {why}")));
            }
            Event::UndoIntended { .. } => {
                row.state = "undoing";
                row.message = None;
            }
            Event::TaskUndone { .. } => {
                (row.state, row.left) = ("undone", false);
                row.error = None;
            }
            Event::TaskKept { why, .. } => {
                (row.state, row.left) = ("kept", false);
                row.message = Some(why.clone());
            }
            Event::UndoFailed { error, .. } | Event::UndoUnknown { error, .. } => {
                let unknown = matches!(event, Event::UndoUnknown { .. });
                row.state = if unknown { "undo unknown" } else { "not undone" };
                row.message = Some(error.message.clone());
                row.error = Some(json!(error));
            }
            Event::UndoNotDone { .. } => {
                row.state = "not undone";
                row.message = Some("an undo was begun and cut short".to_owned());
            }
            _ => {}
        }
    }
    tasks
}

fn as_json(row: &RunRow, status: &str, records: &[Record], tasks: &BTreeMap<String, Row>) -> Value {
    let id: &RunId = &row.id;
    let tasks: Vec<Value> = in_order(tasks)
        .into_iter()
        .map(|(name, task)| {
            let undo = task.undo.as_ref().map(screen::undo::words);
            json!({
                "task": name, "state": task.state, "attempts": task.attempts, "began": task.began,
                "ended": task.ended, "change": task.change, "output": task.output, "error": task.error,
                "undo": undo.map(|(word, _)| word), "not_undoable": undo.and_then(|(_, why)| why),
                "pivot": task.pivot, "left": task.left,
            })
        })
        .collect();
    json!({
        "id": id, "workflow": row.workflow, "started": row.started, "status": status,
        "tasks": tasks, "events": records,
    })
}
