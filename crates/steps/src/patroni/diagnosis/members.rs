//! Each host of Patroni: its configuration, its data directory, its unit, and whether it follows.

use super::sight::Sight;
use super::{Problem, proven, seen};
use crate::patroni::condition::Place;
use crate::patroni::rest::Report;
use crate::patroni::settings::Settings;
use crate::patroni::verdict::{Configuration, Data, Node, streaming};
use crate::postgres::in_words;

/// How far a replica may be behind where nobody said, in bytes of WAL.
const LAG: u64 = 16 << 20;
/// Where starting a Patroni could decide whose data is the right one.
const BY_VERDICT: &str = "start and clone nothing there: what is told first decides about it";
/// What Patroni finds in the data directory is nothing to start on.
const BY_DATA: &str = "what is told of its data is mended first; only then start it";

pub(super) fn problems(sight: &Sight) -> Vec<Problem> {
    let mut found = Vec::new();
    for (host, node) in &sight.nodes {
        if let Some(why) = &node.unreachable {
            found.push(seen("unreachable", format!("{host} can't be looked at")).because([why]).mended(
                "make it reachable, and look again: what isn't seen counts for nothing",
                None,
                "nothing",
            ));
            continue;
        }
        found.extend(configuration(host, node));
        found.extend(data(sight, host, node));
        found.extend(other_version(sight, host));
        found.extend(unit(sight, host, node));
        found.extend(pending_restart(sight, host, node));
    }
    found.extend(replicas(sight));
    found
}

fn configuration(host: &str, node: &Node) -> Option<Problem> {
    let (Configuration::Unknown(why) | Configuration::Unsupported(why)) = &node.configuration else {
        return None;
    };
    Some(
        proven("configuration", format!("the configuration of Patroni on {host} can't be used"))
            .because([why])
            .mended(
                "`patroni --validate-config` on that host tells more; a host that was never deployed is no member: `flow run add-node.toml`",
                None,
                "that host's configuration",
            ),
    )
}

fn data(sight: &Sight, host: &str, node: &Node) -> Option<Problem> {
    let place = sight.conditions.get(host).and_then(|condition| condition.place.as_ref());
    let leaders = sight.leaders();
    match &node.data {
        Data::Nothing => {
            let found = proven("no-data", format!("{host} has no data directory")).because(left_over(place));
            Some(match leaders.as_slice() {
                [leader] if node.report.is_some() => found.mended(
                    format!("look again: its Patroni answers, and clones from {leader}. `journalctl -u patroni` on {host} tells how far it is"),
                    None,
                    "nothing",
                ),
                [leader] => found.mended(
                    format!("start Patroni there: it clones from {leader}"),
                    Some(format!("on {host}: systemctl start patroni.service")),
                    format!("that host's data directory, and {leader} is read from"),
                ),
                _ => found.mended(
                    "nothing there, until one leads: the first Patroni to start decides whose data the cluster's is",
                    None,
                    "nothing",
                ),
            })
        }
        Data::Unreadable(what) => {
            let found =
                proven("data-unreadable", format!("the data directory of {host} is no whole cluster"))
                    .because(std::iter::once(what.clone()).chain(missing(place)).chain(left_over(place)));
            Some(match leaders.as_slice() {
                [leader] if !sight.start_nothing => found.mended(
                    format!("rename it out of the way, and {host} clones from {leader}. Never remove it: what made it so isn't known"),
                    node.settings().map(|settings| renamed(host, &settings.data_dir)),
                    format!("{host} alone; {leader} is read from, and goes on"),
                ),
                _ => found.mended(
                    "nothing there, until one leads: then it is set aside, and the host clones",
                    None,
                    "nothing",
                ),
            })
        }
        Data::Unknown(why) if node.settings().is_some() => {
            Some(seen("data-hidden", format!("the data of {host} can't be seen")).because([why]).mended(
                "mount what should be there, before Patroni is started: it would clone into the empty place",
                None,
                "that host's mounts",
            ))
        }
        Data::Unknown(_) | Data::Cluster(_) => None,
    }
}

/// No workflow sets aside what is no data directory: it could be anything.
fn renamed(host: &str, directory: &str) -> String {
    format!(
        "on {host}: systemctl stop patroni.service && mv -T {directory} {directory}.set-aside-by-hand && systemctl start patroni.service"
    )
}

/// What a data directory lacks that is half made.
fn missing(place: Option<&Place>) -> Vec<String> {
    let Some(place) = place else { return Vec::new() };
    let mut lacks = Vec::new();
    if place.version.is_none() {
        lacks.push(format!("{} has no PG_VERSION that names a version", place.directory));
    }
    if !place.control {
        lacks.push(format!(
            "{} has no global/pg_control: initdb or a base backup didn't come to its end",
            place.directory
        ));
    }
    lacks
}

/// Patroni renames a failed bootstrap to `DIRECTORY.failed` (3.0.2, `bootstrap.py`).
fn left_over(place: Option<&Place>) -> Vec<String> {
    let Some(place) = place else { return Vec::new() };
    let failed = place.copies.iter().filter(|copy| copy.path.ends_with(".failed"));
    failed.map(|copy| format!("{}: what Patroni left of a bootstrap that failed", copy.path)).collect()
}

fn other_version(sight: &Sight, host: &str) -> Option<Problem> {
    let place = sight.conditions.get(host)?.place.as_ref()?;
    let (data, programs) = (place.version.as_ref()?, place.programs.as_ref()?);
    if data == programs {
        return None;
    }
    let bin = sight.nodes.get(host).and_then(Node::settings).map_or("", |settings| settings.bin_dir.as_str());
    Some(
        proven(
            "other-version",
            format!("the data of {host} is PostgreSQL {data}'s, and its programs are {programs}'s: it can't start"),
        )
        .because([
            format!("{}/PG_VERSION: {data}", place.directory),
            format!("{bin}/postgres --version: {programs}"),
        ])
        .mended(
            format!("install PostgreSQL {data} there and name its programs in Patroni's configuration (`postgresql.bin_dir`)"),
            None,
            "that host's packages and configuration; no data",
        ),
    )
}

fn unit(sight: &Sight, host: &str, node: &Node) -> Option<Problem> {
    let unit = node.patroni.as_ref()?;
    if unit.masked {
        return Some(masked(sight, host, node));
    }
    if node.report.is_some() {
        return None;
    }
    let what = format!("Patroni of {host} doesn't answer; its unit is {} ({})", unit.active, unit.sub);
    let found = seen("patroni-down", what);
    Some(match unit.active.as_str() {
        _ if sight.not_to_start(host) => found.mended(BY_VERDICT, None, "nothing"),
        _ if data_first(node) => found.mended(BY_DATA, None, "nothing"),
        "active" | "activating" | "reloading" => {
            found.mended(format!("`journalctl -u patroni` on {host} says why"), None, "nothing")
        }
        _ => found.mended(
            match sight.first.as_deref() {
                Some(first) if first != host => format!("start it once {first} leads"),
                _ => "start it".to_owned(),
            },
            Some(format!("on {host}: systemctl start patroni.service")),
            "that host's Patroni and PostgreSQL",
        ),
    })
}

/// A mask of a run that is under way is that run's; any other was left behind.
fn masked(sight: &Sight, host: &str, node: &Node) -> Problem {
    let lock = sight.conditions.get(host).and_then(|condition| condition.locked_by.as_ref());
    match lock {
        Some(lock) => {
            proven("masked", format!("Patroni is masked on {host} by a run of flow that is not at its end"))
                .because([format!(
                    "{host} is locked by run {} ({}), held by {}",
                    lock.run, lock.workflow, lock.owner
                )])
                .mended(
                    "let the run come to its end: go on with it where it was cut short, or take it back",
                    Some(format!("flow resume {0}; flow undo {0}", lock.run)),
                    "what that run touches",
                )
        }
        None => {
            let found = proven(
                "masked",
                format!(
                    "Patroni is masked on {host}, and no run of flow is under way there: it can't be started"
                ),
            )
            .because([format!(
                "`systemctl is-enabled patroni.service` on {host}: masked; nobody holds flow's lock"
            )]);
            if sight.not_to_start(host) {
                return found.mended(BY_VERDICT, None, "nothing");
            }
            if data_first(node) {
                return found.mended(
                    BY_DATA,
                    Some(format!("on {host}: systemctl unmask patroni.service")),
                    "that host's unit",
                );
            }
            found.mended(
                match sight.first.as_deref() {
                    Some(first) if first != host => {
                        format!("a mask was left behind: take it off, and start it once {first} leads")
                    }
                    _ => "a mask was left behind: take it off, and start it".to_owned(),
                },
                Some(format!(
                    "on {host}: systemctl unmask patroni.service && systemctl enable --now patroni.service"
                )),
                "that host's unit",
            )
        }
    }
}

/// Its data directory holds, or may hide, something on which Patroni must not be started.
fn data_first(node: &Node) -> bool {
    matches!(node.data, Data::Unreadable(_) | Data::Unknown(_))
}

fn pending_restart(sight: &Sight, host: &str, node: &Node) -> Option<Problem> {
    let (report, settings) = (node.report.as_ref()?, node.settings()?);
    if !report.pending_restart {
        return None;
    }
    let names = sight.says(host).map(|says| says.restart.join(", ")).filter(|names| !names.is_empty());
    let what = match &names {
        Some(names) => format!("PostgreSQL of {host} must be restarted for {names} to count"),
        None => format!("PostgreSQL of {host} must be restarted for some settings to count"),
    };
    Some(proven("pending-restart", what).because([format!("`pending_restart` of {}", settings.rest)]).mended(
        "restart it by Patroni, where that is pending: replicas first, the leader last; `flow run postgresql-parameters.toml \
         --set allow_restart=true` does that, with a switchover",
        Some(sight.patronictl(&format!("restart {} {} --pending", settings.scope, settings.name))),
        "that host's PostgreSQL: its connections end",
    ))
}

/// Replicas that don't stream, or are behind.
fn replicas(sight: &Sight) -> Vec<Problem> {
    let Some((leader, node)) = sight.nodes.iter().find(|(_, node)| node.leads()) else { return Vec::new() };
    let Some(leads) = &node.report else { return Vec::new() };
    let live = streaming(sight.nodes.iter().map(|(host, node)| (host.as_str(), node)), leader);
    let mut found = Vec::new();
    for (host, node) in &sight.nodes {
        let (Some(report), Some(settings)) = (&node.report, node.settings()) else { continue };
        if node.leads() {
            continue;
        }
        if live.contains(host.as_str()) {
            found.extend(lagging(sight, leader, leads, host, report));
        } else {
            found.push(not_streaming(sight, leader, host, report, settings));
        }
    }
    found
}

fn not_streaming(sight: &Sight, leader: &str, host: &str, report: &Report, settings: &Settings) -> Problem {
    let what = format!("{host} doesn't stream from the leader ({}, {})", report.role, report.state);
    let mut because = Vec::new();
    if let Some(says) = sight.says(host) {
        because.push(match &says.receiver {
            Some(state) => format!("what receives its WAL is {state}"),
            None => "nothing receives WAL there".to_owned(),
        });
        because.extend(says.replayed_at.as_ref().map(since));
    }
    let found = seen("not-streaming", what).because(because);
    if sight.not_to_start(host) {
        return found.mended(BY_VERDICT, None, "nothing");
    }
    found.mended(
        format!(
            "PostgreSQL's log on {host} says why. Only where it says that WAL which it wants has been removed: let Patroni clone it anew from {leader}"
        ),
        Some(sight.patronictl(&format!("reinit {} {}", settings.scope, settings.name))),
        format!("that member's data directory, which Patroni removes and clones; {leader} is read from"),
    )
}

fn since(at: &String) -> String {
    format!("the last transaction that it has replayed was committed at {at} UTC")
}

/// Received as Patroni tells it, replayed as PostgreSQL does: the worse counts.
fn lagging(sight: &Sight, leader: &str, leads: &Report, host: &str, report: &Report) -> Option<Problem> {
    let limit = sight.conditions.get(host).map_or(LAG, |condition| condition.limits.lag);
    let behind = |of: Option<u64>, own: Option<u64>| of.zip(own).map(|(of, own)| of.saturating_sub(own));
    let received = behind(leads.position, report.position).unwrap_or(0);
    let own = sight.says(host);
    let written = sight.says(leader).and_then(|says| says.position);
    let replayed = behind(written, own.and_then(|says| says.replayed)).unwrap_or(0);
    if received.max(replayed) <= limit {
        return None;
    }
    let bytes = received.max(replayed);
    let mut because = vec![
        format!("{bytes} bytes; {received} not received yet, {replayed} not replayed yet"),
        format!("told from {} on (`lag`)", in_words(limit)),
    ];
    because.extend(own.and_then(|says| says.replayed_at.as_ref()).map(since));
    Some(
        seen("lagging", format!("{host} is {} of WAL behind", in_words(bytes))).because(because).mended(
            "look again whether it catches up; where it doesn't: its disk, the network, or a query that holds back its replay",
            None,
            "nothing",
        ),
    )
}
