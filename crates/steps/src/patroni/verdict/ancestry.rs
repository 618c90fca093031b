//! Whether all that one data directory holds is in another: by timelines, positions and the records themselves.
//!
//! Equal identifiers and equal timelines prove nothing: a copy that was promoted, or started without `standby.signal`, has both.
//! So the last record of the one must be found, the same, in the WAL of the other.

use super::evidence::{Cluster, Record};
use crate::postgres::Fork;

/// How one data directory stands to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::patroni) enum Kinship {
    /// The other has all that this one has.
    Contained,
    /// This one has what the other hasn't; why that is known.
    Ahead(String),
    /// It can't be told; what is missing for it.
    Unknown(String),
}

/// Whether `keeper` has all that `member` has.
pub(in crate::patroni) fn kinship(member: &Cluster, keeper: &Cluster) -> Kinship {
    if member.identifier != keeper.identifier {
        return Kinship::Ahead("it belongs to another cluster".to_owned());
    }
    let (false, Some(keeper_last)) = (member.records.is_empty(), keeper.records.last()) else {
        return Kinship::Unknown("the end of its valid WAL, or of the other's, can't be read".to_owned());
    };
    let (Some(history), Some(keepers)) = (&member.history, &keeper.history) else {
        return Kinship::Unknown("the history of its timeline, or of the other's, can't be read".to_owned());
    };
    if let Some(why) = off_the_path(member.timeline, history, keeper.timeline, keepers) {
        return Kinship::Ahead(why);
    }
    let (inside, beyond) = member.records.split_at(inside(member, keeper));
    if let Some(last) = beyond.iter().rfind(|record| !record.idle).or(beyond.last()) {
        let ahead = |more: &str| {
            let what = match left(member, keeper) {
                Some(fork) => format!("where the other left that timeline at {}", fork.at),
                None => format!("the other's last record at {}", keeper_last.at),
            };
            let (at, timeline) = (last.at, member.timeline);
            Kinship::Ahead(format!(
                "its WAL has a record at {at} on timeline {timeline}, beyond {what}{more}"
            ))
        };
        // A primary that stops writes a checkpoint when nobody listens any more: no row is lost with that.
        if !last.idle || inside.is_empty() {
            return ahead("");
        }
        if !member.rewindable {
            return ahead(
                "; it would have to be rewound, and `use_pg_rewind` is off, or its data has neither checksums nor hints in the WAL",
            );
        }
    }
    same_records(inside, keeper)
}

/// Where the keeper's path left the member's timeline.
fn left<'k>(member: &Cluster, keeper: &'k Cluster) -> Option<&'k Fork> {
    keeper.history.iter().flatten().find(|fork| fork.timeline == member.timeline)
}

/// How many of the member's records could be the keeper's too: where its path left the member's timeline none may begin, and
/// none after its last.
fn inside(member: &Cluster, keeper: &Cluster) -> usize {
    let last = keeper.records.last().map(|last| last.at);
    let left = left(member, keeper);
    member.records.partition_point(|record| match left {
        Some(fork) => record.at < fork.at,
        None => last.is_some_and(|last| record.at <= last),
    })
}

/// The member's last record that the keeper must have, the same.
pub(in crate::patroni) fn meeting<'m>(member: &'m Cluster, keeper: &Cluster) -> Option<&'m Record> {
    member.records[..inside(member, keeper)].last()
}

/// Why a timeline isn't one that the keeper went through.
fn off_the_path(timeline: u32, history: &[Fork], keepers: u32, path: &[Fork]) -> Option<String> {
    let way = match path.iter().position(|fork| fork.timeline == timeline) {
        Some(index) => &path[..index],
        None if timeline == keepers => path,
        None => {
            return Some(format!(
                "it is on timeline {timeline}, which the other's timeline {keepers} doesn't come from"
            ));
        }
    };
    (history != way).then(|| format!("its timeline {timeline} came about otherwise than the other's"))
}

/// Whether the keeper's WAL has these very records, as far back as it was read. One that says nothing but itself, such as a
/// checkpoint, may be equal in two histories; those before it aren't.
fn same_records(inside: &[Record], keeper: &Cluster) -> Kinship {
    let Some(last) = inside.last() else {
        return Kinship::Unknown("none of its WAL records is as old as the other's".to_owned());
    };
    let known =
        |at| keeper.records.binary_search_by_key(&at, |record| record.at).ok().map(|it| &keeper.records[it]);
    let other = |at| Kinship::Ahead(format!("its WAL record at {at} is another than the other's"));
    let read_from = keeper.records.first().map(|first| first.at);
    for record in inside.iter().filter(|record| read_from.is_some_and(|first| first <= record.at)) {
        match known(record.at) {
            Some(own) if own.digest == record.digest => {}
            Some(_) => return other(record.at),
            None => {
                return Kinship::Ahead(format!(
                    "it has a WAL record at {}, and the other has none there",
                    record.at
                ));
            }
        }
    }
    if read_from.is_some_and(|first| first <= last.at) {
        return Kinship::Contained;
    }
    match keeper.looked_up.iter().find(|record| record.at == last.at) {
        Some(record) if record.digest == last.digest => Kinship::Contained,
        Some(_) => other(last.at),
        None => Kinship::Unknown(format!(
            "its last record, at {}, is older than what was read of the other's WAL",
            last.at
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patroni::verdict::tests::cluster;
    use crate::postgres::Lsn;

    fn on(timeline: u32, forks: &[(u32, u64)], end: u64) -> Cluster {
        Cluster {
            timeline,
            history: Some(forks.iter().map(|&(timeline, at)| Fork { timeline, at: Lsn(at) }).collect()),
            records: (0..end).map(|at| Record { at: Lsn(at), digest: at.to_string(), idle: false }).collect(),
            ..cluster("7")
        }
    }

    #[test]
    fn a_member_behind_on_the_same_path_is_contained() {
        assert_eq!(kinship(&on(1, &[], 10), &on(1, &[], 10)), Kinship::Contained);
        assert_eq!(kinship(&on(1, &[], 10), &on(2, &[(1, 10)], 20)), Kinship::Contained);
    }

    #[test]
    fn a_member_beyond_the_fork_point_is_ahead_though_its_timeline_is_lower() {
        let Kinship::Ahead(why) = kinship(&on(1, &[], 12), &on(2, &[(1, 10)], 20)) else { panic!() };
        assert_eq!(
            why,
            "its WAL has a record at 0/B on timeline 1, beyond where the other left that timeline at 0/A"
        );
        // The next record on the old timeline is one too many already.
        assert!(matches!(kinship(&on(1, &[], 11), &on(2, &[(1, 10)], 20)), Kinship::Ahead(_)));
    }

    /// A primary that stops writes a checkpoint, which nobody may have received when another is promoted.
    #[test]
    fn a_checkpoint_beyond_the_fork_point_is_no_row() {
        let keeper = on(2, &[(1, 10)], 20);
        let mut member = on(1, &[], 12);
        for record in &mut member.records[9..] {
            record.idle = true;
        }
        assert_eq!(kinship(&member, &keeper), Kinship::Contained);
        let unable = Cluster { rewindable: false, ..member.clone() };
        let Kinship::Ahead(why) = kinship(&unable, &keeper) else { panic!() };
        assert!(why.contains("`use_pg_rewind` is off"), "{why}");
        // One row among them is enough.
        let mut row = member.clone();
        row.records[10].idle = false;
        assert!(matches!(kinship(&row, &keeper), Kinship::Ahead(_)));
        // Up to the fork all must be the same, what changes nothing too: else their ways parted before.
        for at in [8, 9] {
            let mut parted = member.clone();
            parted.records[at].digest = "something else".to_owned();
            assert!(matches!(kinship(&parted, &keeper), Kinship::Ahead(_)), "{at}");
        }
        // Where nothing before the fork was read, nothing shows that they met there.
        let late = Cluster { records: member.records[10..].to_vec(), ..member.clone() };
        assert!(matches!(kinship(&late, &keeper), Kinship::Ahead(_)));
        // On no timeline of the other's, no matter what it wrote there.
        assert!(matches!(kinship(&on(3, &[(1, 10)], 12), &keeper), Kinship::Ahead(_)));
    }

    #[test]
    fn an_equal_last_record_proves_nothing_where_those_before_it_differ() {
        let (mut one, other) = (on(1, &[], 10), on(1, &[], 10));
        one.records[8].digest = "a row of its own".to_owned();
        assert!(matches!(kinship(&one, &other), Kinship::Ahead(_)));
        assert!(matches!(kinship(&other, &one), Kinship::Ahead(_)));
    }

    #[test]
    fn the_same_timeline_that_came_about_otherwise_is_another_history() {
        assert!(matches!(kinship(&on(2, &[(1, 8)], 9), &on(2, &[(1, 10)], 20)), Kinship::Ahead(_)));
        assert!(matches!(kinship(&on(3, &[(1, 8)], 9), &on(2, &[(1, 8)], 20)), Kinship::Ahead(_)));
    }

    #[test]
    fn equal_timelines_and_positions_with_other_records_are_another_history() {
        let mut other = on(2, &[(1, 5)], 10);
        other.records[9].digest = "something else".to_owned();
        assert!(matches!(kinship(&other, &on(2, &[(1, 5)], 20)), Kinship::Ahead(_)));
    }

    #[test]
    fn what_can_not_be_read_proves_nothing() {
        let keeper = on(1, &[], 20);
        for member in
            [Cluster { history: None, ..on(1, &[], 10) }, Cluster { records: Vec::new(), ..on(1, &[], 10) }]
        {
            assert!(matches!(kinship(&member, &keeper), Kinship::Unknown(_)));
        }
        let short = Cluster { records: keeper.records[15..].to_vec(), ..keeper.clone() };
        assert!(matches!(kinship(&on(1, &[], 10), &short), Kinship::Unknown(_)));
        // Looked for further back, the record is there, or it is another one.
        let found = |record: Record| Cluster { looked_up: vec![record], ..short.clone() };
        assert_eq!(kinship(&on(1, &[], 10), &found(keeper.records[9].clone())), Kinship::Contained);
        let another = Record { at: Lsn(9), digest: "another".to_owned(), idle: false };
        assert!(matches!(kinship(&on(1, &[], 10), &found(another)), Kinship::Ahead(_)));
        assert!(matches!(kinship(&on(1, &[], 12), &found(keeper.records[9].clone())), Kinship::Unknown(_)));
    }
}
