//! What is ready and waits for room: a queue with limits. Pure: it knows numbers, no tasks.
//!
//! A node waits in the lane of its host and its kind. A kind keeps a list of the hosts whose lane has
//! someone waiting and which have room, so that no one is ever looked for: starting a node or making
//! room costs a step for each limited kind, however many wait.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::plan::Plan;
use crate::run::NodeId;

/// Nodes that wait to be started.
#[derive(Debug)]
pub(super) struct Queue {
    /// At work, and how many may be.
    used: usize,
    limit: usize,
    /// The first is for kinds without a limit.
    kinds: Vec<Kind>,
    /// The first is the operator's place, which has no limit.
    hosts: Vec<usize>,
    per_host: usize,
    /// One for each host and kind: `host * kinds + kind`.
    lanes: Vec<Lane>,
    /// The lane of each node.
    lane_of: Vec<u32>,
    /// The kind whose turn it is.
    turn: usize,
    /// How often anything was looked at, for the proof that it isn't often.
    #[cfg(test)]
    looked: u64,
}

#[derive(Debug)]
struct Kind {
    used: usize,
    limit: usize,
    /// Hosts that are listed: some may have no room any more.
    hosts: VecDeque<u32>,
}

#[derive(Debug, Default, Clone)]
struct Lane {
    waiting: VecDeque<NodeId>,
    listed: bool,
}

/// Where a node is at work, for the limits: 0 where none applies, else the host or kind, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: u32,
    pub(super) kind: u32,
}

impl Queue {
    /// The queue of a plan, of which `limit` tasks may be at work at once.
    pub(super) fn of(plan: &Plan, limit: usize) -> Self {
        let limits = plan.limits();
        let kinds: BTreeMap<&str, u32> = limits.kinds.keys().map(String::as_str).zip(1..).collect();
        let mut hosts: HashMap<&str, u32> = HashMap::new();
        let mut places = Vec::with_capacity(plan.shape().len());
        for node in plan.graph.node_weights() {
            let Some(task) = node.task() else {
                places.push(Place { host: 0, kind: 0 });
                continue;
            };
            let host = task.host.as_ref().map_or(0, |host| {
                let next = hosts.len() as u32 + 1;
                *hosts.entry(&host.name).or_insert(next)
            });
            let kind = kinds.get(plan.steps[task.step].def.uses.value.as_str()).copied().unwrap_or(0);
            places.push(Place { host, kind });
        }
        let kind_limits: Vec<usize> = limits.kinds.values().map(|limit| *limit as usize).collect();
        Self::new(limit, limits.per_host as usize, &kind_limits, &places)
    }

    /// A queue for nodes at these places.
    pub(super) fn new(limit: usize, per_host: usize, kinds: &[usize], places: &[Place]) -> Self {
        let hosts = places.iter().map(|place| place.host).max().unwrap_or(0) as usize + 1;
        let kind = |limit| Kind { used: 0, limit, hosts: VecDeque::new() };
        let kinds: Vec<Kind> = std::iter::once(usize::MAX).chain(kinds.iter().copied()).map(kind).collect();
        Self {
            used: 0,
            limit,
            hosts: vec![0; hosts],
            per_host,
            lanes: vec![Lane::default(); hosts * kinds.len()],
            lane_of: places.iter().map(|place| place.host * kinds.len() as u32 + place.kind).collect(),
            kinds,
            turn: 0,
            #[cfg(test)]
            looked: 0,
        }
    }

    /// Adds a node that is ready.
    pub(super) fn push(&mut self, node: NodeId) {
        let lane = self.lane_of[node as usize] as usize;
        self.lanes[lane].waiting.push_back(node);
        self.list(lane);
    }

    /// The next node for which there is room; it counts as at work until it is released.
    pub(super) fn pop(&mut self) -> Option<NodeId> {
        if self.used >= self.limit {
            return None;
        }
        let kinds = self.kinds.len();
        let turn = self.turn;
        for kind in (0..kinds).map(|n| (turn + n) % kinds) {
            self.look();
            if self.kinds[kind].used >= self.kinds[kind].limit {
                continue;
            }
            while let Some(host) = self.kinds[kind].hosts.pop_front() {
                self.look();
                let lane = host as usize * kinds + kind;
                self.lanes[lane].listed = false;
                if !self.has_room(host as usize) {
                    continue; // Listed again once it has.
                }
                let Some(node) = self.lanes[lane].waiting.pop_front() else { continue };
                self.take(node);
                self.list(lane);
                self.turn = (kind + 1) % kinds;
                return Some(node);
            }
        }
        None
    }

    /// Counts a node as at work, whether there is room or not: an attempt that was found begun.
    pub(super) fn take(&mut self, node: NodeId) {
        let (host, kind) = self.place(node);
        self.used += 1;
        self.hosts[host] += 1;
        self.kinds[kind].used += 1;
    }

    /// A node is at work no more: there is room for another.
    pub(super) fn release(&mut self, node: NodeId) {
        let (host, kind) = self.place(node);
        self.used -= 1;
        self.hosts[host] -= 1;
        self.kinds[kind].used -= 1;
        let kinds = self.kinds.len();
        for lane in host * kinds..(host + 1) * kinds {
            self.list(lane);
        }
    }

    fn place(&self, node: NodeId) -> (usize, usize) {
        let lane = self.lane_of[node as usize] as usize;
        (lane / self.kinds.len(), lane % self.kinds.len())
    }

    fn has_room(&self, host: usize) -> bool {
        host == 0 || self.hosts[host] < self.per_host
    }

    /// Lists a lane with its kind, where someone waits in it and its host has room.
    fn list(&mut self, lane: usize) {
        self.look();
        let (host, kind) = (lane / self.kinds.len(), lane % self.kinds.len());
        if !self.lanes[lane].listed && !self.lanes[lane].waiting.is_empty() && self.has_room(host) {
            self.lanes[lane].listed = true;
            self.kinds[kind].hosts.push_back(host as u32);
        }
    }

    fn look(&mut self) {
        #[cfg(test)]
        {
            self.looked += 1;
        }
    }
}

#[cfg(test)]
mod tests;
