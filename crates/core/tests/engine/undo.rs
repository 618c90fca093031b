//! Taking a run back: the order, what is never touched, failures, lost answers, stops, pivots, unwinding.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::world::{Fault, World, engine, finish, plan, resume, store, undo};
use flow_core::engine::{
    Engine, EngineError, Notice, Report, RunHandle, Stop, UndoAction, UndoOptions, Verdict,
};
use flow_core::run::{Event, Outcome, RunId, TaskName, TaskState};
use flow_core::testing::{MemoryStore, VirtualFleet};
use proptest::prelude::*;

const CHAIN: &str = r#"
name = "chain"
summary = "Two things in a row on each host, a wait, and one at the operator's place."
[steps.a]
uses = "make"
hosts = "nodes"
with = { thing = "a", value = "1" }
[steps.wait]
uses = "await"
needs = ["a"]
[steps.b]
uses = "make"
needs = ["wait"]
hosts = "nodes"
with = { thing = "b", value = "{{ steps.a.value }}2" }
[steps.c]
uses = "make"
needs = ["b"]
with = { thing = "c", value = "3" }
"#;

/// A world, an engine on it, and a store.
struct Place {
    world: Arc<World>,
    engine: Engine,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let world = Arc::new(World::default());
        Self { engine: engine(&world), world, folder: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn run(&self, text: &str) -> (Report, Vec<Event>) {
        let plan = plan(&self.engine, text, &["n1", "n2"]);
        finish(self.engine.start(plan, store(self.folder()), None).unwrap()).await
    }

    async fn undo(&self, run: &RunId) -> (Report, Vec<Event>) {
        finish(undo(&self.engine, self.folder(), run, &UndoOptions::default())).await
    }

    /// Why an undo does not begin.
    fn refused(&self, run: &RunId) -> EngineError {
        let session = self.engine.open(store(self.folder()), run, None).unwrap();
        match session.undo(&UndoOptions::default()) {
            Ok(_) => panic!("it began"),
            Err(error) => error,
        }
    }

    fn there(&self) -> BTreeMap<String, String> {
        self.world.there()
    }

    fn set(&self, thing: &str, value: &str) {
        self.world.put(thing, value);
    }
}

fn state(report: &Report, task: &str) -> TaskState {
    report.state.task(report.state.shape().node(&TaskName::from_text(task)).unwrap())
}

/// Lets a run or an undo go on until its fault hangs, then stops it at once, as a kill would.
async fn stop_where_it_hangs(place: &Place, handle: RunHandle, of_undo: bool) -> Report {
    let left = || if of_undo { place.world.undo_faults_left() } else { place.world.faults_left() };
    while !left().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.stop(Stop::AtOnce);
    finish(handle).await.0
}

#[tokio::test]
async fn what_was_done_is_taken_back_in_reverse_order_and_what_was_found_is_left() {
    let place = Place::new();
    place.set("a@n2", "1");
    place.set("c", "before");
    let before = place.there();
    let (report, _) = place.run(CHAIN).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    let (report, events) = place.undo(&report.run).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert_eq!(place.there(), before);
    let mut order = place.world.taken_back();
    order[1..3].sort();
    assert_eq!(order, ["c", "b@n1", "b@n2", "a@n1"]);
    assert_eq!(state(&report, "a@n2"), TaskState::Satisfied);
    assert_eq!(state(&report, "wait"), TaskState::Kept, "there is nothing to take back of a wait");
    // Its attempts go on from those of the apply.
    let attempts: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            Event::UndoIntended { attempt, .. } => Some(*attempt),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [2, 2, 2, 2]);
    assert!(matches!(place.refused(&report.run), EngineError::Ended { outcome: Outcome::Undone, .. }));
}

#[tokio::test]
async fn a_run_that_changed_nothing_has_nothing_to_take_back() {
    let place = Place::new();
    let text = "name = \"x\"\nsummary = \"s\"\n[steps.c]\nuses = \"make\"\nwith = { thing = \"c\", value = \"3\" }\n";
    place.set("c", "3");
    let (report, _) = place.run(text).await;
    assert!(matches!(place.refused(&report.run), EngineError::NothingToUndo { .. }));
}

#[tokio::test]
async fn a_failed_undo_stops_what_stands_before_it_and_the_next_goes_on_there() {
    let place = Place::new();
    let (report, _) = place.run(CHAIN).await;
    place.world.undo_fault("b@n1", &[Fault::Fail]);
    let (report, _) = place.undo(&report.run).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.failures[0].0.as_str(), "b@n1");
    assert!(place.there().contains_key("a@n1") && place.there().contains_key("a@n2"));
    let resumed = place.engine.open(store(place.folder()), &report.run, None).unwrap().resume();
    assert!(matches!(resumed, Err(EngineError::TurnedBack { .. })), "it can't go forward any more");

    let (report, _) = place.undo(&report.run).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert!(place.there().is_empty());
    let mut each = place.world.taken_back();
    each.sort();
    assert_eq!(each, ["a@n1", "a@n2", "b@n1", "b@n2", "c"], "nothing was taken back twice");
}

#[tokio::test]
async fn an_undo_without_effect_is_a_failure_and_one_whose_answer_is_lost_is_made_again() {
    for (fault, outcome) in [
        (Fault::NoEffect, Outcome::Failed),
        (Fault::Panic, Outcome::Failed),
        (Fault::LoseAnswer, Outcome::Undone),
        (Fault::LoseRequest, Outcome::Undone),
    ] {
        let place = Place::new();
        let text = CHAIN.replace("needs = [\"b\"]", "needs = [\"b\"]\nretries = 1\nbackoff = \"1ms\"");
        let (report, _) = place.run(&text).await;
        place.world.undo_fault("c", &[fault]);
        let (report, events) = place.undo(&report.run).await;
        assert_eq!(report.outcome, if fault == Fault::NoEffect { Outcome::Undone } else { outcome });
        let tried_again = events.iter().any(|e| matches!(e, Event::UndoFailed { retry_in_ms: Some(_), .. }));
        assert_eq!(tried_again, fault != Fault::Panic, "a step that broke isn't tried again");
    }
    let place = Place::new();
    let (report, _) = place.run(CHAIN).await;
    place.world.undo_fault("c", &[Fault::NoEffect]);
    let (report, _) = place.undo(&report.run).await;
    assert!(report.failures[0].1.message.starts_with("it did not take"), "{}", report.failures[0].1);
}

#[tokio::test]
async fn what_somebody_changed_since_is_not_overwritten() {
    let place = Place::new();
    let (report, _) = place.run(CHAIN).await;
    place.set("c", "theirs");
    let (report, _) = place.undo(&report.run).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(place.there()["c"], "theirs");
    assert!(place.there().contains_key("b@n1"), "and what stands before it stays");
    // Kept on purpose, the rest is taken back.
    let options = UndoOptions { keep: vec!["c".to_owned()], ..UndoOptions::default() };
    let (report, _) = finish(undo(&place.engine, place.folder(), &report.run, &options)).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert_eq!(place.there().into_keys().collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn an_undo_that_was_killed_is_settled_and_gone_on_with() {
    let place = Place::new();
    let (report, _) = place.run(CHAIN).await;
    place.world.undo_fault("c", &[Fault::Hang]);
    let handle = undo(&place.engine, place.folder(), &report.run, &UndoOptions::default());
    let report = stop_where_it_hangs(&place, handle, true).await;
    assert_eq!((report.outcome, state(&report, "c")), (Outcome::Interrupted, TaskState::Undoing));
    let (report, events) = place.undo(&report.run).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert!(place.there().is_empty());
    let settled = events.iter().position(|event| matches!(event, Event::UndoNotDone { .. })).unwrap();
    let again = events.iter().position(|event| matches!(event, Event::UndoIntended { .. })).unwrap();
    assert!(settled < again);
    assert!(matches!(&events[again], Event::UndoIntended { attempt: 3, .. }), "{:?}", events[again]);
}

#[tokio::test]
async fn an_undo_that_is_asked_to_stop_lets_what_runs_finish() {
    let place = Place::new();
    let (report, _) = place.run(CHAIN).await;
    let mut handle = undo(&place.engine, place.folder(), &report.run, &UndoOptions::default());
    while let Some(notice) = handle.notices.recv().await {
        if matches!(notice, Notice::Event(ref record) if matches!(record.event, Event::UndoIntended { .. })) {
            handle.stop(Stop::Gently);
            break;
        }
    }
    let (report, _) = finish(handle).await;
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert!(report.state.in_state(TaskState::Undoing).next().is_none());
    assert_eq!(place.undo(&report.run).await.0.outcome, Outcome::Undone);
    assert!(place.there().is_empty());
}

#[tokio::test]
async fn a_task_that_was_left_at_work_is_settled_first_and_taken_back_where_it_was_done() {
    let place = Place::new();
    place.world.fault("b@n1", &[Fault::Hang]);
    let handle = place.engine.start(plan(&place.engine, CHAIN, &["n1", "n2"]), store(place.folder()), None);
    let report = stop_where_it_hangs(&place, handle.unwrap(), false).await;
    assert_eq!(state(&report, "b@n1"), TaskState::Intended);
    // Its effect comes to be after all.
    place.set("b@n1", "12");
    let (report, events) = place.undo(&report.run).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert!(place.there().is_empty());
    let done = events.iter().position(|e| matches!(e, Event::TaskDone { .. })).unwrap();
    let first = events.iter().position(|e| matches!(e, Event::UndoIntended { .. })).unwrap();
    assert!(done < first, "{events:?}");
}

#[tokio::test]
async fn what_a_failed_task_left_is_taken_back_too() {
    let place = Place::new();
    place.world.fault("b@n1", &[Fault::FailAfterwards]);
    let (report, _) = place.run(CHAIN).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(place.there().contains_key("b@n1"));
    assert_eq!(place.undo(&report.run).await.0.outcome, Outcome::Undone);
    assert!(place.there().is_empty());
}

#[tokio::test]
async fn an_undo_takes_back_to_how_the_run_found_things_whatever_attempts_it_took() {
    let place = Place::new();
    place.set("c", "before");
    let text = CHAIN.replace("needs = [\"b\"]", "needs = [\"b\"]\nretries = 2\nbackoff = \"1ms\"");
    // The first attempt does its work and fails all the same; the second one finds it done.
    place.world.fault("c", &[Fault::FailAfterwards]);
    let handle =
        place.engine.start(plan(&place.engine, &text, &["n1"]), store(place.folder()), None).unwrap();
    let (report, _) = finish(handle).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(place.undo(&report.run).await.0.outcome, Outcome::Undone);
    assert_eq!(place.there()["c"], "before");
}

const BARE: &str = r#"
name = "bare"
summary = "s"
[steps.a]
uses = "make"
with = { thing = "a", value = "1" }
[steps.bare]
uses = "bare"
needs = ["a"]
with = { thing = "bare" }
[steps.b]
uses = "make"
needs = ["bare"]
with = { thing = "b", value = "2" }
"#;

#[tokio::test]
async fn what_cannot_be_taken_back_is_named_before_anything_is_and_can_be_gone_around() {
    let place = Place::new();
    let (report, _) = place.run(BARE).await;
    let EngineError::NotUndoable { tasks, .. } = place.refused(&report.run) else { panic!("another error") };
    assert_eq!(tasks[0], (TaskName::from_text("bare"), "this step type has no undo".to_owned()));
    assert!(place.world.taken_back().is_empty());
    let session = place.engine.open(store(place.folder()), &report.run, None).unwrap();
    let list = session.to_undo(&UndoOptions::default()).unwrap();
    let names: Vec<&str> = list.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["b", "bare", "a"]);
    assert_eq!(list[0].action, UndoAction::TakeBack);
    drop(session);
    let options = UndoOptions { keep_impossible: true, ..UndoOptions::default() };
    let (report, _) = finish(undo(&place.engine, place.folder(), &report.run, &options)).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert_eq!(place.world.taken_back(), ["b", "a"]);
    assert_eq!(state(&report, "bare"), TaskState::Kept);
}

#[tokio::test]
async fn a_failed_task_that_cannot_be_taken_back_is_in_nobodys_way() {
    let place = Place::new();
    place.world.fault("bare", &[Fault::LoseRequest]);
    let (report, _) = place.run(BARE).await;
    assert_eq!(report.outcome, Outcome::Undecided);
    assert!(matches!(place.refused(&report.run), EngineError::NotUndoable { .. }), "it may have been done");
    // A person says that it wasn't.
    let options = UndoOptions { keep_impossible: true, ..UndoOptions::default() };
    let mut session = place.engine.open(store(place.folder()), &report.run, None).unwrap();
    session.settle("bare", Verdict::NotDone).await.unwrap();
    let (report, _) = finish(session.undo(&options).unwrap()).await;
    assert_eq!((report.outcome, state(&report, "bare")), (Outcome::Undone, TaskState::Kept));
    assert!(place.there().is_empty());
}

#[tokio::test]
async fn what_nobody_can_tell_of_stops_an_undo_before_it_takes_anything_back() {
    let place = Place::new();
    place.world.fault("bare", &[Fault::LoseAnswer]);
    let (report, _) = place.run(BARE).await;
    let options = UndoOptions { keep_impossible: true, ..UndoOptions::default() };
    let (report, _) = finish(undo(&place.engine, place.folder(), &report.run, &options)).await;
    assert_eq!(report.outcome, Outcome::Undecided);
    assert!(place.world.taken_back().is_empty());
    // Nothing was taken back yet, so it can still be gone on with.
    let mut session = place.engine.open(store(place.folder()), &report.run, None).unwrap();
    session.settle("bare", Verdict::Done).await.unwrap();
    let (report, _) = finish(session.resume().unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
}

const UNWIND: &str = r#"
name = "unwinding"
summary = "s"
on_failure = "unwind"
[steps.a]
uses = "make"
with = { thing = "a", value = "1" }
[steps.point]
uses = "make"
needs = ["a"]
PIVOT
with = { thing = "point", value = "2" }
[steps.after]
uses = "make"
needs = ["point"]
with = { thing = "after", value = "3" }
"#;

#[tokio::test]
async fn a_run_that_fails_for_good_takes_back_what_it_did() {
    let place = Place::new();
    let text = UNWIND.replace("PIVOT", "");
    place.world.fault("after", &[Fault::Fail]);
    let (report, events) = place.run(&text).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert_eq!(report.failures[0].0.as_str(), "after", "why it failed is still told");
    assert!(place.there().is_empty());
    assert_eq!(place.world.taken_back(), ["point", "a"]);
    assert!(events.iter().any(|event| matches!(event, Event::UndoStarted { epoch: 1, .. })));
}

#[tokio::test]
async fn an_unwinding_that_fails_is_gone_on_with_by_an_undo() {
    let place = Place::new();
    place.world.fault("after", &[Fault::Fail]);
    place.world.undo_fault("a", &[Fault::Fail]);
    let (report, _) = place.run(&UNWIND.replace("PIVOT", "")).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.state.turned_back());
    assert_eq!(place.undo(&report.run).await.0.outcome, Outcome::Undone);
    assert!(place.there().is_empty());
}

#[tokio::test]
async fn past_a_pivot_a_run_is_only_resumed() {
    let place = Place::new();
    place.world.fault("after", &[Fault::Fail]);
    let (report, _) = place.run(&UNWIND.replace("PIVOT", "pivot = true")).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.not_unwound.unwrap().starts_with("point was begun"));
    assert_eq!(place.there().len(), 2, "it stopped as it was");
    let refused = place.refused(&report.run);
    assert!(matches!(refused, EngineError::Pivoted { task, .. } if task.as_str() == "point"));
    let (report, _) = finish(resume(&place.engine, place.folder(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn before_its_pivot_a_run_unwinds() {
    let place = Place::new();
    place.world.fault("a", &[Fault::Fail]);
    let text = UNWIND.replace("PIVOT", "pivot = true").replace(
        "[steps.after]",
        "[steps.first]\nuses = \"make\"\nwith = { thing = \"first\", value = \"0\" }\n[steps.after]",
    );
    let (report, _) = place.run(&text).await;
    assert_eq!(report.outcome, Outcome::Undone);
    assert!(place.there().is_empty());
}

#[tokio::test]
async fn a_pivot_that_may_have_been_done_counts_as_done() {
    let place = Place::new();
    let text = UNWIND.replace("PIVOT", "pivot = true");
    place.world.fault("point", &[Fault::Hang]);
    let handle = place.engine.start(plan(&place.engine, &text, &[]), store(place.folder()), None);
    let report = stop_where_it_hangs(&place, handle.unwrap(), false).await;
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert!(matches!(place.refused(&report.run), EngineError::Pivoted { .. }));
}

#[tokio::test]
async fn a_run_that_was_stopped_is_not_unwound() {
    let place = Place::new();
    place.world.fault("point", &[Fault::Hang]);
    let text = UNWIND.replace("PIVOT", "");
    let handle = place.engine.start(plan(&place.engine, &text, &[]), store(place.folder()), None);
    let report = stop_where_it_hangs(&place, handle.unwrap(), false).await;
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert!(place.there().contains_key("a"));
}

/// A workflow of so many steps with these needs, each by its number.
fn dag(count: usize, needs: &[(usize, usize)]) -> String {
    let mut text = "name = \"dag\"\nsummary = \"s\"\n".to_owned();
    for step in 0..count {
        let mut before: Vec<String> = needs
            .iter()
            .map(|(a, b)| (a % count, b % count))
            .filter(|(a, b)| a < b && *b == step)
            .map(|(a, _)| format!("\"s{a}\""))
            .collect();
        before.sort();
        before.dedup();
        text.push_str(&format!(
            "[steps.s{step}]\nuses = \"make\"\nneeds = [{}]\nwith = {{ thing = \"s{step}\", value = \"new\" }}\n",
            before.join(", ")
        ));
    }
    text
}

fn fault() -> impl Strategy<Value = Fault> {
    use Fault::{Fail, FailAfterwards, LoseAnswer, LoseRequest, NoEffect, Panic};
    prop::sample::select(vec![Fail, FailAfterwards, Panic, LoseAnswer, LoseRequest, NoEffect])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_a_world_that_was_changed_and_taken_back_is_as_it_was(
        count in 1..8usize,
        needs in prop::collection::vec((0..8usize, 0..8usize), 0..12),
        found in prop::collection::vec(0..8usize, 0..3),
        apply_faults in prop::collection::vec((0..8usize, fault()), 0..2),
        undo_faults in prop::collection::vec((0..8usize, fault()), 0..4),
        kill in prop::option::of(0..8usize),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let result: Result<(), TestCaseError> = runtime.block_on(async {
            let place = Place::new();
            for thing in &found {
                place.set(&format!("s{thing}"), if thing % 2 == 0 { "new" } else { "old" });
            }
            let before = place.there();
            for (thing, fault) in apply_faults {
                place.world.fault(&format!("s{thing}"), &[fault]);
            }
            let text = dag(count, &needs);
            let (mut report, _) = place.run(&text).await;
            let applied = place.world.order();
            if report.state.shape().tasks() == 0 || !(0..count as u32).any(|n| report.state.begun(n)) {
                return Ok(());
            }
            for (thing, fault) in undo_faults {
                place.world.undo_fault(&format!("s{thing}"), &[fault]);
            }
            if let Some(thing) = kill {
                place.world.undo_fault(&format!("s{thing}"), &[Fault::Hang]);
            }
            let mut undos = 0;
            while report.outcome != Outcome::Undone {
                undos += 1;
                prop_assert!(undos < 20, "it comes to an end");
                let handle = undo(&place.engine, place.folder(), &report.run, &UndoOptions::default());
                let hangs = place.world.undo_faults_left().contains(&Fault::Hang);
                report = match hangs {
                    // Killed some time after its beginning.
                    true => {
                        let stop = handle.stopper();
                        tokio::spawn(async move {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            stop(Stop::AtOnce);
                        });
                        finish(handle).await.0
                    }
                    false => finish(handle).await.0,
                };
            }
            prop_assert_eq!(place.there(), before);
            let back = place.world.taken_back();
            let mut once = back.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), back.len(), "nothing was taken back twice");
            for (a, b) in needs.iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a < b) {
                let place_of = |n: usize| back.iter().position(|thing| *thing == format!("s{n}"));
                if let (Some(a), Some(b)) = (place_of(a), place_of(b)) {
                    prop_assert!(b < a, "{back:?}, applied {applied:?}");
                }
            }
            Ok(())
        });
        result?;
    }
}

#[tokio::test]
async fn a_host_that_is_away_is_left_as_it_is_and_the_others_are_taken_back() {
    let world = Arc::new(World::default());
    let fleet = Arc::new(VirtualFleet::default());
    let engine = engine(&world).with_fleet(fleet.clone());
    let store = MemoryStore::new();
    let text = CHAIN.replacen("[steps.a]", "whole = true\n[steps.a]", 1);
    world.fault("c", &[Fault::Fail]);
    let plan = plan(&engine, &text, &["n1", "n2"]);
    let report = engine.start(plan, Box::new(store.clone()), None).unwrap().wait().await.unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    fleet.take_away("n2");
    let undo = |options: &UndoOptions| {
        engine.open(Box::new(store.clone()), &report.run, None).unwrap().undo(options)
    };

    let EngineError::Host { error, .. } = undo(&UndoOptions::default()).unwrap().wait().await.unwrap_err()
    else {
        panic!("it is only right as a whole")
    };
    let hint = error.hint.unwrap_or_default();
    assert!(hint.contains(&format!("flow undo {} --keep-host n2", report.run)), "{hint}");
    let unknown = UndoOptions { keep_hosts: vec!["n3".to_owned()], ..UndoOptions::default() };
    assert!(matches!(undo(&unknown), Err(EngineError::NoHost { host, .. }) if host == "n3"));
    assert_eq!(world.taken_back(), Vec::<String>::new());

    let without = UndoOptions { keep_hosts: vec!["n2".to_owned()], ..UndoOptions::default() };
    let undone = undo(&without).unwrap().wait().await.unwrap();
    assert_eq!(undone.outcome, Outcome::Undone, "{:?}", undone.failures);
    assert_eq!(world.there().into_keys().collect::<Vec<_>>(), ["a@n2", "b@n2"]);
    assert_eq!(state(&undone, "a@n2"), TaskState::Kept);
    assert_eq!(fleet.holder("n1"), None);
    assert_eq!(
        fleet.holder("n2").map(|holder| holder.run),
        Some(report.run),
        "nobody was there to unlock it"
    );
}
