//! From steps to tasks: one for each host, barriers between steps, batches for `serial`, and the
//! steps of a workflow in place of the step that uses it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use petgraph::graph::{DiGraph, NodeIndex};

use super::params::Params;
use super::places::{Place, item_path, units};
use super::{
    Caller, Definition, Fingerprinter, Frame, Mode, Node, Plan, Request, Step, Task, definition, filter,
};
use crate::inventory::{Host, Inventory};
use crate::run::{Shape, TaskName};
use crate::step::{Origin, Registry};
use crate::workflow::expr::Evaluator;
use crate::workflow::{ArgumentKind, Code, Diagnostic, Diagnostics, Documents, Hosts, StepDef, Workflow};

/// A plan from what the user gave.
pub(super) fn plan(
    request: Request,
    registry: &Arc<Registry>,
    print: &Fingerprinter,
) -> Result<Plan, Diagnostics> {
    let Request { bundle, inventory, inputs, filter } = request;
    let documents = Documents::load(&bundle, registry)?;
    let evaluator = Arc::new(Evaluator::new());
    let inventory = Arc::new(inventory);
    let params = Params::given(&documents.root, &bundle, &inventory, &inputs, &evaluator, print)?;
    let redactor = params.redactor(&inventory, &bundle);
    let definition = Definition {
        inventory: definition::mask_inventory(&inventory, &params.redactor_of_params(), print),
        params: params.pinned.clone(),
        step_types: BTreeMap::new(),
        plugins: BTreeMap::new(),
        flow: env!("CARGO_PKG_VERSION").to_owned(),
        shown: None,
        bundle,
        filter,
    };
    let mut plan = expand(&documents, definition, inventory, params, redactor, registry, evaluator)?;
    plan.definition.step_types = step_types(&plan);
    plan.definition.plugins = plugins(&plan);
    Ok(plan)
}

/// A plan from what a run pinned.
pub(super) fn pinned(
    pinned: Definition,
    current: Option<&Inventory>,
    registry: &Arc<Registry>,
    print: &Fingerprinter,
) -> Result<Plan, Diagnostics> {
    let documents = Documents::load(&pinned.bundle, registry)?;
    let evaluator = Arc::new(Evaluator::new());
    let inventory = Arc::new(definition::unmask_inventory(&pinned.inventory, current, print)?);
    let params =
        Params::again(&documents.root, &pinned.bundle, &inventory, &pinned.params, &evaluator, print)?;
    let redactor = params.redactor(&inventory, &pinned.bundle);
    let plan = expand(&documents, pinned, inventory, params, redactor, registry, evaluator)?;
    for (name, version) in &plan.definition.step_types {
        if registry.get(name).is_some_and(|info| info.version != *version) {
            let message = format!("the run was started with version {version} of the step type `{name}`");
            let wrong = match plan.definition.plugins.get(name) {
                None => Diagnostic::general(Code::UNKNOWN_STEP_TYPE, message)
                    .help(format!("resume it with flow {}", plan.definition.flow)),
                Some(then) => Diagnostic::general(Code::PLUGIN, message).help(format!(
                    "put the executable with the SHA-256 {} back on the plugin path; it was {}",
                    then.sha256,
                    then.path.display()
                )),
            };
            return Err(wrong.into());
        }
    }
    refuse_other_files(&plan, print.since())?;
    Ok(plan)
}

/// Refuses plugins that are made of other files than those that were pinned.
fn refuse_other_files(plan: &Plan, since: &str) -> Result<(), Diagnostics> {
    let mut wrong = Diagnostics::default();
    for (name, then) in &plan.definition.plugins {
        let now = plan.registry.get(name).and_then(|info| info.origin.as_ref());
        for (file, sha256) in &then.files {
            let message = match now.and_then(|now| now.files.get(file)) {
                Some(now) if now == sha256 => continue,
                Some(_) => {
                    format!("`{file}`, which the plugin of `{name}` is made of, has changed since {since}")
                }
                None => {
                    format!("the plugin of `{name}` is no longer made of `{file}`, as it was when {since}")
                }
            };
            wrong.push(Diagnostic::general(Code::PLUGIN, message).help(format!(
                "put the file with the SHA-256 {sha256} back beside {}, or begin anew",
                then.path.display()
            )));
        }
    }
    wrong.into_result(())
}

/// What a run pinned, without reading any secret: to be shown, never to be run.
pub(super) fn outlined(pinned: Definition, registry: &Arc<Registry>) -> Result<Plan, Diagnostics> {
    let documents = Documents::load(&pinned.bundle, registry)?;
    let evaluator = Arc::new(Evaluator::new());
    let inventory = Arc::new(definition::masked_inventory(&pinned.inventory));
    let params = Params::without_secrets(&pinned.params);
    let redactor = params.redactor(&inventory, &pinned.bundle);
    expand(&documents, pinned, inventory, params, redactor, registry, evaluator)
}

fn step_types(plan: &Plan) -> BTreeMap<String, u32> {
    let used = plan.steps.iter().map(|step| step.def.uses.value.as_str());
    used.filter_map(|name| Some((name.to_owned(), plan.registry.get(name)?.version))).collect()
}

/// The executables of the step types that aren't compiled in.
fn plugins(plan: &Plan) -> BTreeMap<String, Origin> {
    let used = plan.definition.step_types.keys();
    used.filter_map(|name| Some((name.clone(), Origin::clone(plan.registry.get(name)?.origin.as_ref()?))))
        .collect()
}

fn expand(
    documents: &Documents,
    definition: Definition,
    inventory: Arc<Inventory>,
    params: Params,
    redactor: crate::step::Redactor,
    registry: &Arc<Registry>,
    evaluator: Arc<Evaluator>,
) -> Result<Plan, Diagnostics> {
    let root = Arc::clone(&documents.root);
    let mut expander = Expander {
        documents,
        inventory: &inventory,
        params: &params,
        redactor: &redactor,
        evaluator: &evaluator,
        frames: Vec::new(),
        exits: Vec::new(),
        hosts: Vec::new(),
        steps: Vec::new(),
        graph: DiGraph::new(),
        left_out: BTreeSet::new(),
        wrong: Diagnostics::default(),
    };
    expander.frame(&root, None, "", &Vec::new());
    let Expander { frames, steps, graph, left_out, wrong, .. } = expander;
    let (frames, mut steps, mut graph) = wrong.into_result((frames, steps, graph))?;
    filter::apply(&definition.filter, &root, &inventory, &mut steps, &mut graph, &left_out)?;
    let names = graph.node_weights().map(|node| node.task().map(|task| task.name.clone())).collect();
    let edges: Vec<(u32, u32)> = graph
        .raw_edges()
        .iter()
        .map(|edge| (edge.source().index() as u32, edge.target().index() as u32))
        .collect();
    let gates = graph.node_indices().filter_map(|node| match graph[node] {
        Node::Gate(limit) => Some((node.index() as u32, limit)),
        _ => None,
    });
    let gates = gates.collect();
    let choosing = steps.iter().filter_map(|step| Some((step.choosing.as_ref()?, step)));
    let kept = choosing.filter(|(choosing, _)| choosing.node != NodeIndex::end());
    let choices = kept.map(|(choosing, step)| choosing.choice(step)).collect();
    Ok(Plan {
        made_secrets: params.made,
        weak_secrets: params.weak,
        shape: Arc::new(Shape::with_gates(names, &edges, gates).with_choices(choices)),
        workflow: root,
        definition,
        params: Arc::new(params.values),
        redactor: Arc::new(redactor),
        registry: Arc::clone(registry),
        evaluator,
        inventory,
        frames,
        steps,
        graph,
    })
}

pub(super) struct Expander<'a> {
    documents: &'a Documents,
    pub(super) inventory: &'a Arc<Inventory>,
    pub(super) params: &'a Params,
    pub(super) redactor: &'a crate::step::Redactor,
    pub(super) evaluator: &'a Evaluator,
    pub(super) frames: Vec<Frame>,
    /// What passes when all of a frame has.
    pub(super) exits: Vec<NodeIndex>,
    /// The hosts of each step; none at the operator's place, or where they could not be told.
    pub(super) hosts: Vec<Vec<Arc<Host>>>,
    pub(super) steps: Vec<Step>,
    pub(super) graph: DiGraph<Node, ()>,
    /// What the `tags` of a step that uses a workflow leave out.
    pub(super) left_out: BTreeSet<NodeIndex>,
    pub(super) wrong: Diagnostics,
}

/// What a batch of a step waits for.
pub(super) struct Before {
    /// What all of it waits for.
    pub(super) all: Vec<NodeIndex>,
    /// What each host waits for besides.
    pub(super) per_host: HashMap<String, Vec<NodeIndex>>,
}

impl Before {
    fn of<'b>(&'b self, host: Option<&Arc<Host>>) -> impl Iterator<Item = NodeIndex> + 'b {
        let own = host.and_then(|host| self.per_host.get(&host.name));
        self.all.iter().chain(own.into_iter().flatten()).copied()
    }
}

impl Expander<'_> {
    /// Expands one use of a workflow. Its steps that need nothing come after `entry`. Gives the
    /// frame and the node that passes when all of it has.
    fn frame(
        &mut self,
        workflow: &Arc<Workflow>,
        caller: Option<Caller>,
        prefix: &str,
        entry: &[NodeIndex],
    ) -> (usize, NodeIndex) {
        let frame = self.frames.len();
        self.frames.push(Frame { workflow: Arc::clone(workflow), caller, steps: IndexMap::new() });
        self.exits.push(NodeIndex::end());
        for id in in_order_of_needs(workflow) {
            let def = Arc::new(workflow.steps[id].clone());
            let step = self.step(frame, &def, prefix, entry);
            self.frames[frame].steps.insert(id.to_owned(), step);
        }
        let needed: Vec<&str> =
            workflow.steps.values().flat_map(|def| &def.needs).map(|need| need.value.as_str()).collect();
        let last: Vec<NodeIndex> = self.frames[frame]
            .steps
            .iter()
            .filter(|(id, _)| !needed.contains(&id.as_str()))
            .map(|(_, &step)| self.steps[step].exit)
            .collect();
        let exit = self.join(&last);
        self.exits[frame] = exit;
        (frame, exit)
    }

    fn step(&mut self, frame: usize, def: &Arc<StepDef>, prefix: &str, entry: &[NodeIndex]) -> usize {
        let path = format!("{prefix}{}", def.id.value);
        let all: Vec<NodeIndex> = if def.all_needs().next().is_none() {
            entry.to_vec()
        } else {
            let steps = &self.frames[frame].steps;
            def.needs.iter().filter_map(|need| Some(self.steps[*steps.get(&need.value)?].exit)).collect()
        };
        let caller = self.frames[frame].caller.as_ref();
        let mut tags = caller.map_or_else(Default::default, |caller| self.steps[caller.step].tags.clone());
        tags.extend(def.tags.iter().map(|tag| tag.value.clone()));
        let step = self.steps.len();
        self.steps.push(Step {
            frame,
            path,
            def: Arc::clone(def),
            tags,
            tasks: Vec::new(),
            frames: Vec::new(),
            exit: NodeIndex::end(),
            choosing: None,
            index: OnceLock::new(),
        });
        self.hosts.push(Vec::new());
        let hosts = self.hosts_of(frame, def);
        let items = self.items(frame, def);
        let own_hosts = hosts.as_deref().unwrap_or_default();
        let per_host = self.parts(frame, def, own_hosts);
        self.hosts[step] = own_hosts.to_vec();
        let before = Before { all, per_host };
        let units = units(def, hosts, items.as_deref());
        let exit = if units.is_empty() {
            // Nothing to do: it passes once what it needs has.
            let mut exit: Vec<NodeIndex> =
                before.all.iter().chain(before.per_host.values().flatten()).copied().collect();
            exit.sort_unstable();
            exit
        } else if matches!(def.hosts.as_ref().map(|hosts| &hosts.value), Some(Hosts::Chosen { .. })) {
            self.chosen(step, &units, &before)
        } else {
            match def.max_failures.map(|limit| limit.batch(units.len())) {
                Some(limit) if limit > 1 => self.batches_that_may_fail(step, &units, before, limit),
                _ => self.batches(step, &units, before),
            }
        };
        self.steps[step].exit = self.join(&exit);
        step
    }

    /// One batch of a step's units; gives for each of them what passes when the step has there.
    pub(super) fn batch(&mut self, step: usize, units: &[Vec<Place>], before: &Before) -> Vec<NodeIndex> {
        let def = Arc::clone(&self.steps[step].def);
        let mut ends = Vec::with_capacity(units.len());
        for unit in units {
            let nodes = if def.uses.value == "workflow" {
                self.included(step, &def, unit, before)
            } else {
                unit.iter().map(|place| self.task(step, place, before)).collect()
            };
            ends.push(self.join(&nodes));
        }
        ends
    }

    fn task(&mut self, step: usize, Place { host, item }: &Place, before: &Before) -> NodeIndex {
        let path = item_path(&self.steps[step].path, item.as_deref());
        let name = TaskName::new(&path, host.as_deref().map(|host| host.name.as_str()));
        let task = Task { name, step, host: host.clone(), item: item.clone(), mode: Mode::Run };
        let node = self.graph.add_node(Node::Task(task));
        for from in before.of(host.as_ref()) {
            self.graph.add_edge(from, node, ());
        }
        self.steps[step].tasks.push(node);
        node
    }

    /// The steps of the workflow that a step uses, once for each host and item.
    fn included(
        &mut self,
        step: usize,
        def: &Arc<StepDef>,
        places: &[Place],
        before: &Before,
    ) -> Vec<NodeIndex> {
        let file = match def.with.value.get("file").map(|file| &file.kind) {
            Some(ArgumentKind::Text(file)) => file.clone(),
            _ => return before.all.clone(),
        };
        let Some(workflow) = self.documents.files.get(&file).cloned() else { return before.all.clone() };
        let params = match def.with.value.get("params").map(|params| &params.kind) {
            Some(ArgumentKind::Table(params)) => params.clone(),
            _ => IndexMap::new(),
        };
        let mut exits = Vec::new();
        for Place { host, item } in places {
            let prefix = format!("{}/", item_path(&self.steps[step].path, item.as_deref()));
            let caller = Caller {
                frame: self.steps[step].frame,
                step,
                host: host.clone(),
                item: item.clone(),
                params: params.clone(),
            };
            let entry: Vec<NodeIndex> = before.of(host.as_ref()).collect();
            let first = self.graph.node_count();
            let (frame, mut exit) = self.frame(&workflow, Some(caller), &prefix, &entry);
            let tags = def.included_tags();
            if !tags.is_empty() {
                exit = self.only_tagged(frame, &tags, first, &entry);
            }
            self.steps[step].frames.push((host.as_ref().map(|host| host.name.clone()), frame));
            exits.push(exit);
        }
        exits
    }

    /// One node that passes when all of `nodes` have.
    pub(super) fn join(&mut self, nodes: &[NodeIndex]) -> NodeIndex {
        if let [one] = nodes {
            return *one;
        }
        let join = self.graph.add_node(Node::Join);
        for &node in nodes {
            self.graph.add_edge(node, join, ());
        }
        join
    }
}

/// A workflow's steps, each after what it needs, otherwise as they are written. Steps of a cycle
/// are left out; the documents were checked for them.
fn in_order_of_needs(workflow: &Workflow) -> Vec<&str> {
    let mut order: Vec<&str> = Vec::with_capacity(workflow.steps.len());
    let mut missing: IndexMap<&str, usize> =
        workflow.steps.iter().map(|(id, def)| (id.as_str(), def.all_needs().count())).collect();
    let mut after: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for (id, def) in &workflow.steps {
        for need in def.all_needs() {
            after.entry(need.value.as_str()).or_default().push(id);
        }
    }
    let mut ready: BTreeSet<usize> =
        missing.values().enumerate().filter(|(_, n)| **n == 0).map(|(i, _)| i).collect();
    while let Some(i) = ready.pop_first() {
        let Some((&id, _)) = missing.get_index(i) else { break };
        order.push(id);
        for next in after.get(id).into_iter().flatten() {
            if let Some((j, _, n)) = missing.get_full_mut(next) {
                *n -= 1;
                if *n == 0 {
                    ready.insert(j);
                }
            }
        }
    }
    order
}
