//! The deployment on bare hosts, killed at every point of every task.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use flow_core::run::Outcome;
use flow_steps::host::Ownership;

use crate::case::{Case, DATA, End, Ended, NODES, each, in_full};
use crate::killing_store::{Kill, POINTS};
use crate::recovery::deployed;

/// What an undisturbed deployment changes, and its end.
pub(crate) fn reference() -> &'static (Vec<String>, End) {
    static REFERENCE: OnceLock<(Vec<String>, End)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let case = Case::bare();
        case.finish("the deployment");
        (case.intended(), case.end().without_roles())
    })
}

/// Each step's tasks on one host, in turn: the same step is the same elsewhere.
fn one_of_each() -> Vec<&'static str> {
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for task in &reference().0 {
        hosts.entry(task.split('@').next().unwrap_or(task)).or_default().push(task);
    }
    hosts.values().enumerate().map(|(number, tasks)| tasks[number % tasks.len()]).collect()
}

#[test]
fn killed_at_any_point_of_any_task_and_resumed_it_comes_to_the_same_end() {
    let (tasks, end) = reference();
    assert!(tasks.len() >= 15, "{tasks:?}");
    let of_each = one_of_each();
    assert!(of_each.iter().any(|task| task.starts_with("keepalived-running@lb")), "{of_each:?}");
    let kills: Vec<Kill> =
        of_each.iter().flat_map(|task| POINTS.map(|point| Kill::at(task, point))).collect();
    each(&kills, |kill| {
        let case = Case::bare();
        let story = format!("the deployment, killed at {kill:?}");
        assert_eq!(case.work(Some(kill)), Ended::Killed, "{story}:\n{}", case.log());
        case.finish(&story);
        case.end().without_roles().assert_equal(end, &case, &story);
    });
}

/// The deployed cluster with its Patronis stopped in order: the replicas first, patroni1, which led, last.
fn stopped() -> Case {
    let mut case = Case::repair(deployed());
    case.job.workflow = "deploy.toml".to_owned();
    for host in NODES.iter().rev() {
        case.world().stop(host, "patroni.service").unwrap();
    }
    case.world().edit(|state| state.effects.clear()).unwrap();
    case
}

/// Puts the end of a member's WAL further on, as rows of its own do.
fn writes_on(case: &Case, host: &str) {
    let change = |state: &mut flow_steps::host::sim::WorldState| {
        let files = &mut state.hosts[host].files;
        let path = format!("{DATA}/global/pg_control");
        let mut control: serde_json::Value = serde_json::from_str(files.text(&path).unwrap()).unwrap();
        control["lsn"] = (control["lsn"].as_u64().unwrap() + 4096).into();
        files.write(&path, control.to_string(), &Ownership::default()).unwrap();
    };
    case.world().edit(change).unwrap();
}

#[test]
fn members_that_were_stopped_in_order_are_started_the_one_with_all_rows_first() {
    let case = stopped();
    writes_on(&case, "patroni2");
    case.finish("the deployment on stopped members");
    assert_eq!(case.world().state().unwrap().etcd.get("/service/demo/leader"), Some("patroni2"));
    let started: Vec<String> = case.intended();
    assert_eq!(started[0], "start-first@patroni2", "{started:?}");
    assert!(started[1..].iter().all(|task| task.starts_with("patroni-running@")), "{started:?}");
}

#[test]
fn one_stopped_replica_is_simply_started() {
    let mut case = Case::repair(deployed());
    case.job.workflow = "deploy.toml".to_owned();
    case.world().stop("patroni3", "patroni.service").unwrap();
    writes_on(&case, "patroni1");
    case.finish("the deployment on a stopped replica");
    assert_eq!(case.intended(), ["patroni-running@patroni3"]);
}

#[test]
fn a_stopped_member_with_rows_of_its_own_is_not_started() {
    let mut case = Case::repair(deployed());
    case.job.workflow = "deploy.toml".to_owned();
    case.world().stop("patroni3", "patroni.service").unwrap();
    writes_on(&case, "patroni3");
    let before = case.effects();
    assert_eq!(case.work(None), Ended::With(Outcome::Failed), "{}", case.log());
    assert!(case.log().contains("patroni3: it may have rows that patroni1 lacks"), "{}", case.log());
    assert_eq!(case.effects(), before, "nothing was started");
}

#[test]
fn killed_at_any_task_given_up_and_run_again_it_comes_to_the_same_end() {
    let (_, end) = reference();
    let points = |number: usize| match in_full() {
        true => POINTS.to_vec(),
        false => vec![POINTS[number % POINTS.len()]],
    };
    let tasks = one_of_each();
    let tasks = tasks.iter().enumerate().filter(|(number, _)| in_full() || number % 2 == 0);
    let kills: Vec<Kill> = tasks
        .flat_map(|(number, task)| points(number / 2).into_iter().map(|point| Kill::at(task, point)))
        .collect();
    each(&kills, |kill| {
        let case = Case::bare();
        let story = format!("the deployment, killed at {kill:?} and begun anew");
        assert_eq!(case.work(Some(kill)), Ended::Killed, "{story}:\n{}", case.log());
        tokio::runtime::Runtime::new().unwrap().block_on(case.unlock());
        let anew = Case::beside(&case);
        anew.finish(&story);
        anew.end_of(&[&case, &anew]).without_roles().assert_equal(end, &anew, &story);
    });
}
