//! Whose data is the right one: the verdict, as a finding.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::sight::Sight;
use super::{Problem, problem, proven};
use crate::patroni::verdict::{Apart, Judgement, Node, Store, Verdict, disagreements};

/// The system identifiers.
pub(super) fn problems(sight: &Sight, judgement: &Judgement) -> Option<Problem> {
    let (nodes, scope) = (&sight.nodes, sight.scope());
    let repair = Some(format!("flow run system-id-recovery.toml --confirm {scope}"));
    let because = judgement.reasons.clone();
    Some(match &judgement.verdict {
        Verdict::Healthy { .. } | Verdict::NoMismatch { .. } | Verdict::Kept { .. } => return None,
        Verdict::KeyGoneLeaderAlive { leader, .. } => {
            proven("key-gone", format!("the key `initialize` is gone, and {leader} leads"))
                .because(because)
                .mended("nothing: Patroni writes it back within `loop_wait`, 10 s by default", None, "nothing")
        }
        Verdict::KeyWrong { identifier, keeper, .. } => proven(
            "key-wrong",
            format!("the key `initialize` is wrong or gone, and all data belongs to {identifier}"),
        )
        .because(because)
        .mended(
            format!("write {identifier} to the key and start {keeper} first, then the others"),
            repair,
            "the key and Patroni's units; no data directory",
        ),
        Verdict::Disposable { members, leader } => proven(
            "disposable-members",
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
        Verdict::TwoClusters => proven("two-clusters", "members outside the inventory use the same scope")
            .because(because)
            .mended(
                "give one of the clusters another scope, or name all its hosts in the inventory; until then change nothing",
                None,
                "nothing",
            ),
        Verdict::NotSupported => proven("not-supported", "the cluster is of a kind that flow doesn't mend")
            .because(because)
            .mended("nothing that flow could do: its findings about the hosts hold all the same", None, "nothing"),
    })
}

/// Members that may have rows of their own: to start one lets Patroni rewind it, to clone it removes them.
pub(super) fn diverged(sight: &Sight, judgement: &Judgement) -> Vec<Problem> {
    let scope = sight.scope();
    let told = |proven, what: String| problem("diverged", if proven { "proven" } else { "seen" }, what);
    if judgement.apart.is_empty() {
        return Vec::new();
    }
    let [leader] = sight.leaders()[..] else {
        let hosts: Vec<&str> = judgement.apart.keys().map(String::as_str).collect();
        let what =
            format!("nobody leads, and none of {} is proven to have the rows of all", hosts.join(", "));
        let why = judgement.apart.iter().map(|(host, apart)| format!("{host}: {}", apart.why));
        let all_proven = judgement.apart.values().all(|apart| apart.proven);
        return vec![keep(told(all_proven, what).because(why), &sight.nodes, &scope)];
    };
    let one = |(host, apart): (&String, &Apart)| {
        let what = if apart.proven {
            format!("{host} has WAL that the leader {leader} lacks: perhaps rows that were committed")
        } else {
            format!(
                "{host} doesn't stream, and whether it has rows that the leader {leader} lacks can't be told"
            )
        };
        let found = told(apart.proven, what).because([&apart.why]);
        match unseen(&sight.nodes).as_slice() {
            [] => found.mended(
                "don't start, rewind or reinit it. This sets its data directory aside, and it clones; the rows are in the copy: look there before you remove it",
                Some(format!("flow run system-id-recovery.toml --set keep={leader} --confirm {scope}")),
                format!("{host} alone; the directory is renamed, not removed, {leader} is read from, and goes on"),
            ),
            unseen => reachable(found, unseen),
        }
    };
    judgement.apart.iter().map(one).collect()
}

/// What of the configurations isn't one cluster's.
pub(super) fn disagree(sight: &Sight) -> Option<Problem> {
    let nodes = sight.nodes.iter().map(|(host, node)| (host.as_str(), node)).collect();
    let because = disagreements(&nodes);
    (!because.is_empty()).then(|| {
        proven("configurations-disagree", "the hosts' configurations of Patroni don't describe one cluster")
            .because(because)
            .mended(
                "make them agree before any Patroni is started or reloaded: scope and namespace, etcd's members, a name and an address of its own for each",
                None,
                "the hosts' configuration of Patroni",
            )
    })
}

fn undecided(nodes: &IndexMap<String, Node>, scope: &str, because: Vec<String>) -> Problem {
    let found =
        proven("undecided", "the system identifiers differ, and whose data is the right one can't be told")
            .because(because);
    keep(found, nodes, scope)
}

/// The operator decides.
fn keep(found: Problem, nodes: &IndexMap<String, Node>, scope: &str) -> Problem {
    match unseen(nodes).as_slice() {
        [] => found.mended(
            "compare the evidence below and look at each member's data; start and remove nothing before you know whose is right. Then keep that one",
            Some(format!("flow run system-id-recovery.toml --set keep=HOST --confirm {scope}")),
            "what isn't proven to be in that host's data is renamed, not removed, and those members clone",
        ),
        unseen => reachable(found, unseen),
    }
}

fn reachable(found: Problem, unseen: &[&str]) -> Problem {
    found.mended(
        format!(
            "make {} reachable and diagnose again; start and remove nothing until then",
            unseen.join(", ")
        ),
        None,
        "nothing",
    )
}

fn unseen(nodes: &IndexMap<String, Node>) -> Vec<&str> {
    nodes.iter().filter(|(_, node)| node.unreachable.is_some()).map(|(host, _)| host.as_str()).collect()
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
