//! etcd: whether it can answer, its alarms, its members.

use std::collections::{BTreeMap, BTreeSet};

use super::sight::Sight;
use super::{Problem, proven, seen};
use crate::clients::{EtcdAlarmKind, NoEtcd};
use crate::patroni::condition::{Etcd, MemberSays};
use crate::patroni::verdict::{Node, Store};
use crate::support::address_and_port;

pub(super) fn problems(sight: &Sight) -> Vec<Problem> {
    let all: Vec<&Etcd> = sight.conditions.values().map(|condition| &condition.etcd).collect();
    let silent = silent(&all);
    let reached: Vec<&Node> = sight.nodes.values().filter(|node| node.settings().is_some()).collect();
    if !reached.is_empty() && reached.iter().all(|node| !matches!(node.store, Store::Keys(_))) {
        let kinds = reached.iter().filter_map(|node| match &node.store {
            Store::Silent(kind, _) => Some(*kind),
            _ => None,
        });
        let because = silent.iter().map(|(endpoint, (_, why))| format!("{endpoint}: {why}"));
        return vec![unable(kinds.max().unwrap_or(NoEtcd::Silent), because.collect())];
    }
    let mut found: Vec<Problem> = alarms(sight, &all);
    found.extend(silent.into_iter().map(|(endpoint, (name, why))| dead(sight, endpoint, name, why)));
    found.extend(alone(&all));
    found.extend(unstarted(&all));
    found.extend(versions(&all));
    found
}

/// Endpoints that give no host an answer, with their names and why; to one that answers another host, that host's way is cut.
fn silent<'a>(all: &[&'a Etcd]) -> BTreeMap<&'a str, (Option<&'a str>, &'a str)> {
    let members = || all.iter().flat_map(|etcd| &etcd.members);
    let name = |endpoint: &str| {
        members().find(|member| member.endpoint == endpoint && member.name.is_some())?.name.as_deref()
    };
    let mut found = BTreeMap::new();
    for member in members() {
        if let MemberSays::Silent(_, why) = &member.says {
            found.insert(member.endpoint.as_str(), (name(&member.endpoint), why.as_str()));
        }
    }
    for member in members().filter(|member| matches!(member.says, MemberSays::Answers { .. })) {
        found.remove(member.endpoint.as_str());
    }
    found
}

/// No host gets an answer.
fn unable(kind: NoEtcd, because: Vec<String>) -> Problem {
    let (name, what, remedy) = match kind {
        NoEtcd::NoQuorum => (
            "etcd-unavailable",
            "etcd has no quorum: most of its members are away. Patroni can elect nobody, and a leader steps down",
            "start etcd on its hosts (`systemctl status etcd`); most of the members must run. Don't touch PostgreSQL",
        ),
        NoEtcd::Silent => (
            "etcd-unavailable",
            "etcd can't answer: Patroni can elect nobody, and a leader steps down",
            "start etcd on its hosts (`systemctl status etcd`); most of the members must run. Don't touch PostgreSQL",
        ),
        NoEtcd::Refused => (
            "etcd-refuses",
            "etcd answers the hosts' Patroni, and refuses: rights, certificates, or no room",
            "what it says is below; `journalctl -u etcd` tells more. Don't touch PostgreSQL",
        ),
        NoEtcd::NotEtcd3 => (
            "etcd-other",
            "what answers in etcd's place isn't etcd version 3",
            "compare the endpoints in Patroni's configuration with where etcd runs",
        ),
    };
    seen(name, what).because(because).mended(remedy, None, "etcd alone")
}

/// By their type, as etcd gives it; never by a word of a message.
fn alarms(sight: &Sight, all: &[&Etcd]) -> Vec<Problem> {
    let Some(etcd) = all.iter().find(|etcd| etcd.alarms.is_some()) else { return Vec::new() };
    let mut seen_already = BTreeSet::new();
    let mut found = Vec::new();
    for alarm in etcd.alarms.iter().flatten() {
        let who = etcd.members.iter().find_map(|member| match &member.says {
            MemberSays::Answers { id, .. } if *id == alarm.member => {
                Some(member.name.as_deref().unwrap_or(&member.endpoint))
            }
            _ => None,
        });
        let who = who.map_or_else(|| format!("member {:x}", alarm.member), str::to_owned);
        if !seen_already.insert((format!("{:?}", alarm.kind), who.clone())) {
            continue;
        }
        found.push(match alarm.kind {
            EtcdAlarmKind::NoSpace => {
                proven("etcd-alarm", format!("etcd on {who} has no room left (NOSPACE): the whole cluster takes no writes"))
                    .mended(
                        "compact and defragment each member; the alarm is then taken off by hand. Until then Patroni can't write its keys",
                        Some(["compact REVISION", "defrag --cluster", "alarm disarm"].map(|words| sight.etcdctl(words)).join("; ")),
                        "etcd alone: old revisions of its keys",
                    )
            }
            EtcdAlarmKind::Corrupt => {
                proven("etcd-alarm", format!("the data of etcd on {who} isn't what the other members have (CORRUPT)"))
                    .mended(
                        "replace that member: its data is set aside, and it joins anew",
                        Some(format!("flow run etcd-member-replace.toml --set node={who} --confirm {who}")),
                        "that member of etcd",
                    )
            }
            EtcdAlarmKind::Other => {
                proven("etcd-alarm", format!("etcd on {who} has raised an alarm that flow doesn't know"))
                    .mended("`etcdctl alarm list` names it", None, "etcd alone")
            }
        });
    }
    found
}

fn dead(sight: &Sight, endpoint: &str, name: Option<&str>, why: &str) -> Problem {
    let host = host_at(sight, endpoint).or(name);
    let who = host.map_or_else(|| endpoint.to_owned(), |host| format!("{host} ({endpoint})"));
    let found = seen(
        "etcd-member",
        format!("etcd on {who} doesn't answer: one more away, and there may be no quorum"),
    );
    let replace =
        host.map(|host| format!("flow run etcd-member-replace.toml --set node={host} --confirm {host}"));
    found.because([why]).mended(
        format!(
            "`systemctl status etcd` on that host says why, and `systemctl start etcd` starts it. Only where its data is lost: {}",
            if replace.is_some() { "replace it" } else { "`flow run etcd-member-replace.toml`" }
        ),
        replace,
        "that member of etcd; its data is set aside",
    )
}

/// The host of Patroni that has an endpoint's address.
fn host_at<'a>(sight: &'a Sight, endpoint: &str) -> Option<&'a str> {
    let (address, _) = address_and_port(endpoint, 2379).ok()?;
    let at = |node: &Node| {
        let (own, _) = address_and_port(&node.settings()?.rest, 8008).ok()?;
        Some(own == address)
    };
    sight.nodes.iter().find(|(_, node)| at(node) == Some(true)).map(|(host, _)| host.as_str())
}

/// Members that run and know no leader while others do.
fn alone(all: &[&Etcd]) -> Vec<Problem> {
    let mut alone = BTreeSet::new();
    for member in all.iter().flat_map(|etcd| &etcd.members) {
        if matches!(member.says, MemberSays::Answers { leader: 0, .. }) {
            alone.insert(member.name.as_deref().unwrap_or(&member.endpoint));
        }
    }
    let told = |who: &str| {
        seen("etcd-member", format!("etcd on {who} runs, and knows no leader: it is cut off from the others"))
            .mended("look at the network between etcd's hosts (port 2380)", None, "nothing")
    };
    alone.into_iter().map(told).collect()
}

fn unstarted(all: &[&Etcd]) -> Vec<Problem> {
    let urls: BTreeSet<&str> = all.iter().flat_map(|etcd| &etcd.unstarted).map(String::as_str).collect();
    let told = |url: &str| {
        seen("etcd-member", format!("a member of etcd was added at {url} and has never started")).mended(
            "start it, or remove it: `etcdctl member list`, `etcdctl member remove ID`",
            None,
            "etcd's list of members",
        )
    };
    urls.into_iter().map(told).collect()
}

fn versions(all: &[&Etcd]) -> Option<Problem> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for member in all.iter().flat_map(|etcd| &etcd.members) {
        if let MemberSays::Answers { version, .. } = &member.says {
            versions.entry(version).or_default().insert(&member.endpoint);
        }
    }
    if versions.len() < 2 {
        return None;
    }
    let of = |(version, at): (&&str, &BTreeSet<&str>)| {
        format!("{version}: {}", at.iter().copied().collect::<Vec<_>>().join(" "))
    };
    Some(
        proven("etcd-versions", "etcd's members run different versions")
            .because(versions.iter().map(of).collect::<Vec<_>>())
            .mended(
                "end the upgrade: the same version on all, one member after another",
                None,
                "etcd's members",
            ),
    )
}
