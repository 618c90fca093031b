//! What `flow_core::testing` promises to those who test with it.

use std::sync::Arc;

use flow_core::engine::EngineError;
use flow_core::run::{Event, Outcome};
use flow_core::store::{Store, StoreError};
use flow_core::testing::{self, Fault, MemoryStore, POINTS, Point, PointStore, VirtualFleet, World};

const PAIR: &str = r#"
name = "pair"
summary = "Two things in a row on each host."
[steps.first]
uses = "make"
hosts = "nodes"
with = { thing = "first", value = "1" }
[steps.second]
uses = "make"
needs = ["first"]
hosts = "nodes"
with = { thing = "second", value = "{{ steps.first.value }}2" }
"#;

#[tokio::test]
async fn killed_at_any_point_and_resumed_everything_is_done_once() {
    for task in ["first@n1", "second@n2"] {
        for point in POINTS {
            let world = Arc::new(World::default());
            let engine = testing::engine(&world);
            let store = MemoryStore::new();
            let plan = testing::plan(&engine, PAIR, &["n1", "n2"]).unwrap();
            let killed = PointStore::killing(store.clone(), task, point);
            let run = engine.start(plan, Box::new(killed), None).unwrap();
            let id = run.id.clone();
            assert!(matches!(run.wait().await, Err(EngineError::Broken(_))), "{task} {point}");
            let session = engine.open(Box::new(store.clone()), &id, None).unwrap();
            let report = session.resume().unwrap().wait().await.unwrap();
            assert_eq!(report.outcome, Outcome::Succeeded, "{task} {point}");
            assert_eq!(world.total(), 4, "{task} {point}: {:?}", world.order());
        }
    }
}

#[tokio::test]
async fn a_fork_of_a_store_is_what_a_killed_process_leaves_and_goes_on_by_itself() {
    let world = Arc::new(World::default());
    let engine = testing::engine(&world);
    let store = MemoryStore::new();
    let (watched, forks) = (store.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let kept = Arc::clone(&forks);
    let watching = PointStore::new(store.clone(), move |moment| {
        if moment.is_at("second@n1", Point::AfterIntent) {
            kept.lock().unwrap().push(watched.fork());
        }
    });
    let plan = testing::plan(&engine, PAIR, &["n1"]).unwrap();
    let report = engine.start(plan, Box::new(watching), None).unwrap().wait().await.unwrap();
    let fork = forks.lock().unwrap().pop().unwrap();
    let before = store.events(&report.run).unwrap();
    let last = |store: &MemoryStore| store.last_events(&report.run, 1).unwrap().remove(0).event;
    assert!(matches!(last(&fork), Event::TaskIntended { .. }));
    // What the world lost meanwhile is made again, by the fork's run alone.
    world.remove("second@n1");
    let resumed = engine.open(Box::new(fork.clone()), &report.run, None).unwrap().resume().unwrap();
    assert_eq!(resumed.wait().await.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(world.count("second@n1"), 2);
    assert_eq!(store.events(&report.run).unwrap(), before, "the store itself has heard nothing of it");
}

#[tokio::test]
async fn hosts_that_are_only_names_are_locked_taken_away_and_replaced() {
    let world = Arc::new(World::default());
    let fleet = Arc::new(VirtualFleet::default());
    let engine = testing::engine(&world).with_fleet(fleet.clone());
    let store = MemoryStore::new();
    fleet.take_away("n2");
    let plan = testing::plan(&engine, PAIR, &["n1", "n2"]).unwrap();
    let report = engine.start(plan, Box::new(store.clone()), None).unwrap().wait().await.unwrap();
    assert_eq!((report.outcome, world.count("first@n1"), world.count("first@n2")), (Outcome::Failed, 1, 0));
    fleet.bring_back("n2");
    fleet.replace("n1", "another");
    let resume = || engine.open(Box::new(store.clone()), &report.run, None).unwrap().resume().unwrap();
    let error = resume().wait().await.unwrap_err();
    assert!(error.to_string().contains("n1 is another machine"), "{error}");
    fleet.replace("n1", "n1");
    assert_eq!(resume().wait().await.unwrap().outcome, Outcome::Succeeded);
    assert_eq!((fleet.holder("n1"), fleet.holder("n2")), (None, None));
}

#[tokio::test]
async fn a_step_fails_as_often_as_it_is_told_and_a_claimed_run_is_nobody_else_s() {
    let world = Arc::new(World::default());
    world.fault("first@n1", &[Fault::Fail; 2]);
    let engine = testing::engine(&world);
    let store = MemoryStore::new();
    let text = PAIR.replacen("hosts =", "retries = 2\nbackoff = \"1ms\"\nhosts =", 1);
    let plan = testing::plan(&engine, &text, &["n1"]).unwrap();
    let run = engine.start(plan, Box::new(store.clone()), None).unwrap();
    let busy = store.claim(&run.id, "somebody");
    assert!(matches!(busy, Err(StoreError::Busy { .. })));
    let report = run.wait().await.unwrap();
    assert_eq!((report.outcome, world.total()), (Outcome::Succeeded, 2));
    assert!(store.claim(&report.run, "somebody").is_ok());
}
