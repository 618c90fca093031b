//! What was seen, by host, as the findings ask for it; and what of it is only told.

use flow_core::step::StepError;
use indexmap::IndexMap;
use serde::de::DeserializeOwned;

use super::step::{Of, PatroniFindings};
use super::{Problem, seen};
use crate::balancers::{Balancer, Servers};
use crate::certificates::Ends;
use crate::patroni::ancestry::nodes;
use crate::patroni::condition::{Condition, MemberSays, Says, Server};
use crate::patroni::verdict::{Keys, Node, Store};
use crate::postgres::in_words;
use crate::support::unseen_because;

/// What was seen, by host.
pub(super) struct Sight {
    /// Of the hosts of Patroni; one that couldn't be looked at says why.
    pub(super) nodes: IndexMap<String, Node>,
    pub(super) conditions: IndexMap<String, Condition>,
    pub(super) certificates: IndexMap<String, Ends>,
    pub(super) balancers: IndexMap<String, Balancer>,
    /// Whose data is the right one must be decided before any Patroni is started.
    pub(super) start_nothing: bool,
    /// Hosts whose data may have rows that nobody else has.
    pub(super) apart: Vec<String>,
    /// Nobody leads, and this host has all that any has: it starts first.
    pub(super) first: Option<String>,
    /// Other looks that gave nothing: the host, and why.
    lost: IndexMap<String, String>,
}

impl Sight {
    /// # Errors
    /// What isn't the output of its step.
    pub(super) fn of(looks: &PatroniFindings) -> Result<Self, StepError> {
        let mut lost = IndexMap::new();
        let nodes = nodes(&looks.evidence, &looks.ancestry)?;
        Ok(Self {
            conditions: read("condition", &looks.condition, &mut lost)?,
            certificates: read("certificates", &looks.certificates, &mut lost)?,
            balancers: read("balancers", &looks.balancers, &mut lost)?,
            nodes,
            start_nothing: false,
            apart: Vec::new(),
            first: None,
            lost,
        })
    }

    /// Starting or cloning that host's member could give rows up, or decide whose data is the right one.
    pub(super) fn not_to_start(&self, host: &str) -> bool {
        self.start_nothing || self.apart.iter().any(|apart| apart == host)
    }

    pub(super) fn scope(&self) -> String {
        self.nodes.values().find_map(|node| Some(node.settings()?.scope.clone())).unwrap_or_default()
    }

    /// What opens what a run has closed.
    pub(super) fn open(&self) -> String {
        let scope = self.scope();
        format!("flow run open.toml --confirm {}", if scope.is_empty() { "SCOPE" } else { &scope })
    }

    /// `patronictl` on any of the hosts, by its configuration: by itself it finds none.
    pub(super) fn patronictl(&self, words: &str) -> String {
        let file = self.conditions.values().next().map(|condition| condition.config_file.clone());
        format!("patronictl -c {} {words}", file.unwrap_or_else(crate::patroni::config_file))
    }

    /// `etcdctl` on any of the hosts, as their Patroni reaches etcd.
    pub(super) fn etcdctl(&self, words: &str) -> String {
        let mut command = "ETCDCTL_API=3 etcdctl".to_owned();
        if let Some(settings) = self.nodes.values().find_map(Node::settings) {
            let scheme = if settings.etcd_tls.is_some() { "https://" } else { "" };
            let places: Vec<String> =
                settings.endpoints.iter().map(|place| format!("{scheme}{place}")).collect();
            command.push_str(&format!(" --endpoints={}", places.join(",")));
            if let Some(tls) = &settings.etcd_tls {
                command.push_str(&format!(" --cacert={}", tls.ca));
                command.extend(tls.cert.iter().map(|cert| format!(" --cert={cert}")));
                command.extend(tls.key.iter().map(|key| format!(" --key={key}")));
            }
        }
        format!("{command} {words}")
    }

    /// The hosts that lead, by what their Patroni says.
    pub(super) fn leaders(&self) -> Vec<&str> {
        self.nodes.iter().filter(|(_, node)| node.leads()).map(|(host, _)| host.as_str()).collect()
    }

    /// The cluster's keys, by the first host that sees them.
    pub(super) fn keys(&self) -> Option<&Keys> {
        self.nodes.values().find_map(|node| match &node.store {
            Store::Keys(keys) => Some(&**keys),
            Store::Unknown(_) | Store::Silent(..) => None,
        })
    }

    /// What a host's PostgreSQL says of itself.
    pub(super) fn says(&self, host: &str) -> Option<&Says> {
        match &self.conditions.get(host)?.server {
            Server::Says(says) => Some(says),
            Server::Stopped | Server::Unknown(_) => None,
        }
    }

    /// Hosts beside Patroni's of which something could not be looked at at all.
    pub(super) fn unseen(&self) -> Vec<Problem> {
        let told = |host: &str| self.nodes.get(host).is_some_and(|node| node.unreachable.is_some());
        let lost = self.lost.iter().filter(|(host, _)| !told(host));
        lost.map(|(host, why)| {
            seen("unreachable", format!("{host} can't be looked at, or not at all of it"))
                .because([why])
                .mended(
                    "make it reachable, and look again: what isn't seen counts for nothing",
                    None,
                    "nothing",
                )
        })
        .collect()
    }

    /// What was seen beyond the verdict's evidence, for a person.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.keys().map(of_keys));
        lines.extend(self.conditions.values().find(|one| one.etcd.alarms.is_some()).map(of_etcd));
        for (host, condition) in &self.conditions {
            lines.extend(of_condition(condition).map(|words| format!("{host}: {words}")));
        }
        lines.extend(
            self.balancers.iter().map(|(host, balancer)| format!("{host}: {}", of_balancer(balancer))),
        );
        lines
    }
}

/// What a step gave; of a host on which it gave nothing, why.
fn read<T: DeserializeOwned>(
    name: &str,
    seen: &Of,
    lost: &mut IndexMap<String, String>,
) -> Result<IndexMap<String, T>, StepError> {
    let mut found = IndexMap::new();
    for (host, value) in seen {
        match (serde_json::from_value(value.clone()), unseen_because(value)) {
            (Ok(value), _) => {
                found.insert(host.clone(), value);
            }
            (Err(_), Some(why)) => {
                lost.entry(host.clone()).or_insert_with(|| why.to_owned());
            }
            (Err(error), None) => {
                let message = format!("`{name}` of {host} is no output of that step: {error}");
                return Err(StepError::permanent(message));
            }
        }
    }
    Ok(found)
}

fn of_keys(keys: &Keys) -> String {
    let revision = |key: &Option<crate::patroni::verdict::Key>| match key {
        Some(key) if key.lease != 0 => format!("at revision {}, lease {:x}", key.revision, key.lease),
        Some(key) => format!("at revision {}, no lease", key.revision),
        None => "absent".to_owned(),
    };
    format!("etcd: initialize {}; leader {}", revision(&keys.initialize), revision(&keys.leader))
}

fn of_etcd(condition: &Condition) -> String {
    let member = |member: &crate::patroni::condition::Member| {
        let name = member.name.as_deref().unwrap_or(&member.endpoint);
        match &member.says {
            MemberSays::Answers { id, version, leader, .. } if id == leader => {
                format!("{name} {version}, leads")
            }
            MemberSays::Answers { version, .. } => format!("{name} {version}"),
            MemberSays::Silent(..) => format!("{name} silent"),
        }
    };
    let members: Vec<String> = condition.etcd.members.iter().map(member).collect();
    format!("etcd's members: {}", members.join("; "))
}

fn of_condition(condition: &Condition) -> Option<String> {
    let mut words = Vec::new();
    if let Some(place) = &condition.place {
        let mut mounts: IndexMap<&str, (String, Vec<&str>)> = IndexMap::new();
        for disk in &place.disks {
            let room = format!("{} of {} free", in_words(disk.free), in_words(disk.size));
            let holds = if disk.holds == "wal" { "WAL" } else { disk.holds.as_str() };
            mounts.entry(&disk.mount).or_insert((room, Vec::new())).1.push(holds);
        }
        words.extend(mounts.values().map(|(room, holds)| format!("{room} for {}", holds.join(" and "))));
        for copy in &place.copies {
            let size = copy.bytes.map_or_else(|| "size not known".to_owned(), in_words);
            words.push(format!("beside the data: {} ({size})", copy.path));
        }
    }
    match &condition.server {
        Server::Unknown(why) => words.push(format!("PostgreSQL can't be asked: {why}")),
        Server::Says(says) => {
            words.push(format!("{} replication slots", says.slots.len()));
            words.extend(says.archiver.as_ref().map(|archiver| format!("archiving {}", archiver.mode)));
        }
        Server::Stopped => {}
    }
    words.extend(condition.locked_by.as_ref().map(|lock| format!("locked by run {}", lock.run)));
    (!words.is_empty()).then(|| words.join(", "))
}

fn of_balancer(balancer: &Balancer) -> String {
    let mut words = Vec::new();
    if let Some(haproxy) = &balancer.haproxy {
        let closed = balancer.closed_by.as_ref().map(|run| format!(", closed by run {run}"));
        words.push(format!("HAProxy {}{}", haproxy.state, closed.unwrap_or_default()));
        words.push(match &balancer.primary {
            Servers::Unknown(why) => format!("to whom it leads isn't known: {why}"),
            Servers::Of(servers) => {
                let up: Vec<&str> =
                    servers.iter().filter(|told| told.up).map(|told| told.name.as_str()).collect();
                format!("leads to {}", if up.is_empty() { "nobody".to_owned() } else { up.join(" ") })
            }
        });
    }
    words.extend(balancer.keepalived.as_ref().map(|one| format!("keepalived {}", one.state)));
    match balancer.has_vip {
        Some(true) => words.push(format!("has {}", balancer.vip)),
        Some(false) => words.push(format!("hasn't {}", balancer.vip)),
        None => {}
    }
    words.join(", ")
}
