//! The DAG as whoever draws it sees it: owned, without the plan's secrets and step types.

use std::sync::Arc;

use petgraph::visit::EdgeRef;

use super::{Definition, Mode, Plan, expand};
use crate::run::TaskName;
use crate::step::Registry;
use crate::workflow::Diagnostics;

/// A plan's tasks and barriers, and what comes before what.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// The workflow's name.
    pub title: String,
    /// What the workflow is for, in one line.
    pub summary: String,
    /// Tasks and, without one, barriers; each after what it needs.
    pub nodes: Vec<Option<DrawnTask>>,
    /// From before to after, by place in `nodes`, sorted.
    pub edges: Vec<(usize, usize)>,
}

/// A task as it is drawn.
#[derive(Debug, Clone)]
pub struct DrawnTask {
    /// `stop-patroni@patroni2`
    pub name: TaskName,
    /// Its step type.
    pub uses: String,
    /// The author's words on it.
    pub help: Option<String>,
    /// Wants `--confirm`.
    pub destructive: bool,
    /// It chooses its step's hosts.
    pub choice: bool,
}

impl Plan {
    /// The DAG for drawing.
    pub fn drawing(&self) -> Drawing {
        let order = self.order();
        let mut places = vec![0; order.len()];
        let mut nodes = Vec::with_capacity(order.len());
        for (place, node) in order.into_iter().enumerate() {
            places[node.index()] = place;
            nodes.push(self.info(node).map(|task| DrawnTask {
                name: task.name.clone(),
                uses: task.uses.to_owned(),
                help: task.help.map(str::to_owned),
                destructive: task.destructive,
                choice: self.graph[node].task().is_some_and(|task| task.mode == Mode::Choose),
            }));
        }
        let edges = self.graph.edge_references();
        let mut edges: Vec<_> =
            edges.map(|edge| (places[edge.source().index()], places[edge.target().index()])).collect();
        edges.sort_unstable();
        edges.dedup();
        Drawing {
            title: self.workflow.name.value.clone(),
            summary: self.workflow.summary.clone(),
            nodes,
            edges,
        }
    }

    /// The DAG of a run that was started before, for drawing. Reads no secret.
    pub fn drawing_of(definition: Definition, registry: &Arc<Registry>) -> Result<Drawing, Diagnostics> {
        Ok(expand::outlined(definition, registry)?.drawing())
    }
}
