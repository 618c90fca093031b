//! The recovery from a saved plan: what always moves on a cluster is no difference, what matters is.

use std::sync::Arc;

use flow_core::engine::Engine;
use flow_core::plan::{Moved, Plan, SavedPlan};
use flow_core::run::{Outcome, RunId};

use crate::case::{Case, DATA};
use crate::recovery::reference;

/// The recovery of the broken cluster, planned and written as a file.
async fn planned(case: &Case, engine: &Engine) -> String {
    let (salt, print) = SavedPlan::fresh_salt();
    let plan = Arc::new(case.job.plan(engine, print).unwrap());
    let run = RunId::new(1_800_000_000, 7);
    let preview = engine.preview_of(Arc::clone(&plan), run.clone()).await;
    let mut definition = plan.definition.clone();
    definition.shown = Some(Box::new(preview.shown(run, "tester").expect("it can go ahead")));
    SavedPlan { salt, definition }.to_text().unwrap()
}

/// The plan of a file, and what isn't any more as it was shown.
async fn again(case: &Case, engine: &Engine, text: &str) -> (Arc<Plan>, Vec<Moved>) {
    let saved = SavedPlan::read(text, engine.registry()).unwrap();
    let print = saved.fingerprinter();
    let inventory = case.job.inventory();
    let mut plan = Plan::pinned(saved.definition, Some(&inventory), engine.registry(), print).unwrap();
    plan.pin_secrets([7; 32]);
    let plan = Arc::new(plan);
    let shown = plan.definition.shown.clone().unwrap();
    let moved = engine.preview_of(Arc::clone(&plan), shown.run.clone()).await.moved(&shown);
    (plan, moved)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_is_done_as_it_was_shown_though_the_cluster_lives_on_meanwhile() {
    let case = Case::recovery(&reference().broken);
    let engine = case.job.engine("tester");
    let text = planned(&case, &engine).await;
    // Patroni goes on: positions, keys that are written anew, a member that restarts again and again.
    case.world()
        .edit(|state| {
            for key in state.etcd.keys.values_mut() {
                key.mod_revision += 1;
            }
        })
        .unwrap();
    case.world().reboot("patroni3").unwrap();
    let (plan, moved) = again(&case, &engine, &text).await;
    assert_eq!(moved, []);
    let confirmed = plan.confirmation().unwrap();
    let run = engine.start(plan, Box::new(case.job.store()), confirmed.as_deref()).unwrap();
    let report = run.wait().await.unwrap();
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.failures);
    assert_eq!(report.run, RunId::new(1_800_000_000, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_data_directory_than_was_shown_is_not_set_aside() {
    let case = Case::recovery(&reference().broken);
    let engine = case.job.engine("tester");
    let text = planned(&case, &engine).await;
    // Somebody made a new cluster on one host: other data under the same name.
    case.world().initdb("patroni2", DATA).unwrap();
    let (_, moved) = again(&case, &engine, &text).await;
    assert!(moved.iter().any(|one| one.task.as_str() == "set-aside@patroni2"), "{moved:?}");
}
