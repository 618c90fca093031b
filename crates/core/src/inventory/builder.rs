//! Puts an inventory together: groups in groups, hosts in groups, and which variable wins.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value};

use super::{Host, Inventory};
use crate::workflow::{Code, Diagnostic, Diagnostics, Source, Span};

/// Variables by the name of their host or group.
pub(super) type VarsByName = IndexMap<String, Map<String, Value>>;

/// The group of all hosts.
pub(super) const ALL: &str = "all";
/// The group of hosts that are in no other.
pub(super) const UNGROUPED: &str = "ungrouped";

#[derive(Default)]
struct Group {
    hosts: IndexSet<String>,
    children: IndexMap<String, Span>,
    vars: Map<String, Value>,
    priority: i64,
}

/// An inventory while its file is read.
pub(super) struct Builder {
    groups: IndexMap<String, Group>,
    hosts: IndexMap<String, Map<String, Value>>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut builder = Self { groups: IndexMap::new(), hosts: IndexMap::new() };
        builder.group(ALL);
        builder.group(UNGROUPED);
        builder
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_insert_with(|| Group { priority: 1, ..Group::default() })
    }

    pub(super) fn add_group(&mut self, name: &str) {
        self.group(name);
    }

    pub(super) fn add_host(&mut self, group: &str, host: &str) {
        self.hosts.entry(host.to_owned()).or_default();
        self.group(group).hosts.insert(host.to_owned());
    }

    pub(super) fn set_host_var(&mut self, host: &str, name: &str, value: Value) {
        set(self.hosts.entry(host.to_owned()).or_default(), name, value);
    }

    /// Sets a group's variable.
    ///
    /// # Errors
    /// `ansible_group_priority` that isn't an integer.
    pub(super) fn set_group_var(&mut self, group: &str, name: &str, value: Value) -> Result<(), String> {
        let group = self.group(group);
        if name != "ansible_group_priority" {
            set(&mut group.vars, name, value);
            return Ok(());
        }
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        group.priority = number.ok_or("`ansible_group_priority` is an integer")?;
        Ok(())
    }

    /// Makes `child` a group of `parent`.
    ///
    /// # Errors
    /// The groups that then would contain each other, from `parent` back to it.
    pub(super) fn add_child(&mut self, parent: &str, child: &str, span: Span) -> Result<(), Vec<String>> {
        if let Some(mut chain) = self.path(child, parent) {
            chain.insert(0, parent.to_owned());
            return Err(chain);
        }
        self.group(child);
        self.group(parent).children.entry(child.to_owned()).or_insert(span);
        Ok(())
    }

    /// The groups from one down to another, where it contains that.
    fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        // Each group that was reached, and by way of which.
        let mut reached: IndexMap<&str, &str> = IndexMap::from([(from, from)]);
        let mut at = 0;
        while let Some((&group, _)) = reached.get_index(at).filter(|_| !reached.contains_key(to)) {
            at += 1;
            for child in self.groups.get(group).into_iter().flat_map(|group| group.children.keys()) {
                reached.entry(child).or_insert(group);
            }
        }
        let (mut last, _) = reached.get_key_value(to)?;
        let mut chain = vec![(*last).to_owned()];
        while *last != from {
            last = reached.get(last)?;
            chain.insert(0, (*last).to_owned());
        }
        Some(chain)
    }

    pub(super) fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    pub(super) fn host_names(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Refuses names that could lead out of `group_vars` and `host_vars`, or clash with task names.
    pub(super) fn check_names(&self, source: &Source) -> Result<(), Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        for (what, name) in
            self.groups.keys().map(|name| ("group", name)).chain(self.hosts.keys().map(|name| ("host", name)))
        {
            let bad =
                |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '@' | '!' | '&' | ',');
            if name.is_empty() || name.contains(bad) || name == "." || name == ".." {
                let message = format!("{name:?} in `{}` can't be the name of a {what}", source.name);
                diagnostics.push(Diagnostic::general(Code::INVENTORY, message));
            }
        }
        diagnostics.into_result(())
    }

    /// The inventory with everything merged. What is later here wins: variables of the file's
    /// groups from `all` down, `group_vars` in the same order, the file's host variables, `host_vars`.
    pub(super) fn finish(
        mut self,
        group_files: &VarsByName,
        host_files: &VarsByName,
        sources: Vec<PathBuf>,
    ) -> Inventory {
        self.settle_ungrouped();
        self.settle_all();
        let order = self.merge_order();
        let members: IndexMap<String, IndexSet<String>> =
            self.groups.keys().map(|name| (name.clone(), self.members(name))).collect();
        let mut hosts = IndexMap::new();
        for (name, own) in &self.hosts {
            let groups: Vec<&str> =
                order.iter().copied().filter(|group| members[*group].contains(name)).collect();
            let mut vars = Map::new();
            for group in &groups {
                extend(&mut vars, &self.groups[*group].vars);
            }
            for group in &groups {
                group_files.get(*group).into_iter().for_each(|file| extend(&mut vars, file));
            }
            extend(&mut vars, own);
            host_files.get(name).into_iter().for_each(|file| extend(&mut vars, file));
            hosts.insert(name.clone(), Arc::new(Host { name: name.clone(), vars }));
        }
        let groups = members.into_iter().map(|(name, hosts)| (name, hosts.into_iter().collect())).collect();
        Inventory { hosts, groups, sources }
    }

    /// `ungrouped` holds the hosts that are in no group but `all`, and only those.
    fn settle_ungrouped(&mut self) {
        let grouped: IndexSet<String> = self
            .groups
            .iter()
            .filter(|(name, _)| *name != ALL && *name != UNGROUPED)
            .flat_map(|(_, group)| group.hosts.iter().cloned())
            .collect();
        let own: IndexSet<String> = self.group(UNGROUPED).hosts.clone();
        let rest: Vec<String> = self.hosts.keys().cloned().collect();
        self.group(UNGROUPED).hosts =
            own.into_iter().chain(rest).filter(|host| !grouped.contains(host)).collect();
    }

    /// Every group is in `all`: those that are in no other, directly.
    fn settle_all(&mut self) {
        let inner: IndexSet<String> =
            self.groups.values().flat_map(|group| group.children.keys().cloned()).collect();
        let outer: Vec<String> =
            self.groups.keys().filter(|name| *name != ALL && !inner.contains(*name)).cloned().collect();
        let mut children = std::mem::take(&mut self.group(ALL).children);
        children.extend(outer.into_iter().map(|name| (name, 0..0)));
        self.group(ALL).children = children;
    }

    /// All groups, the one whose variables win last: by depth, then priority, then name.
    fn merge_order(&self) -> Vec<&str> {
        let mut depths: IndexMap<&str, usize> = self.groups.keys().map(|name| (name.as_str(), 0)).collect();
        // There are no circles, so as many rounds as groups settle the longest way to each.
        for _ in 0..self.groups.len() {
            let mut moved = false;
            for (name, group) in &self.groups {
                let below = depths[name.as_str()] + 1;
                for child in group.children.keys() {
                    if let Some(depth) = depths.get_mut(child.as_str())
                        && *depth < below
                    {
                        *depth = below;
                        moved = true;
                    }
                }
            }
            if !moved {
                break;
            }
        }
        let mut order: Vec<&str> = self.groups.keys().map(String::as_str).collect();
        order.sort_by_key(|name| (depths[*name], self.groups[*name].priority, *name));
        order
    }

    /// A group's hosts, its own first, then its children's, level by level.
    fn members(&self, name: &str) -> IndexSet<String> {
        let mut level: IndexSet<&str> = IndexSet::from([name]);
        let mut seen: IndexSet<&str> = IndexSet::new();
        let mut members = IndexSet::new();
        while !level.is_empty() {
            let mut next = IndexSet::new();
            for group in level {
                if !seen.insert(group) {
                    continue;
                }
                let Some(group) = self.groups.get(group) else { continue };
                members.extend(group.hosts.iter().cloned());
                next.extend(group.children.keys().map(String::as_str));
            }
            level = next;
        }
        members
    }
}

/// Sets a variable as Ansible does where one entity sets it twice: tables are merged one level deep.
fn set(vars: &mut Map<String, Value>, name: &str, value: Value) {
    match (vars.get_mut(name), value) {
        (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
        (_, value) => {
            vars.insert(name.to_owned(), value);
        }
    }
}

fn extend(vars: &mut Map<String, Value>, more: &Map<String, Value>) {
    vars.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
}
