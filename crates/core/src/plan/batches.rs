//! `serial`: one batch of hosts after another, as edges of the DAG.

use std::sync::Arc;

use petgraph::graph::NodeIndex;

use super::Node;
use super::expand::Expander;
use crate::inventory::Host;
use crate::workflow::Serial;

impl Expander<'_> {
    /// One batch after another; gives what passes when all have.
    pub(super) fn batches(
        &mut self,
        step: usize,
        hosts: &[Option<Arc<Host>>],
        mut before: Vec<NodeIndex>,
    ) -> Vec<NodeIndex> {
        let size = share(self.steps[step].def.serial, hosts.len());
        for batch in hosts.chunks(size) {
            let ends = self.batch(step, batch, &before);
            // The next batch, or the next step, waits for one node instead of all of these.
            before = vec![self.join(&ends)];
        }
        before
    }

    /// The same, where the next batch starts although hosts failed, until there are `limit` of them.
    pub(super) fn batches_that_may_fail(
        &mut self,
        step: usize,
        hosts: &[Option<Arc<Host>>],
        before: &[NodeIndex],
        limit: usize,
    ) -> Vec<NodeIndex> {
        let size = share(self.steps[step].def.serial, hosts.len());
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        // Every batch waits for it: a gate says nothing of what the step needs.
        let entry = self.join(before);
        let mut gate = None;
        let mut exits = Vec::new();
        for batch in hosts.chunks(size) {
            let before: Vec<NodeIndex> = std::iter::once(entry).chain(gate).collect();
            let ends = self.batch(step, batch, &before);
            let next = self.graph.add_node(Node::Gate(limit));
            for &end in ends.iter().chain(&gate) {
                self.graph.add_edge(end, next, ());
            }
            exits.push(self.join(&ends));
            gate = Some(next);
        }
        exits
    }
}

/// So many of the hosts, at least one; all of them by default.
pub(super) fn share(of: Option<Serial>, hosts: usize) -> usize {
    let size = match of {
        None => hosts,
        Some(Serial::Count(count)) => count as usize,
        Some(Serial::Percent(percent)) => hosts * usize::from(percent) / 100,
    };
    size.max(1)
}
