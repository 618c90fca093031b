//! A world in memory for engine tests: step types that count what they do and can be told to fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flow_core::engine::{Engine, Report, RunHandle, UndoOptions};
use flow_core::inventory::{Host, Inventory};
use flow_core::plan::{Filter, Inputs, Plan, Request};
use flow_core::run::{Event, RunId};
use flow_core::step::{
    Change, Check, Context, Output, Registry, Resolved, Resources, Step, StepError, StepType, UndoError,
};
use flow_core::store::{SqliteStore, Store};
use flow_core::workflow::Bundle;
use schemars::JsonSchema;
use serde::Deserialize;

/// What is established, and how often each thing was done.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) there: Mutex<BTreeMap<String, String>>,
    pub(crate) effects: Mutex<BTreeMap<String, u32>>,
    /// What the next applies of a thing do instead.
    pub(crate) faults: Mutex<BTreeMap<String, Vec<Fault>>>,
    pub(crate) order: Mutex<Vec<String>>,
    /// What was taken back, in order.
    pub(crate) undone: Mutex<Vec<String>>,
    /// What the next undos of a thing do instead.
    pub(crate) undo_faults: Mutex<BTreeMap<String, Vec<Fault>>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Fail,
    /// It does its work, and fails all the same.
    FailAfterwards,
    LoseAnswer,
    LoseRequest,
    Panic,
    Hang,
    NoEffect,
}

impl World {
    pub(crate) fn fault(&self, thing: &str, faults: &[Fault]) {
        self.faults.lock().unwrap().insert(thing.to_owned(), faults.to_vec());
    }

    pub(crate) fn count(&self, thing: &str) -> u32 {
        self.effects.lock().unwrap().get(thing).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u32 {
        self.effects.lock().unwrap().values().sum()
    }

    pub(crate) fn undo_fault(&self, thing: &str, faults: &[Fault]) {
        self.undo_faults.lock().unwrap().insert(thing.to_owned(), faults.to_vec());
    }

    pub(crate) fn taken_back(&self) -> Vec<String> {
        self.undone.lock().unwrap().clone()
    }

    fn next_fault(&self, thing: &str) -> Option<Fault> {
        Self::next_of(&self.faults, thing)
    }

    fn next_of(faults: &Mutex<BTreeMap<String, Vec<Fault>>>, thing: &str) -> Option<Fault> {
        let mut faults = faults.lock().unwrap();
        let list = faults.get_mut(thing)?;
        (!list.is_empty()).then(|| list.remove(0))
    }

    fn establish(&self, thing: &str, value: &str) {
        self.there.lock().unwrap().insert(thing.to_owned(), value.to_owned());
        *self.effects.lock().unwrap().entry(thing.to_owned()).or_default() += 1;
        self.order.lock().unwrap().push(thing.to_owned());
    }
}

/// Establishes a thing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Make {
    /// Its name; on a host, `NAME@HOST`.
    pub(crate) thing: String,
    /// Its value.
    #[serde(default)]
    pub(crate) value: String,
}

impl Make {
    fn key(&self, cx: &Context) -> String {
        match cx.inventory_host() {
            Some(host) => format!("{}@{}", self.thing, host.name),
            None => self.thing.clone(),
        }
    }
}

#[async_trait]
impl Step for Make {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let world = cx.resource::<Arc<World>>()?;
        let there = world.there.lock().unwrap().get(&self.key(cx)).cloned();
        Ok(match there {
            Some(value) if value == self.value => Check::Satisfied(Output::empty().with("value", value)),
            other => {
                let words = format!("{other:?} -> {}", self.value);
                Check::Pending(Change::new(words).with_data(other))
            }
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let world = cx.resource::<Arc<World>>()?;
        let key = self.key(cx);
        match world.next_fault(&key) {
            Some(Fault::Fail) => return Err(StepError::failed("told to fail")),
            Some(Fault::FailAfterwards) => {
                world.establish(&key, &self.value);
                return Err(StepError::failed("told to fail afterwards"));
            }
            Some(Fault::LoseRequest) => return Err(StepError::lost("told to lose the request")),
            Some(Fault::LoseAnswer) => {
                world.establish(&key, &self.value);
                return Err(StepError::lost("told to lose the answer"));
            }
            Some(Fault::Panic) => panic!("told to panic"),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::NoEffect) => return Ok(Output::empty()),
            None => {}
        }
        world.establish(&key, &self.value);
        Ok(Output::empty().with("made", true))
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let world = cx.resource::<Arc<World>>()?;
        let key = self.key(cx);
        let former: Option<String> = change.data()?;
        let put_back = || {
            let mut there = world.there.lock().unwrap();
            let now = there.get(&key).cloned();
            if now == former {
                return Ok(());
            }
            if now.as_deref() != Some(&*self.value) {
                return Err(StepError::permanent("it was changed since"));
            }
            world.undone.lock().unwrap().push(key.clone());
            match &former {
                Some(value) => drop(there.insert(key.clone(), value.clone())),
                None => drop(there.remove(&key)),
            }
            Ok(())
        };
        match World::next_of(&world.undo_faults, &key) {
            Some(Fault::Fail) => return Err(StepError::permanent("told to fail").into()),
            Some(Fault::FailAfterwards) => {
                put_back()?;
                return Err(StepError::permanent("told to fail afterwards").into());
            }
            Some(Fault::LoseRequest) => return Err(StepError::lost("told to lose the request").into()),
            Some(Fault::LoseAnswer) => {
                put_back()?;
                return Err(StepError::lost("told to lose the answer").into());
            }
            Some(Fault::Panic) => panic!("told to panic"),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::NoEffect) => return Ok(()),
            None => {}
        }
        Ok(put_back()?)
    }
}

impl StepType for Make {
    const NAME: &'static str = "make";
    const UNDOABLE: bool = true;
}

/// Waits for something that is there at once. Changes nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Await {}

#[async_trait]
impl Step for Await {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        Ok(Check::Pending(Change::new("wait")))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }

    fn verifiable(&self) -> bool {
        false
    }
}

impl StepType for Await {
    const NAME: &'static str = "await";
    const WAITS: bool = true;
}

/// A bare command: nothing can be looked at, so nothing is known after a crash.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bare {
    /// What is counted.
    pub(crate) thing: String,
}

#[async_trait]
impl Step for Bare {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        Ok(Check::Pending(Change::new("a command is run")))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let world = cx.resource::<Arc<World>>()?;
        match world.next_fault(&self.thing) {
            Some(Fault::LoseAnswer) => Err(StepError::lost("told to lose the answer")),
            Some(Fault::Hang) => std::future::pending().await,
            _ => {
                world.establish(&self.thing, "");
                Ok(Output::empty())
            }
        }
    }

    fn verifiable(&self) -> bool {
        false
    }

    async fn resolve(&self, _cx: &Context, _change: &Change) -> Result<Resolved, StepError> {
        Ok(Resolved::Unknown("a bare command leaves nothing to look at".to_owned()))
    }
}

impl StepType for Bare {
    const NAME: &'static str = "bare";
}

/// The same as `make`, but destructive.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Wipe(Make);

#[async_trait]
impl Step for Wipe {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        self.0.check(cx).await
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        self.0.apply(cx, change).await
    }
}

impl StepType for Wipe {
    const NAME: &'static str = "wipe";
    const DESTRUCTIVE: bool = true;
}

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add::<Make>().add::<Bare>().add::<Wipe>().add::<Await>();
    registry
}

pub(crate) fn engine(world: &Arc<World>) -> Engine {
    let mut resources = Resources::default();
    resources.insert(Arc::clone(world));
    Engine::new(registry()).with_resources(resources)
}

pub(crate) fn inventory(hosts: &[&str]) -> Inventory {
    let mut inventory = Inventory::default();
    for name in hosts {
        let host = Host { name: (*name).to_owned(), ..Host::default() };
        inventory.hosts.insert((*name).to_owned(), host.into());
    }
    let all: Vec<String> = hosts.iter().map(|name| (*name).to_owned()).collect();
    inventory.groups.insert("all".to_owned(), all.clone());
    inventory.groups.insert("nodes".to_owned(), all);
    inventory
}

pub(crate) fn request(text: &str, hosts: &[&str], set: &[(&str, &str)]) -> Request {
    let inputs = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Request {
        bundle: Bundle::single("test.toml", text),
        inventory: inventory(hosts),
        inputs: Inputs(inputs),
        filter: Filter::default(),
    }
}

pub(crate) fn plan(engine: &Engine, text: &str, hosts: &[&str]) -> Plan {
    // What flow takes, an editor takes too.
    let schema = flow_core::workflow::json_schema(engine.registry());
    let document = serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap();
    jsonschema::draft7::new(&schema).unwrap().validate(&document).unwrap_or_else(|e| panic!("{e}"));
    Plan::new(request(text, hosts, &[]), engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"))
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
