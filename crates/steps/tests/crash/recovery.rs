//! The recovery, killed at every point of every task.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flow_core::run::Outcome;

use crate::answers::changes;
use crate::case::{Case, DATA, End, Ended, each};
use crate::killing_store::{Kill, POINTS, Point};

/// A broken cluster, and what an undisturbed recovery makes of it.
pub(crate) struct Reference {
    _case: Case,
    pub(crate) broken: PathBuf,
    pub(crate) end: End,
    /// The tasks that change something.
    pub(crate) tasks: Vec<String>,
    /// The calls that change something: host, and the beginning of the call.
    pub(crate) changes: Vec<(String, String)>,
}

/// A healthy cluster, deployed by the shipped workflow; patroni1 leads.
pub(crate) fn deployed() -> &'static Path {
    static DEPLOYED: OnceLock<Case> = OnceLock::new();
    let case = DEPLOYED.get_or_init(|| {
        let mut deployed = Case::bare();
        // One after another, so that patroni1 leads.
        deployed.job.concurrency = 1;
        deployed.finish("the deployment");
        deployed.world().edit(|state| state.effects.clear()).unwrap();
        deployed
    });
    &case.job.world
}

/// Broken as in the demo, recovered without a disturbance.
pub(crate) fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let place = Case::recovery(deployed());
        let world = place.world();
        world.initdb("patroni3", DATA).unwrap();
        world.edit(|state| state.effects.clear()).unwrap();
        let broken = place.path().join("world.json");
        let case = Case::recovery(&broken);
        case.finish("the recovery");
        Reference { end: case.end(), tasks: case.intended(), changes: changes(&case), broken, _case: place }
    })
}

/// Killed as said, process after process, then resumed to the end: the same end.
pub(crate) fn killed(kills: &[&Kill]) {
    let reference = reference();
    let case = Case::recovery(&reference.broken);
    let story = format!("the recovery, killed at {kills:?}");
    let over = kills.iter().any(|kill| match case.work(Some(kill)) {
        Ended::Killed => false,
        // The task was over before this process began.
        Ended::With(Outcome::Succeeded) => true,
        other => panic!("{story}: {other:?}\n{}", case.log()),
    });
    if !over {
        case.finish(&story);
    }
    case.end().assert_equal(&reference.end, &case, &story);
}

#[test]
fn killed_at_any_point_of_any_task_and_resumed_it_comes_to_the_same_end() {
    let reference = reference();
    assert!(reference.tasks.len() >= 12, "{:?}", reference.tasks);
    let kills: Vec<Kill> =
        reference.tasks.iter().flat_map(|task| POINTS.map(|point| Kill::at(task, point))).collect();
    each(&kills, |kill| killed(&[kill]));
}

#[test]
fn killed_again_during_the_resume_it_comes_to_the_same_end() {
    let reference = reference();
    // Points change from task to task: all sixteen pairs come up.
    let cases: Vec<(Kill, Kill)> = reference
        .tasks
        .windows(2)
        .enumerate()
        .flat_map(|(number, pair)| {
            let (first, second) = (POINTS[number % 4], POINTS[(number / 4 + number) % 4]);
            let following = (Kill::at(&pair[0], first), Kill::at(&pair[1], second));
            // And at the same task again, where its effect was left without a result.
            let again = (Kill::at(&pair[0], Point::AfterEffect), Kill::at(&pair[0], second));
            [following, again]
        })
        .collect();
    each(&cases, |(first, second)| killed(&[first, second]));
}

#[test]
fn killed_at_any_commit_it_comes_to_the_same_end() {
    // The first ones are of the run and its hosts; later ones hold what came together.
    let commits: Vec<Kill> =
        (1..=8).flat_map(|number| [true, false].map(|before| Kill::Commit { number, before })).collect();
    each(&commits, |kill| killed(&[kill]));
}

#[test]
fn a_scope_that_another_cluster_uses_too_is_not_emptied() {
    let case = Case::recovery(&reference().broken);
    let stranger = r#"{"api_url": "http://198.18.0.99:8008/patroni"}"#;
    case.world().edit(|state| state.etcd.put("/service/demo/members/theirs", stranger, 0)).unwrap();
    let before = case.effects();
    assert_eq!(case.work(None), Ended::With(Outcome::Failed), "{}", case.log());
    assert!(case.log().contains("two-clusters") && case.log().contains("theirs"), "{}", case.log());
    assert_eq!(case.effects(), before, "nothing was stopped");
}
