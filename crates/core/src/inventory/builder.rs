//! Puts an inventory together: groups in groups, hosts in groups, and which variable wins.

use std::path::{Path, PathBuf};

use indexmap::{IndexMap, IndexSet};

use super::raw::{self, Var, Vars};
use super::vars_files::VarsFiles;
use crate::workflow::{Code, Diagnostic, Diagnostics, Span};

/// The group of all hosts.
pub(super) const ALL: &str = "all";
/// The group of hosts that are in no other.
pub(super) const UNGROUPED: &str = "ungrouped";

#[derive(Default)]
struct Group {
    hosts: IndexSet<String>,
    children: IndexMap<String, Span>,
    vars: Vars,
    priority: i64,
}

/// A host while files are read.
#[derive(Default)]
struct Entry {
    vars: Vars,
    /// The file that named it first.
    file: PathBuf,
}

/// An inventory put together, its variables not yet evaluated.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) hosts: IndexMap<String, MergedHost>,
    /// All hosts of each group, its children's included.
    pub(super) members: IndexMap<String, Vec<String>>,
    /// What each group itself holds.
    pub(super) groups: IndexMap<String, GroupOutline>,
}

/// A host with the variables that won.
#[derive(Debug)]
pub(super) struct MergedHost {
    pub(super) vars: Vars,
    pub(super) file: PathBuf,
}

/// What a group itself holds, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOutline {
    /// Its own hosts.
    pub hosts: Vec<String>,
    /// Its groups.
    pub children: Vec<String>,
}

/// An inventory while its file is read.
pub(super) struct Builder {
    groups: IndexMap<String, Group>,
    hosts: IndexMap<String, Entry>,
    file: PathBuf,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut builder = Self { groups: IndexMap::new(), hosts: IndexMap::new(), file: PathBuf::new() };
        builder.group(ALL);
        builder.group(UNGROUPED);
        builder
    }

    /// What comes is of this file.
    pub(super) fn begin(&mut self, file: &Path) {
        file.clone_into(&mut self.file);
    }

    fn host(&mut self, name: &str) -> &mut Entry {
        let file = &self.file;
        self.hosts.entry(name.to_owned()).or_insert_with(|| Entry { vars: Vars::new(), file: file.clone() })
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_insert_with(|| Group { priority: 1, ..Group::default() })
    }

    pub(super) fn add_group(&mut self, name: &str) {
        self.group(name);
    }

    pub(super) fn add_host(&mut self, group: &str, host: &str) {
        self.host(host);
        self.group(group).hosts.insert(host.to_owned());
    }

    pub(super) fn set_host_var(&mut self, host: &str, name: &str, var: Var) {
        raw::set(&mut self.host(host).vars, name, var);
    }

    /// Sets a group's variable.
    ///
    /// # Errors
    /// `ansible_group_priority` that isn't an integer.
    pub(super) fn set_group_var(&mut self, group: &str, name: &str, var: Var) -> Result<(), String> {
        let group = self.group(group);
        if name != "ansible_group_priority" {
            raw::set(&mut group.vars, name, var);
            return Ok(());
        }
        let value = var.raw.to_value();
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
    pub(super) fn check_names(&self, source: &str) -> Result<(), Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        for (what, name) in
            self.groups.keys().map(|name| ("group", name)).chain(self.hosts.keys().map(|name| ("host", name)))
        {
            let bad =
                |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '@' | '!' | '&' | ',');
            if name.is_empty() || name.contains(bad) || name == "." || name == ".." {
                let message = format!("{name:?} in `{source}` can't be the name of a {what}");
                diagnostics.push(Diagnostic::general(Code::INVENTORY, message));
            }
        }
        diagnostics.into_result(())
    }

    /// The inventory with everything merged. What is later here wins: variables of the inventory's groups
    /// from `all` down, `group_vars` for `all`, for other groups, the inventory's host variables, `host_vars`; each
    /// folder beside an inventory in the inventories' order, then the playbook's (Ansible 2.19, vars/manager.py).
    pub(super) fn finish(mut self, beside: &[VarsFiles], playbook: &VarsFiles) -> Merged {
        self.settle_ungrouped();
        self.settle_all();
        let order = self.merge_order();
        let members: IndexMap<String, IndexSet<String>> =
            self.groups.keys().map(|name| (name.clone(), self.members(name))).collect();
        let mut hosts = IndexMap::new();
        for (name, own) in &self.hosts {
            let groups: Vec<&str> =
                order.iter().copied().filter(|group| members[*group].contains(name)).collect();
            let mut vars = Vars::new();
            groups.iter().for_each(|group| extend(&mut vars, &self.groups[*group].vars));
            let files = || beside.iter().chain([playbook]);
            files().filter_map(|files| files.groups.get(ALL)).for_each(|file| extend(&mut vars, file));
            for files in files() {
                let special = groups.iter().filter(|group| **group != ALL);
                special.filter_map(|group| files.groups.get(*group)).for_each(|file| extend(&mut vars, file));
            }
            extend(&mut vars, &own.vars);
            files().filter_map(|files| files.hosts.get(name)).for_each(|file| extend(&mut vars, file));
            hosts.insert(name.clone(), MergedHost { vars, file: own.file.clone() });
        }
        let members = members.into_iter().map(|(name, hosts)| (name, hosts.into_iter().collect())).collect();
        let outline = |group: &Group| GroupOutline {
            hosts: group.hosts.iter().cloned().collect(),
            children: group.children.keys().cloned().collect(),
        };
        let groups = self.groups.iter().map(|(name, group)| (name.clone(), outline(group))).collect();
        Merged { hosts, members, groups }
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

fn extend(vars: &mut Vars, more: &Vars) {
    vars.extend(more.iter().map(|(name, var)| (name.clone(), var.clone())));
}
