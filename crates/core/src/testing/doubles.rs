//! Step types that do as they are told, on a world in memory that counts what is done to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::engine::Engine;
use crate::inventory::{Host, Inventory};
use crate::plan::{Filter, Inputs, Plan, Request};
use crate::step::{
    Change, Check, Context, Output, Registry, Resolved, Resources, Step, StepError, StepType, UndoError,
};
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
    /// So many of them were told as the latest.
    told: usize,
    faults: Faults,
    taken_back: Vec<String>,
    undo_faults: Faults,
}

type Faults = BTreeMap<String, Vec<Fault>>;

/// What an `apply` or an `undo` does instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and it fails; an undo for good.
    Fail,
    /// It is done, and it fails all the same; an undo for good.
    FailAfterwards,
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

    /// The next undos of a thing, one after another, do this instead.
    pub fn undo_fault(&self, thing: &str, faults: &[Fault]) {
        self.inner().undo_faults.insert(thing.to_owned(), faults.to_vec());
    }

    /// The faults that attempts have not met yet.
    pub fn faults_left(&self) -> Vec<Fault> {
        self.inner().faults.values().flatten().copied().collect()
    }

    /// The faults that undos have not met yet.
    pub fn undo_faults_left(&self) -> Vec<Fault> {
        self.inner().undo_faults.values().flatten().copied().collect()
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

    /// Everything that is there, with its value.
    pub fn there(&self) -> BTreeMap<String, String> {
        self.inner().there.clone()
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

    /// What steps have established since this was last asked, in order.
    pub fn latest(&self) -> Vec<String> {
        let mut inner = self.inner();
        let now = inner.effects.len();
        let told = std::mem::replace(&mut inner.told, now);
        inner.effects[told..].to_vec()
    }

    /// What undos have taken back, in order.
    pub fn taken_back(&self) -> Vec<String> {
        self.inner().taken_back.clone()
    }

    fn establish(&self, thing: &str, value: &str) {
        let mut inner = self.inner();
        inner.there.insert(thing.to_owned(), value.to_owned());
        inner.effects.push(thing.to_owned());
    }

    /// Puts a thing back to what it was, where it is as it was made.
    fn put_back(&self, thing: &str, made: &str, former: Option<&str>) -> Result<(), StepError> {
        let mut inner = self.inner();
        let now = inner.there.get(thing).cloned();
        if now.as_deref() == former {
            return Ok(());
        }
        if now.as_deref() != Some(made) {
            return Err(StepError::permanent("it was changed since"));
        }
        inner.taken_back.push(thing.to_owned());
        match former {
            Some(value) => inner.there.insert(thing.to_owned(), value.to_owned()),
            None => inner.there.remove(thing),
        };
        Ok(())
    }

    /// Establishes a thing, or does what it was told to do instead.
    async fn attempt(&self, thing: &str, value: &str) -> Result<Output, StepError> {
        let fault = next(&mut self.inner().faults, thing);
        let done = act(fault, StepError::failed, || {
            self.establish(thing, value);
            Ok(())
        });
        let output = Output::empty();
        done.await.map(|done| if done { output.with("made", true) } else { output })
    }
}

/// The next fault of a thing.
fn next(faults: &mut Faults, thing: &str) -> Option<Fault> {
    let list = faults.get_mut(thing)?;
    (!list.is_empty()).then(|| list.remove(0))
}

/// Does something, or what a fault says instead; false where nothing was done although it is said so.
async fn act(
    fault: Option<Fault>,
    failed: fn(&'static str) -> StepError,
    act: impl FnOnce() -> Result<(), StepError>,
) -> Result<bool, StepError> {
    match fault {
        None => act().map(|()| true),
        Some(Fault::Fail) => Err(failed("told to fail")),
        Some(Fault::FailAfterwards) => act().and(Err(failed("told to fail afterwards"))),
        Some(Fault::LoseRequest) => Err(StepError::lost("told to lose the request")),
        Some(Fault::LoseAnswer) => act().and(Err(StepError::lost("told to lose the answer"))),
        Some(Fault::Panic) => std::panic::panic_any("told to panic"),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::NoEffect) => Ok(false),
    }
}

fn key(thing: &str, cx: &Context) -> String {
    match cx.inventory_host() {
        Some(host) => format!("{thing}@{}", host.name),
        None => thing.to_owned(),
    }
}

/// `make`: establishes a thing; its undo puts back what was there.
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
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let there = cx.resource::<Arc<World>>()?.value(&key(&self.thing, cx));
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
        world.attempt(&key(&self.thing, cx), &self.value).await
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let world = cx.resource::<Arc<World>>()?;
        let key = key(&self.thing, cx);
        let former: Option<String> = change.data()?;
        let fault = next(&mut world.inner().undo_faults, &key);
        let put_back = || world.put_back(&key, &self.value, former.as_deref());
        act(fault, StepError::permanent, put_back).await?;
        Ok(())
    }
}

impl StepType for Make {
    const NAME: &'static str = "make";
    const UNDOABLE: bool = true;
}

/// `await`: waits for something that is there at once. Changes nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Await {}

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
    registry.add::<Make>().add::<Bare>().add::<Wipe>().add::<Await>();
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
    let inputs = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Request {
        bundle: Bundle::single("test.toml", text),
        inventory: inventory(hosts),
        inputs: Inputs::new(inputs),
        filter: Filter::default(),
    }
}

/// The plan of a workflow's text on hosts, for a [`MemoryStore`](super::MemoryStore).
pub fn plan(engine: &Engine, text: &str, hosts: &[&str]) -> Result<Plan, Diagnostics> {
    Plan::new(request(text, hosts, &[]), engine.registry(), [7; 32])
}
