//! What expressions see: `params`, `steps`, `host`, `vars`, `groups`, `hostvars`, `run` and the
//! function `group_var`. Everything is looked up when it is asked for, so that a task of a large plan
//! costs what it uses and no more.

use std::fmt;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectExt, Serde, Value as Jinja, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Value;

use super::{Part, Plan, Step};
use crate::inventory::{Host, Inventory};
use crate::run::RunId;
use crate::step::{Output, Renderer, StepError};
use crate::workflow::Item;
use crate::workflow::expr::ExprError;

/// A value as expressions see it.
pub(super) fn to_jinja(value: impl serde::Serialize) -> Jinja {
    Jinja::from(Serde(value))
}

/// The outputs of tasks: each is set once, by the scheduler, before anything that needs it starts.
pub struct Outputs(Vec<OnceLock<Output>>);

impl Outputs {
    /// No outputs yet, for a plan of so many nodes.
    pub fn new(nodes: usize) -> Self {
        Self((0..nodes).map(|_| OnceLock::new()).collect())
    }

    /// Sets a task's output. A second one is ignored.
    pub(crate) fn set(&self, node: u32, output: Output) {
        let _ = self.0[node as usize].set(output);
    }

    pub(crate) fn is_unset(&self, node: usize) -> bool {
        self.get(node).is_none()
    }

    pub(crate) fn get(&self, node: usize) -> Option<&Output> {
        self.0.get(node)?.get()
    }
}

/// A frame and a host, and how to look names up there.
#[derive(Clone)]
pub struct Scope {
    pub(crate) plan: Arc<Plan>,
    pub(crate) frame: usize,
    pub(crate) host: Option<Arc<Host>>,
    /// The item of a step with `foreach`.
    pub(crate) item: Option<Arc<Item>>,
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) run: RunId,
    pub(crate) started: jiff::Timestamp,
    /// Gets the first node whose output was asked for and isn't there.
    pub(crate) missed: Option<Arc<OnceLock<usize>>>,
}

impl Scope {
    /// The value of a text of the document.
    pub(crate) fn text(&self, text: &str) -> Result<Value, ExprError> {
        self.plan.evaluator.text(text, &self.root())
    }

    /// The value of a bare expression.
    pub(crate) fn expression(&self, text: &str) -> Result<Value, ExprError> {
        self.plan.evaluator.expression(text, &self.root())
    }

    /// The declared outputs of this frame's workflow, secrets masked. One that can't be evaluated, since a
    /// step it names was skipped, is left out.
    pub(crate) fn outputs(&self) -> serde_json::Map<String, Value> {
        let workflow = &self.plan.frames[self.frame].workflow;
        let rendered = workflow.outputs.iter().filter_map(|(name, argument)| {
            let mut value = argument.render(&mut |text| self.text(text)).ok()?;
            self.plan.redactor.value(&mut value);
            Some((name.clone(), value))
        });
        rendered.collect()
    }

    fn root(&self) -> Jinja {
        Jinja::from_object(Root(self.clone()))
    }

    /// The scope of the step that uses this frame's workflow.
    pub(crate) fn caller(&self) -> Option<Self> {
        let caller = self.plan.frames[self.frame].caller.as_ref()?;
        let (host, item) = (caller.host.clone(), caller.item.clone());
        Some(Self { frame: caller.frame, host, item, ..self.clone() })
    }

    fn param(&self, name: &str) -> Result<Option<Value>, ExprError> {
        let frame = &self.plan.frames[self.frame];
        let Some(caller) = &frame.caller else { return Ok(self.plan.params.get(name).cloned()) };
        if let Some(argument) = caller.params.get(name) {
            let Some(scope) = self.caller() else { return Ok(None) };
            return argument.render(&mut |text| scope.text(text)).map(Some);
        }
        match frame.workflow.params.get(name).and_then(|param| param.default.as_ref()) {
            Some(default) => default.render(&mut |text| self.text(text)).map(Some),
            None => Ok(None),
        }
    }

    /// `steps.NAME`: the fields of this host's output, and `hosts` with those of all.
    fn step(&self, name: &str) -> Option<Jinja> {
        let frame = &self.plan.frames[self.frame];
        let index = frame.steps.get(name).or_else(|| {
            // `steps.stop_replicas` finds `stop-replicas`, which an expression can't name.
            let same = |id: &&String| id.replace('-', "_") == name;
            frame.steps.keys().find(same).and_then(|id| frame.steps.get(id))
        })?;
        Some(Jinja::from_object(StepOutputs { scope: self.clone(), step: *index }))
    }
}

impl Renderer for Scope {
    fn render(&self, text: &str) -> Result<String, StepError> {
        self.plan
            .evaluator
            .template(text, &self.root())
            .map_err(|e| StepError::permanent(format!("the template can't be rendered: {e}")))
    }

    fn file(&self, name: &str) -> Result<String, StepError> {
        let files = &self.plan.definition.bundle.files;
        let file = files
            .get(name)
            .ok_or_else(|| StepError::permanent(format!("the workflow has no file `{name}` pinned")))?;
        Ok(file.text.clone())
    }
}

/// The names at the top.
struct Root(Scope);

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let scope = &self.0;
        Some(match key.as_str()? {
            "params" => Jinja::from_object(Params(scope.clone())),
            "steps" => Jinja::from_object(Steps(scope.clone())),
            "host" => {
                let host = scope.host.as_ref()?;
                to_jinja(serde_json::json!({ "name": host.name, "address": host.address() }))
            }
            "item" => to_jinja(&scope.item.as_ref()?.value),
            "item_index" => Jinja::from(scope.item.as_ref()?.index),
            "vars" => Jinja::from_object(Vars(Arc::clone(scope.host.as_ref()?))),
            "run" => to_jinja(serde_json::json!({
                "id": scope.run.as_str(),
                "started": scope.started.to_string(),
            })),
            name => return inventory_name(&scope.plan.inventory, name),
        })
    }
}

/// The names that an inventory alone gives.
pub(super) fn inventory_name(inventory: &Arc<Inventory>, name: &str) -> Option<Jinja> {
    Some(match name {
        "groups" => to_jinja(&inventory.groups),
        "hostvars" => Jinja::from_object(HostVars(Arc::clone(inventory))),
        "addresses" => {
            let inventory = Arc::clone(inventory);
            Jinja::from_function(move |names: Vec<String>| addresses(&inventory, &names))
        }
        "group_var" => {
            let inventory = Arc::clone(inventory);
            Jinja::from_function(move |group: &str, name: &str| group_var(&inventory, group, name))
        }
        _ => return None,
    })
}

/// The hosts' addresses, in the order of their names.
fn addresses(inventory: &Inventory, names: &[String]) -> Result<Vec<String>, Error> {
    let address = |name: &String| {
        let host = inventory.host(name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, format!("the inventory has no host `{name}`"))
        })?;
        Ok(host.address())
    };
    names.iter().map(address).collect()
}

/// The value that a variable has on every host of a group; undefined where it is set on none.
fn group_var(inventory: &Inventory, group: &str, name: &str) -> Result<Jinja, Error> {
    let fail = |message: String| Error::new(ErrorKind::InvalidOperation, message);
    let hosts =
        inventory.groups.get(group).ok_or_else(|| fail(format!("the inventory has no group `{group}`")))?;
    let mut found: Option<(&str, &Value)> = None;
    for host in hosts.iter().filter_map(|host| inventory.host(host)) {
        if let Some(why) = host.faults.get(name) {
            return Err(unevaluated(&host.name, name, why));
        }
        let Some(value) = host.vars.get(name) else { continue };
        match found {
            Some((other, known)) if known != value => {
                return Err(fail(format!("`{name}` differs between {other} and {} of `{group}`", host.name)));
            }
            _ => found = Some((&host.name, value)),
        }
    }
    Ok(found.map_or(Jinja::UNDEFINED, |(_, value)| to_jinja(value)))
}

struct Params(Scope);

impl Object for Params {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        match self.0.param(key.as_str()?) {
            Ok(value) => value.map(to_jinja),
            Err(e) => Some(Jinja::from(Error::new(ErrorKind::InvalidOperation, e.message))),
        }
    }
}

struct Steps(Scope);

impl Object for Steps {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        self.0.step(key.as_str()?)
    }
}

/// `steps.NAME`.
struct StepOutputs {
    scope: Scope,
    step: usize,
}

impl StepOutputs {
    fn step(&self) -> &Step {
        &self.scope.plan.steps[self.step]
    }

    /// The output on a host, or at the operator's place; of an item, where the step goes through some.
    fn on(&self, host: Option<&str>, item: Option<&str>) -> Option<Jinja> {
        let plan = &self.scope.plan;
        match self.step().part(plan, host, item)? {
            Part::Task(node) => {
                let output = self.scope.outputs.get(node.index());
                if let (None, Some(missed)) = (output, &self.scope.missed) {
                    missed.get_or_init(|| node.index());
                }
                output.map(|output| to_jinja(&output.0))
            }
            Part::Frame(frame) => {
                let host = host.and_then(|name| plan.inventory.host(name)).cloned();
                Some(Jinja::from_object(WorkflowOutputs(Scope {
                    frame,
                    host,
                    item: None,
                    ..self.scope.clone()
                })))
            }
        }
    }

    fn has_items(&self) -> bool {
        self.step().def.foreach.is_some()
    }

    /// The hosts and items of its parts, in their order.
    fn parts(&self) -> Vec<(Option<&str>, Option<&str>)> {
        self.step().parts(&self.scope.plan).map(|(host, item, _)| (host, item)).collect()
    }
}

impl Object for StepOutputs {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let key = key.as_str()?;
        let here = self.scope.host.as_deref().map(|host| host.name.clone());
        match key {
            "hosts" => Some(Jinja::from_object(ByHost(Arc::clone(self)))),
            "items" if self.has_items() => {
                // Those on this host; of a step at the operator's place, those there.
                let host = here.filter(|here| self.parts().iter().any(|(host, _)| *host == Some(here)));
                Some(Jinja::from_object(ByItem { of: Arc::clone(self), host }))
            }
            key => {
                let output = self.on(here.as_deref(), None).or_else(|| self.on(None, None))?;
                output.get_attr(key).ok().filter(|value| !value.is_undefined())
            }
        }
    }
}

/// `steps.NAME.hosts`: only the hosts that have an output.
struct ByHost(Arc<StepOutputs>);

impl ByHost {
    fn on(&self, host: &str) -> Option<Jinja> {
        let of = &self.0;
        if !of.has_items() {
            return of.on(Some(host), None);
        }
        let known = of.parts().iter().any(|(at, item)| *at == Some(host) && of.on(*at, *item).is_some());
        let items = ByItem { of: Arc::clone(of), host: Some(host.to_owned()) };
        known.then(|| Jinja::from_object(ItemsOnly(Arc::new(items))))
    }
}

impl Object for ByHost {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        self.on(key.as_str()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let mut hosts: IndexMap<&str, ()> = IndexMap::new();
        let parts = self.0.parts();
        for (host, item) in &parts {
            if let Some(name) = host
                && self.0.on(*host, *item).is_some()
            {
                hosts.insert(name, ());
            }
        }
        Enumerator::Values(hosts.into_keys().map(Jinja::from).collect())
    }
}

/// `steps.NAME.hosts[HOST]` of a step that goes through items.
struct ItemsOnly(Arc<ByItem>);

impl Object for ItemsOnly {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        (key.as_str()? == "items").then(|| Jinja::from_dyn_object(Arc::clone(&self.0)))
    }
}

/// `steps.NAME.items`: only the items that have an output, by what they are called.
struct ByItem {
    of: Arc<StepOutputs>,
    host: Option<String>,
}

impl Object for ByItem {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let label = match key.as_str() {
            Some(label) => label.to_owned(),
            None if key.is_number() || key.kind() == ValueKind::Bool => key.to_string(),
            None => key.get_attr("name").ok()?.as_str()?.to_owned(),
        };
        self.of.on(self.host.as_deref(), Some(&label))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let here = self.host.as_deref();
        let parts = self.of.parts();
        let items = parts.iter().filter(|(host, item)| *host == here && self.of.on(*host, *item).is_some());
        Enumerator::Values(items.filter_map(|(_, item)| item.map(Jinja::from)).collect())
    }
}

/// The declared outputs of a workflow used as a step.
struct WorkflowOutputs(Scope);

impl Object for WorkflowOutputs {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let scope = &self.0;
        let workflow = &scope.plan.frames[scope.frame].workflow;
        let argument = workflow.outputs.get(key.as_str()?)?;
        match argument.render(&mut |text| scope.text(text)) {
            Ok(value) => Some(to_jinja(value)),
            Err(e) => Some(Jinja::from(Error::new(ErrorKind::InvalidOperation, e.message))),
        }
    }
}

struct HostVars(Arc<Inventory>);

impl Object for HostVars {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        self.0.host(key.as_str()?).map(|host| Jinja::from_object(Vars(Arc::clone(host))))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| Box::new(this.0.hosts.keys().map(|name| Jinja::from(name.as_str()))))
    }
}

/// A host's variables.
struct Vars(Arc<Host>);

impl Object for Vars {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let name = key.as_str()?;
        if let Some(why) = self.0.faults.get(name) {
            return Some(Jinja::from(unevaluated(&self.0.name, name, why)));
        }
        self.0.vars.get(name).map(to_jinja)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| Box::new(this.0.vars.keys().map(|name| Jinja::from(name.as_str()))))
    }
}

/// A variable was asked for that is there but can't be evaluated.
fn unevaluated(host: &str, name: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("`{name}` of {host} can't be evaluated: {why}"))
}

macro_rules! debug_as_name {
    ($($type:ident),*) => {
        $(impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Values may be secret, so an error message gets a name only.
                f.write_str(stringify!($type))
            }
        })*
    };
}
debug_as_name!(Root, Params, Steps, StepOutputs, ByHost, ItemsOnly, ByItem, WorkflowOutputs, HostVars, Vars);
