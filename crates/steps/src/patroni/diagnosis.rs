//! What is wrong with a cluster, in plain words, with what mends it: the verdict, and all else that was seen.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use super::rest::Report;
use super::verdict::{Data, Judgement, Node, Store, Verdict, judge};
use crate::clients::NoEtcd;

/// How far a replica may be behind before it is told, in bytes of WAL.
const LAG: u64 = 16 << 20;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Nothing is wrong.
    pub healthy: bool,
    /// `healthy`, `disposable`, `undecided` ...: what `patroni.verdict` says.
    pub verdict: String,
    /// Why it says so.
    pub reasons: Vec<String>,
    /// What is wrong, the gravest first.
    pub problems: Vec<Problem>,
    /// What was seen: a line for etcd, and one for each host.
    pub evidence: Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its kind, such as `no-leader`; stable.
    pub kind: &'static str,
    /// What is wrong, a sentence.
    pub what: String,
    /// `proven`, or `seen`: true at the moment of the look, and perhaps passing.
    pub sure: &'static str,
    /// What it is told from.
    pub because: Vec<String>,
    /// What mends it, where flow knows.
    pub remedy: Option<Remedy>,
}

/// What mends a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What to do, a sentence.
    pub what: String,
    /// The command, where one does it.
    pub command: Option<String>,
    /// What it touches.
    pub touches: String,
}

/// Says what is wrong. For each host what `patroni.evidence` gave, or why it gave nothing.
pub fn diagnose(seen: impl IntoIterator<Item = (String, Result<Value, String>)>) -> Diagnosis {
    let node = |seen: Result<Value, String>| match seen {
        Ok(value) => {
            serde_json::from_value(value).unwrap_or_else(|error| Node::unreachable(error.to_string()))
        }
        Err(why) => Node::unreachable(why),
    };
    let nodes: IndexMap<String, Node> = seen.into_iter().map(|(host, seen)| (host, node(seen))).collect();
    let judgement = judge(&nodes);
    let mut problems: Vec<Problem> = of_verdict(&nodes, &judgement).into_iter().collect();
    problems.extend(of_etcd(&nodes));
    problems.extend(of_leader(&nodes, &judgement));
    for (host, node) in &nodes {
        problems.extend(of_host(host, node));
    }
    problems.extend(of_replicas(&nodes));
    Diagnosis {
        healthy: problems.is_empty() && matches!(judgement.verdict, Verdict::Healthy { .. }),
        verdict: judgement.verdict.name().to_owned(),
        reasons: judgement.reasons,
        problems,
        evidence: judgement.evidence,
    }
}

fn problem(kind: &'static str, sure: &'static str, what: impl Into<String>) -> Problem {
    Problem { kind, what: what.into(), sure, because: Vec::new(), remedy: None }
}

impl Problem {
    fn because(self, because: Vec<String>) -> Self {
        Self { because, ..self }
    }

    fn mended(self, what: impl Into<String>, command: Option<String>, touches: impl Into<String>) -> Self {
        Self { remedy: Some(Remedy { what: what.into(), command, touches: touches.into() }), ..self }
    }
}

/// The system identifiers.
fn of_verdict(nodes: &IndexMap<String, Node>, judgement: &Judgement) -> Option<Problem> {
    let scope = nodes.values().find_map(|node| Some(node.settings()?.scope.clone())).unwrap_or_default();
    let repair = Some(format!("flow run system-id-recovery.toml --confirm {scope}"));
    let because = judgement.reasons.clone();
    Some(match &judgement.verdict {
        Verdict::Healthy { .. } | Verdict::NoMismatch | Verdict::Kept { .. } => return None,
        Verdict::KeyGoneLeaderAlive { leader, .. } => {
            problem("key-gone", "proven", format!("the key `initialize` is gone, and {leader} leads"))
                .because(because)
                .mended("nothing: Patroni writes it back within `loop_wait`, 10 s by default", None, "nothing")
        }
        Verdict::KeyWrong { identifier, keeper, .. } => problem(
            "key-wrong",
            "proven",
            format!("the key `initialize` is wrong or gone, and all data belongs to {identifier}"),
        )
        .because(because)
        .mended(
            format!("write {identifier} to the key and start {keeper} first, then the others"),
            repair,
            "the key and Patroni's units; no data directory",
        ),
        Verdict::Disposable { members, leader } => problem(
            "disposable-members",
            "proven",
            format!("{} holds nothing and belongs to another cluster than the leader {leader}", members.join(", ")),
        )
        .because(because)
        .mended(
            "set its data directory aside, so that it clones the leader",
            repair,
            format!("{} alone; the directory is renamed, not removed, and the others go on", members.join(", ")),
        ),
        Verdict::Undecided if !mismatched(nodes) => return None,
        Verdict::Undecided => undecided(nodes, &scope, because),
        Verdict::TwoClusters => problem("two-clusters", "proven", "members outside the inventory use the same scope")
            .because(because)
            .mended(
                "give one of the clusters another scope, or name all its hosts in the inventory; until then change nothing",
                None,
                "nothing",
            ),
        Verdict::NotSupported => problem("not-supported", "proven", "the cluster's state is kept where flow doesn't look")
            .because(because),
    })
}

fn undecided(nodes: &IndexMap<String, Node>, scope: &str, because: Vec<String>) -> Problem {
    let found = problem(
        "undecided",
        "proven",
        "the system identifiers differ, and whose data is the right one can't be told",
    )
    .because(because);
    let unseen: Vec<&str> =
        nodes.iter().filter(|(_, node)| node.unreachable.is_some()).map(|(host, _)| host.as_str()).collect();
    match unseen.as_slice() {
        [] => found.mended(
            "compare the evidence below and look at each member's data; start and remove nothing before you know whose is right. Then keep that one",
            Some(format!("flow run system-id-recovery.toml --set keep=HOST --confirm {scope}")),
            "what isn't proven to be in that host's data is renamed, not removed, and those members clone",
        ),
        unseen => found.mended(
            format!("make {} reachable and diagnose again; start and remove nothing until then", unseen.join(", ")),
            None,
            "nothing",
        ),
    }
}

/// Data directories of several clusters, or a key that is none of theirs.
fn mismatched(nodes: &IndexMap<String, Node>) -> bool {
    let mut identifiers: BTreeSet<&str> =
        nodes.values().filter_map(|node| Some(node.cluster()?.identifier.as_str())).collect();
    let initialize = nodes.values().filter_map(|node| match &node.store {
        Store::Keys(keys) => keys.initialize.as_ref().map(|key| key.value.as_str()),
        Store::Unknown(_) | Store::Silent(..) => None,
    });
    identifiers.extend(initialize);
    identifiers.len() > 1
}

fn of_etcd(nodes: &IndexMap<String, Node>) -> Vec<Problem> {
    let trouble: BTreeSet<&str> =
        nodes.values().flat_map(|node| node.etcd_trouble.iter().map(String::as_str)).collect();
    let trouble: Vec<String> = trouble.into_iter().map(str::to_owned).collect();
    let reached: Vec<&Node> = nodes.values().filter(|node| node.settings().is_some()).collect();
    if !reached.is_empty() && reached.iter().all(|node| !matches!(node.store, Store::Keys(_))) {
        let kinds = reached.iter().filter_map(|node| match &node.store {
            Store::Silent(kind, _) => Some(*kind),
            _ => None,
        });
        return vec![no_etcd(kinds.max().unwrap_or(NoEtcd::Silent), trouble)];
    }
    let alarm = |line: &String| line.contains("NOSPACE") || line.contains("alarm");
    trouble
        .into_iter()
        .map(|line| {
            let is_alarm = alarm(&line);
            let found = problem(
                if is_alarm { "etcd-alarm" } else { "etcd-member" },
                "seen",
                format!("etcd at {line}"),
            );
            if is_alarm {
                found.mended("compact, defragment, then `etcdctl alarm disarm`", None, "etcd alone")
            } else {
                found.mended("`systemctl status etcd` on that host says why", None, "that member of etcd")
            }
        })
        .collect()
}

/// No host gets an answer.
fn no_etcd(kind: NoEtcd, because: Vec<String>) -> Problem {
    let (name, what, remedy) = match kind {
        NoEtcd::Silent | NoEtcd::NoQuorum => (
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
    problem(name, "seen", what).because(because).mended(remedy, None, "etcd alone")
}

fn of_leader(nodes: &IndexMap<String, Node>, judgement: &Judgement) -> Vec<Problem> {
    let leaders: Vec<&str> =
        nodes.iter().filter(|(_, node)| node.leads()).map(|(host, _)| host.as_str()).collect();
    let keys = nodes.values().find_map(|node| match &node.store {
        Store::Keys(keys) => Some(keys),
        Store::Unknown(_) | Store::Silent(..) => None,
    });
    let mut found = Vec::new();
    match leaders.as_slice() {
        // Where not all was seen, the leader may be what wasn't.
        [] if nodes.values().all(|node| node.unreachable.is_some()) => {}
        [] => {
            let sure = if nodes.values().any(|node| node.unreachable.is_some()) { "seen" } else { "proven" };
            let because =
                if judgement.verdict == Verdict::NoMismatch { judgement.reasons.clone() } else { Vec::new() };
            found.push(
                problem("no-leader", sure, "no member that could be asked leads: nobody takes writes")
                    .because(because),
            );
        }
        [_] => {}
        several => found.push(
            problem(
                "two-primaries",
                "seen",
                format!("{} serve as primaries at the same time", several.join(" and ")),
            )
            .mended(
                "keep clients away from all but one before anything else",
                None,
                "the balancers",
            ),
        ),
    }
    if let Some(key) = keys.and_then(|keys| keys.leader.as_ref()).filter(|key| key.lease == 0) {
        let what = format!("the leader's key ({}) has no lease: it stays though its holder dies", key.value);
        found.push(problem("leader-without-lease", "proven", what));
    }
    if keys.is_some_and(|keys| keys.paused == Some(true)) {
        found.push(
            problem("paused", "proven", "the cluster is in pause: Patroni promotes and restarts nobody")
                .mended(
                    "`patronictl resume` once the work that it was paused for is done",
                    None,
                    "the dynamic configuration",
                ),
        );
    }
    found
}

fn of_host(host: &str, node: &Node) -> Vec<Problem> {
    if let Some(why) = &node.unreachable {
        return vec![
            problem("unreachable", "seen", format!("{host} can't be looked at")).because(vec![why.clone()]),
        ];
    }
    let mut found = Vec::new();
    if node.settings().is_none() {
        let why = format!("the configuration of Patroni on {host} can't be used");
        found.push(problem("configuration", "proven", why));
    }
    match &node.data {
        Data::Nothing => found.push(problem("no-data", "proven", format!("{host} has no data directory"))),
        Data::Unreadable(what) => found.push(
            problem("data-unreadable", "proven", format!("the data directory of {host} is no whole cluster"))
                .because(vec![what.clone()]),
        ),
        Data::Unknown(why) if node.settings().is_some() => found.push(
            problem("data-hidden", "seen", format!("the data of {host} can't be seen"))
                .because(vec![why.clone()]),
        ),
        Data::Unknown(_) | Data::Cluster(_) => {}
    }
    match (&node.patroni, &node.report) {
        (Some(unit), _) if unit.masked => found.push(
            problem("masked", "proven", format!("Patroni is masked on {host}: it can't be started")).mended(
                "once nothing works on that host any more: unmask and start it",
                None,
                "that host's unit",
            ),
        ),
        (Some(unit), None) => found.push(problem(
            "patroni-down",
            "seen",
            format!("Patroni of {host} doesn't answer; its unit is {} ({})", unit.active, unit.sub),
        )),
        (_, Some(report)) if report.pending_restart => found.push(
            problem(
                "pending-restart",
                "proven",
                format!("PostgreSQL of {host} must be restarted for some settings to count"),
            )
            .mended(
                "restart it by Patroni: replicas first, the leader last",
                None,
                "that host's PostgreSQL",
            ),
        ),
        _ => {}
    }
    found
}

/// Replicas that don't stream, or are behind.
fn of_replicas(nodes: &IndexMap<String, Node>) -> Vec<Problem> {
    let Some((_, leader)) = nodes.iter().find(|(_, node)| node.leads()) else { return Vec::new() };
    let Some(leads) = &leader.report else { return Vec::new() };
    let mut found = Vec::new();
    for (host, node) in nodes {
        let (Some(report), Some(name)) = (&node.report, node.member()) else { continue };
        if node.leads() {
            continue;
        }
        let streams = Report::follows(report) && leads.streaming.iter().any(|one| one == name);
        let behind =
            leads.position.zip(report.position).map_or(0, |(leader, own)| leader.saturating_sub(own));
        if !streams {
            let what = format!("{host} doesn't stream from the leader ({}, {})", report.role, report.state);
            found.push(problem("not-streaming", "seen", what));
        } else if behind > LAG {
            found.push(problem("lagging", "seen", format!("{host} is {} MiB of WAL behind", behind >> 20)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patroni::verdict::tests::{cluster, key, node, report};
    use crate::patroni::verdict::{Cluster, Keys};

    /// Two members, changed; the kinds of what is found.
    fn kinds(change: impl Fn(&mut Node, &mut Node, &mut Keys)) -> Vec<&'static str> {
        let mut keys = Keys {
            initialize: key("7711162655563234249", 0),
            leader: key("p1", 7),
            paused: Some(false),
            ..Keys::default()
        };
        let running = Cluster {
            state: "in archive recovery".into(),
            running: Some(true),
            ..cluster("7711162655563234249")
        };
        let of = |host: &str| node(host, Data::Cluster(Box::new(running.clone())), &keys);
        let (mut leader, mut replica) = (of("p1"), of("p2"));
        leader.report = report("leader", &["p2"]);
        replica.report = report("replica", &[]);
        change(&mut leader, &mut replica, &mut keys);
        let seen = [("p1", leader), ("p2", replica)].into_iter().map(|(host, mut node)| {
            if let Store::Keys(seen) = &mut node.store {
                **seen = keys.clone();
            }
            let seen = match &node.unreachable {
                Some(why) => Err(why.clone()),
                None => Ok(serde_json::to_value(&node).unwrap()),
            };
            (host.to_owned(), seen)
        });
        let found = diagnose(seen);
        assert_eq!(found.healthy, found.problems.is_empty());
        found.problems.iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn a_healthy_cluster_has_no_problems() {
        assert_eq!(kinds(|_, _, _| ()), Vec::<&str>::new());
    }

    #[test]
    fn each_trouble_is_named() {
        type Change = fn(&mut Node, &mut Node, &mut Keys);
        let cases: [(&str, Change); 15] = [
            ("paused", |_, _, keys| keys.paused = Some(true)),
            ("key-gone", |_, _, keys| keys.initialize = None),
            ("undecided", |_, _, keys| keys.initialize = key("123", 0)),
            ("leader-without-lease", |_, _, keys| keys.leader = key("p1", 0)),
            ("two-primaries", |_, replica, _| replica.report = report("leader", &[])),
            ("no-leader", |leader, _, _| leader.report = report("replica", &[])),
            ("not-streaming", |leader, _, _| leader.report = report("leader", &[])),
            ("lagging", |leader, replica, _| {
                leader.report.as_mut().unwrap().position = Some(100 << 20);
                replica.report.as_mut().unwrap().position = Some(1 << 20);
            }),
            ("pending-restart", |_, replica, _| replica.report.as_mut().unwrap().pending_restart = true),
            ("unreachable", |_, replica, _| *replica = Node::unreachable("no route")),
            ("no-data", |_, replica, _| replica.data = Data::Nothing),
            ("data-unreadable", |_, replica, _| replica.data = Data::Unreadable("half".into())),
            ("etcd-alarm", |leader, _, _| leader.etcd_trouble = vec!["1.2.3.4:2379: alarm:NOSPACE".into()]),
            ("etcd-unavailable", |leader, replica, _| {
                leader.store = Store::Silent(NoEtcd::NoQuorum, "it knows no leader".into());
                replica.store = Store::Silent(NoEtcd::Silent, "connection refused".into());
            }),
            ("etcd-refuses", |leader, replica, _| {
                leader.store = Store::Silent(NoEtcd::Refused, "permission denied".into());
                replica.store = Store::Silent(NoEtcd::Silent, "connection refused".into());
            }),
        ];
        for (kind, change) in cases {
            let found = kinds(change);
            assert!(found.contains(&kind), "{kind}: {found:?}");
        }
    }
}
