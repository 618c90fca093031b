//! Where a step runs: its hosts, the items that it goes through, and what each host waits for by itself.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use super::expand::Expander;
use super::params;
use crate::inventory::Host;
use crate::workflow::{Code, Diagnostic, Hosts, Item, Spanned, StepDef, expr, items};

/// Where a part of a step runs, and for which item.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) host: Option<Arc<Host>>,
    pub(super) item: Option<Arc<Item>>,
}

impl Expander<'_> {
    /// The items that a step goes through; none for a step without `foreach`.
    pub(super) fn items(&mut self, frame: usize, def: &StepDef) -> Option<Vec<Arc<Item>>> {
        let list = def.foreach.as_ref()?;
        let source = Arc::clone(&self.frames[frame].workflow.source);
        let at = |code, message: String| Diagnostic::at(code, &source, list.span.clone(), message);
        let value =
            params::foreach_list(self.evaluator, self.inventory, self.params, &self.frames, frame, list);
        let found = match value {
            Ok(value) => items(value).map_err(|fault| at(Code::TYPE, fault.message()).help(fault.help())),
            Err(e) => Err(at(Code::EXPRESSION, format!("the list isn't known before the run: {e}")).help(
                "it may use params, groups and hostvars; what an output gives is known too late: \
                 let one step go through that",
            )),
        };
        // What is masked in the names of tasks could not be found again.
        let found = found.and_then(|items| {
            let masked = |text: &str| matches!(self.redactor.text(text), Cow::Owned(_));
            let shown = |item: &Item| masked(&item.label) || masked(&item.key);
            match items.iter().position(shown) {
                Some(index) => Err(at(Code::TYPE, format!("item {} holds a secret", index + 1))
                    .help("each task is named after its item, and names are shown")),
                None => Ok(items.into_iter().map(Arc::new).collect()),
            }
        });
        Some(found.unwrap_or_else(|wrong| {
            self.wrong.push(wrong);
            Vec::new()
        }))
    }

    /// What each of a step's hosts waits for: its own part of the steps in `needs_per_host`.
    pub(super) fn parts(
        &mut self,
        frame: usize,
        def: &StepDef,
        hosts: &[Arc<Host>],
    ) -> HashMap<String, Vec<NodeIndex>> {
        let mut all: HashMap<String, Vec<NodeIndex>> = HashMap::new();
        for need in &def.needs_per_host {
            let Some(&needed) = self.frames[frame].steps.get(&need.value) else { continue };
            let mut parts: HashMap<String, Vec<NodeIndex>> = HashMap::new();
            let step = &self.steps[needed];
            for &node in &step.tasks {
                if let Some(host) = self.graph[node].task().and_then(|task| task.host.as_ref()) {
                    parts.entry(host.name.clone()).or_default().push(node);
                }
            }
            for (host, frame) in &step.frames {
                if let Some(host) = host {
                    parts.entry(host.clone()).or_default().push(self.exits[*frame]);
                }
            }
            self.refuse_lacking(frame, def, need, &self.hosts[needed].clone(), hosts);
            for host in hosts {
                let part = match parts.remove(&host.name) {
                    Some(nodes) => self.join(&nodes),
                    // It goes through an empty list: nothing to do there, but to wait for what it waits for.
                    None => self.steps[needed].exit,
                };
                all.entry(host.name.clone()).or_default().push(part);
            }
        }
        all
    }

    /// Refuses hosts on which the step that is needed per host has no part.
    fn refuse_lacking(
        &mut self,
        frame: usize,
        def: &StepDef,
        need: &Spanned<String>,
        needed: &[Arc<Host>],
        hosts: &[Arc<Host>],
    ) {
        let known: HashSet<&str> = needed.iter().map(|host| host.name.as_str()).collect();
        let lacking: Vec<&str> =
            hosts.iter().map(|host| host.name.as_str()).filter(|host| !known.contains(host)).collect();
        let Some((first, more)) = lacking.split_first().filter(|_| !known.is_empty()) else { return };
        let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let message =
            format!("`{}` doesn't run on {first}{others}, where `{}` does", need.value, def.id.value);
        let source = &self.frames[frame].workflow.source;
        let wrong = Diagnostic::at(Code::HOSTS, source, need.span.clone(), message).help(format!(
            "give both the same hosts, or wait for all hosts of it: needs = [\"{}\"]",
            need.value
        ));
        self.wrong.push(wrong);
    }

    /// The hosts of a step; none for the operator's place.
    pub(super) fn hosts_of(&mut self, frame: usize, def: &StepDef) -> Option<Vec<Arc<Host>>> {
        let inherited = self.frames[frame].caller.as_ref().and_then(|caller| caller.host.clone());
        let Some(hosts) = &def.hosts else { return inherited.map(|host| vec![host]) };
        let workflow = Arc::clone(&self.frames[frame].workflow);
        if inherited.is_some() {
            self.wrong.push(
                Diagnostic::at(
                    Code::HOSTS,
                    &workflow.source,
                    hosts.span.clone(),
                    format!("`{}` runs inside a workflow that is used once for each host", def.id.value),
                )
                .label("it can't have hosts of its own")
                .help("remove `hosts`; the step runs on the host of the workflow"),
            );
            return Some(Vec::new());
        }
        let (text, span) = match &hosts.value {
            Hosts::Pattern(text) => (text, &hosts.span),
            Hosts::Chosen { within, .. } => (&within.value, &within.span),
        };
        let wrong = match self.select(frame, text) {
            Ok(hosts) => return Some(hosts),
            Err((code, message, help)) => {
                Diagnostic::at(code, &workflow.source, span.clone(), message).help(help)
            }
        };
        self.wrong.push(wrong);
        Some(Vec::new())
    }

    /// The hosts that a pattern stands for; else what is wrong with it, and what would be right.
    fn select(&self, frame: usize, text: &str) -> Result<Vec<Arc<Host>>, (Code, String, String)> {
        let pattern =
            params::host_pattern(self.evaluator, self.inventory, self.params, &self.frames, frame, text)
                .map_err(|e| {
                    let help = "`hosts` may use params, groups and hostvars only; \
                        what an output gives is chosen with { from, within }";
                    (Code::EXPRESSION, e.message, help.to_owned())
                })?;
        // A template that gives nothing means it: there is nothing to do on this inventory.
        if expr::is_template(text) && pattern.trim().is_empty() {
            return Ok(Vec::new());
        }
        let names = self
            .inventory
            .select(&pattern)
            .map_err(|e| (Code::HOSTS, e.to_string(), e.help().unwrap_or_else(|| self.inventory_hint())))?;
        if names.is_empty() {
            return Err((Code::HOSTS, format!("`{pattern}` selects no host"), self.inventory_hint()));
        }
        Ok(names.iter().filter_map(|name| self.inventory.host(name).cloned()).collect())
    }

    fn inventory_hint(&self) -> String {
        let groups: Vec<&str> = self
            .inventory
            .groups
            .iter()
            .filter(|(_, hosts)| !hosts.is_empty())
            .map(|(g, _)| g.as_str())
            .collect();
        if groups.is_empty() {
            "the inventory has no hosts; give one with -i INVENTORY".to_owned()
        } else {
            format!("groups with hosts: {}", groups.join(", "))
        }
    }
}

/// What `serial` counts: hosts, each with all items; items, where the step has no `hosts`.
pub(super) fn units(
    def: &StepDef,
    hosts: Option<Vec<Arc<Host>>>,
    items: Option<&[Arc<Item>]>,
) -> Vec<Vec<Place>> {
    let hosts: Vec<Option<Arc<Host>>> = match hosts {
        None => vec![None],
        Some(hosts) => hosts.into_iter().map(Some).collect(),
    };
    let Some(items) = items else {
        return hosts.into_iter().map(|host| vec![Place { host, item: None }]).collect();
    };
    let of_host = |host: Option<Arc<Host>>| {
        items.iter().map(move |item| Place { host: host.clone(), item: Some(Arc::clone(item)) })
    };
    if def.hosts.is_some() {
        return hosts
            .into_iter()
            .map(|host| of_host(host).collect())
            .filter(|of: &Vec<_>| !of.is_empty())
            .collect();
    }
    hosts.into_iter().flat_map(of_host).map(|place| vec![place]).collect()
}

/// A step's path for one item: `create[app]`.
pub(super) fn item_path(path: &str, item: Option<&Item>) -> String {
    match item {
        Some(item) => format!("{path}[{}]", item.key),
        None => path.to_owned(),
    }
}
