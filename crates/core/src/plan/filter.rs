//! `--limit` and `--tags`: what is left out, and what is left in only to be checked because
//! something that runs needs it.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

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
) -> Result<(), Diagnostics> {
    if filter.is_empty() {
        return Ok(());
    }
    if workflow.whole {
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
        if task.mode == Mode::Choose {
            return false; // It is there where a task of its step is.
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
    let chosen: Vec<NodeIndex> =
        graph.node_indices().filter(|&node| graph[node].task().is_some_and(&selected)).collect();
    let mut needed = ancestors(graph, &chosen);
    // The order among chosen hosts is made of whole parts.
    for (_, begin, end) in steps.iter().filter_map(|step| step.choosing.as_ref()).flat_map(|c| &c.parts) {
        if needed.contains(begin) && !needed.contains(end) {
            needed.extend(ancestors(graph, &[*end]));
        }
    }
    let chosen: BTreeSet<NodeIndex> = chosen.into_iter().collect();
    for node in graph.node_indices().collect::<Vec<_>>() {
        if let Node::Task(task) = &mut graph[node]
            && !chosen.contains(&node)
            && task.mode == Mode::Run
        {
            task.mode = Mode::MustHold;
        }
    }
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

/// These nodes and all that comes before them.
fn ancestors(graph: &DiGraph<Node, ()>, of: &[NodeIndex]) -> BTreeSet<NodeIndex> {
    let mut found: BTreeSet<NodeIndex> = BTreeSet::new();
    let mut open: Vec<NodeIndex> = of.to_vec();
    while let Some(node) = open.pop() {
        if found.insert(node) {
            open.extend(graph.neighbors_directed(node, Direction::Incoming));
        }
    }
    found
}
