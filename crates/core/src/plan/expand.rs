//! From steps to tasks: one for each host, barriers between steps, batches for `serial`, and the
//! steps of a workflow in place of the step that uses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use petgraph::graph::{DiGraph, NodeIndex};

use super::params::{self, Params};
use super::{
    Caller, Definition, Fingerprinter, Frame, Mode, Node, Plan, Request, Step, Task, definition, filter,
};
use crate::inventory::{Host, Inventory};
use crate::run::{Shape, TaskName};
use crate::step::Registry;
use crate::workflow::expr::Evaluator;
use crate::workflow::{
    ArgumentKind, Code, Diagnostic, Diagnostics, Documents, Hosts, Serial, StepDef, Workflow,
};

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
    let params = Params::given(&documents.root, &inventory, &inputs, &evaluator, print)?;
    let texts = bundle.files.values().map(|file| file.text.as_str());
    params.refuse_unmaskable(&documents.root, texts, &inventory)?;
    let redactor = params.redactor(&inventory, &bundle);
    let definition = Definition {
        inventory: definition::mask_inventory(&inventory, &params.redactor_of_params(), print),
        params: params.pinned.clone(),
        step_types: BTreeMap::new(),
        flow: env!("CARGO_PKG_VERSION").to_owned(),
        bundle,
        filter,
    };
    let mut plan = expand(&documents, definition, inventory, params, redactor, registry, evaluator)?;
    plan.definition.step_types = step_types(&plan);
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
    let params = Params::again(&documents.root, &inventory, &pinned.params, &evaluator, print)?;
    let redactor = params.redactor(&inventory, &pinned.bundle);
    let plan = expand(&documents, pinned, inventory, params, redactor, registry, evaluator)?;
    for (name, version) in &plan.definition.step_types {
        if registry.get(name).is_some_and(|info| info.version != *version) {
            let message = format!("the run was started with version {version} of the step type `{name}`");
            return Err(Diagnostic::general(Code::UNKNOWN_STEP_TYPE, message)
                .help(format!("resume it with flow {}", plan.definition.flow))
                .into());
        }
    }
    Ok(plan)
}

/// The tasks of what a run pinned, in order.
pub(super) fn outline(pinned: Definition, registry: &Arc<Registry>) -> Result<Vec<TaskName>, Diagnostics> {
    let plan = without_secrets(pinned, registry)?;
    Ok(plan.tasks().into_iter().map(|task| task.name.clone()).collect())
}

/// The plan of what a run pinned, without reading any secret.
pub(super) fn without_secrets(pinned: Definition, registry: &Arc<Registry>) -> Result<Plan, Diagnostics> {
    let documents = Documents::load(&pinned.bundle, registry)?;
    let evaluator = Arc::new(Evaluator::new());
    let inventory = Arc::new(pinned.inventory.clone());
    let params = Params::without_secrets(&pinned.params);
    let redactor = params.redactor(&inventory, &pinned.bundle);
    expand(&documents, pinned, inventory, params, redactor, registry, evaluator)
}

fn step_types(plan: &Plan) -> BTreeMap<String, u32> {
    let used = plan.steps.iter().map(|step| step.def.uses.value.as_str());
    used.filter_map(|name| Some((name.to_owned(), plan.registry.get(name)?.version))).collect()
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
        evaluator: &evaluator,
        frames: Vec::new(),
        steps: Vec::new(),
        graph: DiGraph::new(),
        wrong: Diagnostics::default(),
    };
    expander.frame(&root, None, "", &Vec::new());
    let Expander { frames, steps, graph, wrong, .. } = expander;
    let (frames, mut steps, mut graph) = wrong.into_result((frames, steps, graph))?;
    filter::apply(&definition.filter, &root, &inventory, &mut steps, &mut graph)?;
    let names = graph.node_weights().map(|node| node.task().map(|task| task.name.clone())).collect();
    let edges: Vec<(u32, u32)> = graph
        .raw_edges()
        .iter()
        .map(|edge| (edge.source().index() as u32, edge.target().index() as u32))
        .collect();
    Ok(Plan {
        shape: Arc::new(Shape::new(names, &edges)),
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

struct Expander<'a> {
    documents: &'a Documents,
    inventory: &'a Arc<Inventory>,
    params: &'a Params,
    evaluator: &'a Evaluator,
    frames: Vec<Frame>,
    steps: Vec<Step>,
    graph: DiGraph<Node, ()>,
    wrong: Diagnostics,
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
        (frame, exit)
    }

    fn step(&mut self, frame: usize, def: &Arc<StepDef>, prefix: &str, entry: &[NodeIndex]) -> usize {
        let path = format!("{prefix}{}", def.id.value);
        let before: Vec<NodeIndex> = if def.needs.is_empty() {
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
        });
        let exit = match self.hosts(frame, def) {
            None => self.batch(step, &[None], &before),
            Some(hosts) => {
                let size = batch_size(def.serial, hosts.len());
                let hosts: Vec<Option<Arc<Host>>> = hosts.into_iter().map(Some).collect();
                let mut exit = Vec::new();
                let mut before = before;
                for batch in hosts.chunks(size) {
                    exit = self.batch(step, batch, &before);
                    before.clone_from(&exit);
                }
                exit
            }
        };
        self.steps[step].exit = self.join(&exit);
        step
    }

    /// One batch of a step's hosts; gives what passes when the batch has.
    fn batch(&mut self, step: usize, hosts: &[Option<Arc<Host>>], before: &[NodeIndex]) -> Vec<NodeIndex> {
        let def = Arc::clone(&self.steps[step].def);
        if hosts.is_empty() {
            return before.to_vec();
        }
        if def.uses.value == "workflow" {
            return self.included(step, &def, hosts, before);
        }
        let mut nodes = Vec::with_capacity(hosts.len());
        for host in hosts {
            let name = TaskName::new(&self.steps[step].path, host.as_deref().map(|host| host.name.as_str()));
            let task = Task { name, step, host: host.clone(), mode: Mode::Run };
            let node = self.graph.add_node(Node::Task(task));
            for &from in before {
                self.graph.add_edge(from, node, ());
            }
            self.steps[step].tasks.push(node);
            nodes.push(node);
        }
        // The next batch, or the next step, waits for one node instead of all of these.
        vec![self.join(&nodes)]
    }

    /// The steps of the workflow that a step uses, once for each host.
    fn included(
        &mut self,
        step: usize,
        def: &Arc<StepDef>,
        hosts: &[Option<Arc<Host>>],
        before: &[NodeIndex],
    ) -> Vec<NodeIndex> {
        let file = match def.with.value.get("file").map(|file| &file.kind) {
            Some(ArgumentKind::Text(file)) => file.clone(),
            _ => return before.to_vec(),
        };
        let Some(workflow) = self.documents.files.get(&file).cloned() else { return before.to_vec() };
        let params = match def.with.value.get("params").map(|params| &params.kind) {
            Some(ArgumentKind::Table(params)) => params.clone(),
            _ => IndexMap::new(),
        };
        let prefix = format!("{}/", self.steps[step].path);
        let mut exits = Vec::new();
        for host in hosts {
            let caller =
                Caller { frame: self.steps[step].frame, step, host: host.clone(), params: params.clone() };
            let (frame, exit) = self.frame(&workflow, Some(caller), &prefix, before);
            self.steps[step].frames.push((host.as_ref().map(|host| host.name.clone()), frame));
            exits.push(exit);
        }
        exits
    }

    /// The hosts of a step; none for the operator's place.
    fn hosts(&mut self, frame: usize, def: &StepDef) -> Option<Vec<Arc<Host>>> {
        let inherited = self.frames[frame].caller.as_ref().and_then(|caller| caller.host.clone());
        let Some(hosts) = &def.hosts else { return inherited.map(|host| vec![host]) };
        let workflow = Arc::clone(&self.frames[frame].workflow);
        if inherited.is_some() {
            self.wrong.push(
                Diagnostic::at(
                    Code::HOSTS,
                    &workflow.source,
                    hosts.span.clone(),
                    format!("`{}` runs inside a workflow that is used once for each host", def.id.value),
                )
                .label("it can't have hosts of its own")
                .help("remove `hosts`; the step runs on the host of the workflow"),
            );
            return Some(Vec::new());
        }
        let Hosts::Pattern(text) = &hosts.value;
        let pattern = match params::host_pattern(
            self.evaluator,
            self.inventory,
            self.params,
            &self.frames,
            frame,
            text,
        ) {
            Ok(pattern) => pattern,
            Err(e) => {
                self.wrong.push(
                    Diagnostic::at(Code::EXPRESSION, &workflow.source, hosts.span.clone(), e.message)
                        .help("`hosts` may use params, groups and hostvars only"),
                );
                return Some(Vec::new());
            }
        };
        match self.inventory.select(&pattern) {
            Ok(names) if names.is_empty() => {
                self.wrong.push(
                    Diagnostic::at(
                        Code::HOSTS,
                        &workflow.source,
                        hosts.span.clone(),
                        format!("`{pattern}` selects no host"),
                    )
                    .help(self.inventory_hint()),
                );
                Some(Vec::new())
            }
            Ok(names) => Some(names.iter().filter_map(|name| self.inventory.host(name).cloned()).collect()),
            Err(e) => {
                let hint = e.help().unwrap_or_else(|| self.inventory_hint());
                self.wrong.push(
                    Diagnostic::at(Code::HOSTS, &workflow.source, hosts.span.clone(), e.to_string())
                        .help(hint),
                );
                Some(Vec::new())
            }
        }
    }

    fn inventory_hint(&self) -> String {
        let groups: Vec<&str> = self
            .inventory
            .groups
            .iter()
            .filter(|(_, hosts)| !hosts.is_empty())
            .map(|(g, _)| g.as_str())
            .collect();
        if groups.is_empty() {
            "the inventory has no hosts; give one with -i INVENTORY".to_owned()
        } else {
            format!("groups with hosts: {}", groups.join(", "))
        }
    }

    /// One node that passes when all of `nodes` have.
    fn join(&mut self, nodes: &[NodeIndex]) -> NodeIndex {
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

fn batch_size(serial: Option<Serial>, hosts: usize) -> usize {
    let size = match serial {
        None => hosts,
        Some(Serial::Count(count)) => count as usize,
        Some(Serial::Percent(percent)) => hosts * usize::from(percent) / 100,
    };
    size.max(1)
}

/// A workflow's steps, each after what it needs, otherwise as they are written. Steps of a cycle
/// are left out; the documents were checked for them.
fn in_order_of_needs(workflow: &Workflow) -> Vec<&str> {
    let mut order: Vec<&str> = Vec::with_capacity(workflow.steps.len());
    let mut missing: IndexMap<&str, usize> =
        workflow.steps.iter().map(|(id, def)| (id.as_str(), def.needs.len())).collect();
    let mut after: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for (id, def) in &workflow.steps {
        for need in &def.needs {
            after.entry(need.value.as_str()).or_default().push(id);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
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
