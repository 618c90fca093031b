//! The deployment on bare hosts, killed at every point of every task.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use flow_core::run::Outcome;
use flow_steps::host::Ownership;

use crate::case::{Case, DATA, End, Ended, NODES, each};
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

#[test]
fn killed_at_any_point_of_any_task_and_resumed_it_comes_to_the_same_end() {
    let (tasks, end) = reference();
    assert!(tasks.len() >= 15, "{tasks:?}");
    // Each task on one host of the three, in turn: the same step is the same elsewhere.
    let of_step = |number: usize, name: &String| {
        let host = NODES[number % NODES.len()];
        name.split_once('@').is_none_or(|(_, on)| on == host)
    };
    let steps: BTreeSet<&str> = tasks.iter().map(|name| name.split('@').next().unwrap_or(name)).collect();
    let number = |name: &str| steps.iter().position(|step| name.split('@').next() == Some(*step));
    let kills: Vec<Kill> = tasks
        .iter()
        .filter(|name| of_step(number(name).unwrap(), name))
        .flat_map(|task| POINTS.map(|point| Kill::at(task, point)))
        .collect();
    assert!(kills.len() >= 4 * (steps.len() - 1), "{kills:?}");
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
