//! What a run that has ended gave, from its definition and its events alone: nothing is asked of any host, and no secret
//! is read.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::EngineError;
use super::session::Past;
use crate::plan::{Definition, Plan, Scope};
use crate::run::{Record, RunId};
use crate::step::Registry;

/// The workflow's `[outputs]` as a run's events give them, secrets masked. One that can't be evaluated is left out.
///
/// # Errors
/// A definition that this program can't read, or events that can't be.
pub fn outputs_of(
    definition: Definition,
    run: &RunId,
    started: Timestamp,
    records: &[Record],
    registry: &Arc<Registry>,
) -> Result<Map<String, Value>, EngineError> {
    let mut past = Past::of(Plan::without_secrets(definition, registry)?);
    for record in records {
        past.take(run, record.clone())?;
    }
    let (plan, outputs) = (Arc::new(past.plan), past.outputs);
    Ok(Scope { plan, frame: 0, host: None, item: None, outputs, run: run.clone(), started, missed: None }
        .outputs())
}
