//! The report of a run: one HTML file that needs nothing else, no network and no JavaScript; for the
//! postmortem. Here it is gathered what the run was; `page` writes it down.

mod page;
mod time;

use std::collections::BTreeMap;

use flow_core::plan::{Definition, Drawing, PinnedParam};
use flow_core::run::{Event, Record};
use flow_core::store::RunRow;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::commands::show::Row;

pub use page::page;

/// All that is told of a run.
pub struct Report<'r> {
    pub row: &'r RunRow,
    /// In the words of `flow runs`.
    pub status: &'static str,
    pub records: &'r [Record],
    pub tasks: &'r BTreeMap<String, Row>,
    /// None where what was pinned can't be read any more.
    pub definition: Option<&'r Definition>,
    pub drawing: Option<&'r Drawing>,
    /// The workflow's, where the run has succeeded.
    pub outputs: Map<String, Value>,
    /// The command that goes on with it.
    pub go_on: String,
}

impl Report<'_> {
    /// From the run's first event to its last.
    fn span(&self) -> (Timestamp, Timestamp) {
        let last = self.records.last().map_or(self.row.started, |record| record.at);
        (self.row.started, last)
    }

    /// Everyone who worked on it, in order, each once.
    fn owners(&self) -> Vec<&str> {
        let mut owners = Vec::new();
        for record in self.records {
            if let Event::RunStarted { owner, .. } | Event::RunResumed { owner, .. } = &record.event
                && !owners.contains(&owner.as_str())
            {
                owners.push(owner.as_str());
            }
        }
        owners
    }

    /// The params as they were pinned; of a secret only where it came from.
    fn params(&self) -> Vec<(&str, String)> {
        let params = self.definition.into_iter().flat_map(|definition| &definition.params);
        params.map(|(name, param)| (name.as_str(), shown(param))).collect()
    }

    /// The tasks in the order in which they were first heard of.
    fn in_order(&self) -> Vec<(&str, &Row)> {
        crate::commands::show::in_order(self.tasks)
    }
}

fn shown(param: &PinnedParam) -> String {
    match param {
        PinnedParam::Value(Value::String(text)) => text.clone(),
        PinnedParam::Value(value) => value.to_string(),
        PinnedParam::Secret { source, .. } => {
            format!("a secret, from {}", serde_json::to_value(source).unwrap_or_default())
        }
    }
}
