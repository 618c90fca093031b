//! The evidence, side by side, for a person.

use indexmap::IndexMap;

use super::evidence::{Cluster, Configuration, Data, Key, Keys, Node, made};
use super::judge::Nodes;
use crate::patroni::archive::{Archive, Backups};
use crate::postgres::in_words;

/// A line for the keys, and one for each host.
pub(super) fn lines(nodes: &Nodes<'_>, keys: Option<&Keys>) -> Vec<String> {
    std::iter::once(of_keys(keys))
        .chain(nodes.iter().map(|(host, node)| format!("{host}: {}", of_node(node))))
        .chain(nodes.iter().flat_map(|(host, node)| {
            node.complaints.iter().map(move |line| format!("{host}'s journal: {line}"))
        }))
        .chain(archives(nodes))
        .collect()
}

/// What hosts say alike is one line.
fn archives(nodes: &Nodes<'_>) -> Vec<String> {
    let mut said: IndexMap<String, Vec<&str>> = IndexMap::new();
    for (host, node) in nodes {
        for words in of_archive(&node.archive) {
            said.entry(words).or_default().push(host);
        }
    }
    said.into_iter().map(|(words, hosts)| format!("{}: {words}", hosts.join(", "))).collect()
}

fn of_archive(archive: &Archive) -> Vec<String> {
    let mut words = Vec::new();
    let command = archive.command.as_deref().unwrap_or("its command");
    match (&archive.off_by, &archive.backups) {
        (Some(run), _) => words.push(format!("archiving is off, by run {run}; it was `{command}`")),
        (None, None) if archive.command.is_some() => {
            words.push(format!("WAL is archived by `{command}`, which isn't looked into"));
        }
        _ => {}
    }
    if archive.failing == Some(true) && archive.off_by.is_none() {
        words.push("the last attempt to archive WAL has failed".to_owned());
    }
    words.extend(archive.backups.as_ref().map(of_backups));
    words
}

fn of_backups(backups: &Backups) -> String {
    let dated = |identifier: &String| {
        date(identifier).map_or_else(|| identifier.clone(), |date| format!("{identifier} (of {date})"))
    };
    let mut words = Vec::new();
    if !backups.identifiers.is_empty() {
        let identifiers: Vec<String> = backups.identifiers.iter().map(dated).collect();
        words.push(format!("takes WAL of cluster {}", identifiers.join(" and ")));
        words.push(match (&backups.latest, &backups.ended) {
            (Some(label), Some(ended)) => format!("latest backup {label}, ended {ended}"),
            _ => "no backup".to_owned(),
        });
        let of = backups.of.as_ref().filter(|of| !backups.identifiers.contains(of));
        words.extend(of.map(|of| format!("of cluster {}", dated(of))));
        words.push(backups.wal.as_ref().map_or("no WAL of it".to_owned(), |wal| format!("WAL up to {wal}")));
    }
    words.extend(backups.unknown.as_ref().map(|why| format!("not all is known: {why}")));
    format!("pgBackRest, stanza {}: {}", backups.stanza, words.join(", "))
}

fn of_keys(keys: Option<&Keys>) -> String {
    let Some(keys) = keys else { return "etcd: the cluster's keys aren't known".to_owned() };
    let value = |key: &Option<Key>| match key {
        None => "absent".to_owned(),
        Some(key) if key.value.is_empty() => "empty".to_owned(),
        Some(key) => key.value.clone(),
    };
    let dated = keys.initialize.as_ref().and_then(|key| date(&key.value)).map(|date| format!(" (of {date})"));
    let members: Vec<&str> = keys.members.keys().map(String::as_str).collect();
    format!(
        "etcd: initialize {}{}, leader {}, members {}",
        value(&keys.initialize),
        dated.unwrap_or_default(),
        value(&keys.leader),
        if members.is_empty() { "none".to_owned() } else { members.join(" ") }
    )
}

fn of_node(node: &Node) -> String {
    if let Some(why) = &node.unreachable {
        return format!("not reached: {why}");
    }
    let patroni = match (&node.report, &node.patroni) {
        (Some(report), _) => format!("{}, {}", report.role, report.state),
        (None, Some(unit)) => format!("Patroni {} ({}) and silent", unit.active, unit.sub),
        (None, None) => "Patroni silent".to_owned(),
    };
    let configuration = match &node.configuration {
        Configuration::Of(_) => String::new(),
        Configuration::Unknown(why) | Configuration::Unsupported(why) => format!("; configuration: {why}"),
    };
    let data = match &node.data {
        Data::Unknown(why) => format!("data not known: {why}"),
        Data::Nothing => "no data".to_owned(),
        Data::Unreadable(what) => format!("data unreadable: {what}"),
        Data::Cluster(cluster) => of_cluster(cluster),
    };
    format!("{patroni}; {data}{configuration}")
}

fn of_cluster(cluster: &Cluster) -> String {
    let mut words = vec![format!(
        "cluster {}{}",
        cluster.identifier,
        date(&cluster.identifier).map(|date| format!(" (of {date})")).unwrap_or_default()
    )];
    words.push(format!("`{}`", cluster.state));
    words.push(format!("timeline {}", cluster.timeline));
    for fork in cluster.history.iter().flatten() {
        words.push(format!("timeline {} left at {}", fork.timeline, fork.at));
    }
    words.push(match cluster.records.last() {
        Some(last) => format!("last WAL record at {}", last.at),
        None => "end of WAL not known".to_owned(),
    });
    words.extend(cluster.last_commit.as_ref().map(|at| format!("last commit {at}")));
    words.push(match cluster.user_data {
        Some(true) => "user data".to_owned(),
        Some(false) => "no user data".to_owned(),
        None => "user data not known".to_owned(),
    });
    words.extend(cluster.bytes.map(in_words));
    words.extend(cluster.mount.as_ref().map(|place| format!("on {place}")));
    words.extend(cluster.links.iter().cloned());
    words.join(", ")
}

/// The day and time of initdb, UTC.
fn date(identifier: &str) -> Option<String> {
    let at = jiff::Timestamp::from_second(made(identifier)?).ok()?;
    Some(at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
