//! Approvals: what waits for a person, and what its answer does, whoever brings it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use flow_core::engine::{Engine, Finding, Notice, RunHandle, Stop};
use flow_core::run::{Asked, Event, Outcome, RunId, TaskName, TaskState};
use flow_core::step::{Change, Check, Context, Output, Resources, Step, StepError, StepType};
use flow_core::store::{Answer, Signal};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::world::{self, World, finish, plan, resume, store};

/// Asks.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Gate {
    /// What is asked.
    message: String,
}

#[async_trait]
impl Step for Gate {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        Ok(Check::Pending(Change::new(&self.message)))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        panic!("a gate is never applied")
    }
}

impl StepType for Gate {
    const NAME: &'static str = "gate";
    const GATE: bool = true;
}

fn engine(world: &Arc<World>) -> Engine {
    let mut registry = world::registry();
    registry.add::<Gate>();
    let mut resources = Resources::default();
    resources.insert(Arc::clone(world));
    Engine::new(registry).with_resources(resources)
}

const GATED: &str = r#"
name = "gated"
summary = "s"
[steps.before]
uses = "make"
with = { thing = "before" }
[steps.ask]
uses = "gate"
needs = ["before"]
EXTRA
with = { message = "go on?" }
[steps.aside]
uses = "make"
needs = ["before"]
with = { thing = "aside" }
[steps.after]
uses = "make"
needs = ["ask"]
with = { thing = "after", value = "{{ steps.ask.by }}" }
"#;

fn start(engine: &Engine, folder: &Path, extra: &str) -> RunHandle {
    let plan = plan(engine, &GATED.replace("EXTRA", extra), &[]);
    engine.start(plan, store(folder), None).unwrap()
}

fn says(asked: &Asked, answer: Answer) -> Signal {
    let Asked { task, attempt, .. } = asked.clone();
    Signal { task, attempt, by: "ann@desk".to_owned(), when: jiff::Timestamp::UNIX_EPOCH, answer }
}

/// Waits until it is asked, and everything else has ended.
async fn until_asked(run: &mut RunHandle) -> Asked {
    let (mut asked, mut aside) = (None, false);
    loop {
        match run.notices.recv().await.unwrap() {
            Notice::Asks(of) => asked = Some(of),
            Notice::Event(record) => {
                aside |= matches!(&record.event, Event::TaskDone { task, .. } if task.as_str() == "aside");
            }
            _ => {}
        }
        if let Some(asked) = asked.as_ref().filter(|_| aside) {
            return asked.clone();
        }
    }
}

fn waiting(folder: &Path, run: &RunId) -> Vec<Asked> {
    let mut waiting = Vec::new();
    for record in store(folder).events(run).unwrap() {
        Asked::follow(&mut waiting, &record);
    }
    waiting
}

#[tokio::test]
async fn what_needs_an_approval_waits_for_it_and_other_tasks_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let mut run = start(&engine, folder.path(), "");
    let asked = until_asked(&mut run).await;
    assert_eq!((asked.message.as_str(), asked.task.as_str()), ("go on?", "ask"));
    assert_eq!(waiting(folder.path(), &run.id)[0].task, asked.task, "it is an event before it is told");
    assert_eq!(world.count("after"), 0);

    let other = Asked { task: TaskName::from_text("after"), ..asked.clone() };
    run.answerer()(says(&other, Answer::Approve));
    let earlier = Asked { attempt: 7, ..asked.clone() };
    run.answerer()(says(&earlier, Answer::Reject(None)));
    run.answerer()(says(&asked, Answer::Approve));
    let (report, events) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.there()["after"], "ann@desk", "who approved is an output");
    assert!(events.iter().any(|event| matches!(event, Event::TaskApproved { by, .. } if by == "ann@desk")));
    assert!(waiting(folder.path(), &report.run).is_empty());
}

#[tokio::test]
async fn an_answer_that_another_process_leaves_in_the_store_is_found_by_the_one_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let mut run = start(&engine, folder.path(), "");
    let asked = until_asked(&mut run).await;
    store(folder.path()).post(&run.id, &says(&asked, Answer::Approve)).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert!(store(folder.path()).signals(&report.run).unwrap().is_empty(), "it was taken off");
}

#[tokio::test]
async fn stopped_while_it_waits_it_asks_again_on_resume_and_finds_what_was_answered_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let mut run = start(&engine, folder.path(), "");
    until_asked(&mut run).await;
    run.stop(Stop::Gently);
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Interrupted);
    let node = report.state.shape().node(&TaskName::from_text("ask")).unwrap();
    assert_eq!(report.state.task(node), TaskState::Asked);

    let mut run = resume(&engine, folder.path(), &report.run);
    let asked = loop {
        if let Notice::Asks(asked) = run.notices.recv().await.unwrap() {
            break asked;
        }
    };
    run.stop(Stop::Gently);
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Interrupted);

    store(folder.path()).post(&report.run, &says(&asked, Answer::Approve)).unwrap();
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!((report.outcome, world.total()), (Outcome::Succeeded, 3));
}

#[tokio::test]
async fn a_rejection_fails_the_task_with_its_reason_and_a_resume_asks_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let mut run = start(&engine, folder.path(), "");
    let asked = until_asked(&mut run).await;
    run.answerer()(says(&asked, Answer::Reject(Some("not tonight".to_owned()))));
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.failures[0].1.message, "rejected by ann@desk: not tonight");
    assert_eq!(world.count("after"), 0);

    let mut run = resume(&engine, folder.path(), &report.run);
    // The answer to the first time that it was asked says nothing of the second.
    store(folder.path()).post(&run.id, &says(&asked, Answer::Approve)).unwrap();
    let again = loop {
        if let Notice::Asks(asked) = run.notices.recv().await.unwrap() {
            break asked;
        }
    };
    assert_eq!(again.attempt, 2);
    store(folder.path()).post(&run.id, &says(&again, Answer::Approve)).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn nobody_in_time_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let (report, _) = finish(start(&engine, folder.path(), "timeout = \"20ms\"")).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.failures[0].1.message, "nobody approved it in time");
}

#[tokio::test]
async fn a_preview_shows_the_gate_and_asks_nobody() {
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let preview = engine.preview(plan(&engine, &GATED.replace("EXTRA", ""), &[])).await;
    let of = |name: &str| &preview.tasks.iter().find(|task| task.name.as_str() == name).unwrap().finding;
    assert!(matches!(of("ask"), Finding::Asks(message) if message == "go on?"), "{:?}", of("ask"));
    assert!(matches!(of("after"), Finding::KnownAfter(step) if step == "ask"), "{:?}", of("after"));
}
