//! A person's word on what nobody can tell.

use std::path::Path;
use std::sync::Arc;

use flow_core::engine::{Engine, EngineError, Stop, Verdict};
use flow_core::run::{Event, Outcome, RunId, RunStatus};
use flow_core::step::Resolved;

use crate::world::{Fault, World, engine, finish, plan, resume, store};

const TEXT: &str = r#"
name = "bare"
summary = "s"
[steps.x]
uses = "bare"
with = { thing = "x" }
[steps.y]
uses = "make"
with = { thing = "y" }
[steps.after]
uses = "make"
needs = ["x", "y"]
with = { thing = "after" }
"#;

/// A run that was left at once while this hung, and all else that was ready was done.
async fn left(engine: &Engine, world: &World, folder: &Path, hangs: &str) -> RunId {
    world.fault(hangs, &[Fault::Hang]);
    let mut run = engine.start(plan(engine, TEXT, &[]), store(folder), None).unwrap();
    let (mut begun, mut others_done) = (false, false);
    while let Some(notice) = run.notices.recv().await {
        let flow_core::engine::Notice::Event(record) = notice else { continue };
        begun |= matches!(&record.event, Event::TaskIntended { task, .. } if task.as_str() == hangs);
        others_done |= matches!(&record.event, Event::TaskDone { .. });
        if begun && others_done {
            run.stop(Stop::AtOnce);
        }
    }
    run.wait().await.unwrap().run
}

#[tokio::test]
async fn what_nobody_can_tell_is_shown_with_its_change_and_settled_without_starting_anything() {
    for (verdict, times) in [(Verdict::Done, 0), (Verdict::NotDone, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        let engine = engine(&world);
        let run = left(&engine, &world, folder.path(), "x").await;
        let open = || engine.open(store(folder.path()), &run, None).unwrap();
        let evidence = open().evidence("x").await.unwrap();
        assert_eq!((evidence.attempt, evidence.change.summary.as_str()), (1, "a command is run"));
        assert!(matches!(evidence.alive, Ok(false)));
        assert!(matches!(evidence.found, Some(Ok(Resolved::Unknown(_)))));
        assert!(evidence.refusal().is_none());

        let before = world.total();
        open().settle("x", verdict).await.unwrap();
        assert_eq!(world.total(), before, "nothing was started");
        assert_eq!(open().state().status(), RunStatus::Ended(Outcome::Interrupted));
        let none = open().settle("x", verdict).await;
        assert!(
            matches!(none, Err(EngineError::NotAsked { unknown, .. }) if unknown.iter().all(|task| task.as_str() != "x"))
        );
        let (report, _) = finish(resume(&engine, folder.path(), &run)).await;
        assert_eq!((report.outcome, world.count("x")), (Outcome::Succeeded, times));
    }
}

#[tokio::test]
async fn where_the_step_can_tell_nobody_s_word_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let run = left(&engine, &world, folder.path(), "y").await;
    let open = || engine.open(store(folder.path()), &run, None).unwrap();
    let refused = open().settle("y", Verdict::Done).await.unwrap_err();
    assert!(refused.to_string().contains("the step can tell: it was not done"), "{refused}");
    let (report, _) = finish(resume(&engine, folder.path(), &run)).await;
    assert_eq!((report.outcome, world.count("y")), (Outcome::Succeeded, 1));
}
