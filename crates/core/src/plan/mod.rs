//! Workflow x inventory x params, expanded to the DAG of tasks and checked, before anything is
//! changed. A plan is made again from its pinned [`Definition`] on a resume, and comes out the same.

mod batches;
mod choosing;
mod definition;
mod drawing;
mod expand;
mod filter;
mod generated;
mod limits;
mod params;
mod places;
mod ruled_out;
mod saved;
mod scope;
mod shown;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use petgraph::graph::{DiGraph, NodeIndex};
use serde_json::Value;

use crate::inventory::{Host, Inventory};
use crate::run::{Shape, TaskName};
use crate::step::{Origin, Redactor, Registry, Undoability};
use crate::workflow::expr::Evaluator;
use crate::workflow::{Argument, Bundle, Diagnostics, Item, StepDef, Workflow, included_file};

pub(crate) use choosing::{Choosing, chosen_output};
pub use definition::{Definition, Filter, Fingerprinter, PinnedParam, SecretSource};
pub use drawing::{Drawing, DrawnTask};
pub use generated::{MadeSecret, NewSecrets, operator_path};
pub use limits::MAX_PER_HOST;
pub use params::Inputs;
pub use saved::{SavedPlan, SavedPlanError, is_plan_file};
pub use scope::{Outputs, Scope};
pub(crate) use shown::without_time;
pub use shown::{Moved, NOT_AS_PLANNED, Shown, ShownTask};

/// A plan: what a run of it would do, task by task.
pub struct Plan {
    /// What is pinned.
    pub definition: Definition,
    /// The root workflow.
    pub workflow: Arc<Workflow>,
    /// Hosts, groups and variables, secrets included.
    pub inventory: Arc<Inventory>,
    /// The root workflow's params, secrets included.
    pub(crate) params: Arc<IndexMap<String, Value>>,
    /// Masks every secret of this plan.
    pub redactor: Arc<Redactor>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) evaluator: Arc<Evaluator>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) steps: Vec<Step>,
    /// The DAG. Edges go from what comes before to what comes after.
    pub(crate) graph: DiGraph<Node, ()>,
    pub(crate) shape: Arc<Shape>,
    /// The passwords that were made with this plan, and where they are kept.
    pub made_secrets: Vec<MadeSecret>,
    /// The params whose secrets can be guessed, and were taken all the same; they aren't masked.
    pub weak_secrets: Vec<String>,
}

/// One use of a workflow: the root, or a step that uses a workflow (on one host, where it has hosts).
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) workflow: Arc<Workflow>,
    /// The step that uses it; none for the root.
    pub(crate) caller: Option<Caller>,
    /// The step of each name.
    pub(crate) steps: IndexMap<String, usize>,
}

/// Where a frame is used.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) frame: usize,
    /// The step that uses the workflow.
    pub(crate) step: usize,
    pub(crate) host: Option<Arc<Host>>,
    /// The item of a step with `foreach`.
    pub(crate) item: Option<Arc<Item>>,
    /// Its params as the caller gives them; evaluated in the caller's frame.
    pub(crate) params: IndexMap<String, Argument>,
}

/// A step in one frame.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) frame: usize,
    /// With the names of the steps that lead to it: `restart/healthy`.
    pub(crate) path: String,
    pub(crate) def: Arc<StepDef>,
    /// Its own tags and those of the steps that lead to it.
    pub(crate) tags: BTreeSet<String>,
    /// Its tasks; empty for a step that uses a workflow.
    pub(crate) tasks: Vec<NodeIndex>,
    /// For a step that uses a workflow: its frames, with their host.
    pub(crate) frames: Vec<(Option<String>, usize)>,
    /// What must have passed for what needs this step.
    pub(crate) exit: NodeIndex,
    /// Where its hosts are chosen while the run goes on.
    pub(crate) choosing: Option<Choosing>,
    /// Finds its parts by host and item; made when it is first asked for.
    index: OnceLock<HashMap<(String, String), Part>>,
}

/// A step's part on a host, for an item.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// A task.
    Task(NodeIndex),
    /// A use of the workflow that the step includes.
    Frame(usize),
}

impl Step {
    /// Its parts in their order, with their hosts and what their items are called.
    pub(crate) fn parts<'p>(
        &'p self,
        plan: &'p Plan,
    ) -> impl Iterator<Item = (Option<&'p str>, Option<&'p str>, Part)> {
        let tasks = self.tasks.iter().filter_map(|&node| {
            let task = plan.graph[node].task()?;
            Some((task.host.as_deref(), task.item.as_deref(), Part::Task(node)))
        });
        let frames = self.frames.iter().filter_map(|&(_, frame)| {
            let caller = plan.frames[frame].caller.as_ref()?;
            Some((caller.host.as_deref(), caller.item.as_deref(), Part::Frame(frame)))
        });
        tasks.chain(frames).map(|(host, item, part)| {
            (host.map(|host| host.name.as_str()), item.map(|item| item.label.as_str()), part)
        })
    }

    /// The part on a host (none: at the operator's place) for an item (none: of a step without).
    pub(crate) fn part(&self, plan: &Plan, host: Option<&str>, item: Option<&str>) -> Option<Part> {
        // No host and no item is called by an empty text.
        let key = |host: Option<&str>, item: Option<&str>| {
            (host.unwrap_or_default().to_owned(), item.unwrap_or_default().to_owned())
        };
        let index = self
            .index
            .get_or_init(|| self.parts(plan).map(|(host, item, part)| (key(host, item), part)).collect());
        index.get(&key(host, item)).copied()
    }
}

/// A node of the DAG.
#[derive(Debug)]
pub(crate) enum Node {
    /// A step on a host.
    Task(Task),
    /// A barrier.
    Join,
    /// A barrier that lets failures by, until there are so many.
    Gate(u32),
}

/// A step on a host, or at the operator's place.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: TaskName,
    pub(crate) step: usize,
    pub(crate) host: Option<Arc<Host>>,
    /// The item of a step with `foreach`.
    pub(crate) item: Option<Arc<Item>>,
    pub(crate) mode: Mode,
}

/// What is done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is checked and applied.
    Run,
    /// It was filtered out, but something needs it: it is checked, and must be satisfied.
    MustHold,
    /// It chooses its step's hosts.
    Choose,
}

/// What a plan is made of.
pub struct Request {
    /// The workflow with its files.
    pub bundle: Bundle,
    /// Hosts, groups and variables.
    pub inventory: Inventory,
    /// `--set`.
    pub inputs: Inputs,
    /// `--limit` and `--tags`.
    pub filter: Filter,
}

/// What is shown of a task before a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo<'p> {
    /// `stop-patroni@patroni2`
    pub name: &'p TaskName,
    /// Its step type.
    pub uses: &'p str,
    /// The author's words on it.
    pub help: Option<&'p str>,
    /// Its host.
    pub host: Option<&'p str>,
    /// Wants `--confirm`.
    pub destructive: bool,
    /// Whether what it does can be taken back.
    pub undo: Undoability,
    /// Once it has begun, the run is not taken back any more.
    pub pivot: bool,
    /// Filtered out; only checked.
    pub must_hold: bool,
}

impl Plan {
    /// Expands and checks. Everything that is wrong comes at once.
    ///
    /// `print` is the store's key, or what a plan file's secrets are fingerprinted with.
    pub fn new(
        request: Request,
        registry: &Arc<Registry>,
        print: impl Into<Fingerprinter>,
    ) -> Result<Self, Diagnostics> {
        expand::plan(request, registry, &print.into())
    }

    /// The plan of a run that was started before, or of a plan file. `inventory` is the one of now: secrets
    /// are read from it again, and must be the same.
    pub fn pinned(
        definition: Definition,
        inventory: Option<&Inventory>,
        registry: &Arc<Registry>,
        print: impl Into<Fingerprinter>,
    ) -> Result<Self, Diagnostics> {
        expand::pinned(definition, inventory, registry, &print.into())
    }

    /// Pins its secrets under another key: those of a plan file under the key of the store that it is run in.
    pub fn pin_secrets(&mut self, print: impl Into<Fingerprinter>) {
        params::Params::pin_again(self, &print.into());
    }

    /// The names of the tasks of a run that was started before, each after what it needs. Reads no
    /// secret, so that a run can be shown wherever its store is.
    pub fn outline(definition: Definition, registry: &Arc<Registry>) -> Result<Vec<TaskName>, Diagnostics> {
        let plan = expand::outlined(definition, registry)?;
        Ok(plan.tasks().into_iter().map(|task| task.name.clone()).collect())
    }

    /// The DAG of a run that was started before or elsewhere, as its state sees it. Reads no secret.
    pub fn pinned_shape(definition: Definition, registry: &Arc<Registry>) -> Result<Arc<Shape>, Diagnostics> {
        Ok(Arc::clone(&expand::outlined(definition, registry)?.shape))
    }

    /// The plan of a run that was started before, for looking at its tasks only: secrets are not read.
    pub fn without_secrets(definition: Definition, registry: &Arc<Registry>) -> Result<Self, Diagnostics> {
        expand::outlined(definition, registry)
    }

    /// How many tasks it has.
    pub fn len(&self) -> usize {
        self.shape.tasks()
    }

    /// True where there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The DAG as a run's state sees it.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// The tasks in an order in which each comes after what it needs.
    pub fn tasks(&self) -> Vec<TaskInfo<'_>> {
        self.order().into_iter().filter_map(|node| self.info(node)).collect()
    }

    /// One task by name.
    pub fn task(&self, name: &TaskName) -> Option<TaskInfo<'_>> {
        self.info(NodeIndex::new(self.shape.node(name)? as usize))
    }

    /// The hosts that tasks run on, sorted.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let mut hosts: Vec<Arc<Host>> =
            self.graph.node_weights().filter_map(|node| node.task()?.host.clone()).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts.dedup_by(|a, b| a.name == b.name);
        hosts
    }

    /// The name that must be typed before the destructive steps run; none where there are none.
    pub fn confirmation(&self) -> Result<Option<String>, Diagnostics> {
        params::confirmation(self)
    }

    /// The workflow's description, with its params filled in.
    pub fn description(&self) -> Option<String> {
        params::description(self)
    }

    /// The executables of step types that have another content than when they were pinned: what they
    /// are now, by step type. Another version of a step type is refused; this is only told.
    pub fn moved_plugins(&self) -> Vec<(&str, Arc<Origin>)> {
        let pinned = self.definition.plugins.iter();
        pinned
            .filter_map(|(name, then)| {
                let now = self.registry.get(name)?.origin.clone()?;
                (now.sha256 != then.sha256).then_some((name.as_str(), now))
            })
            .collect()
    }

    /// For rehearsals: no wait between two attempts, and so long at most for each attempt at that
    /// task's step, whatever the workflow says. It isn't pinned: a resume knows nothing of it.
    pub fn hurry(&mut self, timeout: Option<(&str, std::time::Duration)>) {
        for step in &mut self.steps {
            let def = Arc::make_mut(&mut step.def);
            def.retry.backoff = std::time::Duration::from_millis(1);
            // Of a step that goes through items the task's name has the item's key too.
            let of_step = |task: &str| {
                let name = TaskName::from_text(task);
                let rest = name.step().strip_prefix(step.path.as_str()).map(str::to_owned);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
            };
            let named = timeout.filter(|(task, _)| of_step(task));
            def.timeout = named.map(|(_, limit)| limit).or(def.timeout);
        }
    }

    pub(crate) fn node(&self, node: u32) -> &Node {
        &self.graph[NodeIndex::new(node as usize)]
    }

    pub(crate) fn order(&self) -> Vec<NodeIndex> {
        self.order_of(&self.shape).into_iter().map(|node| NodeIndex::new(node as usize)).collect()
    }

    /// The nodes of a run's DAG, which may have more than the plan's, each after what it needs.
    pub(crate) fn order_of(&self, shape: &Shape) -> Vec<u32> {
        // Kahn's order with the smallest number first: a step's hosts stay together and in order.
        let mut missing: Vec<u32> = (0..shape.len() as u32).map(|n| shape.incoming(n)).collect();
        let mut ready: BTreeSet<u32> = (0..shape.len() as u32).filter(|&n| shape.incoming(n) == 0).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(node) = ready.pop_first() {
            order.push(node);
            for &after in shape.after(node) {
                missing[after as usize] -= 1;
                if missing[after as usize] == 0 {
                    ready.insert(after);
                }
            }
        }
        order
    }

    /// Whether what a task does can be taken back, as far as that is known without looking.
    pub(crate) fn undoability(&self, task: &Task) -> Undoability {
        if task.mode == Mode::Choose {
            return Undoability::Nothing;
        }
        let def = &self.steps[task.step].def;
        let of_type = match self.registry.get(&def.uses.value) {
            Some(info) => info.undoability(|name| def.with.value.contains_key(name)),
            None => Undoability::Impossible(format!("there is no step type `{}`", def.uses.value)),
        };
        let keep = of_type != Undoability::Nothing && self.step_and_callers(task.step).any(|def| def.keep);
        if keep { Undoability::Kept } else { of_type }
    }

    /// What stays of a task that was taken back.
    pub(crate) fn undo_leaves(&self, task: &Task) -> Option<&'static str> {
        self.registry.get(&self.steps[task.step].def.uses.value)?.undo_leaves
    }

    /// Whether the task's step is a pivot, or one that leads to it.
    pub(crate) fn is_pivot(&self, task: &Task) -> bool {
        self.step_and_callers(task.step).any(|def| def.pivot)
    }

    /// The file of the workflow whose steps are chosen by tags, and the tags, where the task is in one.
    pub(crate) fn left_out_of(&self, task: &Task) -> Option<(&str, Vec<&str>)> {
        let step = self.step_and_callers(task.step).find(|def| !def.included_tags().is_empty())?;
        Some((included_file(step)?.0, step.included_tags()))
    }

    /// A step, and those that include the workflow that it stands in.
    fn step_and_callers(&self, step: usize) -> impl Iterator<Item = &StepDef> {
        std::iter::successors(Some(step), |&step| {
            Some(self.frames[self.steps[step].frame].caller.as_ref()?.step)
        })
        .map(|step| &*self.steps[step].def)
    }

    fn info(&self, node: NodeIndex) -> Option<TaskInfo<'_>> {
        let task = self.graph[node].task()?;
        let step = &self.steps[task.step];
        let info = self.registry.get(&step.def.uses.value);
        Some(TaskInfo {
            name: &task.name,
            uses: &step.def.uses.value,
            help: step.def.help.as_deref(),
            host: task.host.as_deref().map(|host| host.name.as_str()),
            destructive: task.mode != Mode::Choose && info.is_some_and(|info| info.destructive),
            undo: self.undoability(task),
            pivot: task.mode != Mode::Choose && self.is_pivot(task),
            must_hold: task.mode == Mode::MustHold,
        })
    }
}

impl Node {
    pub(crate) fn task(&self) -> Option<&Task> {
        match self {
            Self::Task(task) => Some(task),
            Self::Join | Self::Gate(_) => None,
        }
    }
}
