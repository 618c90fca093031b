//! Whose data is kept where the operator says so.

use indexmap::IndexMap;

use super::tests::{NEW, OLD, OURS, all_stopped, cluster, fresh, judged_for, key, stopped};
use super::{Cluster, Configuration, Data, Judgement, Keys, Node, Record, Surgery, Verdict, Wish, Written};
use crate::postgres::Lsn;

fn keeping(host: &str, change: impl Fn(&mut IndexMap<String, Node>, &mut Keys)) -> Judgement {
    judged_for(Wish::Keep { host, again: false }, change)
}

/// p1 leads p2, and p3 is older and has rows.
fn older_with_rows(nodes: &mut IndexMap<String, Node>) {
    stopped(nodes, "p3", cluster(OLD));
}

#[test]
fn a_leader_that_is_kept_goes_on_and_only_what_it_lacks_is_stopped_and_set_aside() {
    let found = keeping("p1", |nodes, _| older_with_rows(nodes));
    assert_eq!(found.verdict, Verdict::Kept { keeper: "p1".into() }, "{found:#?}");
    let only = vec!["p3".to_owned()];
    let expected = Surgery {
        stop: only.clone(),
        set_aside: only,
        leader: Some("p1".into()),
        room_for: Some(1 << 30),
        ..Surgery::default()
    };
    assert_eq!(found.surgery, expected);
}

#[test]
fn another_that_is_kept_starts_first_and_all_others_are_stopped_the_leader_last() {
    let found = keeping("p3", |nodes, keys| {
        older_with_rows(nodes);
        keys.written = Some(Written { key: "status".into(), position: 9 + (1 << 20) + 1 });
    });
    assert_eq!(found.verdict, Verdict::Kept { keeper: "p3".into() }, "{found:#?}");
    let expected = Surgery {
        stop: vec!["p1".into(), "p2".into(), "p3".into()],
        stop_last: Some("p1".into()),
        set_aside: vec!["p1".into(), "p2".into()],
        start_first: Some("p3".into()),
        leader: None,
        identifier: Some(OLD.into()),
        revision: 5,
        forget: vec!["status".into()],
        room_for: Some(1 << 30),
    };
    assert_eq!(found.surgery, expected);
    assert!(found.reasons.iter().any(|why| why.contains("p2 is set aside: it belongs to another cluster")));
}

#[test]
fn what_the_keeper_is_proven_to_have_keeps_its_place() {
    let found = keeping("p1", |nodes, keys| {
        all_stopped(nodes);
        keys.leader = None;
        let mut ahead = cluster(OURS);
        ahead.records.push(Record { at: Lsn(10), digest: "x".into(), idle: false });
        stopped(nodes, "p2", ahead);
        let mut fork = cluster(OURS);
        fork.records[8].digest = "another".into();
        stopped(nodes, "p3", fork);
        keys.initialize = key("123", 0);
    });
    assert_eq!(found.surgery.set_aside, ["p2", "p3"], "{found:#?}");
    let found = keeping("p2", |nodes, keys| {
        all_stopped(nodes);
        (keys.initialize, keys.leader) = (key("123", 0), None);
        stopped(nodes, "p1", cluster(OLD));
    });
    assert_eq!(found.surgery.set_aside, ["p1"], "p3 has nothing that p2 lacks: {found:#?}");
    assert_eq!(found.surgery.forget, Vec::<String>::new());
}

#[test]
fn what_would_keep_the_keeper_from_leading_is_told_before_anything_is_stopped() {
    type Change = fn(&mut IndexMap<String, Node>, &mut Keys);
    let cases: [(&str, Change); 8] = [
        ("in pause", |_, keys| keys.paused = Some(true)),
        ("the key `sync` lets only p1", |_, keys| keys.sync = vec!["p1".into()]),
        ("the key `failsafe` lacks it", |_, keys| keys.failsafe = vec!["p1".into(), "p2".into()]),
        ("`nofailover`", |nodes, _| {
            let Configuration::Of(settings) = &mut nodes["p3"].configuration else { unreachable!() };
            settings.nofailover = true;
        }),
        ("a failover to p2 was asked for", |_, keys| keys.failover = Some("p2".into())),
        ("has no lease", |_, keys| keys.leader = key("p1", 0)),
        ("may be writing", |nodes, _| nodes["p2"] = Node::unreachable("no route to host")),
        ("has no data directory that could be kept", |nodes, _| nodes["p3"].data = Data::Nothing),
    ];
    for (words, change) in cases {
        let found = keeping("p3", |nodes, keys| {
            older_with_rows(nodes);
            // So that it isn't decided, whatever becomes of p3.
            nodes["p2"].data = Data::Cluster(Box::new(Cluster { running: Some(true), ..cluster(NEW) }));
            change(nodes, keys);
        });
        assert_eq!((&found.verdict, &found.surgery), (&Verdict::Undecided, &Surgery::default()), "{words}");
        assert!(found.reasons.iter().any(|why| why.contains(words)), "{words}: {:?}", found.reasons);
    }
}

#[test]
fn nobody_is_kept_where_the_evidence_decides_or_two_clusters_share_a_scope() {
    let found = keeping("p3", |nodes, _| stopped(nodes, "p3", fresh(NEW)));
    assert_eq!(found.verdict.name(), "disposable");
    let found = keeping("p3", |nodes, keys| {
        older_with_rows(nodes);
        keys.members.insert("theirs".into(), None);
    });
    assert_eq!((found.verdict, found.surgery), (Verdict::TwoClusters, Surgery::default()));
    assert_eq!(keeping("p1", |_, _| ()).verdict.name(), "healthy");
}
