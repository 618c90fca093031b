//! `--limit` and `--tags`: what is left out, and what is left in only to be checked because
//! something that runs needs it.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::expand::Expander;
use super::{Filter, Mode, Node, Step};
use crate::inventory::Inventory;
use crate::workflow::{Code, Diagnostic, Diagnostics, Workflow};

/// A step with this tag runs whatever tags are asked for.
const ALWAYS: &str = "always";

/// Marks what must only hold, and removes what nothing needs.
pub(super) fn apply(
    filter: &Filter,
    workflow: &Workflow,
    inventory: &Inventory,
    steps: &mut [Step],
    graph: &mut DiGraph<Node, ()>,
    left_out: &BTreeSet<NodeIndex>,
) -> Result<(), Diagnostics> {
    if filter.is_empty() && left_out.is_empty() {
        return Ok(());
    }
    if workflow.whole && !filter.is_empty() {
        return Err(Diagnostic::general(
            Code::FILTER,
            format!("`{}` is only right as a whole: it takes no --limit and no --tags", workflow.name.value),
        )
        .help("run it without them")
        .into());
    }
    let limit: Option<BTreeSet<String>> = match &filter.limit {
        None => None,
        Some(pattern) => Some(
            inventory
                .select(pattern)
                .map_err(|e| {
                    let wrong = Diagnostic::general(Code::FILTER, format!("--limit: {e}"));
                    match e.help() {
                        Some(hint) => wrong.help(hint),
                        None => wrong,
                    }
                })?
                .into_iter()
                .collect(),
        ),
    };
    refuse_unknown_tags(filter, steps)?;
    let selected = |task: &super::Task| {
        let step = &steps[task.step];
        if task.mode != Mode::Run {
            return false; // It is there where a task that chooses hosts, or needs it, is.
        }
        let by_tag = filter.tags.is_empty()
            || step.tags.contains(ALWAYS)
            || step.tags.iter().any(|tag| filter.tags.contains(tag));
        let by_host = match (&limit, &task.host) {
            (Some(limit), Some(host)) => limit.contains(&host.name),
            _ => true,
        };
        by_tag && by_host
    };
    let all = graph.node_indices().filter(|node| !left_out.contains(node));
    let needed = if filter.is_empty() {
        all.collect()
    } else {
        let chosen = all.filter(|&node| graph[node].task().is_some_and(&selected)).collect();
        keep(&chosen, steps, graph, 0)
    };
    // Nodes keep their order but get new numbers, so the steps' lists are made anew.
    let mut moved = vec![NodeIndex::end(); graph.node_count()];
    let mut next = 0;
    *graph = std::mem::take(graph).filter_map_owned(
        |node, weight| {
            needed.contains(&node).then(|| {
                moved[node.index()] = NodeIndex::new(next);
                next += 1;
                weight
            })
        },
        |_, ()| Some(()),
    );
    for step in steps {
        step.exit = moved[step.exit.index()];
        if let Some(choosing) = &mut step.choosing {
            choosing.node = moved[choosing.node.index()];
            for (_, begin, end) in &mut choosing.parts {
                (*begin, *end) = (moved[begin.index()], moved[end.index()]);
            }
        }
        step.tasks =
            step.tasks.iter().map(|node| moved[node.index()]).filter(|n| *n != NodeIndex::end()).collect();
    }
    Ok(())
}

fn refuse_unknown_tags(filter: &Filter, steps: &[Step]) -> Result<(), Diagnostics> {
    let known: BTreeSet<&str> = steps.iter().flat_map(|step| &step.tags).map(String::as_str).collect();
    let mut wrong = Diagnostics::default();
    for tag in filter.tags.iter().filter(|tag| !known.contains(tag.as_str())) {
        let list: Vec<&str> = known.iter().copied().collect();
        let help = if list.is_empty() {
            "this workflow has no tags".to_owned()
        } else {
            format!("its tags are: {}", list.join(", "))
        };
        wrong.push(Diagnostic::general(Code::FILTER, format!("no step has the tag `{tag}`")).help(help));
    }
    wrong.into_result(())
}

impl Expander<'_> {
    /// Of one use of a workflow, whose nodes are those from `first` on, only the steps with one of these tags: what they
    /// need must hold, the rest is left out. Gives the node that passes when all of it has.
    pub(super) fn only_tagged(
        &mut self,
        frame: usize,
        tags: &[&str],
        first: usize,
        entry: &[NodeIndex],
    ) -> NodeIndex {
        let all: Vec<NodeIndex> = (first..self.graph.node_count()).map(NodeIndex::new).collect();
        let chosen = |node: &&NodeIndex| {
            let task = self.graph[**node].task().filter(|task| task.mode == Mode::Run);
            task.is_some_and(|task| self.has_tag(task.step, frame, tags)) && !self.left_out.contains(*node)
        };
        let chosen: BTreeSet<NodeIndex> = all.iter().filter(chosen).copied().collect();
        let kept = keep(&chosen, &self.steps, &mut self.graph, first);
        let leads_on = |node: &NodeIndex| self.graph.neighbors(*node).any(|next| kept.contains(&next));
        let last: Vec<NodeIndex> = kept.iter().filter(|node| !leads_on(node)).copied().collect();
        self.left_out.extend(all.iter().filter(|node| !kept.contains(*node)));
        let exit = self.join(if last.is_empty() { entry } else { &last });
        self.exits[frame] = exit;
        exit
    }

    /// Whether a step, or one that leads to it from that use of a workflow, has one of the tags.
    fn has_tag(&self, step: usize, frame: usize, tags: &[&str]) -> bool {
        let has =
            |step: &Step| step.def.tags.iter().any(|tag| tag.value == ALWAYS || tags.contains(&&*tag.value));
        let mut step = &self.steps[step];
        while !has(step) {
            match &self.frames[step.frame].caller {
                Some(caller) if step.frame != frame => step = &self.steps[caller.step],
                _ => return false,
            }
        }
        true
    }
}

/// The nodes from `first` on that stay where these tasks are chosen: they, and what they need, which must hold.
fn keep(
    chosen: &BTreeSet<NodeIndex>,
    steps: &[Step],
    graph: &mut DiGraph<Node, ()>,
    first: usize,
) -> BTreeSet<NodeIndex> {
    let mut kept = ancestors(graph, chosen, first);
    // The order among chosen hosts is made of whole parts.
    for (_, begin, end) in steps.iter().filter_map(|step| step.choosing.as_ref()).flat_map(|c| &c.parts) {
        if kept.contains(begin) && !kept.contains(end) {
            kept.extend(ancestors(graph, &BTreeSet::from([*end]), first));
        }
    }
    for &node in kept.difference(chosen) {
        if let Node::Task(task) = &mut graph[node]
            && task.mode == Mode::Run
        {
            task.mode = Mode::MustHold;
        }
    }
    kept
}

/// These nodes and all that comes before them, from the node `first` on.
fn ancestors(graph: &DiGraph<Node, ()>, of: &BTreeSet<NodeIndex>, first: usize) -> BTreeSet<NodeIndex> {
    let mut found: BTreeSet<NodeIndex> = BTreeSet::new();
    let mut open: Vec<NodeIndex> = of.iter().copied().collect();
    while let Some(node) = open.pop() {
        if node.index() >= first && found.insert(node) {
            open.extend(graph.neighbors_directed(node, Direction::Incoming));
        }
    }
    found
}
