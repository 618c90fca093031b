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
    let (Some(last), Some(keeper_last)) = (member.records.last(), keeper.records.last()) else {
        return Kinship::Unknown("the end of its valid WAL, or of the other's, can't be read".to_owned());
    };
    let (Some(history), Some(keepers)) = (&member.history, &keeper.history) else {
        return Kinship::Unknown("the history of its timeline, or of the other's, can't be read".to_owned());
    };
    if let Some(why) = off_the_path(member.timeline, history, keeper.timeline, keepers) {
        return Kinship::Ahead(why);
    }
    match ends_in(member, last, keeper, keeper_last, keepers) {
        // Only what changes something is lost with it. The record before may be further back than what was read.
        Kinship::Ahead(why) => match member.last_change().filter(|change| change.at < last.at) {
            None => Kinship::Ahead(why),
            Some(change) => ends_in(member, change, keeper, keeper_last, keepers),
        },
        kinship => kinship,
    }
}

/// Whether the keeper's WAL goes up to that record of the member, or further, on the way that it took.
fn ends_in(
    member: &Cluster,
    last: &Record,
    keeper: &Cluster,
    keeper_last: &Record,
    keepers: &[Fork],
) -> Kinship {
    // Where the keeper's path left the member's timeline no record of it may begin; else none after the keeper's last.
    let left = keepers.iter().find(|fork| fork.timeline == member.timeline);
    let beyond = match left {
        Some(fork) => {
            (last.at >= fork.at).then(|| format!("where the other left that timeline at {}", fork.at))
        }
        None => (last.at > keeper_last.at).then(|| format!("the other's last record at {}", keeper_last.at)),
    };
    if let Some(what) = beyond {
        let timeline = member.timeline;
        return Kinship::Ahead(format!(
            "its WAL has a record at {} on timeline {timeline}, beyond {what}",
            last.at
        ));
    }
    same_record(last, keeper)
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

/// Whether the keeper's WAL has that very record.
fn same_record(last: &Record, keeper: &Cluster) -> Kinship {
    let at = last.at;
    match keeper.records.iter().chain(&keeper.looked_up).find(|record| record.at == at) {
        Some(record) if record.digest == last.digest => Kinship::Contained,
        Some(_) => Kinship::Ahead(format!("its WAL record at {at} is another than the other's")),
        None if keeper.records.first().is_some_and(|first| first.at <= at) => {
            Kinship::Ahead(format!("it has a WAL record at {at}, and the other has none there"))
        }
        None => Kinship::Unknown(format!(
            "its last record, at {at}, is older than what was read of the other's WAL"
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
        for record in &mut member.records[10..] {
            record.idle = true;
        }
        assert_eq!(kinship(&member, &keeper), Kinship::Contained);
        // What comes before the fork must be the same all the same.
        member.records[9].digest = "something else".to_owned();
        assert!(matches!(kinship(&member, &keeper), Kinship::Ahead(_)));
        member.records[9].idle = true;
        assert_eq!(kinship(&member, &keeper), Kinship::Contained, "up to record 8 they are the same");
        // One row among them is enough.
        member.records[10].idle = false;
        assert!(matches!(kinship(&member, &keeper), Kinship::Ahead(_)));
        // Nothing but such records was read: the first of them must be found.
        let idle = |at| Record { at: Lsn(at), digest: at.to_string(), idle: true };
        let all_idle = |from| Cluster { records: (from..12).map(idle).collect(), ..member.clone() };
        assert_eq!(kinship(&all_idle(8), &keeper), Kinship::Contained);
        assert!(matches!(kinship(&all_idle(10), &keeper), Kinship::Ahead(_)));
        // On no timeline of the other's, no matter what it wrote there.
        let promoted = Cluster { timeline: 3, ..on(3, &[(1, 10)], 12) };
        assert!(matches!(kinship(&promoted, &keeper), Kinship::Ahead(_)));
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
