//! Each finding, on what was seen written by hand: a healthy cluster of two with a balancer, changed.

use flow_core::step::StepError;
use indexmap::IndexMap;
use serde::Serialize;

use super::{Diagnosis, PatroniFindings, Problem, diagnose};
use crate::balancers::{Balancer, Servers, Service, Told};
use crate::certificates::{End, Ends};
use crate::clients::{EtcdAlarm, EtcdAlarmKind, NoEtcd};
use crate::patroni::condition::{
    Archiver, Aside, Condition, Disk, Etcd, Limits, Lock, Member, MemberSays, Place, Says, Server, Slot,
};
use crate::patroni::verdict::tests::{cluster, key, node, report};
use crate::patroni::verdict::{Cluster, Configuration, Data, Keys, Node, PatroniUnit, Record, Store};
use crate::postgres::{Fork, Lsn};
use crate::support::unseen;

const OURS: &str = "7711162655563234249";

/// What was seen of a cluster whose members are p1, which leads, and p2.
struct Seen {
    leader: Node,
    replica: Node,
    keys: Keys,
    /// Of p1 and p2.
    of: [Condition; 2],
    certificates: Ends,
    balancers: [Balancer; 2],
}

fn condition(recovery: bool) -> Condition {
    let member = |number: u64| Member {
        endpoint: format!("198.18.0.1{number}:2379"),
        name: Some(format!("p{number}")),
        says: MemberSays::Answers { id: number, version: "3.4.23".into(), leader: 1, learner: false },
    };
    Condition {
        limits: Limits { lag: 16 << 20, slot_wal: 1 << 30, disk_free: 10 },
        config_file: "/etc/patroni/config.yml".into(),
        locked_by: None,
        place: Some(Place {
            directory: "/d/main".into(),
            version: Some("15".into()),
            control: true,
            programs: Some("15".into()),
            disks: ["data", "wal"]
                .map(|holds| Disk {
                    holds: holds.into(),
                    mount: "/d".into(),
                    size: 100 << 30,
                    free: 50 << 30,
                })
                .into(),
            copies: Vec::new(),
        }),
        server: Server::Says(Box::new(Says {
            recovery,
            position: Some(100 << 20),
            replayed: recovery.then_some(100 << 20),
            slot_limit: Some(-1),
            ..Says::default()
        })),
        etcd: Etcd { members: vec![member(1), member(2)], alarms: Some(Vec::new()), unstarted: Vec::new() },
    }
}

fn balancer(has_vip: bool) -> Balancer {
    let service = || Some(Service { running: true, masked: false, state: "active (running)".into() });
    let told =
        |name: &str, up: bool| Told { name: name.into(), up, word: if up { "UP" } else { "DOWN" }.into() };
    Balancer {
        haproxy: service(),
        closed_by: None,
        primary: Servers::Of(vec![told("p1", true), told("p2", false)]),
        keepalived: service(),
        vip: "198.18.0.100".into(),
        has_vip: Some(has_vip),
    }
}

fn of<T: Serialize>(host: &str, value: &T) -> (String, serde_json::Value) {
    (host.to_owned(), serde_json::to_value(value).unwrap())
}

fn diagnosed(change: impl Fn(&mut Seen)) -> Diagnosis {
    let keys =
        Keys { initialize: key(OURS, 0), leader: key("p1", 7), paused: Some(false), ..Keys::default() };
    let running = Cluster { state: "in archive recovery".into(), running: Some(true), ..cluster(OURS) };
    let member = |host: &str| node(host, Data::Cluster(Box::new(running.clone())), &keys);
    let mut seen = Seen {
        leader: Node { report: report("leader", &["p2"]), ..member("p1") },
        replica: Node { report: report("replica", &[]), ..member("p2") },
        keys: keys.clone(),
        of: [condition(false), condition(true)],
        certificates: Ends {
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            days: 14,
            found: vec![End {
                path: "/c.crt".into(),
                authority: false,
                ends: Ok("2027-01-01T00:00:00Z".parse().unwrap()),
            }],
        },
        balancers: [balancer(true), balancer(false)],
    };
    change(&mut seen);
    let mut nodes = IndexMap::from([("p1", seen.leader), ("p2", seen.replica)]);
    for node in nodes.values_mut() {
        if let Store::Keys(own) = &mut node.store {
            **own = seen.keys.clone();
        }
    }
    let [one, two] = &seen.of;
    let [lb1, lb2] = &seen.balancers;
    let found = diagnose(&PatroniFindings {
        evidence: nodes.iter().map(|(host, node)| of(host, node)).collect(),
        condition: [of("p1", one), of("p2", two)].into(),
        certificates: [of("p1", &seen.certificates)].into(),
        balancers: [of("lb1", lb1), of("lb2", lb2)].into(),
        ..PatroniFindings::default()
    })
    .unwrap();
    assert_eq!(found.healthy, found.problems.is_empty(), "{found:#?}");
    found
}

/// The one problem of that kind, and all of its words.
fn told(kind: &str, change: impl Fn(&mut Seen)) -> (Problem, String) {
    let found = diagnosed(change);
    let mut of_kind = found.problems.iter().filter(|problem| problem.kind == kind);
    let problem = of_kind.next().unwrap_or_else(|| panic!("{kind}: {:#?}", found.problems)).clone();
    assert_eq!(of_kind.next(), None, "told twice");
    let words = serde_json::to_string(&problem).unwrap();
    (problem, words)
}

fn says(condition: &mut Condition) -> &mut Says {
    match &mut condition.server {
        Server::Says(says) => says,
        other => panic!("{other:?}"),
    }
}

fn place(condition: &mut Condition) -> &mut Place {
    condition.place.as_mut().unwrap()
}

fn silent(seen: &mut Seen, number: usize) {
    for condition in &mut seen.of {
        condition.etcd.members[number].says = MemberSays::Silent(NoEtcd::Silent, "connection refused".into());
    }
}

#[test]
fn a_healthy_cluster_has_no_problems_and_is_told_with_what_was_seen() {
    let found = diagnosed(|_| ());
    assert_eq!(found.problems, []);
    let evidence = found.evidence.join("\n");
    for words in [
        "lease 7",
        "p1 3.4.23, leads",
        "50.0 GiB of 100.0 GiB free for data and WAL",
        "lb1: HAProxy active (running), leads to p1",
    ] {
        assert!(evidence.contains(words), "{words}: {evidence}");
    }
}

#[test]
fn what_beside_the_data_is_no_problem_is_told_all_the_same() {
    let found = diagnosed(|seen| {
        let copy = Aside { path: "/d/main.set-aside-1".into(), bytes: Some(3 << 30) };
        place(&mut seen.of[1]).copies.push(copy);
    });
    assert!(found.healthy);
    assert!(found.evidence.iter().any(|line| line.contains("/d/main.set-aside-1 (3.0 GiB)")), "{found:#?}");
}

#[test]
fn each_trouble_is_named_with_what_mends_it() {
    type Change = fn(&mut Seen);
    let cases: [(&str, &str, Change); 41] = [
        ("paused", "patronictl -c /etc/patroni/config.yml resume demo", |seen| seen.keys.paused = Some(true)),
        ("key-gone", "writes it back", |seen| seen.keys.initialize = None),
        ("undecided", "keep=HOST", |seen| seen.keys.initialize = key("123", 0)),
        ("leader-without-lease", "etcdctl --endpoints=198.18.0.11:2379 del /service/demo/leader", |seen| {
            seen.keys.leader = key("p1", 0);
        }),
        ("two-primaries", "its Patroni says", |seen| seen.replica.report = report("leader", &[])),
        ("two-primaries", "p2: its PostgreSQL isn't in recovery", |seen| {
            says(&mut seen.of[1]).recovery = false;
        }),
        ("no-leader", "nobody takes writes", |seen| seen.leader.report = report("replica", &[])),
        ("not-streaming", "/config.yml reinit demo p2", |seen| seen.leader.report = report("leader", &[])),
        ("not-streaming", "committed at 2026-01-01 02:03:04 UTC", |seen| {
            seen.leader.report = report("leader", &[]);
            says(&mut seen.of[1]).replayed_at = Some("2026-01-01 02:03:04".into());
        }),
        ("lagging", "103809024 bytes", |seen| {
            seen.leader.report.as_mut().unwrap().position = Some(100 << 20);
            seen.replica.report.as_mut().unwrap().position = Some(1 << 20);
        }),
        ("lagging", "33554432 not replayed", |seen| says(&mut seen.of[1]).replayed = Some(68 << 20)),
        ("pending-restart", "max_connections", |seen| {
            seen.replica.report.as_mut().unwrap().pending_restart = true;
            says(&mut seen.of[1]).restart = vec!["max_connections".into()];
        }),
        ("unreachable", "no route", |seen| seen.replica = Node::unreachable("no route")),
        ("configuration", "no scope", |seen| {
            seen.replica.configuration = Configuration::Unknown("no scope".into());
        }),
        ("no-data", "systemctl start patroni", |seen| {
            seen.replica.data = Data::Nothing;
            seen.replica.report = None;
        }),
        ("no-data", "/d/main.failed", |seen| {
            seen.replica.data = Data::Nothing;
            place(&mut seen.of[1]).copies.push(Aside { path: "/d/main.failed".into(), bytes: None });
        }),
        ("data-unreadable", "has no PG_VERSION that names", |seen| {
            seen.replica.data = Data::Unreadable("3 entries".into());
            place(&mut seen.of[1]).version = None;
        }),
        ("data-unreadable", "mv -T /d/main /d/main.set-aside-by-hand", |seen| {
            seen.replica.data = Data::Unreadable("3 entries".into());
            place(&mut seen.of[1]).control = false;
        }),
        ("other-version", "PostgreSQL 14's, and its programs are 15's", |seen| {
            place(&mut seen.of[1]).version = Some("14".into());
        }),
        ("masked", "no run of flow is under way", |seen| seen.replica.patroni = Some(unit("inactive", true))),
        ("masked", "flow resume r7", |seen| {
            seen.replica.patroni = Some(unit("inactive", true));
            let lock = Lock { run: "r7".into(), workflow: "w".into(), owner: "o".into() };
            seen.of[1].locked_by = Some(lock);
        }),
        ("patroni-down", "systemctl start patroni", |seen| {
            seen.replica.patroni = Some(unit("failed", false));
            seen.replica.report = None;
        }),
        ("etcd-alarm", "--endpoints=198.18.0.11:2379 alarm disarm", |seen| {
            alarm(seen, EtcdAlarmKind::NoSpace);
        }),
        ("etcd-alarm", "etcd-member-replace.toml --set node=p2", |seen| alarm(seen, EtcdAlarmKind::Corrupt)),
        ("etcd-member", "etcd-member-replace.toml --set node=p2 --confirm p2", |seen| silent(seen, 1)),
        ("etcd-member", "knows no leader", |seen| {
            let says = MemberSays::Answers { id: 2, version: "3.4.23".into(), leader: 0, learner: false };
            seen.of[0].etcd.members[1].says = says;
        }),
        ("etcd-member", "has never started", |seen| seen.of[0].etcd.unstarted = vec!["http://x:2380".into()]),
        ("etcd-versions", "3.5.16: 198.18.0.12:2379", |seen| {
            let says = MemberSays::Answers { id: 2, version: "3.5.16".into(), leader: 1, learner: false };
            seen.of[0].etcd.members[1].says = says;
        }),
        ("etcd-unavailable", "no quorum", |seen| {
            seen.leader.store = Store::Silent(NoEtcd::NoQuorum, "it knows no leader".into());
            seen.replica.store = Store::Silent(NoEtcd::Silent, "connection refused".into());
        }),
        ("etcd-refuses", "rights", |seen| {
            seen.leader.store = Store::Silent(NoEtcd::Refused, "permission denied".into());
            seen.replica.store = Store::Silent(NoEtcd::Silent, "connection refused".into());
        }),
        ("disk-filling", "5.0 GiB of 100.0 GiB are free at /d, 5 %", |seen| {
            place(&mut seen.of[1]).disks.iter_mut().for_each(|disk| disk.free = 5 << 30);
        }),
        ("slot-holds-wal", "pg_drop_replication_slot('old')", |seen| slot(seen, "old", 2 << 30, "extended")),
        ("slot-holds-wal", "remove-node.toml --set node=p2", |seen| slot(seen, "p2", 2 << 30, "extended")),
        ("slot-lost", "can't go on", |seen| slot(seen, "old", 0, "lost")),
        ("archiver-failing", "00000001000000000000000A", |seen| archiver(seen, "push %p")),
        ("archiver-failing", "it has no `archive_command`", |seen| archiver(seen, "")),
        ("certificate-ends", "ends in 2 days", |seen| {
            seen.certificates.found[0].ends = Ok("2026-01-03T00:00:00Z".parse().unwrap());
        }),
        ("certificate-ends", "flow plan deploy.toml", |seen| {
            seen.certificates.found[0].ends = Ok("2025-12-31T00:00:00Z".parse().unwrap());
            seen.certificates.found[0].authority = true;
        }),
        ("certificate-unreadable", "not in PEM", |seen| {
            seen.certificates.found[0].ends = Err("it is not in PEM".into());
        }),
        ("balancer-disagrees", "to p2, and p1 leads", |seen| {
            let Servers::Of(servers) = &mut seen.balancers[1].primary else { panic!() };
            servers.iter_mut().for_each(|told| told.up = told.name == "p2");
        }),
        ("keepalived-down", "on lb2: systemctl unmask keepalived.service && systemctl start", |seen| {
            let keepalived = Service { running: false, masked: true, state: "inactive (dead)".into() };
            seen.balancers[1].keepalived = Some(keepalived);
        }),
    ];
    for (kind, words, change) in cases {
        let (problem, text) = told(kind, change);
        assert!(text.contains(words), "{kind} doesn't say `{words}`: {problem:#?}");
        let remedy = problem.remedy.unwrap_or_else(|| panic!("{kind}: nothing mends it"));
        assert!(!remedy.what.is_empty() && !remedy.touches.is_empty(), "{kind}");
    }
}

/// p2 crashed with a row that the leader lacks.
fn ahead(seen: &mut Seen) {
    let mut own = Cluster { state: "in production".into(), ..cluster(OURS) };
    own.records.push(Record { at: Lsn(10), digest: "a row".into(), idle: false });
    seen.replica.data = Data::Cluster(Box::new(own));
    seen.replica.report = None;
    seen.leader.report = report("leader", &[]);
}

#[test]
fn a_member_with_rows_of_its_own_is_called_diverged_and_nobody_is_told_to_start_or_clone_it() {
    type Change = fn(&mut Seen);
    let cases: [(&str, Change); 4] = [
        ("proven", |seen| seen.replica.patroni = Some(unit("failed", false))),
        ("proven", |seen| seen.replica.patroni = Some(unit("inactive", true))),
        ("proven", |seen| seen.replica.report = report("replica", &[])),
        ("seen", |seen| {
            let Data::Cluster(own) = &mut seen.replica.data else { unreachable!() };
            own.records.clear();
            seen.replica.patroni = Some(unit("failed", false));
        }),
    ];
    for (sure, change) in cases {
        let made = |seen: &mut Seen| {
            ahead(seen);
            change(seen);
        };
        let (problem, words) = told("diverged", made);
        assert_eq!(problem.sure, sure);
        assert!(words.contains("flow run system-id-recovery.toml --set keep=p1 --confirm demo"), "{words}");
        for other in diagnosed(made).problems.iter().filter(|other| other.kind != "diverged") {
            assert_eq!(other.remedy.as_ref().unwrap().command, None, "{other:#?}");
        }
    }
}

#[test]
fn forked_histories_without_a_leader_start_nobody() {
    let made = |seen: &mut Seen| {
        ahead(seen);
        seen.keys.leader = None;
        seen.leader.report = None;
        let own =
            Cluster { timeline: 2, history: Some(vec![Fork { timeline: 1, at: Lsn(10) }]), ..cluster(OURS) };
        seen.leader.data = Data::Cluster(Box::new(own));
        for node in [&mut seen.leader, &mut seen.replica] {
            node.patroni = Some(unit("inactive", false));
        }
    };
    let (_, words) = told("diverged", made);
    assert!(words.contains("keep=HOST"), "{words}");
    for other in diagnosed(made).problems.iter().filter(|other| other.kind != "diverged") {
        let remedy = other.remedy.as_ref().unwrap();
        assert!(remedy.command.is_none() && !remedy.what.contains("started"), "{other:#?}");
    }
}

#[test]
fn configurations_that_disagree_are_a_problem_of_their_own() {
    let (_, words) = told("configurations-disagree", |seen| {
        let Configuration::Of(settings) = &mut seen.replica.configuration else { unreachable!() };
        settings.endpoints = vec!["198.18.0.99:2379".into()];
    });
    assert!(words.contains("differ in etcd's members"), "{words}");
}

fn unit(active: &str, masked: bool) -> PatroniUnit {
    PatroniUnit { active: active.into(), sub: "dead".into(), masked }
}

fn alarm(seen: &mut Seen, kind: EtcdAlarmKind) {
    // Every host sees it.
    for condition in &mut seen.of {
        condition.etcd.alarms = Some(vec![EtcdAlarm { member: 2, kind }]);
    }
}

fn slot(seen: &mut Seen, name: &str, held: u64, state: &str) {
    says(&mut seen.of[0]).slots.push(Slot {
        name: name.into(),
        kind: "physical".into(),
        active: false,
        held: Some(held),
        state: Some(state.into()),
    });
}

fn archiver(seen: &mut Seen, command: &str) {
    says(&mut seen.of[0]).archiver = Some(Archiver {
        mode: "on".into(),
        command: command.into(),
        failing: true,
        failures: 3,
        failed_file: Some("00000001000000000000000A".into()),
        failed_at: Some("2026-01-01 02:03:04".into()),
        archived_at: None,
        waiting: 2,
    });
}

#[test]
fn the_virtual_address_is_told_where_it_is_nowhere_twice_or_with_a_dead_balancer() {
    let dead = || Some(Service { running: false, masked: false, state: "failed (failed)".into() });
    told("address-nowhere", |seen| seen.balancers[0].has_vip = Some(false));
    told("address-twice", |seen| seen.balancers[1].has_vip = Some(true));
    let (problem, words) = told("address-misplaced", |seen| seen.balancers[0].haproxy = dead());
    assert!(words.contains("lb1: keepalived active (running), HAProxy failed (failed)"), "{problem:#?}");
    // The other one's HAProxy is another trouble.
    let found = diagnosed(|seen| seen.balancers[1].haproxy = dead());
    assert_eq!(found.problems.iter().map(|one| &*one.kind).collect::<Vec<_>>(), ["balancer-down"]);
}

#[test]
fn what_is_below_its_limit_or_no_fault_just_now_is_not_told() {
    let quiet: [fn(&mut Seen); 7] = [
        // Somebody reads from it.
        |seen| {
            slot(seen, "busy", 2 << 30, "extended");
            says(&mut seen.of[0]).slots[0].active = true;
        },
        |seen| slot(seen, "small", 1 << 20, "reserved"),
        // A replica keeps the counts of the time when it led.
        |seen| {
            archiver(seen, "push %p");
            let counts = says(&mut seen.of[0]).archiver.take();
            says(&mut seen.of[1]).archiver = counts;
        },
        // Another host gets an answer from it: etcd isn't what is wrong.
        |seen| {
            seen.of[0].etcd.members[1].says = MemberSays::Silent(NoEtcd::Silent, "no route".into());
        },
        // A balancer that isn't named as flow names its servers.
        |seen| {
            let other = Told { name: "srv-a".into(), up: false, word: "DOWN".into() };
            seen.balancers[0].primary = Servers::Of(vec![other]);
        },
        |seen| seen.balancers[0].primary = Servers::Unknown("no statistics".into()),
        |seen| seen.of[1].server = Server::Unknown("password authentication failed".into()),
    ];
    for (number, change) in quiet.into_iter().enumerate() {
        let found = diagnosed(change);
        assert_eq!(found.problems, [], "case {number}");
    }
}

#[test]
fn a_finding_changes_no_verdict() {
    let calm = diagnosed(|_| ());
    let upset = diagnosed(|seen| {
        slot(seen, "old", 2 << 30, "extended");
        archiver(seen, "push %p");
        silent(seen, 1);
        seen.balancers[0].has_vip = Some(false);
    });
    assert_eq!((upset.verdict, upset.reasons), (calm.verdict, calm.reasons));
    assert!(!upset.healthy && upset.problems.len() == 4);
}

#[test]
fn what_a_run_has_closed_is_told_as_that_with_what_opens_it_and_nothing_else() {
    let off = crate::patroni::archive::Archive {
        off_by: Some("0123456789ab".into()),
        command: Some("push %p".into()),
        ..Default::default()
    };
    let found = diagnosed(|seen| {
        for balancer in &mut seen.balancers {
            balancer.haproxy =
                Some(Service { running: false, masked: true, state: "inactive (dead)".into() });
            balancer.closed_by = Some("0123456789ab".into());
            balancer.has_vip = Some(false);
            balancer.primary = Servers::Unknown("it doesn't answer".into());
        }
        archiver(seen, "");
        seen.leader.archive = off.clone();
        seen.replica.archive = off.clone();
    });
    let kinds: Vec<_> = found.problems.iter().map(|one| &*one.kind).collect();
    assert_eq!(kinds, ["archiving-off", "balancer-closed"]);
    for problem in &found.problems {
        let words = serde_json::to_string(problem).unwrap();
        assert!(
            words.contains("run 0123456789ab") && words.contains("flow run open.toml --confirm demo"),
            "{words}"
        );
    }
    // Opened by hand, and the note left behind.
    assert!(diagnosed(|seen| seen.balancers[0].closed_by = Some("x".into())).healthy);
}

#[test]
fn backups_of_another_cluster_stand_beside_the_living_one_and_decide_nothing() {
    let backups = |identifier: &str| crate::patroni::archive::Backups {
        stanza: "main".into(),
        identifiers: vec![identifier.into()],
        latest: Some("20260102-030405F".into()),
        ended: Some("2026-01-02 03:05:00 UTC".into()),
        ..Default::default()
    };
    let (_, words) =
        told("backup-of-another-cluster", |seen| seen.leader.archive.backups = Some(backups("8")));
    for part in ["cluster 8", OURS, "20260102-030405F", "--stanza=main stanza-upgrade"] {
        assert!(words.contains(part), "{words}");
    }
    let found = diagnosed(|seen| seen.leader.archive.backups = Some(backups("8")));
    assert_eq!(found.verdict, "healthy");
    assert!(
        found
            .evidence
            .iter()
            .any(|line| line.starts_with("p1: pgBackRest, stanza main: takes WAL of cluster 8")),
        "{found:#?}"
    );
    assert!(diagnosed(|seen| seen.leader.archive.backups = Some(backups(OURS))).healthy);
}

#[test]
fn a_host_of_which_a_look_failed_is_not_called_healthy() {
    let why = unseen(&StepError::failed("no route to the host"));
    let balancers = [of("lb1", &why)].into();
    let found = diagnose(&PatroniFindings { balancers, ..PatroniFindings::default() }).unwrap();
    let lost = found.problems.iter().find(|problem| problem.what.starts_with("lb1 can't be looked at"));
    assert_eq!(lost.unwrap().because, ["no route to the host"]);
}

#[test]
fn another_step_s_output_is_refused() {
    let condition = [of("p1", &balancer(true))].into();
    let error = diagnose(&PatroniFindings { condition, ..PatroniFindings::default() }).unwrap_err();
    assert!(error.message.starts_with("`condition` of p1 is no output of that step"), "{error}");
}
