//! Hosts that are chosen while a run goes on: the task that chooses, and what it takes for a choice.

use std::collections::{HashMap, HashSet};

use petgraph::graph::NodeIndex;
use serde_json::Value;

use super::expand::{Before, Expander};
use super::places::Place;
use super::{Mode, Node, Outputs, Plan, Step, Task};
use crate::run::{Choice, ChoicePart, NodeId, TaskName};
use crate::step::{Output, StepError};
use crate::workflow::Hosts;

/// The choice of a step's hosts.
#[derive(Debug)]
pub(crate) struct Choosing {
    /// The task that chooses.
    pub(crate) node: NodeIndex,
    /// The set it chooses from, with each host's first node and the one that passes when its part has.
    pub(crate) parts: Vec<(String, NodeIndex, NodeIndex)>,
}

impl Expander<'_> {
    /// A step of which the hosts are chosen: a task that chooses, behind it each host's part. Gives what
    /// passes when all have. `serial` is made of what is chosen.
    pub(super) fn chosen(&mut self, step: usize, units: &[Vec<Place>], before: &Before) -> Vec<NodeIndex> {
        let name = TaskName::new(&format!("{}:hosts", self.steps[step].path), None);
        let task = Task { name, step, host: None, item: None, mode: Mode::Choose };
        let node = self.graph.add_node(Node::Task(task));
        for &all in &before.all {
            self.graph.add_edge(all, node, ());
        }
        let mut parts = Vec::with_capacity(units.len());
        for unit in units {
            let Some(host) = unit.first().and_then(|place| place.host.clone()) else { continue };
            let alone = unit.len() == 1 && self.steps[step].def.uses.value != "workflow";
            let begin = if alone { node } else { self.graph.add_node(Node::Join) };
            if !alone {
                self.graph.add_edge(node, begin, ());
            }
            let own = before.per_host.get(&host.name).cloned().unwrap_or_default();
            let behind = Before { all: vec![begin], per_host: HashMap::from([(host.name.clone(), own)]) };
            let ends = self.batch(step, std::slice::from_ref(unit), &behind);
            let end = self.join(&ends);
            parts.push((host.name.clone(), if alone { end } else { begin }, end));
        }
        let exits = parts.iter().map(|(_, _, end)| *end).collect();
        self.steps[step].choosing = Some(Choosing { node, parts });
        exits
    }
}

impl Choosing {
    /// As a run's state sees it. What was filtered out has no nodes any more.
    pub(super) fn choice(&self, step: &Step) -> (NodeId, Choice) {
        let there = |node: NodeIndex| node != NodeIndex::end();
        let nodes = |begin: NodeIndex, end: NodeIndex| {
            (there(begin) && there(end)).then(|| (begin.index() as NodeId, end.index() as NodeId))
        };
        let parts = self
            .parts
            .iter()
            .map(|(host, begin, end)| ChoicePart { host: host.clone(), nodes: nodes(*begin, *end) })
            .collect();
        (
            self.node.index() as NodeId,
            Choice { parts, serial: step.def.serial, max_failures: step.def.max_failures },
        )
    }

    /// The set it chooses from.
    pub(crate) fn within(&self) -> Vec<String> {
        self.parts.iter().map(|(host, ..)| host.clone()).collect()
    }

    /// The hosts that a value names, where it may: one, or a list.
    pub(crate) fn accept(&self, value: &Value) -> Result<Vec<String>, StepError> {
        let one = [value.clone()];
        let names = match value {
            Value::String(_) => &one[..],
            Value::Array(names) => &names[..],
            other => {
                return Err(StepError::permanent(format!("`from` gives {other}, not a list of hosts"))
                    .with_hint("it gives a host's name, or a list of them"));
            }
        };
        let mut hosts: Vec<String> = Vec::with_capacity(names.len());
        let mut seen = HashSet::new();
        let within: HashSet<&str> = self.parts.iter().map(|(host, ..)| host.as_str()).collect();
        for name in names {
            let Some(host) = name.as_str().and_then(|name| within.get(name)) else {
                let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
                return Err(StepError::permanent(format!(
                    "`from` gives {name}, which is not within its set"
                ))
                .with_hint(format!("`within` gives {}", self.within().join(", "))));
            };
            if !seen.insert(*host) {
                return Err(StepError::permanent(format!("`from` gives {host} twice"))
                    .with_hint("each host at most once, in the order of work"));
            }
            hosts.push((*host).to_owned());
        }
        Ok(hosts)
    }
}

/// What the task that chooses leaves to the step's tasks: each host's place in the order.
pub(crate) fn chosen_output(hosts: &[String]) -> Output {
    let places: serde_json::Map<String, Value> =
        hosts.iter().enumerate().map(|(place, host)| (host.clone(), place.into())).collect();
    Output::empty().with("hosts", places)
}

impl Plan {
    /// Why a task isn't run: its host, or that of a step that leads to it, was not chosen.
    pub(crate) fn not_chosen(&self, task: &Task, outputs: &Outputs) -> Option<String> {
        let (mut step, mut host) = (task.step, task.host.as_ref());
        loop {
            if let (Some(choosing), Some(host)) = (&self.steps[step].choosing, host)
                && let Some(chosen) =
                    outputs.get(choosing.node.index()).and_then(|output| output.0.get("hosts"))
                && chosen.get(&host.name).is_none()
            {
                return Some(format!(
                    "{} is not among the hosts chosen for {}",
                    host.name, self.steps[step].path
                ));
            }
            let caller = self.frames[self.steps[step].frame].caller.as_ref()?;
            (step, host) = (caller.step, caller.host.as_ref());
        }
    }

    /// Whether a choice that is made in the run says if the task is one of it.
    pub(crate) fn depends_on_choice(&self, task: &Task) -> bool {
        let mut step = task.step;
        loop {
            if self.steps[step].choosing.is_some() {
                return true;
            }
            let Some(caller) = &self.frames[self.steps[step].frame].caller else { return false };
            step = caller.step;
        }
    }

    /// The template that a task chooses hosts by.
    pub(crate) fn chooses_by(&self, task: &Task) -> Option<(&Choosing, &str)> {
        let step = &self.steps[task.step];
        match (&step.choosing, step.def.hosts.as_ref().map(|hosts| &hosts.value)) {
            (Some(choosing), Some(Hosts::Chosen { from, .. })) if task.mode == Mode::Choose => {
                Some((choosing, from.value.as_str()))
            }
            _ => None,
        }
    }
}
