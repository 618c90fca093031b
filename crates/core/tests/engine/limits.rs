//! How many tasks are at work at once, and what happens once so many have failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flow_core::engine::{Engine, Notice, Options, Stop};
use flow_core::plan::Plan;
use flow_core::run::{Event, Outcome, TaskName, TaskState};
use flow_core::step::{Change, Check, Context, Output, Resources, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::world::{self, Fault, World, engine, finish, plan, resume, store};

/// How many are at work now, and how many were at most, by host and over all.
#[derive(Default)]
struct Gauge(Mutex<BTreeMap<String, (u32, u32)>>);

impl Gauge {
    fn add(&self, of: &str, by: i32) {
        let mut gauge = self.0.lock().unwrap();
        let (now, most) = gauge.entry(of.to_owned()).or_default();
        *now = now.saturating_add_signed(by);
        *most = (*most).max(*now);
    }

    fn most(&self, of: &str) -> u32 {
        self.0.lock().unwrap()[of].1
    }
}

/// Takes a moment, and is counted meanwhile.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Busy {}

#[async_trait]
impl Step for Busy {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        Ok(Check::Pending(Change::new("busy")))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let gauge = cx.resource::<Arc<Gauge>>()?;
        let host = cx.inventory_host().map_or("here", |host| host.name.as_str());
        for of in [host, "all"] {
            gauge.add(of, 1);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        for of in [host, "all"] {
            gauge.add(of, -1);
        }
        Ok(Output::empty())
    }

    fn verifiable(&self) -> bool {
        false
    }
}

impl StepType for Busy {
    const NAME: &'static str = "busy";
}

fn busy_engine() -> (Engine, Arc<Gauge>) {
    let gauge = Arc::new(Gauge::default());
    let mut registry = world::registry();
    registry.add::<Busy>();
    let mut resources = Resources::default();
    resources.insert(Arc::clone(&gauge));
    (Engine::new(registry).with_resources(resources), gauge)
}

/// Four steps without an order on each of three hosts: twelve tasks that are all ready at once.
fn wide(top: &str) -> String {
    let steps: String =
        (0..4).map(|n| format!("[steps.s{n}]\nuses = \"busy\"\nhosts = \"nodes\"\n")).collect();
    format!("name = \"wide\"\nsummary = \"s\"\n{top}\n{steps}")
}

async fn most_at_work(engine: &Engine, gauge: &Gauge, text: &str) -> (u32, u32) {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(engine, text, &["n1", "n2", "n3"]);
    let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    (gauge.most("all"), gauge.most("n1").max(gauge.most("n2")).max(gauge.most("n3")))
}

#[tokio::test]
async fn no_more_tasks_are_at_work_than_the_limits_allow() {
    let (engine, gauge) = busy_engine();
    let (_, on_a_host) = most_at_work(&engine, &gauge, &wide("max_per_host = 2")).await;
    assert!(on_a_host <= 2, "{on_a_host} on one host");

    let (engine, gauge) = busy_engine();
    let (all, _) = most_at_work(&engine, &gauge, &wide("[limits]\n\"busy\" = 3")).await;
    assert!(all <= 3, "{all} of one step type");

    let (engine, gauge) = busy_engine();
    let engine = engine.with_options(Options { concurrency: 1, ..Options::default() });
    let (all, _) = most_at_work(&engine, &gauge, &wide("")).await;
    assert_eq!(all, 1);
}

#[tokio::test]
async fn a_wait_before_another_attempt_holds_no_one_up_and_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::Fail]);
    let engine = engine(&world);
    let text = r#"
name = "waits"
summary = "s"
max_per_host = 1
[limits]
make = 1
[steps.a]
uses = "make"
hosts = "nodes"
retries = 1
backoff = "1m"
with = { thing = "a" }
"#;
    let mut run = engine.start(plan(&engine, text, &["n1", "n2"]), store(folder.path()), None).unwrap();
    while let Some(notice) = run.notices.recv().await {
        if let Notice::Event(record) = notice
            && matches!(&record.event, Event::TaskDone { task, .. } if task.as_str() == "a@n2")
        {
            run.stop(Stop::Gently);
        }
    }
    let report = run.wait().await.unwrap();
    assert_eq!(report.outcome, Outcome::Interrupted);
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!((report.outcome, world.count("a@n1")), (Outcome::Succeeded, 1));
}

#[tokio::test]
async fn once_so_many_tasks_have_failed_nothing_new_is_started_and_a_resume_counts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a", &[Fault::Fail, Fault::Fail]);
    world.fault("b", &[Fault::Fail]);
    let engine = engine(&world).with_options(Options { concurrency: 1, ..Options::default() });
    let steps: String = ["a", "b", "c", "d"]
        .map(|name| format!("[steps.{name}]\nuses = \"make\"\nwith = {{ thing = \"{name}\" }}\n"))
        .concat();
    let text = format!("name = \"few\"\nsummary = \"s\"\nmax_failures = 2\n{steps}");
    let run = engine.start(plan(&engine, &text, &[]), store(folder.path()), None).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!((report.outcome, report.failures.len(), world.total()), (Outcome::Failed, 2, 0));
    let state_of =
        |name: &str| report.state.task(report.state.shape().node(&TaskName::from_text(name)).unwrap());
    assert_eq!((state_of("c"), state_of("d")), (TaskState::Ready, TaskState::Ready));

    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!((report.outcome, report.failures.len(), world.total()), (Outcome::Failed, 1, 3));
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!((report.outcome, world.total()), (Outcome::Succeeded, 4));
}

/// One host after another, of which `limit` may fail; `b` needs all of them.
fn rolling(limit: &str) -> String {
    format!(
        r#"
name = "rolling"
summary = "s"
[steps.before]
uses = "make"
with = {{ thing = "before" }}
[steps.a]
uses = "make"
needs = ["before"]
hosts = "nodes"
serial = 1
max_failures = {limit}
with = {{ thing = "a" }}
[steps.b]
uses = "make"
needs = ["a"]
with = {{ thing = "b" }}
"#
    )
}

const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

fn order(world: &World) -> Vec<String> {
    world.latest()
}

#[tokio::test]
async fn the_next_batch_starts_although_hosts_failed_until_there_are_too_many() {
    // Two of five are two, and forty percent of five.
    for limit in ["2", "\"40%\""] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        world.fault("a@n2", &[Fault::Fail, Fault::Fail]);
        world.fault("a@n4", &[Fault::Fail]);
        let engine = engine(&world);
        let text = rolling(limit);
        let run = engine.start(plan(&engine, &text, &FIVE), store(folder.path()), None).unwrap();
        let (report, _) = finish(run).await;
        assert_eq!(report.outcome, Outcome::Failed);
        assert_eq!(order(&world), ["before", "a@n1", "a@n3"], "n5 was not started after two failures");

        // What had failed comes first again, one after another, and n5 behind it.
        let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
        assert_eq!((report.outcome, report.failures.len()), (Outcome::Failed, 1));
        assert_eq!(order(&world), ["a@n4", "a@n5"], "one failure lets the others by, not what needs all");

        let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
        assert_eq!(report.outcome, Outcome::Succeeded);
        assert_eq!(order(&world), ["a@n2", "b"]);
    }
}

#[tokio::test]
async fn one_failure_by_default_keeps_the_next_batch_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n2", &[Fault::Fail]);
    let engine = engine(&world);
    let run = engine.start(plan(&engine, &rolling("1"), &FIVE), store(folder.path()), None).unwrap();
    finish(run).await;
    assert_eq!(order(&world), ["before", "a@n1"]);
}

#[tokio::test]
async fn a_step_that_may_fail_on_hosts_still_waits_for_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("before", &[Fault::Fail]);
    let engine = engine(&world);
    let run = engine.start(plan(&engine, &rolling("3"), &FIVE), store(folder.path()), None).unwrap();
    let (report, _) = finish(run).await;
    assert_eq!((report.outcome, world.total()), (Outcome::Failed, 0));
}

#[tokio::test]
async fn killed_behind_a_gate_it_settles_first_and_then_tries_again_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("a@n1", &[Fault::Fail]);
    world.fault("a@n2", &[Fault::Hang]);
    let engine = engine(&world);
    let run =
        engine.start(plan(&engine, &rolling("3"), &["n1", "n2", "n3"]), store(folder.path()), None).unwrap();
    let mut run = run;
    while let Some(notice) = run.notices.recv().await {
        if let Notice::Event(record) = notice
            && matches!(&record.event, Event::TaskIntended { task, .. } if task.as_str() == "a@n2")
        {
            run.stop(Stop::AtOnce);
        }
    }
    let report = run.wait().await.unwrap();
    assert_eq!(order(&world), ["before"]);
    let (report, events) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(order(&world), ["a@n1", "a@n2", "a@n3", "b"]);
    let at = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let settled = at(&|event| matches!(event, Event::TaskNotDone { .. }));
    assert!(settled < at(&|event| matches!(event, Event::TaskIntended { .. })), "{events:?}");
}

#[tokio::test]
async fn a_workflow_used_as_a_step_counts_as_failed_once_for_each_host() {
    use flow_core::workflow::{Bundle, BundledFile};
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("in@n1", &[Fault::Fail]);
    let engine = engine(&world);
    let outer = r#"
name = "outer"
summary = "s"
[steps.each]
uses = "workflow"
hosts = "nodes"
serial = 1
max_failures = 2
with = { file = "inner.toml" }
"#;
    let inner = r#"
name = "inner"
summary = "s"
max_per_host = 1
[steps.in]
uses = "make"
with = { thing = "in" }
[steps.out]
uses = "make"
needs = ["in"]
with = { thing = "out" }
"#;
    let mut request = world::request(outer, &["n1", "n2"], &[]);
    request.bundle = Bundle::single("outer.toml", outer);
    let file = BundledFile { display: "inner.toml".to_owned(), text: inner.to_owned() };
    request.bundle.files.insert("inner.toml".to_owned(), file);
    let plan = Plan::new(request, engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"));
    let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(order(&world), ["in@n2", "out@n2"], "n1 has one failure, though two of its tasks are left");
}
