//! The deployment on bare hosts, killed at every point of every task.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::case::{Case, End, Ended, NODES, each};
use crate::killing_store::{Kill, POINTS};

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
