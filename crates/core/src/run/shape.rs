//! The DAG as the state machine sees it: numbered nodes, successors, and how many each waits for.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Choice, Order, TaskName};

/// A node's number. Lives only in memory; what is stored are names.
pub type NodeId = u32;

/// What comes after each node: of node `n`, `targets[offsets[n]..offsets[n + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successors {
    offsets: Vec<u32>,
    targets: Vec<NodeId>,
}

impl Successors {
    /// Of so many nodes, by edges from before to after.
    fn new(nodes: usize, edges: &[(NodeId, NodeId)]) -> Self {
        let mut offsets = vec![0u32; nodes + 1];
        for &(from, _) in edges {
            offsets[from as usize + 1] += 1;
        }
        for n in 0..nodes {
            offsets[n + 1] += offsets[n];
        }
        let mut next = offsets.clone();
        let mut targets = vec![0; edges.len()];
        for &(from, to) in edges {
            targets[next[from as usize] as usize] = to;
            next[from as usize] += 1;
        }
        Self { offsets, targets }
    }

    /// What comes after a node.
    pub fn of(&self, node: NodeId) -> &[NodeId] {
        let node = node as usize;
        &self.targets[self.offsets[node] as usize..self.offsets[node + 1] as usize]
    }
}

/// An immutable DAG of tasks, joins and gates.
///
/// A join is a barrier: it has no name and no events, and is passed as soon as all before it are. A
/// gate is a join that lets failures by: it is passed as soon as all before it have ended, where fewer
/// of them than its limit failed. What stands behind a gate counts on: the failures that a gate let by
/// are failures of the gates right after it too.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    names: Arc<Vec<Option<TaskName>>>,
    by_name: Arc<HashMap<TaskName, NodeId, foldhash::fast::RandomState>>,
    choices: Arc<HashMap<NodeId, Choice>>,
    after: Successors,
    incoming: Vec<u32>,
    gates: HashMap<NodeId, u32>,
    tasks: usize,
}

impl Shape {
    /// A DAG of `nodes` (a name for a task, none for a join) and `edges` from before to after.
    ///
    /// The caller has made sure that names are unique and that there is no cycle.
    pub fn new(nodes: Vec<Option<TaskName>>, edges: &[(NodeId, NodeId)]) -> Self {
        Self::with_gates(nodes, edges, HashMap::new())
    }

    /// The same, where some of the joins are gates, each with its limit: so many failures close it.
    pub fn with_gates(
        nodes: Vec<Option<TaskName>>,
        edges: &[(NodeId, NodeId)],
        gates: HashMap<NodeId, u32>,
    ) -> Self {
        let mut incoming = vec![0u32; nodes.len()];
        for &(_, to) in edges {
            incoming[to as usize] += 1;
        }
        let after = Successors::new(nodes.len(), edges);
        let mut by_name = HashMap::with_capacity_and_hasher(nodes.len(), Default::default());
        by_name.extend(nodes.iter().enumerate().filter_map(|(n, name)| Some((name.clone()?, n as NodeId))));
        let tasks = by_name.len();
        let (names, by_name, choices) = (Arc::new(nodes), Arc::new(by_name), Arc::default());
        Self { names, by_name, choices, after, incoming, gates, tasks }
    }

    /// The same, where these tasks choose hosts.
    #[must_use]
    pub fn with_choices(self, choices: HashMap<NodeId, Choice>) -> Self {
        Self { choices: Arc::new(choices), ..self }
    }

    /// What a task chooses from, where it chooses hosts.
    pub fn choice(&self, node: NodeId) -> Option<&Choice> {
        self.choices.get(&node)
    }

    /// The same DAG with further nodes and edges. Costs a pass over it.
    #[must_use]
    pub(super) fn ordered(&self, order: &Order) -> Self {
        let count = self.len() as NodeId;
        let known = (0..count).flat_map(|from| self.after(from).iter().map(move |&to| (from, to)));
        let edges: Vec<(NodeId, NodeId)> = known.chain(order.edges.iter().copied()).collect();
        let nodes = vec![None; self.len() + order.barriers as usize];
        let barriers = count..count + order.barriers;
        let gates = self.gates.iter().map(|(&node, &limit)| (node, limit));
        let gates = gates
            .chain(order.gate.into_iter().flat_map(|limit| barriers.clone().map(move |node| (node, limit))));
        Self {
            names: Arc::clone(&self.names),
            by_name: Arc::clone(&self.by_name),
            choices: Arc::clone(&self.choices),
            tasks: self.tasks,
            ..Self::with_gates(nodes, &edges, gates.collect())
        }
    }

    /// Nodes, joins included.
    pub fn len(&self) -> usize {
        self.incoming.len()
    }

    /// True where there is no node.
    pub fn is_empty(&self) -> bool {
        self.incoming.is_empty()
    }

    /// Tasks.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// A task's name; none for a join.
    pub fn name(&self, node: NodeId) -> Option<&TaskName> {
        // Joins that a choice has added are behind the last name.
        self.names.get(node as usize)?.as_ref()
    }

    /// The node of a task.
    pub fn node(&self, name: &TaskName) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// What waits for a node.
    pub fn after(&self, node: NodeId) -> &[NodeId] {
        self.after.of(node)
    }

    /// The same DAG with every edge turned round: what each node waits for. Costs a pass over it.
    pub fn reversed(&self) -> Successors {
        let count = self.len() as NodeId;
        let edges: Vec<(NodeId, NodeId)> =
            (0..count).flat_map(|from| self.after(from).iter().map(move |&to| (to, from))).collect();
        Successors::new(self.len(), &edges)
    }

    /// The limit of a gate; none for any other node.
    pub fn gate(&self, node: NodeId) -> Option<u32> {
        self.gates.get(&node).copied()
    }

    /// Whether there is a gate, or one may come with a choice of hosts.
    pub fn has_gates(&self) -> bool {
        !self.gates.is_empty() || self.choices.values().any(|choice| choice.max_failures.is_some())
    }

    /// How many nodes a node waits for.
    pub fn incoming(&self, node: NodeId) -> u32 {
        self.incoming[node as usize]
    }
}
