//! Step types that do as they are told, on a world in memory that counts what is done to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::engine::Engine;
use crate::inventory::{Host, Inventory};
use crate::plan::{Filter, Inputs, Plan, Request};
use crate::step::{Change, Check, Context, Output, Registry, Resolved, Resources, Step, StepError, StepType};
use crate::workflow::{Bundle, Diagnostics};

/// What the doubles have established, and how often. Outlives the engines that work on it.
///
/// A thing is known by its name; where a host makes it, by `NAME@HOST`.
#[derive(Default)]
pub struct World(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    there: BTreeMap<String, String>,
    effects: Vec<String>,
    faults: BTreeMap<String, Vec<Fault>>,
}

/// What an `apply` does instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and it fails.
    Fail,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// Nothing is done, and the answer is lost.
    LoseRequest,
    /// It panics.
    Panic,
    /// Nothing is done, and no answer ever comes.
    Hang,
    /// Nothing is done, and it says that it was.
    NoEffect,
}

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next attempts at a thing, one after another, do this instead: `&[Fault::Fail; 3]` fails
    /// three times.
    pub fn fault(&self, thing: &str, faults: &[Fault]) {
        self.inner().faults.insert(thing.to_owned(), faults.to_vec());
    }

    /// Establishes a thing by hand, which is no effect: a step that is to make it is satisfied.
    pub fn put(&self, thing: &str, value: &str) {
        self.inner().there.insert(thing.to_owned(), value.to_owned());
    }

    /// Takes a thing away by hand.
    pub fn remove(&self, thing: &str) {
        self.inner().there.remove(thing);
    }

    /// A thing's value, where it is there.
    pub fn value(&self, thing: &str) -> Option<String> {
        self.inner().there.get(thing).cloned()
    }

    /// How often steps have established a thing.
    pub fn count(&self, thing: &str) -> u32 {
        self.inner().effects.iter().filter(|effect| *effect == thing).count() as u32
    }

    /// How often steps have established anything.
    pub fn total(&self) -> u32 {
        self.inner().effects.len() as u32
    }

    /// What steps have established, in order.
    pub fn order(&self) -> Vec<String> {
        self.inner().effects.clone()
    }

    fn next_fault(&self, thing: &str) -> Option<Fault> {
        let mut inner = self.inner();
        let list = inner.faults.get_mut(thing)?;
        (!list.is_empty()).then(|| list.remove(0))
    }

    fn establish(&self, thing: &str, value: &str) {
        let mut inner = self.inner();
        inner.there.insert(thing.to_owned(), value.to_owned());
        inner.effects.push(thing.to_owned());
    }

    /// Establishes a thing, or does what it was told to do instead.
    async fn attempt(&self, thing: &str, value: &str) -> Result<Output, StepError> {
        match self.next_fault(thing) {
            Some(Fault::Fail) => return Err(StepError::failed("told to fail")),
            Some(Fault::LoseRequest) => return Err(StepError::lost("told to lose the request")),
            Some(Fault::LoseAnswer) => {
                self.establish(thing, value);
                return Err(StepError::lost("told to lose the answer"));
            }
            Some(Fault::Panic) => std::panic::panic_any("told to panic"),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::NoEffect) => return Ok(Output::empty()),
            None => {}
        }
        self.establish(thing, value);
        Ok(Output::empty().with("made", true))
    }
}

fn key(thing: &str, cx: &Context) -> String {
    match cx.inventory_host() {
        Some(host) => format!("{thing}@{}", host.name),
        None => thing.to_owned(),
    }
}

/// `make`: establishes a thing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Make {
    /// Its name; on a host, `NAME@HOST`.
    pub thing: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

#[async_trait]
impl Step for Make {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let there = cx.resource::<Arc<World>>()?.value(&key(&self.thing, cx));
        Ok(match there {
            Some(value) if value == self.value => Check::Satisfied(Output::empty().with("value", value)),
            other => Check::Pending(Change::new(format!("{other:?} -> {}", self.value))),
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let world = cx.resource::<Arc<World>>()?;
        world.attempt(&key(&self.thing, cx), &self.value).await
    }
}

impl StepType for Make {
    const NAME: &'static str = "make";
}

/// `bare`: a bare command. Nothing can be looked at, so nothing is known after a crash.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bare {
    /// What is counted.
    pub thing: String,
}

#[async_trait]
impl Step for Bare {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        Ok(Check::Pending(Change::new("a command is run")))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let world = cx.resource::<Arc<World>>()?;
        world.attempt(&key(&self.thing, cx), "").await.map(|_| Output::empty())
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

/// `wipe`: the same as `make`, but destructive.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Wipe(Make);

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

/// The doubles.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add::<Make>().add::<Bare>().add::<Wipe>();
    registry
}

/// An engine with the doubles on a world.
pub fn engine(world: &Arc<World>) -> Engine {
    let mut resources = Resources::default();
    resources.insert(Arc::clone(world));
    Engine::new(registry()).with_resources(resources)
}

/// An inventory of hosts without variables, all in the groups `all` and `nodes`.
pub fn inventory(hosts: &[&str]) -> Inventory {
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

/// A workflow's text with hosts and params.
pub fn request(text: &str, hosts: &[&str], set: &[(&str, &str)]) -> Request {
    let inputs = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request {
        bundle: Bundle::single("test.toml", text),
        inventory: inventory(hosts),
        inputs: Inputs(inputs),
        filter: Filter::default(),
    }
}

/// The plan of a workflow's text on hosts, for a [`MemoryStore`](super::MemoryStore).
pub fn plan(engine: &Engine, text: &str, hosts: &[&str]) -> Result<Plan, Diagnostics> {
    Plan::new(request(text, hosts, &[]), engine.registry(), [7; 32])
}
