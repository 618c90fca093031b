//! Hosts that are chosen while a run goes on: which of a set a step works on, and in which order.
//!
//! The set is known before: it is in the DAG, each host's part behind the choice. What is chosen orders the
//! parts by further edges, so that nothing else need know of it.

use std::collections::{HashMap, HashSet};

use super::NodeId;
use crate::workflow::Serial;

/// What a choice is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The set, in the inventory's order.
    pub parts: Vec<ChoicePart>,
    /// How many of the chosen hosts are at work at once; all by default.
    pub serial: Option<Serial>,
    /// Once so many of the chosen hosts have failed, the next batch does not start; 1 by default.
    pub max_failures: Option<Serial>,
}

/// A step's part on one host of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoicePart {
    /// The host.
    pub host: String,
    /// Its first node and the one that passes when all of it has; none where it was filtered out.
    pub nodes: Option<(NodeId, NodeId)>,
}

/// Further nodes and edges.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// So many barriers between batches, numbered from the first free number on.
    pub barriers: u32,
    /// Where the barriers are gates: so many failed hosts close them. Else they are joins.
    pub gate: Option<u32>,
    /// From before to after.
    pub edges: Vec<(NodeId, NodeId)>,
}

impl Choice {
    /// The edges that order these hosts, where the next free node is `free`. A batch waits for the whole
    /// one before; hosts that aren't chosen wait for nothing more, and are skipped.
    ///
    /// # Errors
    /// A host that is not of the set, or is there twice.
    pub fn order(&self, hosts: &[String], free: NodeId) -> Result<Order, String> {
        let known: HashMap<&str, &ChoicePart> =
            self.parts.iter().map(|part| (part.host.as_str(), part)).collect();
        let mut seen = HashSet::with_capacity(hosts.len());
        let mut chosen = Vec::with_capacity(hosts.len());
        for host in hosts {
            chosen.push(*known.get(host.as_str()).ok_or_else(|| host.clone())?);
            if !seen.insert(host) {
                return Err(host.clone());
            }
        }
        let mut order = Order::default();
        let Some(serial) = self.serial else { return Ok(order) };
        // Hosts that were filtered out have no place in the order.
        let nodes: Vec<(NodeId, NodeId)> = chosen.iter().filter_map(|part| part.nodes).collect();
        let most = self.max_failures.map_or(1, |limit| limit.batch(nodes.len()));
        order.gate = u32::try_from(most).ok().filter(|most| *most > 1);
        let batches: Vec<_> = nodes.chunks(serial.batch(nodes.len())).collect();
        for pair in batches.windows(2) {
            let barrier = free + order.barriers;
            if order.gate.is_some() && order.barriers > 0 {
                order.edges.push((barrier - 1, barrier)); // A gate counts on what the one before let by.
            }
            order.barriers += 1;
            order.edges.extend(pair[0].iter().map(|&(_, end)| (end, barrier)));
            order.edges.extend(pair[1].iter().map(|&(begin, _)| (barrier, begin)));
        }
        Ok(order)
    }
}
