//! The doubles of `flow_core::testing` on a real SQLite store.

use std::path::Path;

use flow_core::engine::{Engine, Report, RunHandle, UndoOptions};
use flow_core::plan::Plan;
use flow_core::run::{Event, RunId};
use flow_core::store::{SqliteStore, Store};
pub(crate) use flow_core::testing::{Fault, World, engine, inventory, registry, request};

pub(crate) fn plan(engine: &Engine, text: &str, hosts: &[&str]) -> Plan {
    // What flow takes, an editor takes too.
    let schema = flow_core::workflow::json_schema(engine.registry());
    let document = serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap();
    jsonschema::draft7::new(&schema).unwrap().validate(&document).unwrap_or_else(|e| panic!("{e}"));
    flow_core::testing::plan(engine, text, hosts).unwrap_or_else(|e| panic!("{e}"))
}

/// The names of a plan's tasks, in their order.
pub(crate) fn names(plan: &Plan) -> Vec<String> {
    plan.tasks().iter().map(|task| task.name.to_string()).collect()
}

pub(crate) fn store(folder: &Path) -> Box<dyn Store> {
    Box::new(SqliteStore::open(&folder.join("runs.db")).unwrap())
}

/// Lets a run go to its end.
pub(crate) async fn finish(mut handle: RunHandle) -> (Report, Vec<Event>) {
    let mut events = Vec::new();
    while let Some(notice) = handle.notices.recv().await {
        if let flow_core::engine::Notice::Event(record) = notice {
            events.push(record.event);
        }
    }
    (handle.wait().await.unwrap(), events)
}

/// Takes a run back.
pub(crate) fn undo(engine: &Engine, folder: &Path, run: &RunId, options: &UndoOptions) -> RunHandle {
    engine.open(store(folder), run, None).unwrap().undo(options).unwrap()
}

pub(crate) fn resume(engine: &Engine, folder: &Path, run: &RunId) -> RunHandle {
    engine.open(store(folder), run, None).unwrap().resume().unwrap()
}
