//! What fills a disk: slots that hold WAL back, an archiver that fails, and the disks themselves.

use super::sight::Sight;
use super::{Problem, proven, seen};
use crate::patroni::condition::{Archiver, Condition, Says, Server, Slot};
use crate::patroni::verdict::Node;
use crate::postgres::in_words;

pub(super) fn problems(sight: &Sight) -> Vec<Problem> {
    let mut found = Vec::new();
    for (host, condition) in &sight.conditions {
        found.extend(disks(host, condition));
    }
    for (host, condition) in &sight.conditions {
        let Server::Says(says) = &condition.server else { continue };
        if sight.nodes.get(host).is_none_or(|node| node.archive.off_by.is_none()) {
            found.extend(archiver(sight, host, says));
        }
        let held = says.slots.iter().filter(|slot| holds(slot, condition.limits.slot_wal));
        found.extend(held.map(|slot| holding(sight, host, condition, says, slot)));
    }
    found.extend(archiving_off(sight));
    found.extend(other_backups(sight));
    found
}

fn archiving_off(sight: &Sight) -> Option<Problem> {
    let off =
        || sight.nodes.iter().filter_map(|(host, node)| Some((host, node.archive.off_by.as_ref()?, node)));
    let (_, run, node) = off().next()?;
    let hosts: Vec<&str> = off().map(|(host, ..)| host.as_str()).collect();
    Some(
        proven("archiving-off", format!("archiving on {} is off by run {run} until you open the cluster: its WAL stays", hosts.join(", ")))
            .because(node.archive.command.as_ref().map(|command| format!("what comes again: `{command}`")))
            .mended(
                "once the archive is one for the new cluster (pgBackRest: `stanza-upgrade`): it looks at that first",
                Some(sight.open()),
                "Patroni's configuration file, which is reloaded, and HAProxy where it is closed: clients come in, and write",
            ),
    )
}

/// The living cluster's identifier isn't that of which the backups are: one of them isn't what it should be.
fn other_backups(sight: &Sight) -> Option<Problem> {
    let leader = sight.nodes.values().find(|node| node.leads())?;
    let own = &leader.cluster()?.identifier;
    let backups = leader.archive.backups.as_ref()?;
    if backups.identifiers.is_empty() || backups.identifiers.contains(own) {
        return None;
    }
    let latest = match (&backups.latest, &backups.ended) {
        (Some(label), Some(ended)) => format!("latest backup {label}, ended {ended}"),
        _ => "no backup".to_owned(),
    };
    Some(
        proven(
            "backup-of-another-cluster",
            format!(
                "pgBackRest's stanza {} is of cluster {}, and {own} lives: it takes none of its WAL",
                backups.stanza,
                backups.identifiers.join(" and ")
            ),
        )
        .because([latest])
        .mended(
            "where the living cluster is the right one, the stanza is made its own, and a full backup follows; where it isn't, these backups are of the one that is missed",
            Some(format!("on the leader: {}", backups.upgrade())),
            "the stanza; its older backups stay",
        ),
    )
}

/// Of data and WAL on one disk it is told once.
fn disks(host: &str, condition: &Condition) -> Vec<Problem> {
    let Some(place) = &condition.place else { return Vec::new() };
    let limit = condition.limits.disk_free;
    let mut found: Vec<(&str, Problem)> = Vec::new();
    for disk in &place.disks {
        let free = u128::from(disk.free) * 100;
        if free >= u128::from(disk.size) * u128::from(limit)
            || found.iter().any(|(mount, _)| *mount == disk.mount)
        {
            continue;
        }
        let holds: Vec<&str> =
            place.disks.iter().filter(|one| one.mount == disk.mount).map(|one| one.holds.as_str()).collect();
        let holds = holds.join(" and ").replace("wal", "WAL");
        let percent = free / u128::from(disk.size.max(1));
        let mut because = vec![
            format!(
                "{} of {} are free at {}, {percent} %",
                in_words(disk.free),
                in_words(disk.size),
                disk.mount
            ),
            format!("told below {limit} % (`disk_free`)"),
        ];
        if holds.contains("data") {
            because.extend(place.copies.iter().map(|copy| {
                let size = copy.bytes.map_or_else(|| "size not known".to_owned(), in_words);
                format!("beside the data: {} ({size})", copy.path)
            }));
        }
        let problem = seen("disk-filling", format!("the disk of the {holds} on {host} is nearly full: PostgreSQL stops where it is"))
            .because(because)
            .mended(
                "make room: what holds WAL back is told here too; a set-aside copy may go once nobody needs its rows. Never remove a file of the data directory or of pg_wal by hand",
                None,
                "nothing of the data directory",
            );
        found.push((&disk.mount, problem));
    }
    found.into_iter().map(|(_, problem)| problem).collect()
}

/// A replica keeps the counts of the time when it led; only what archives just now can fail.
fn archiver(sight: &Sight, host: &str, says: &Says) -> Option<Problem> {
    let archiver = says.archiver.as_ref().filter(|archiver| !says.recovery || archiver.mode == "always")?;
    let waits = format!("{} files wait to be archived", archiver.waiting);
    if archiver.command.is_empty() || archiver.command == "(disabled)" {
        return (archiver.waiting > 0).then(|| {
            seen(
                "archiver-failing",
                format!("{host} archives nothing: it has no `archive_command`, so its WAL stays"),
            )
            .because([format!("`archive_mode` is {}", archiver.mode), waits])
            .mended(
                "set `archive_command` in the dynamic configuration, or `archive_mode` to off",
                Some(sight.patronictl("edit-config")),
                "the dynamic configuration; `archive_mode` counts after a restart",
            )
        });
    }
    archiver.failing.then(|| {
        seen(
            "archiver-failing",
            format!("{host} can't archive its WAL: the last attempt has failed, and its WAL stays"),
        )
        .because(failure(archiver).into_iter().chain([waits]))
        .mended(
            "PostgreSQL's log says what the command answered; it is tried again by itself once it works",
            Some(sight.patronictl("edit-config")),
            "the dynamic configuration, where the command is wrong: no restart",
        )
    })
}

fn failure(archiver: &Archiver) -> Vec<String> {
    let at =
        |time: &Option<String>| time.clone().map_or_else(|| "never".to_owned(), |time| format!("{time} UTC"));
    vec![
        format!(
            "last failure {}: {}",
            at(&archiver.failed_at),
            archiver.failed_file.as_deref().unwrap_or("?")
        ),
        format!("last success {}; {} failures in all", at(&archiver.archived_at), archiver.failures),
        format!("the command: {}", archiver.command),
    ]
}

fn holds(slot: &Slot, limit: u64) -> bool {
    let lost = slot.state.as_deref() == Some("lost");
    !slot.active && (lost || slot.held.is_some_and(|held| held > limit))
}

fn holding(sight: &Sight, host: &str, condition: &Condition, says: &Says, slot: &Slot) -> Problem {
    let name = &slot.name;
    let mut because =
        vec![format!("{} slot, inactive, {}", slot.kind, slot.state.as_deref().unwrap_or("state not known"))];
    because.push(match says.slot_limit {
        Some(-1) | None => {
            "nothing limits it (`max_slot_wal_keep_size` is -1): it grows until the disk is full".to_owned()
        }
        Some(limit) => format!("`max_slot_wal_keep_size` is {limit} MiB"),
    });
    because.push(format!("told from {} on (`slot_wal`)", in_words(condition.limits.slot_wal)));
    if slot.state.as_deref() == Some("lost") {
        return proven(
            "slot-lost",
            format!(
                "the WAL that replication slot {name} on {host} stands for is gone: its reader can't go on"
            ),
        )
        .because(because)
        .mended(
            "make its reader anew; the slot itself is of no use any more",
            Some(drop_slot(host, name)),
            "that slot",
        );
    }
    let held = in_words(slot.held.unwrap_or(0));
    let found = seen(
        "slot-holds-wal",
        format!("replication slot {name} on {host} holds {held} of WAL back, and nobody reads from it"),
    )
    .because(because);
    match member(sight, name) {
        Some((reader, member)) => found.mended(
            format!("it is member {member}'s: bring {reader} back, or let it go for good"),
            Some(format!("flow run remove-node.toml --set node={reader} --confirm {reader}")),
            format!("{reader}: it leaves the cluster; the slot goes with it"),
        ),
        None => found.mended(
            "bring its reader back. Where there is none any more: take it out of `slots` in the dynamic configuration if it stands there (`patronictl edit-config`), else drop it",
            Some(drop_slot(host, name)),
            "that slot: its reader must be made anew",
        ),
    }
}

fn drop_slot(host: &str, name: &str) -> String {
    format!("on {host}: runuser -u postgres -- psql -c \"select pg_drop_replication_slot('{name}')\"")
}

/// The member whose slot it is. Patroni makes `_` of what a slot's name can't have (3.0.2, `slot_name_from_member_name`).
fn member<'a>(sight: &'a Sight, slot: &str) -> Option<(&'a str, &'a str)> {
    let own = |name: &str| -> String {
        let plain = |c: char| if matches!(c, '-' | '.') { '_' } else { c };
        name.to_lowercase().chars().map(plain).collect()
    };
    let of = |(host, node): (&'a String, &'a Node)| {
        let name = node.settings()?.name.as_str();
        (own(name) == slot).then_some((host.as_str(), name))
    };
    sight.nodes.iter().find_map(of)
}
