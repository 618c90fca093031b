//! Where clients come in: balancers, the virtual address, certificates.

use indexmap::IndexMap;
use jiff::Timestamp;

use super::sight::Sight;
use super::{Problem, proven, seen};
use crate::balancers::{Balancer, Servers};

pub(super) fn problems(sight: &Sight) -> Vec<Problem> {
    let mut found: Vec<Problem> = closed(sight).into_iter().collect();
    for (host, balancer) in &sight.balancers {
        found.extend(haproxy(host, balancer));
        found.extend(keepalived(host, balancer));
    }
    for (host, balancer) in &sight.balancers {
        found.extend(disagrees(sight, host, balancer));
    }
    found.extend(address(sight));
    found.extend(certificates(sight));
    found
}

/// Closed by a run, and not open in spite of it.
fn is_closed(balancer: &Balancer) -> bool {
    balancer.closed_by.is_some() && balancer.haproxy.as_ref().is_some_and(|haproxy| !haproxy.running)
}

fn closed(sight: &Sight) -> Option<Problem> {
    let closed: Vec<_> = sight.balancers.iter().filter(|(_, balancer)| is_closed(balancer)).collect();
    let hosts: Vec<&str> = closed.iter().map(|(host, _)| host.as_str()).collect();
    let (_, first) = closed.first()?;
    let run = first.closed_by.as_deref().unwrap_or_default();
    Some(
        proven(
            "balancer-closed",
            format!(
                "HAProxy on {} is closed by run {run} until you open it: no client comes in",
                hosts.join(", ")
            ),
        )
        .because(closed.iter().map(|(host, balancer)| state(host, balancer)))
        .mended(
            format!("once the cluster has what clients need; `flow show {run}` tells what that run did"),
            Some(sight.open()),
            "HAProxy, archiving where it is off: clients come in, and write",
        ),
    )
}

fn haproxy(host: &str, balancer: &Balancer) -> Option<Problem> {
    let haproxy = balancer.haproxy.as_ref().filter(|haproxy| !haproxy.running && !is_closed(balancer))?;
    let has_vip = if balancer.has_vip == Some(true) { ", and it has the virtual address" } else { "" };
    Some(
        seen("balancer-down", format!("HAProxy on {host} doesn't run{has_vip}: it is {}", haproxy.state))
            .mended(
                format!("`journalctl -u haproxy` on {host} says why"),
                Some(start(host, "haproxy.service", haproxy.masked)),
                "that balancer",
            ),
    )
}

fn keepalived(host: &str, balancer: &Balancer) -> Option<Problem> {
    let keepalived = balancer.keepalived.as_ref().filter(|keepalived| !keepalived.running)?;
    Some(
        seen(
            "keepalived-down",
            format!(
                "keepalived on {host} doesn't run: it is {}, and can't take the virtual address over",
                keepalived.state
            ),
        )
        .mended(
            format!("`journalctl -u keepalived` on {host} says why"),
            Some(start(host, "keepalived.service", keepalived.masked)),
            "that host's keepalived; where nobody has the virtual address, it comes to it",
        ),
    )
}

fn start(host: &str, unit: &str, masked: bool) -> String {
    let unmask = if masked { format!("systemctl unmask {unit} && ") } else { String::new() };
    format!("on {host}: {unmask}systemctl start {unit}")
}

/// HAProxy names its servers as the inventory its hosts, or as Patroni its members; where neither is so, nothing is told.
fn disagrees(sight: &Sight, host: &str, balancer: &Balancer) -> Option<Problem> {
    let Servers::Of(servers) = &balancer.primary else { return None };
    let leaders = sight.leaders();
    let [leader] = leaders.as_slice() else { return None };
    let is = |name: &str, member: &str| {
        name == member || sight.nodes.get(member).and_then(|node| node.member()) == Some(name)
    };
    let up: Vec<&str> = servers.iter().filter(|told| told.up).map(|told| told.name.as_str()).collect();
    let known = servers.iter().any(|told| sight.nodes.keys().any(|member| is(&told.name, member)));
    if !known || matches!(up.as_slice(), [one] if is(one, leader)) {
        return None;
    }
    let what = match up.as_slice() {
        [] => format!("HAProxy on {host} leads those who want the leader to nobody, and {leader} leads"),
        up => format!(
            "HAProxy on {host} leads those who want the leader to {}, and {leader} leads",
            up.join(" and ")
        ),
    };
    let words = servers.iter().map(|told| format!("{}: {}", told.name, told.word));
    Some(seen("balancer-disagrees", what).because(words).mended(
        format!("look again: it asks each Patroni every 2 s. Where it stays so, `journalctl -u haproxy` on {host}, and whether {host} reaches the members' port 8008"),
        None,
        "nothing",
    ))
}

fn address(sight: &Sight) -> Option<Problem> {
    let asked: Vec<(&str, &Balancer)> = sight
        .balancers
        .iter()
        .filter(|(_, balancer)| balancer.has_vip.is_some() && balancer.keepalived.is_some())
        .map(|(host, balancer)| (host.as_str(), balancer))
        .collect();
    let vip = asked.first()?.1.vip.as_str();
    let hold: Vec<(&str, &Balancer)> =
        asked.iter().filter(|(_, balancer)| balancer.has_vip == Some(true)).copied().collect();
    match hold.as_slice() {
        // Nobody whose HAProxy is closed takes it.
        [] if asked.iter().any(|(_, balancer)| is_closed(balancer)) => None,
        [] => Some(
            seen("address-nowhere", format!("no balancer that could be asked has the virtual address {vip}: clients find nobody there"))
                .because(asked.iter().map(|(host, balancer)| state(host, balancer)))
                .mended(
                    "look again: it is nobody's while it moves. keepalived gives it to a balancer whose HAProxy runs: start what doesn't run",
                    None,
                    "the balancers",
                ),
        ),
        [(host, balancer)] => {
            let dead = balancer.haproxy.as_ref().is_some_and(|haproxy| !haproxy.running);
            dead.then(|| {
                seen("address-misplaced", format!("{host} has the virtual address {vip}, and its HAProxy doesn't run: clients find nobody there"))
                    .because(asked.iter().map(|(host, balancer)| state(host, balancer)))
                    .mended(
                        "start HAProxy there; where another one runs, keepalived should have given the address to it: `journalctl -u keepalived`",
                        Some(format!("on {host}: systemctl start haproxy.service")),
                        "that balancer",
                    )
            })
        }
        several => {
            let hosts: Vec<&str> = several.iter().map(|(host, _)| *host).collect();
            Some(
                seen("address-twice", format!("{} have the virtual address {vip} at the same time", hosts.join(" and ")))
                    .because(asked.iter().map(|(host, balancer)| state(host, balancer)))
                    .mended(
                        "look at the network between the balancers (VRRP, protocol 112): each takes the other for dead. Until it is mended, stop keepalived on all but one",
                        Some(format!("on {}: systemctl stop keepalived.service", hosts.last().copied().unwrap_or_default())),
                        "the virtual address",
                    ),
            )
        }
    }
}

fn state(host: &str, balancer: &Balancer) -> String {
    let of = |one: &Option<crate::balancers::Service>| {
        one.as_ref().map_or_else(|| "not asked for".to_owned(), |one| one.state.clone())
    };
    format!("{host}: keepalived {}, HAProxy {}", of(&balancer.keepalived), of(&balancer.haproxy))
}

/// Those that lie at the same place and end on the same day are one problem.
fn certificates(sight: &Sight) -> Vec<Problem> {
    let mut ending: IndexMap<(&str, i64), Ending<'_>> = IndexMap::new();
    let mut found = Vec::new();
    for (host, certificates) in &sight.certificates {
        for file in &certificates.found {
            let ends = match &file.ends {
                Ok(ends) => *ends,
                Err(why) => {
                    let what = format!("{} on {host} is no certificate", file.path);
                    let lay = Some("flow run deploy.toml".to_owned());
                    found.push(proven("certificate-unreadable", what).because([why]).mended(
                        "lay it anew",
                        lay,
                        "certificates and what reads them",
                    ));
                    continue;
                }
            };
            let left = ends.duration_since(certificates.at).as_hours().div_euclid(24);
            if left < i64::from(certificates.days) {
                let first =
                    Ending { hosts: Vec::new(), ends, days: certificates.days, authority: file.authority };
                ending.entry((&file.path, left)).or_insert(first).hosts.push(host);
            }
        }
    }
    found.extend(ending.into_iter().map(|((path, left), ending)| ending.problem(path, left)));
    found
}

/// A certificate near its end, or past it.
struct Ending<'a> {
    hosts: Vec<&'a str>,
    ends: Timestamp,
    days: u32,
    authority: bool,
}

impl Ending<'_> {
    fn problem(&self, path: &str, left: i64) -> Problem {
        let at = format!("{path} on {}", self.hosts.join(", "));
        let what = match left {
            ..0 => format!("{at} has expired: whoever verifies it refuses"),
            0 => format!("{at} ends within a day"),
            left => format!("{at} ends in {left} days"),
        };
        let found = proven("certificate-ends", what).because([
            format!("it ends at {}", self.ends.strftime("%Y-%m-%d %H:%M UTC")),
            format!("told {} days before (`days`)", self.days),
        ]);
        if self.authority {
            return found.mended(
                "it is a CA's: a new one, and all that it has signed anew. See first what a deploy would do",
                Some("flow plan deploy.toml".to_owned()),
                "every certificate of that CA and what reads it",
            );
        }
        found.mended(
            "a new one of the same CA, in its last month; where your own certificates are used, put it there first",
            Some("flow run deploy.toml".to_owned()),
            "that certificate, and a reload of what reads it; etcd is restarted, one member after another",
        )
    }
}
