//! What two worlds are compared by: what a person would call their state, without numbers that only
//! say in which order things happened.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::files::NodeKind;
use super::state::{HostState, UnitState, WorldState};
use super::units;

impl WorldState {
    /// The end state, a line for each file, unit, package, process and key, in order.
    ///
    /// Without inodes, process ids, invocations, revisions, leases, locks, attempts and logs: a run
    /// that was interrupted may differ in them from one that was not.
    pub fn outline(&self) -> String {
        let mut text = String::new();
        for (name, host) in &self.hosts {
            for line in host.outline() {
                // Writing to a string can't fail.
                let _ = writeln!(text, "{name} {line}");
            }
        }
        for (key, stored) in &self.etcd.keys {
            let lease = if stored.lease == 0 { "" } else { " (leased)" };
            let _ = writeln!(text, "etcd {key}{lease} = {}", stored.value);
        }
        text
    }

    /// The same without who leads: where Patroni starts on all hosts at once, that is left to chance.
    pub fn outline_without_roles(&self) -> String {
        let mut text = self.outline();
        for (role, any) in [
            ("in production", "ANY"),
            ("in archive recovery", "ANY"),
            ("postgres Primary", "postgres ANY"),
            ("postgres Replica", "postgres ANY"),
            ("\"role\":\"master\"", "ANY"),
            ("\"role\":\"primary\"", "ANY"),
            ("\"role\":\"replica\"", "ANY"),
        ] {
            text = text.replace(role, any);
        }
        for name in self.hosts.keys() {
            text = text.replace(&format!("leader (leased) = {name}"), "leader (leased) = ANY");
        }
        text
    }

    /// How often each change was made: `HOST KIND TEXT` to its count.
    pub fn effect_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for effect in &self.effects {
            *counts.entry(format!("{} {} {}", effect.host, effect.kind, effect.text)).or_default() += 1;
        }
        counts
    }
}

impl HostState {
    fn outline(&self) -> Vec<String> {
        let mut lines = Vec::new();
        // Where flow keeps the lock: it is on every host that flow was ever on.
        for (path, node) in self.files.nodes().filter(|(path, _)| *path != "/var/lib/flow") {
            let what = match &node.kind {
                NodeKind::Directory => "directory".to_owned(),
                NodeKind::Symlink(target) => format!("-> {target}"),
                NodeKind::File(_) if path.ends_with("/postmaster.pid") => "file".to_owned(),
                NodeKind::File(bytes) => format!("file {:?}", String::from_utf8_lossy(bytes)),
            };
            lines.push(format!("{path} {}:{} {:o} {what}", node.owner, node.group, node.mode));
        }
        for (name, &UnitState { enabled, .. }) in &self.units {
            let unit = units::show(self, name);
            let below = if unit.masked() && enabled { ", enabled below" } else { "" };
            let file_state = unit.file_state;
            lines.push(format!("unit {name} {} {} {} {file_state}{below}", unit.load, unit.active, unit.sub));
        }
        lines.extend(self.packages.iter().map(|(name, version)| format!("package {name} {version}")));
        let mut processes: Vec<_> = self
            .processes
            .values()
            .map(|process| format!("process {} {}", process.user, process.command))
            .collect();
        processes.sort();
        lines.extend(processes);
        lines.extend(
            self.postgres
                .iter()
                .map(|postgres| format!("postgres {:?} {}", postgres.role, postgres.data_dir)),
        );
        lines
    }
}
