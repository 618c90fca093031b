//! What a run does: barriers, failures, lost answers, stops, guards, resumes.

use std::sync::Arc;
use std::time::Duration;

use crate::world::{Fault, World, engine, finish, plan, resume, store};
use flow_core::engine::{EngineError, Finding, Notice, Stop};
use flow_core::run::{Event, Outcome, TaskName, TaskState};

const CHAIN: &str = r#"
name = "chain"
summary = "Three things in a row on each host, then one at the operator's place."
[steps.a]
uses = "make"
hosts = "nodes"
with = { thing = "a", value = "1" }
[steps.b]
uses = "make"
needs = ["a"]
hosts = "nodes"
with = { thing = "b", value = "{{ steps.a.value }}2" }
[steps.c]
uses = "make"
needs = ["b"]
with = { thing = "c", value = "x{{ steps.b.hosts | length }}" }
"#;

#[tokio::test]
async fn a_run_establishes_everything_and_a_second_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let run = engine.start(plan(&engine, CHAIN, &["n1", "n2"]), store(folder.path()), None).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.there()["b@n2"], "12");
    assert_eq!(world.there()["c"], "x2");
    assert_eq!(world.total(), 5);

    let run = engine.start(plan(&engine, CHAIN, &["n1", "n2"]), store(folder.path()), None).unwrap();
    let (report, events) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.total(), 5, "nothing was done again");
    assert!(!events.iter().any(|event| matches!(event, Event::TaskIntended { .. })));
}

#[tokio::test]
async fn a_barrier_holds_until_every_host_has_passed() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let run = engine.start(plan(&engine, CHAIN, &["n1", "n2", "n3"]), store(folder.path()), None).unwrap();
    finish(run).await;
    let order = world.order();
    let last_a = order.iter().rposition(|thing| thing.starts_with("a@")).unwrap();
    let first_b = order.iter().position(|thing| thing.starts_with("b@")).unwrap();
    assert!(last_a < first_b, "{order:?}");
}

#[tokio::test]
async fn a_failure_stops_only_what_needs_it_and_a_resume_does_only_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("b@n2", &[Fault::Fail]);
    let engine = engine(&world);
    let run = engine.start(plan(&engine, CHAIN, &["n1", "n2"]), store(folder.path()), None).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.failures[0].0, TaskName::new("b", Some("n2")));
    assert_eq!((world.count("b@n1"), world.count("c")), (1, 0));

    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.total(), 5, "each thing was done once");
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_looking() {
    for (fault, attempts) in [(Fault::LoseAnswer, 1), (Fault::LoseRequest, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        world.fault("a@n1", &[fault]);
        let engine = engine(&world);
        let text =
            CHAIN.replace("with = { thing = \"a\"", "retries = 1\nbackoff = \"1ms\"\nwith = { thing = \"a\"");
        let (report, _) =
            finish(engine.start(plan(&engine, &text, &["n1"]), store(folder.path()), None).unwrap()).await;
        assert_eq!(report.outcome, Outcome::Succeeded);
        assert_eq!(world.count("a@n1"), 1, "it was done once");
        let node = report.state.shape().node(&TaskName::new("a", Some("n1"))).unwrap();
        assert_eq!(report.state.attempt(node), attempts);
    }
}

#[tokio::test]
async fn what_cannot_be_settled_is_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("x", &[Fault::LoseAnswer]);
    let engine = engine(&world);
    let text = "name = \"bare\"\nsummary = \"s\"\n[steps.x]\nuses = \"bare\"\nwith = { thing = \"x\" }\n";
    let (report, _) =
        finish(engine.start(plan(&engine, text, &[]), store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Undecided);
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Undecided);
    assert_eq!(world.count("x"), 1, "it was not run again");
}

#[tokio::test]
async fn an_apply_without_effect_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::NoEffect]);
    let engine = engine(&world);
    let (report, _) =
        finish(engine.start(plan(&engine, CHAIN, &["n1"]), store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.failures[0].1.message.starts_with("it did not take"), "{}", report.failures[0].1);
}

#[tokio::test]
async fn a_step_that_panics_fails_its_task_only() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::Panic]);
    let engine = engine(&world);
    let (report, _) =
        finish(engine.start(plan(&engine, CHAIN, &["n1", "n2"]), store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(world.count("a@n2"), 1);
}

#[tokio::test]
async fn a_time_limit_leaves_the_outcome_to_be_settled() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::Hang]);
    let engine = engine(&world);
    let text = CHAIN.replace("with = { thing = \"a\"", "timeout = \"20ms\"\nwith = { thing = \"a\"");
    let (report, _) =
        finish(engine.start(plan(&engine, &text, &["n1"]), store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed, "it was looked at, and was not done");
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn asked_to_stop_once_it_lets_what_runs_finish_and_can_be_resumed() {
    // Long enough that no test thread, however late it is told of the first task, is later than the last one.
    const TASKS: u32 = 500;
    let step = |n: u32| {
        let needs = if n == 0 { String::new() } else { format!("needs = [\"s{}\"]\n", n - 1) };
        format!("[steps.s{n}]\nuses = \"make\"\n{needs}with = {{ thing = \"s{n}\", value = \"1\" }}\n")
    };
    let steps: String = (0..TASKS).map(step).collect();
    let text = format!("name = \"row\"\nsummary = \"Many in a row.\"\n{steps}");
    let last = format!("s{}", TASKS - 1);
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let mut run = engine.start(plan(&engine, &text, &["n1"]), store(folder.path()), None).unwrap();
    while let Some(notice) = run.notices.recv().await {
        if matches!(notice, Notice::Event(ref record) if matches!(record.event, Event::TaskIntended { .. })) {
            run.stop(Stop::Gently);
            break;
        }
    }
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert_eq!(report.state.in_state(TaskState::Intended).count(), 0);
    assert!(world.total() >= 1 && world.count(&last) == 0);
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.total(), TASKS);
}

#[tokio::test]
async fn asked_to_stop_at_once_it_leaves_what_runs_and_a_resume_settles_it() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::Hang]);
    let engine = engine(&world);
    let mut run = engine.start(plan(&engine, CHAIN, &["n1"]), store(folder.path()), None).unwrap();
    while let Some(notice) = run.notices.recv().await {
        if matches!(notice, Notice::Event(ref record) if matches!(record.event, Event::TaskIntended { .. })) {
            break;
        }
    }
    // Not before `apply` hangs: else the fault would be left for the resumed run.
    while !world.faults_left().is_empty() {
        tokio::task::yield_now().await;
    }
    run.stop(Stop::AtOnce);
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert_eq!(report.state.in_state(TaskState::Intended).count(), 1);
    let (report, events) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert!(events.iter().any(|event| matches!(event, Event::TaskNotDone { .. })));
    assert_eq!(world.total(), 3);
}

#[tokio::test]
async fn a_guard_that_no_longer_holds_keeps_a_step_from_applying() {
    let text = r#"
name = "guarded"
summary = "s"
confirm = "yes"
[steps.stopped]
uses = "make"
hosts = "nodes"
with = { thing = "stopped" }
[steps.other]
uses = "make"
needs = ["stopped"]
with = { thing = "other" }
[steps.wipe]
uses = "wipe"
needs = ["other"]
guards = ["stopped"]
hosts = "nodes"
with = { thing = "wipe" }
"#;
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("other", &[Fault::Fail]);
    let engine = engine(&world);
    let unconfirmed = engine.start(plan(&engine, text, &["n1"]), store(folder.path()), None);
    assert!(matches!(unconfirmed, Err(EngineError::Unconfirmed { name }) if name == "yes"));
    let run = engine.start(plan(&engine, text, &["n1"]), store(folder.path()), Some("yes")).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Failed);

    // Meanwhile somebody starts what was stopped.
    world.remove("stopped@n1");
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.failures[0].1.message.contains("stopped@n1 no longer holds"), "{}", report.failures[0].1);
    assert_eq!(world.count("wipe@n1"), 0);
    assert_eq!(world.count("stopped@n1"), 1, "and the recorded apply did not run again");
}

#[tokio::test]
async fn a_task_that_stands_for_all_hosts_is_kept_back_by_a_guard_on_any_of_them() {
    let text = r#"
name = "guarded"
summary = "s"
confirm = "yes"
[steps.stopped]
uses = "make"
hosts = "nodes"
with = { thing = "stopped" }
[steps.other]
uses = "make"
needs = ["stopped"]
with = { thing = "other" }
[steps.wipe]
uses = "wipe"
needs = ["other"]
guards = ["stopped"]
hosts = "nodes[0]"
with = { thing = "wipe" }
"#;
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("other", &[Fault::Fail]);
    let engine = engine(&world);
    let run = engine.start(plan(&engine, text, &["n1", "n2"]), store(folder.path()), Some("yes")).unwrap();
    let (report, _) = finish(run).await;
    world.remove("stopped@n2");
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert!(report.failures[0].1.message.contains("stopped@n2 no longer holds"), "{}", report.failures[0].1);
    assert_eq!(world.count("wipe@n1"), 0);
}

#[tokio::test]
async fn serial_batches_start_one_after_another_and_a_failed_batch_keeps_the_rest_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n2", &[Fault::Fail]);
    let engine = engine(&world);
    let text = CHAIN.replace("with = { thing = \"a\"", "serial = 1\nwith = { thing = \"a\"");
    let run = engine.start(plan(&engine, &text, &["n1", "n2", "n3"]), store(folder.path()), None).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(world.order(), ["a@n1"]);
}

#[tokio::test]
async fn a_preview_changes_nothing_and_says_what_is_known_only_later() {
    let world = Arc::new(World::default());
    world.put("a@n1", "1");
    let engine = engine(&world);
    let preview = engine.preview(plan(&engine, CHAIN, &["n1", "n2"])).await;
    let of = |name: &str| &preview.tasks.iter().find(|task| task.name.as_str() == name).unwrap().finding;
    assert!(matches!(of("a@n1"), Finding::Satisfied));
    assert!(matches!(of("a@n2"), Finding::Pending(_)));
    assert!(matches!(of("b@n2"), Finding::KnownAfter(step) if step == "a"), "{:?}", of("b@n2"));
    assert!(preview.has_changes() && !preview.has_errors());
    assert_eq!(world.total(), 0);
}

#[tokio::test]
async fn two_processes_cannot_work_on_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::Hang]);
    let engine = engine(&world);
    let run = engine.start(plan(&engine, CHAIN, &["n1"]), store(folder.path()), None).unwrap();
    let second = engine.open(store(folder.path()), &run.id, None);
    assert!(matches!(second, Err(EngineError::Store(flow_core::store::StoreError::Busy { .. }))));
    run.stop(Stop::AtOnce);
    tokio::time::timeout(Duration::from_secs(10), finish(run)).await.unwrap();
}
