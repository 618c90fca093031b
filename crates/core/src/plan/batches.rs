//! `serial`: one batch of hosts (or items) after another, as edges of the DAG.

use petgraph::graph::NodeIndex;

use super::Node;
use super::expand::{Before, Expander};
use super::places::Place;

impl Expander<'_> {
    /// One batch after another; gives what passes when all have.
    pub(super) fn batches(
        &mut self,
        step: usize,
        units: &[Vec<Place>],
        mut before: Before,
    ) -> Vec<NodeIndex> {
        for batch in units.chunks(self.batch_size(step, units.len())) {
            let ends = self.batch(step, batch, &before);
            // The next batch, or the next step, waits for one node instead of all of these.
            before.all = vec![self.join(&ends)];
        }
        before.all
    }

    /// The same, where the next batch starts although hosts failed, until there are `limit` of them.
    pub(super) fn batches_that_may_fail(
        &mut self,
        step: usize,
        units: &[Vec<Place>],
        mut before: Before,
        limit: usize,
    ) -> Vec<NodeIndex> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        // Every batch waits for it: a gate says nothing of what the step needs.
        let entry = self.join(&before.all);
        let mut gate = None;
        let mut exits = Vec::new();
        for batch in units.chunks(self.batch_size(step, units.len())) {
            before.all = std::iter::once(entry).chain(gate).collect();
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

    fn batch_size(&self, step: usize, all: usize) -> usize {
        self.steps[step].def.serial.map_or(all, |serial| serial.batch(all)).max(1)
    }
}
