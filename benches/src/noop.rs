//! Steps that do nothing, plans of many of them, and a store that keeps nothing: what is left is the
//! engine's own cost.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use flow_core::engine::Engine;
use flow_core::inventory::{Host, Inventory};
use flow_core::plan::{Filter, Inputs, Plan, Request};
use flow_core::run::{Record, RunId};
use flow_core::step::{Change, Check, Context, Output, Registry, Step, StepError, StepType};
use flow_core::store::{Claim, NewRun, RunRow, Signal, Store, StoreError};
use flow_core::workflow::Bundle;
use schemars::JsonSchema;
use serde::Deserialize;

/// Does nothing, with an intent and a result.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Noop {}

#[async_trait]
impl Step for Noop {
    async fn check(&self, _: &Context) -> Result<Check, StepError> {
        Ok(Check::Pending(Change::new("nothing -> nothing")))
    }

    async fn apply(&self, _: &Context, _: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }

    fn verifiable(&self) -> bool {
        false
    }
}

impl StepType for Noop {
    const NAME: &'static str = "noop";
}

/// An engine that knows the step type `noop`.
pub fn engine() -> Engine {
    let mut registry = Registry::new();
    registry.add::<Noop>();
    Engine::new(registry)
}

/// So many tasks: steps on as many hosts, the steps in a row (host after host) or all ready at once.
pub fn plan_of(engine: &Engine, tasks: usize, in_a_row: bool) -> Plan {
    let steps = tasks.isqrt();
    let hosts = tasks / steps;
    let mut text = String::from("name = \"noop\"\nsummary = \"Nothing, often.\"\n");
    for step in 0..steps {
        let _ = writeln!(text, "[steps.s{step}]\nuses = \"noop\"\nhosts = \"all\"");
        if in_a_row {
            let _ = writeln!(text, "serial = 1");
            if step > 0 {
                let _ = writeln!(text, "needs = [\"s{}\"]", step - 1);
            }
        }
    }
    let names: Vec<String> = (0..hosts).map(|n| format!("host{n}")).collect();
    let host = |name: &String| (name.clone(), Arc::new(Host { name: name.clone(), ..Host::default() }));
    let inventory = Inventory {
        hosts: names.iter().map(host).collect(),
        groups: [("all".to_owned(), names.clone()), ("ungrouped".to_owned(), names)].into_iter().collect(),
        ..Inventory::default()
    };
    let request = Request {
        bundle: Bundle::single("noop.toml", &text),
        inventory,
        inputs: Inputs::default(),
        filter: Filter::default(),
    };
    Plan::new(request, engine.registry(), [0; 32]).expect("it is a workflow")
}

/// Keeps nothing.
#[derive(Default)]
pub struct MemoryStore {
    run: Option<NewRun>,
}

struct Mine;

impl Claim for Mine {}

impl Store for MemoryStore {
    fn post(&mut self, _: &RunId, _: &Signal) -> Result<(), StoreError> {
        Ok(())
    }

    fn signals(&self, _: &RunId) -> Result<Vec<(i64, Signal)>, StoreError> {
        Ok(Vec::new())
    }

    fn take_off(&mut self, _: &RunId, _: i64) -> Result<(), StoreError> {
        Ok(())
    }

    fn create(&mut self, run: &NewRun) -> Result<(), StoreError> {
        self.run = Some(run.clone());
        Ok(())
    }

    fn append(&mut self, _: &RunId, _: &[Record]) -> Result<(), StoreError> {
        Ok(())
    }

    fn definition(&self, run: &RunId) -> Result<String, StoreError> {
        self.run
            .as_ref()
            .map(|run| run.definition.clone())
            .ok_or_else(|| StoreError::NoRun(format!("there is no run {run}")))
    }

    fn scan(&self, _: &RunId, _: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn last_events(&self, _: &RunId, _: usize) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        Ok(Vec::new())
    }

    fn find(&self, prefix: &str) -> Result<RunRow, StoreError> {
        Err(StoreError::NoRun(prefix.to_owned()))
    }

    fn claim(&self, _: &RunId, _: &str) -> Result<Box<dyn Claim>, StoreError> {
        Ok(Box::new(Mine))
    }

    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError> {
        Ok([0; 32])
    }
}
