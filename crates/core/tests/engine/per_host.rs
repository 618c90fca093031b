//! `needs_per_host`: each host goes on as soon as its own part of the step before has ended.

use std::sync::Arc;

use crate::world::{Fault, World, engine, finish, names, plan, resume, store};
use flow_core::plan::{Filter, Plan};
use flow_core::run::{Outcome, TaskName};

const PIPELINE: &str = r#"
name = "pipeline"
summary = "Two things on each host, one after the other, then one at the operator's place."
confirm = "yes"
[steps.a]
uses = "make"
hosts = "nodes"
with = { thing = "a", value = "1" }
[steps.b]
uses = "wipe"
needs_per_host = ["a"]
guards = ["a"]
hosts = "nodes"
with = { thing = "b", value = "{{ steps.a.value }}2" }
[steps.c]
uses = "make"
needs = ["b"]
with = { thing = "c", value = "x{{ steps.b.hosts | length }}" }
"#;

#[tokio::test]
async fn a_host_goes_on_while_another_has_failed_and_a_resume_does_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::Fail]);
    let engine = engine(&world);
    let plan = plan(&engine, PIPELINE, &["n1", "n2"]);
    let (report, _) = finish(engine.start(plan, store(folder.path()), Some("yes")).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed);
    // The guard is looked at on the task's own host only: on n1 it doesn't hold.
    assert_eq!(world.order(), ["a@n2", "b@n2"]);
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.there()["b@n1"], "12");
    assert_eq!(world.there()["c"], "x2");
    assert_eq!(world.total(), 5, "each thing was done once");
}

#[tokio::test]
async fn with_serial_a_batch_waits_for_the_one_before_and_for_its_own_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let text = PIPELINE.replace("with = { thing = \"b\"", "serial = 1\nwith = { thing = \"b\"");
    let plan = plan(&engine, &text, &["n1", "n2", "n3"]);
    let (report, _) = finish(engine.start(plan, store(folder.path()), Some("yes")).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    let order = world.order();
    let b: Vec<&String> = order.iter().filter(|thing| thing.starts_with("b@")).collect();
    assert_eq!(b, ["b@n1", "b@n2", "b@n3"]);
}

#[test]
fn a_step_may_need_one_that_runs_on_more_hosts_which_still_belong_to_the_whole() {
    let engine = engine(&Arc::new(World::default()));
    let text = PIPELINE.replacen(
        "hosts = \"nodes\"\nwith = { thing = \"b\"",
        "hosts = \"n2\"\nwith = { thing = \"b\"",
        1,
    );
    let plan = plan(&engine, &text, &["n1", "n2"]);
    let shape = plan.shape();
    let node = |step: &str, host: &str| shape.node(&TaskName::new(step, Some(host))).unwrap();
    assert!(shape.after(node("a", "n2")).contains(&node("b", "n2")));
    assert!(!shape.after(node("a", "n1")).contains(&node("b", "n2")));
    assert_eq!(shape.after(node("a", "n1")).len(), 1, "the end of the workflow waits for it");
}

#[test]
fn what_is_filtered_out_but_needed_on_the_own_host_must_hold() {
    let engine = engine(&Arc::new(World::default()));
    let text = PIPELINE.replace("with = { thing = \"b\"", "tags = [\"b\"]\nwith = { thing = \"b\"");
    let mut request = crate::world::request(&text, &["n1", "n2"], &[]);
    request.filter = Filter { limit: Some("n2".to_owned()), tags: ["b".to_owned()].into() };
    let plan = Plan::new(request, engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(names(&plan), ["a@n2", "b@n2"]);
    assert!(plan.task(&TaskName::new("a", Some("n2"))).unwrap().must_hold);
}
