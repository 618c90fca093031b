//! Each verdict, on evidence written by hand. What must hold for any evidence is in `matrix`.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{
    Cluster, Configuration, Data, Judgement, Key, Keys, Node, Record, Store, Verdict, Wish, judge, judge_for,
};
use crate::clients::NoEtcd;
use crate::patroni::rest::Report;
use crate::patroni::settings::Settings;
use crate::postgres::Lsn;

/// The cluster with the data, and one that was initialised a day later.
pub(in crate::patroni) const OURS: &str = "7711162655563234249";
pub(super) const NEW: &str = "7711533757000000000";
pub(super) const OLD: &str = "7710000000000000000";

pub(in crate::patroni) fn cluster(identifier: &str) -> Cluster {
    Cluster {
        identifier: identifier.to_owned(),
        state: "shut down".to_owned(),
        running: Some(false),
        major: Some("15".to_owned()),
        timeline: 1,
        redo: None,
        minimum_recovery: None,
        history: Some(Vec::new()),
        last_commit: None,
        records: (1..=9)
            .map(|at| Record { at: Lsn(at), digest: format!("{identifier} {at}"), idle: false })
            .collect(),
        looked_up: Vec::new(),
        links: Vec::new(),
        mount: None,
        bytes: Some(1 << 30),
        rewindable: true,
        user_data: Some(true),
    }
}

pub(in crate::patroni) fn settings(host: &str) -> Settings {
    Settings {
        etcd_tls: None,
        rest_tls: None,
        scope: "demo".into(),
        namespace: "/service/".into(),
        prefix: "/service/demo/".into(),
        name: host.into(),
        endpoints: vec!["198.18.0.11:2379".into()],
        rest: format!("{host}:8008"),
        postgres: format!("{host}:5432"),
        data_dir: "/d/main".into(),
        bin_dir: "/b".into(),
        nofailover: false,
        use_pg_rewind: None,
        unsupported: Vec::new(),
        rest_auth: None,
    }
}

pub(in crate::patroni) fn node(host: &str, data: Data, keys: &Keys) -> Node {
    Node {
        unreachable: None,
        configuration: Configuration::Of(Box::new(settings(host))),
        patroni: None,
        report: None,
        data,
        store: Store::Keys(Box::new(keys.clone())),
        set_aside: Vec::new(),
        complaints: Vec::new(),
        archive: Default::default(),
    }
}

pub(in crate::patroni) fn key(value: &str, lease: i64) -> Option<Key> {
    Some(Key { value: value.into(), revision: 5, lease })
}

pub(in crate::patroni) fn report(role: &str, streaming: &[&str]) -> Option<Report> {
    Some(Report {
        state: "running".into(),
        role: role.into(),
        streaming: streaming.iter().map(|name| (*name).to_owned()).collect(),
        ..Report::default()
    })
}

/// A healthy cluster of three, changed.
fn judged(change: impl Fn(&mut IndexMap<String, Node>, &mut Keys)) -> Judgement {
    judged_for(Wish::None, change)
}

pub(super) fn judged_for(
    wish: Wish<'_>,
    change: impl Fn(&mut IndexMap<String, Node>, &mut Keys),
) -> Judgement {
    let mut keys = Keys {
        initialize: key(OURS, 0),
        leader: key("p1", 7),
        members: ["p1", "p2", "p3"]
            .into_iter()
            .map(|name| (name.to_owned(), Some(format!("{name}:8008"))))
            .collect(),
        ..Keys::default()
    };
    let mut nodes = IndexMap::new();
    for host in ["p1", "p2", "p3"] {
        let running = |state: &str| {
            let own = Cluster { state: state.into(), running: Some(true), ..cluster(OURS) };
            Data::Cluster(Box::new(own))
        };
        let mut one = node(host, running("in archive recovery"), &keys);
        one.report = report("replica", &[]);
        if host == "p1" {
            one.data = running("in production");
            one.report = report("leader", &["p2", "p3"]);
        }
        nodes.insert(host.to_owned(), one);
    }
    change(&mut nodes, &mut keys);
    for one in nodes.values_mut().filter(|one| one.unreachable.is_none()) {
        one.store = Store::Keys(Box::new(keys.clone()));
    }
    judge_for(&nodes, wish)
}

/// Patroni ended on that host, and its data directory is this.
pub(super) fn stopped(nodes: &mut IndexMap<String, Node>, host: &str, own: Cluster) {
    let one = &mut nodes[host];
    one.report = None;
    one.data = Data::Cluster(Box::new(own));
    for other in nodes.values_mut() {
        if let Some(report) = &mut other.report {
            report.streaming.retain(|name| name != host);
        }
    }
}

pub(super) fn all_stopped(nodes: &mut IndexMap<String, Node>) {
    for host in ["p1", "p2", "p3"] {
        stopped(nodes, host, cluster(OURS));
    }
}

pub(super) fn fresh(identifier: &str) -> Cluster {
    Cluster { user_data: Some(false), ..cluster(identifier) }
}

#[test]
fn a_leader_and_replicas_that_stream_are_healthy() {
    assert_eq!(judged(|_, _| ()).verdict, Verdict::Healthy { leader: "p1".into() });
}

#[test]
fn a_member_that_streams_from_another_one_streams() {
    let cascade = |from_leader: &'static [&'static str], from_second: &'static [&'static str]| {
        judged(move |nodes, _| {
            nodes["p1"].report = report("leader", from_leader);
            nodes["p2"].report = report("replica", from_second);
        })
    };
    assert_eq!(cascade(&["p2"], &["p3"]).verdict, Verdict::Healthy { leader: "p1".into() });
    assert_eq!(cascade(&["p2"], &[]).verdict, Verdict::NoMismatch { keeper: "p1".into() });
    // What comes from one that doesn't stream itself isn't the leader's.
    let cut_off = cascade(&[], &["p3"]);
    assert_eq!(cut_off.verdict, Verdict::NoMismatch { keeper: "p1".into() });
    assert!(cut_off.reasons.contains(&"p3 doesn't stream from p1".to_owned()), "{cut_off:#?}");
}

#[test]
fn a_key_that_is_gone_while_the_leader_lives_is_written_back_by_patroni() {
    let found = judged(|_, keys| keys.initialize = None);
    assert_eq!(found.verdict, Verdict::KeyGoneLeaderAlive { leader: "p1".into(), identifier: OURS.into() });
}

#[test]
fn a_wrong_key_over_one_history_is_mended_with_no_data_touched() {
    let found = judged(|nodes, keys| {
        all_stopped(nodes);
        (keys.initialize, keys.leader) = (key("123", 0), None);
    });
    let Verdict::KeyWrong { identifier, keeper, revision } = found.verdict else { panic!("{found:#?}") };
    assert_eq!((identifier.as_str(), keeper.as_str(), revision), (OURS, "p1", 5));
}

#[test]
fn the_member_with_the_longest_wal_is_kept_though_it_is_the_last_of_the_inventory() {
    let found = judged(|nodes, keys| {
        all_stopped(nodes);
        (keys.initialize, keys.leader) = (None, None);
        for host in ["p1", "p2"] {
            let mut behind = cluster(OURS);
            behind.records.truncate(6);
            stopped(nodes, host, behind);
        }
    });
    assert!(matches!(&found.verdict, Verdict::KeyWrong { keeper, .. } if keeper == "p3"), "{found:#?}");
}

#[test]
fn a_member_that_was_initialised_anew_and_holds_nothing_is_disposable() {
    let found = judged(|nodes, _| stopped(nodes, "p3", fresh(NEW)));
    assert_eq!(found.verdict, Verdict::Disposable { leader: "p1".into(), members: vec!["p3".into()] });
    assert!(found.evidence[3].contains("of 2026-"), "the identifier's date is told: {:?}", found.evidence);
}

#[test]
fn a_patroni_that_answers_between_two_restarts_makes_nobody_less_disposable() {
    let said = |state: &str| {
        judged(|nodes, _| {
            stopped(nodes, "p3", fresh(NEW));
            nodes["p3"].report =
                report("demoted", &[]).map(|report| Report { state: state.into(), ..report });
        })
        .verdict
    };
    assert_eq!(said("stopped"), Verdict::Disposable { leader: "p1".into(), members: vec!["p3".into()] });
    assert_eq!(said("starting"), Verdict::Undecided);
}

#[test]
fn two_new_members_that_elected_a_leader_do_not_outvote_the_one_with_the_data() {
    let found = judged(|nodes, keys| {
        for host in ["p1", "p2"] {
            let Data::Cluster(own) = &mut nodes[host].data else { unreachable!() };
            (own.identifier, own.user_data) = (NEW.into(), Some(false));
        }
        stopped(nodes, "p3", cluster(OURS));
        keys.initialize = key(NEW, 0);
    });
    assert_eq!(found.verdict, Verdict::Undecided);
    assert!(found.reasons[0].contains("was initialised before the leader's cluster"), "{:?}", found.reasons);
}

#[test]
fn an_odd_member_of_which_anything_speaks_for_data_is_not_disposable() {
    let odd: [(&str, Cluster); 8] = [
        ("older", fresh(OLD)),
        ("promoted", Cluster { timeline: 2, ..fresh(NEW) }),
        ("user data", Cluster { user_data: Some(true), ..fresh(NEW) }),
        ("not known", Cluster { user_data: None, ..fresh(NEW) }),
        ("crashed", Cluster { state: "in production".into(), ..fresh(NEW) }),
        ("a standby's", Cluster { state: "shut down in recovery".into(), ..fresh(NEW) }),
        ("running", Cluster { running: Some(true), ..fresh(NEW) }),
        ("perhaps running", Cluster { running: None, ..fresh(NEW) }),
    ];
    for (what, odd) in odd {
        let found = judged(|nodes, _| stopped(nodes, "p3", odd.clone()));
        assert_eq!(found.verdict, Verdict::Undecided, "{what}: {found:#?}");
    }
}

#[test]
fn a_host_that_is_not_reached_speaks_for_nothing() {
    for change in [
        (|_: &mut IndexMap<String, Node>, _: &mut Keys| ()) as fn(&mut IndexMap<String, Node>, &mut Keys),
        |_, keys| keys.initialize = None,
        |nodes, _| stopped(nodes, "p2", fresh(NEW)),
        |nodes, keys| {
            all_stopped(nodes);
            (keys.initialize, keys.leader) = (None, None);
        },
    ] {
        let found = judged(|nodes, keys| {
            change(nodes, keys);
            nodes["p3"] = Node::unreachable("no route to host");
        });
        assert_eq!(found.verdict, Verdict::Undecided);
        assert!(found.reasons.iter().any(|why| why.contains("no route to host")), "{:?}", found.reasons);
    }
}

#[test]
fn a_member_that_no_host_is_means_two_clusters() {
    let found = judged(|_, keys| {
        keys.members.insert("theirs".into(), None);
    });
    assert_eq!(found.verdict, Verdict::TwoClusters);
    assert!(found.reasons[0].contains("theirs"));
}

#[test]
fn a_member_whose_address_in_etcd_is_another_host_s_decides_nothing() {
    let found = judged(|_, keys| {
        keys.members.insert("p3".into(), Some("10.0.0.9:8008".into()));
    });
    assert_eq!(found.verdict, Verdict::Undecided);
}

#[test]
fn another_store_is_refused_by_name() {
    let found = judged(|nodes, _| {
        nodes["p2"].configuration = Configuration::Unsupported("section `etcd` ...".into());
    });
    assert_eq!(
        (found.verdict, found.reasons),
        (Verdict::NotSupported, vec!["p2: section `etcd` ...".into()])
    );
}

#[test]
fn another_store_is_told_by_how_it_answers_and_not_by_what_it_says() {
    let with = |kind| {
        let mut nodes: IndexMap<String, Node> = IndexMap::new();
        for host in ["p1", "p2"] {
            let mut one = node(host, Data::Nothing, &Keys::default());
            one.store = Store::Silent(kind, "unknown service etcdserverpb.KV".into());
            nodes.insert(host.into(), one);
        }
        judge(&nodes).verdict
    };
    assert_eq!(with(NoEtcd::NotEtcd3), Verdict::NotSupported);
    for passing in [NoEtcd::Silent, NoEtcd::NoQuorum, NoEtcd::Refused] {
        assert_eq!(with(passing), Verdict::Undecided);
    }
}

#[test]
fn what_forbids_a_decision_is_named() {
    type Change = fn(&mut IndexMap<String, Node>, &mut Keys);
    let cases: [(&str, Change); 7] = [
        ("serve as primaries", |nodes, _| nodes["p2"].report = report("leader", &[])),
        ("has no lease", |_, keys| keys.leader = key("p1", 0)),
        ("is p2's", |_, keys| keys.leader = key("p2", 7)),
        ("without its Patroni", |nodes, _| {
            let alone = Cluster { state: "in production".into(), running: Some(true), ..cluster(OURS) };
            stopped(nodes, "p2", alone);
        }),
        ("may have rows that p1 lacks", |nodes, _| {
            let mut ahead = cluster(OURS);
            ahead.records.push(Record { at: Lsn(10), digest: "x".into(), idle: false });
            stopped(nodes, "p2", ahead);
        }),
        ("are no cluster", |nodes, _| nodes["p2"].data = Data::Unreadable("base is missing".into())),
        ("the key `initialize` says 123", |_, keys| keys.initialize = key("123", 0)),
    ];
    for (words, change) in cases {
        let found = judged(change);
        assert_eq!(found.verdict, Verdict::Undecided, "{words}");
        assert!(found.reasons.iter().any(|why| why.contains(words)), "{words}: {:?}", found.reasons);
    }
}

#[test]
fn a_member_that_the_sync_key_keeps_from_leading_is_no_keeper() {
    let found = judged(|nodes, keys| {
        all_stopped(nodes);
        (keys.initialize, keys.leader) = (None, None);
        keys.sync = vec!["p2".into()];
    });
    assert!(matches!(&found.verdict, Verdict::KeyWrong { keeper, .. } if keeper == "p2"), "{found:#?}");
    let found = judged(|nodes, keys| {
        all_stopped(nodes);
        (keys.initialize, keys.leader) = (None, None);
        keys.sync = vec!["gone".into()];
    });
    assert_eq!(found.verdict, Verdict::Undecided);
}

#[test]
fn a_member_that_could_never_lead_is_no_keeper_and_what_keeps_it_is_told_before_anything_is_stopped() {
    type Change = fn(&mut IndexMap<String, Node>, &mut Keys);
    let cases: [(&str, Option<&str>, Change); 5] = [
        ("p2", None, |nodes, _| never_leads(nodes, "p1")),
        ("p3", None, |_, keys| keys.failover = Some("p3".into())),
        ("p2", None, |_, keys| keys.failsafe = vec!["p2".into(), "p3".into()]),
        ("", Some("in pause"), |_, keys| keys.paused = Some(true)),
        ("", Some("p3 couldn't lead: its configuration has the tag `nofailover`"), |nodes, _| {
            for host in ["p1", "p2", "p3"] {
                never_leads(nodes, host);
            }
        }),
    ];
    for (wanted, words, change) in cases {
        let found = judged(|nodes, keys| {
            all_stopped(nodes);
            (keys.initialize, keys.leader) = (key("123", 0), None);
            change(nodes, keys);
        });
        match (&found.verdict, words) {
            (Verdict::KeyWrong { keeper, .. }, None) => assert_eq!(keeper, wanted, "{found:#?}"),
            (Verdict::Undecided, Some(words)) => {
                assert!(found.reasons.iter().any(|why| why.contains(words)), "{words}: {:?}", found.reasons);
            }
            _ => panic!("{wanted} {words:?}: {found:#?}"),
        }
    }
}

fn never_leads(nodes: &mut IndexMap<String, Node>, host: &str) {
    let Configuration::Of(settings) = &mut nodes[host].configuration else { unreachable!() };
    settings.nofailover = true;
}

#[test]
fn forked_histories_without_a_leader_are_undecided_though_the_key_is_right() {
    let found = judged(|nodes, keys| {
        all_stopped(nodes);
        keys.leader = None;
        let mut ahead = cluster(OURS);
        ahead.records.push(Record { at: Lsn(10), digest: "a row".into(), idle: false });
        let promoted = Cluster {
            timeline: 2,
            history: Some(vec![crate::postgres::Fork { timeline: 1, at: Lsn(10) }]),
            records: (1..=12)
                .map(|at| Record { at: Lsn(at), digest: format!("{OURS} {at}"), idle: false })
                .collect(),
            ..cluster(OURS)
        };
        stopped(nodes, "p1", ahead);
        stopped(nodes, "p2", promoted.clone());
        stopped(nodes, "p3", promoted);
    });
    assert_eq!(found.verdict, Verdict::Undecided, "{found:#?}");
    assert!(found.reasons.iter().any(|why| why.contains("beyond where the other left")), "{found:#?}");
}

#[test]
fn agreement_without_a_leader_is_no_mismatch() {
    let found = judged(|nodes, keys| {
        all_stopped(nodes);
        keys.leader = None;
    });
    assert_eq!(found.verdict, Verdict::NoMismatch { keeper: "p1".into() });
}

#[test]
fn a_judgement_comes_back_from_json() {
    let found = judged(|nodes, _| stopped(nodes, "p3", fresh(NEW)));
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.starts_with(r#"{"verdict":"disposable","leader":"p1","members":["p3"]"#), "{text}");
    assert_eq!(serde_json::from_str::<Judgement>(&text).unwrap(), found);
    assert!(text.contains(&format!("{:?}", found.verdict.name())));
    let _: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
}
