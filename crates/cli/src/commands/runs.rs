//! `flow runs`: the runs of the store.

use flow_core::run::{Asked, Event, Outcome, RunId};
use flow_core::store::{RunRow, Store};
use serde_json::json;

use crate::args::{Format, Global, RunsArgs};
use crate::exit::{Error, Exit};
use crate::{context, screen};

pub fn runs(global: &Global, args: &RunsArgs) -> Result<Exit, Error> {
    let store = context::store(global)?;
    let all = store.runs()?;
    let shown = &all[..all.len().min(args.count)];
    let mut rows = Vec::new();
    for row in shown {
        let status = status(&*store, &row.id)?;
        rows.push((row, status, waits_for_approval(&*store, &row.id, status)?));
    }
    if global.output == Format::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(row, status, waiting)| {
                let waiting: Vec<_> = waiting.iter().map(|asked| &asked.task).collect();
                json!({
                    "id": row.id, "workflow": row.workflow, "started": row.started, "status": status,
                    "waits_for_approval": waiting,
                })
            })
            .collect();
        screen::json(&rows);
        return Ok(Exit::Success);
    }
    if rows.is_empty() {
        screen::line("no runs yet");
    }
    for (row, status, waiting) in rows {
        let waits = match waiting.as_slice() {
            [] => String::new(),
            waiting => format!("  waits for approval: {}", names(waiting)),
        };
        let id = short(&all, &row.id);
        screen::line(&format!(
            "{id:6}  {}  {:12}  {}{waits}",
            screen::local_time(row.started),
            status,
            row.workflow
        ));
    }
    if all.len() > shown.len() {
        screen::line(&format!("... and {} more: --count {}", all.len() - shown.len(), all.len()));
    }
    Ok(Exit::Success)
}

/// One word for how a run stands.
pub fn status(store: &dyn Store, run: &RunId) -> Result<&'static str, Error> {
    let last = store.last_events(run, 1)?;
    Ok(match last.first().map(|record| &record.event) {
        Some(Event::RunEnded { outcome, .. }) => outcome_word(*outcome),
        // Nobody here can tell what has become of it since.
        _ if store.is_imported(run)? => "elsewhere",
        // Who works on a run holds its claim; if nobody does, it was killed.
        _ => match store.claim(run, "flow runs") {
            Ok(_) => "killed",
            Err(_) => "running",
        },
    })
}

pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Interrupted => "interrupted",
        Outcome::Undecided => "undecided",
        Outcome::Refused => "refused",
        Outcome::Undone => "undone",
    }
}

/// Commands on a run, to be copied: with the store and the plugins' folders that were named on the command line.
pub struct Next {
    id: String,
    more: String,
}

impl Next {
    /// For the run of that id, among all of the store.
    pub fn of(global: &Global, all: &[RunRow], id: &RunId) -> Self {
        let store = match &global.store {
            Some(store) if std::env::var("FLOW_STORE").ok().as_ref() != Some(store) => {
                format!(" --store {store}")
            }
            _ => String::new(),
        };
        let plugins: String =
            global.plugins.iter().map(|folder| format!(" --plugins {}", folder.display())).collect();
        Self { id: short(all, id).to_owned(), more: store + &plugins }
    }

    /// `flow VERB RUN REST`
    pub fn command(&self, verb: &str, rest: &str) -> String {
        let blank = if rest.is_empty() { "" } else { " " };
        format!("flow {verb} {}{blank}{rest}{}", self.id, self.more)
    }

    /// The command that goes on with it.
    pub fn resume(&self) -> String {
        self.command("resume", "")
    }

    /// The command that takes it back, or goes on with that.
    pub fn undo(&self) -> String {
        self.command("undo", "")
    }
}

/// Whether something of a run was taken back, so that it can only be taken back further.
pub fn turned_back(store: &dyn Store, run: &RunId) -> Result<bool, Error> {
    let of_undo = |record: &flow_core::run::Record| record.event.is_of_undo();
    Ok(store.events(run)?.iter().any(of_undo))
}

/// What of a run waits for approval and wasn't answered yet; nothing while it is being taken back. Its
/// events are read only where its workflow uses a step type that asks.
pub fn waits_for_approval(store: &dyn Store, run: &RunId, status: &str) -> Result<Vec<Asked>, Error> {
    let over = matches!(status, "succeeded" | "undone" | "refused");
    let registry = context::registry();
    let mut gates = registry.iter().filter(|info| info.gate).map(|info| info.name.clone());
    if over || !store.definition(run).is_ok_and(|text| gates.any(|gate| text.contains(&gate))) {
        return Ok(Vec::new());
    }
    let answered: Vec<_> =
        store.signals(run)?.into_iter().map(|(_, signal)| (signal.task, signal.attempt)).collect();
    let (mut waiting, mut undoing) = (Vec::new(), false);
    store.scan(run, &mut |record| {
        Asked::follow(&mut waiting, &record);
        match record.event {
            Event::UndoStarted { .. } => undoing = true,
            Event::RunResumed { .. } => undoing = false,
            _ => {}
        }
        true
    })?;
    waiting.retain(|asked| !undoing && !answered.contains(&(asked.task.clone(), asked.attempt)));
    Ok(waiting)
}

/// The names of tasks, one after another.
pub fn names(asked: &[Asked]) -> String {
    asked.iter().map(|asked| asked.task.as_str()).collect::<Vec<_>>().join(", ")
}

/// The shortest beginning of an id, at least four characters, that no other run has.
pub fn short<'r>(all: &[RunRow], id: &'r RunId) -> &'r str {
    let text = id.as_str();
    let unique = |length: &usize| {
        all.iter().all(|row| row.id == *id || !row.id.as_str().starts_with(&text[..*length]))
    };
    let length = (4..=text.len()).find(unique).unwrap_or(text.len());
    &text[..length]
}
