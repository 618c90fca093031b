//! `flow runs`: the runs of the store.

use flow_core::run::{Event, Outcome, RunId};
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
        rows.push((row, status(&*store, &row.id)?));
    }
    if global.output == Format::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(row, status)| {
                json!({ "id": row.id, "workflow": row.workflow, "started": row.started, "status": status })
            })
            .collect();
        screen::json(&rows);
        return Ok(Exit::Success);
    }
    if rows.is_empty() {
        screen::line("no runs yet");
    }
    for (row, status) in rows {
        let id = short(&all, &row.id);
        screen::line(&format!(
            "{id:6}  {}  {:12}  {}",
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
        Some(Event::RunEnded { outcome }) => outcome_word(*outcome),
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

/// The commands that go on with a run, to be copied: with the store, where it was named on the
/// command line.
pub struct GoOn {
    pub resume: String,
    pub undo: String,
}

impl GoOn {
    pub fn new(global: &Global, all: &[RunRow], id: &RunId) -> Self {
        let id = short(all, id);
        let store = match &global.store {
            Some(store) if std::env::var("FLOW_STORE").ok().as_ref() != Some(store) => {
                format!(" --store {store}")
            }
            _ => String::new(),
        };
        Self { resume: format!("flow resume {id}{store}"), undo: format!("flow undo {id}{store}") }
    }
}

/// Whether something of a run was taken back, so that it can only be taken back further.
pub fn turned_back(store: &dyn Store, run: &RunId) -> Result<bool, Error> {
    let of_undo = |record: &flow_core::run::Record| record.event.is_of_undo();
    Ok(store.events(run)?.iter().any(of_undo))
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
