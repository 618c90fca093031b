//! Who leads, and what keeps the cluster from electing.

use super::sight::Sight;
use super::{Problem, proven, seen};
use crate::patroni::verdict::Judgement;

pub(super) fn problems(sight: &Sight, judgement: &Judgement) -> Vec<Problem> {
    let mut found = Vec::new();
    found.extend(primaries(sight));
    found.extend(nobody(sight, judgement));
    found.extend(without_lease(sight));
    if sight.keys().is_some_and(|keys| keys.paused == Some(true)) {
        found.push(
            proven("paused", "the cluster is in pause: Patroni promotes and restarts nobody")
                .because(["`pause` in the key `config`"])
                .mended(
                    "once the work that it was paused for is done, end it, on any member",
                    Some(sight.patronictl(&format!("resume {}", sight.scope()))),
                    "the dynamic configuration",
                ),
        );
    }
    found
}

/// Hosts whose PostgreSQL takes writes: by what their Patroni says, and by what PostgreSQL itself says.
fn primaries(sight: &Sight) -> Option<Problem> {
    let leads = sight.leaders();
    let by_itself = |host: &&str| sight.says(host).is_some_and(|says| !says.recovery);
    let without: Vec<&str> = sight
        .nodes
        .keys()
        .map(String::as_str)
        .filter(by_itself)
        .filter(|host| !leads.contains(host))
        .collect();
    let all: Vec<&str> = leads.iter().chain(&without).copied().collect();
    if all.len() < 2 {
        return None;
    }
    let mut because: Vec<String> =
        leads.iter().map(|host| format!("{host}: its Patroni says that it leads")).collect();
    because.extend(
        without
            .iter()
            .map(|host| format!("{host}: its PostgreSQL isn't in recovery, and its Patroni doesn't lead")),
    );
    Some(
        seen("two-primaries", format!("{} serve as primaries at the same time", all.join(" and ")))
            .because(because)
            .mended(
                "keep clients away from all but one before anything else, and look again: what was written to the others isn't in the cluster. Then keep the right one's data",
                Some(format!("flow run system-id-recovery.toml --set keep=HOST --confirm {}", sight.scope())),
                "what isn't proven to be in that host's data is renamed, not removed, and those members clone",
            ),
    )
}

fn nobody(sight: &Sight, judgement: &Judgement) -> Option<Problem> {
    // Nobody in a standby cluster leads.
    if sight.keys().is_some_and(|keys| keys.standby_of.is_some()) {
        return None;
    }
    // Where not all was seen, the leader may be what wasn't.
    if !sight.leaders().is_empty() || sight.nodes.values().all(|node| node.unreachable.is_some()) {
        return None;
    }
    let partly = sight.nodes.values().any(|node| node.unreachable.is_some());
    let what = "no member that could be asked leads: nobody takes writes";
    let found = if partly { seen("no-leader", what) } else { proven("no-leader", what) };
    // Where the verdict is a problem of its own, that is what mends it.
    if sight.start_nothing {
        return Some(found.mended("what is told above", None, "what is told above"));
    }
    let found = found.because(judgement.reasons.clone());
    if let Some(first) = &sight.first {
        return Some(found.mended(
            format!("start Patroni on {first} first (`systemctl start patroni`), and the others once it leads; where it runs, `journalctl -u patroni` there says what it waits for"),
            None,
            "Patroni's units",
        ));
    }
    Some(found.mended(
        "a stopped Patroni is started (`systemctl start patroni`), first where the last leader was; where all run, `journalctl -u patroni` says what they wait for",
        None,
        "Patroni's units",
    ))
}

fn without_lease(sight: &Sight) -> Option<Problem> {
    let key = sight.keys()?.leader.as_ref().filter(|key| key.lease == 0)?;
    let prefix = sight.nodes.values().find_map(|node| Some(node.settings()?.prefix.clone()))?;
    let what = format!("the leader's key ({}) has no lease: it stays though its holder dies", key.value);
    Some(
        proven("leader-without-lease", what)
            .because([format!("{prefix}leader, revision {}", key.revision)])
            .mended(
                "a living leader takes it again with a lease at its next turn: look again. Where nobody leads, delete the key, so that one can be elected",
                Some(sight.etcdctl(&format!("del {prefix}leader"))),
                "the key `leader`",
            ),
    )
}
