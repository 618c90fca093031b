//! How many tasks of a plan may be at work at once, and how many may fail.

use std::collections::BTreeMap;

use super::Plan;
use crate::workflow::Workflow;

/// Tasks at work on one host at once, where the workflow doesn't say. It is the number of sessions that
/// a host's SSH connection has room for: sshd's `MaxSessions` is 10 by default.
pub const MAX_PER_HOST: u32 = 8;

/// The limits of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// On one host.
    pub(crate) per_host: u32,
    /// Of one step type, over all hosts; those that aren't here have none.
    pub(crate) kinds: BTreeMap<String, u32>,
    /// Once so many tasks have failed, nothing new is started.
    pub(crate) max_failures: Option<u32>,
}

impl Plan {
    /// Whether the workflow says how many tasks may be at work at once.
    pub(crate) fn is_limited(&self) -> bool {
        let limited = |workflow: &Workflow| !workflow.limits.is_empty() || workflow.max_per_host.is_some();
        self.frames.iter().any(|frame| limited(&frame.workflow))
    }

    /// The limits: the smallest of those of the workflow and of the workflows that it includes.
    pub(crate) fn limits(&self) -> Limits {
        let workflows = || self.frames.iter().map(|frame| &frame.workflow);
        let mut kinds = BTreeMap::new();
        for (name, limit) in workflows().flat_map(|workflow| &workflow.limits) {
            let least = kinds.entry(name.clone()).or_insert(limit.value);
            *least = limit.value.min(*least);
        }
        Limits {
            per_host: workflows().filter_map(|workflow| workflow.max_per_host).min().unwrap_or(MAX_PER_HOST),
            kinds,
            max_failures: self.workflow.max_failures,
        }
    }
}
