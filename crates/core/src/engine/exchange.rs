//! A run in one file, to be looked at elsewhere: its definition and its events as JSON lines, described in
//! docs/run-file.md. What comes in is replayed through the state machine before it is stored.

use std::fmt::Write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{EngineError, read_definition};
use crate::plan::{Definition, Plan};
use crate::run::{Illegal, Record, RunId, RunState};
use crate::step::Registry;
use crate::store::{NewRun, Store, StoreError};

/// Grows with every change of the file's form.
const FORMAT: u64 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    flow_run: u64,
    /// The version that wrote it.
    flow: String,
    id: RunId,
    workflow: String,
    started: Timestamp,
    /// How many lines of events follow.
    events: u64,
    definition: Value,
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct Tail {
    /// Of all lines before, line ends included.
    sha256: String,
}

/// Why a file of a run isn't taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It isn't a run's file, or isn't whole.
    #[error("line {line} can't be read: {message}")]
    Unreadable {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Another version wrote it.
    #[error("it has format {found}, this flow reads {known}", known = FORMAT)]
    OtherFormat {
        /// Its format.
        found: u64,
    },
    /// The checksum is another one.
    #[error("its checksum is wrong: it was damaged or edited")]
    Damaged,
    /// Its workflow can't be expanded by this program.
    #[error("its workflow can't be read by this flow: {0}")]
    Workflow(String),
    /// An event that can't have happened.
    #[error("event {seq} can't be: {source}")]
    History {
        /// The event's number.
        seq: u64,
        /// Why.
        source: Illegal,
    },
    /// The store has a run of that id, and it isn't the same.
    #[error("the store has a run {0} with other content")]
    Other(RunId),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The run.
    pub run: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// How many events it has.
    pub events: usize,
    /// False where the very same run was there already.
    pub new: bool,
}

/// The text of a run's file.
pub fn export(store: &dyn Store, run: &RunId) -> Result<String, EngineError> {
    let row = store.find(run.as_str())?;
    let definition = store.definition(run)?;
    read_definition(run, &definition)?;
    let records = store.events(run)?;
    let broken = |e: serde_json::Error| EngineError::Broken(format!("the run can't be written: {e}"));
    let head = Head {
        flow_run: FORMAT,
        flow: env!("CARGO_PKG_VERSION").to_owned(),
        id: row.id,
        workflow: row.workflow,
        started: row.started,
        events: records.len() as u64,
        definition: serde_json::from_str(&definition).map_err(broken)?,
    };
    let mut text = serde_json::to_string(&head).map_err(broken)? + "\n";
    for record in &records {
        let _ = writeln!(text, "{}", serde_json::to_string(record).map_err(broken)?);
    }
    let tail = serde_json::to_string(&Tail { sha256: digest(&text) }).map_err(broken)?;
    Ok(text + &tail + "\n")
}

/// Takes a run's file into a store. It keeps its id, and can be looked at only.
pub fn import(
    store: &mut dyn Store,
    text: &str,
    registry: &std::sync::Arc<Registry>,
) -> Result<Imported, ImportError> {
    let (head, records) = read(text)?;
    verify(&head, &records, registry)?;
    let run = NewRun {
        id: head.id.clone(),
        workflow: head.workflow.clone(),
        started: head.started,
        definition: head.definition.to_string(),
    };
    let imported =
        Imported { run: head.id.clone(), workflow: head.workflow.clone(), events: records.len(), new: true };
    match store.import(&run, &records) {
        Ok(()) => Ok(imported),
        Err(StoreError::Exists { run: id }) => {
            let same = store.events(&id)? == records
                && serde_json::from_str::<Value>(&store.definition(&id)?).ok().as_ref()
                    == Some(&head.definition);
            if same { Ok(Imported { new: false, ..imported }) } else { Err(ImportError::Other(id)) }
        }
        Err(error) => Err(error.into()),
    }
}

/// The lines of a file, whole and in order.
fn read(text: &str) -> Result<(Head, Vec<Record>), ImportError> {
    let unreadable = |line: usize, message: String| ImportError::Unreadable { line, message };
    let lines: Vec<&str> = text.lines().collect();
    let first: Value =
        serde_json::from_str(lines.first().unwrap_or(&"")).map_err(|e| unreadable(1, e.to_string()))?;
    match first.get("flow_run").and_then(Value::as_u64) {
        Some(FORMAT) => {}
        Some(found) => return Err(ImportError::OtherFormat { found }),
        None => return Err(unreadable(1, "it has no number `flow_run`".to_owned())),
    }
    let head: Head = serde_json::from_value(first).map_err(|e| unreadable(1, e.to_string()))?;
    let count = lines.len();
    let wanted = head.events.saturating_add(2);
    if count as u64 != wanted {
        return Err(unreadable(count, format!("the file has {count} lines, not {wanted}: it isn't whole")));
    }
    let tail: Tail = serde_json::from_str(lines[count - 1]).map_err(|e| unreadable(count, e.to_string()))?;
    let body = &text[..text.rfind(lines[count - 1]).unwrap_or(0)];
    if digest(body) != tail.sha256 {
        return Err(ImportError::Damaged);
    }
    let records = lines[1..count - 1]
        .iter()
        .enumerate()
        .map(|(at, line)| serde_json::from_str(line).map_err(|e| unreadable(at + 2, e.to_string())));
    Ok((head, records.collect::<Result<_, _>>()?))
}

/// Every event must be one that the state allows.
fn verify(head: &Head, records: &[Record], registry: &std::sync::Arc<Registry>) -> Result<(), ImportError> {
    if !RunId::is_well_formed(head.id.as_str()) {
        return Err(ImportError::Unreadable { line: 1, message: format!("`{}` is no run's id", head.id) });
    }
    let definition: Definition = serde_json::from_value(head.definition.clone())
        .map_err(|e| ImportError::Unreadable { line: 1, message: e.to_string() })?;
    let shape = Plan::pinned_shape(definition, registry).map_err(|e| ImportError::Workflow(e.to_string()))?;
    let mut state = RunState::new(shape, &mut Vec::new());
    for (expected, record) in (1..).zip(records) {
        if record.seq != expected {
            let message = format!("event {} stands where event {expected} must", record.seq);
            return Err(ImportError::Unreadable { line: expected as usize + 1, message });
        }
        state
            .apply(&record.event, &mut Vec::new())
            .map_err(|source| ImportError::History { seq: record.seq, source })?;
    }
    Ok(())
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
