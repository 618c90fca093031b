//! A run that is taken back, also where the undo is killed: the hosts are as they were before it.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use flow_core::run::{Event, Outcome};

use crate::case::{Case, DATA, End, Ended, NODES, each};
use crate::deploy;
use crate::killing_store::{Kill, POINTS, Point};
use crate::recovery::reference;

/// Hosts, deployed, and what an undisturbed undo makes of them.
struct Reference {
    deployed: Case,
    bare: String,
    end: End,
    /// The tasks that are taken back.
    tasks: Vec<String>,
}

fn undone() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let deployed = Case::bare();
        let bare = deployed.world().state().unwrap().outline();
        deployed.finish("the deployment");
        let mut case = Case::copy(&deployed);
        case.turn_round();
        assert_eq!(case.work(None), Ended::With(Outcome::Undone), "{}", case.log());
        let intended = |event: &Event| match event {
            Event::UndoIntended { task, .. } => Some(task.to_string()),
            _ => None,
        };
        let tasks = case.events().iter().filter_map(intended).collect();
        Reference { bare, end: case.end().without_roles().without_control(), tasks, deployed }
    })
}

/// The lines by which one outline differs from another, `-` before and `+` after.
fn differences(before: &str, after: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (before.lines().collect(), after.lines().collect());
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    gone.chain(new.difference(&old).map(|line| format!("+ {line}"))).collect()
}

/// What stays of a deployment that was taken back: the packages with what they bring, the folder above
/// the data, and what etcd and PostgreSQL wrote while they ran.
fn stays(line: &str) -> bool {
    let Some(what) = line.strip_prefix("+ ").and_then(|line| line.split_once(' ')).map(|(_, what)| what)
    else {
        // What was there before is there again.
        return false;
    };
    let of_packages = [
        "package ",
        "/etc/patroni",
        "/etc/default",
        "/etc/systemd",
        "/etc/haproxy",
        "/etc/keepalived",
        "/usr/",
        "/var/lib/postgresql ",
        "/lib/",
    ];
    let data = ["/var/lib/etcd", "/var/lib/postgresql/", "/service/demo/"];
    let down = ["etcd", "patroni", "haproxy", "keepalived"]
        .map(|unit| format!("unit {unit}.service masked inactive dead masked, enabled below"));
    let of_postgresql = [
        "unit postgresql.service ",
        "process root /usr/sbin/postgresql",
        "/var/log/postgresql",
        "/etc/postgresql ",
        "/etc/postgresql/certs",
        "/etc/etcd ",
        "/etc/etcd/certs",
    ];
    let starts = |with: &&str| what.starts_with(*with);
    of_packages.iter().chain(&data).chain(&of_postgresql).any(starts) || down.iter().any(|line| line == what)
}

#[test]
fn a_deployment_that_is_taken_back_leaves_packages_and_data_and_nothing_else() {
    let reference = undone();
    let mut case = Case::copy(&reference.deployed);
    case.turn_round();
    assert_eq!(case.work(None), Ended::With(Outcome::Undone), "{}", case.log());
    let state = case.world().state().unwrap();
    let left = differences(&reference.bare, &state.outline());
    let unexpected: Vec<&String> = left.iter().filter(|line| !stays(line)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for (name, host) in &state.hosts {
        let of_cluster = ["etcd", "patroni", "postgres"];
        let left = host.processes.values().find(|process| of_cluster.contains(&process.comm.as_str()));
        assert!(left.is_none(), "{name}: {left:?}");
        assert!(host.lock.is_none(), "{name} is still locked");
    }
}

#[test]
fn deployed_again_after_it_was_taken_back_the_cluster_is_the_same_one_with_its_data() {
    let reference = undone();
    let mut case = Case::copy(&reference.deployed);
    let identifier = |case: &Case| {
        let state = case.world().state().unwrap();
        state.etcd.get("/service/demo/initialize").unwrap().to_owned()
    };
    let before = identifier(&case);
    case.turn_round();
    assert_eq!(case.work(None), Ended::With(Outcome::Undone), "{}", case.log());
    let again = Case::beside(&case);
    again.finish("deployed again");
    assert_eq!(identifier(&again), before);
    let (_, deployed) = deploy::reference();
    let units = |end: &End| end.lines("unit patroni.service");
    assert_eq!(units(&again.end()), units(deployed));
}

#[test]
fn an_undo_that_is_killed_at_any_point_of_any_task_comes_to_the_same_end() {
    let reference = undone();
    assert!(reference.tasks.len() >= 12, "{:?}", reference.tasks);
    // Each step on one of its hosts, in turn: the same step is the same elsewhere.
    let step_of = |task: &String| task.split('@').next().unwrap_or_default().to_owned();
    let steps: BTreeSet<String> = reference.tasks.iter().map(step_of).collect();
    let chosen = steps.iter().enumerate().map(|(number, step)| {
        let tasks: Vec<&String> = reference.tasks.iter().filter(|task| step_of(task) == *step).collect();
        tasks[number % tasks.len()]
    });
    let kills: Vec<Kill> =
        chosen.flat_map(|task| POINTS.map(|point| Kill::Back { task: task.clone(), point })).collect();
    each(&kills, |kill| {
        let mut case = Case::copy(&reference.deployed);
        case.turn_round();
        let story = format!("the undo of the deployment, killed at {kill:?}");
        assert_eq!(case.work(Some(kill)), Ended::Killed, "{story}:\n{}", case.log());
        assert_eq!(case.work(None), Ended::With(Outcome::Undone), "{story}:\n{}", case.log());
        case.end().without_roles().without_control().assert_equal(&reference.end, &case, &story);
    });
}

#[test]
fn a_recovery_is_taken_back_up_to_its_point_of_no_return() {
    let broken = reference();
    let mut case = Case::recovery(&broken.broken);
    let before = case.world().state().unwrap();
    assert_eq!(case.work(Some(&Kill::at("purge@patroni1", Point::BeforeIntent))), Ended::Killed);
    assert!(case.world().state().unwrap().hosts["patroni1"].files.stat(DATA).is_none(), "it was set aside");
    case.turn_round();
    assert_eq!(case.work(None), Ended::With(Outcome::Undone), "{}", case.log());
    let after = case.world().state().unwrap();
    for host in NODES {
        let of = |state: &flow_steps::host::sim::WorldState| {
            let host = &state.hosts[host];
            let unit = host.units["patroni.service"].clone();
            let names = host.files.list("/var/lib/postgresql/15").unwrap();
            (host.files.stat(DATA).unwrap().inode, names, unit.active, unit.enabled, unit.masked)
        };
        assert_eq!(of(&after), of(&before), "{host}");
    }
    assert_eq!(after.etcd.get("/service/demo/initialize"), before.etcd.get("/service/demo/initialize"));
    assert!(after.etcd.get("/service/demo/leader").is_some(), "the old cluster is led again");
}

#[test]
fn past_its_point_of_no_return_a_recovery_is_not_taken_back() {
    let mut case = Case::recovery(&reference().broken);
    assert_eq!(case.work(Some(&Kill::at("purge@patroni1", Point::AfterIntent))), Ended::Killed);
    case.turn_round();
    let before = case.effects();
    assert_eq!(case.work(None), Ended::Error);
    assert!(case.log().contains("purge@patroni1 was begun, the point of no return"), "{}", case.log());
    assert_eq!(case.effects(), before);
    case.job.undo = false;
    case.finish("gone on with");
    case.end().assert_equal(&reference().end, &case, "gone on with");
}
