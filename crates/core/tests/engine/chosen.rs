//! `hosts = { from, within }`: hosts and their order from outputs, within a set that is known before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::world::{Fault, World, engine, finish, inventory, names, plan, request, resume, store};
use flow_core::engine::{Finding, Notice, Stop};
use flow_core::plan::{Filter, Inputs, Plan, Request};
use flow_core::run::{Event, Outcome, RunState, TaskName, TaskState};
use flow_core::workflow::{Bundle, BundledFile};

/// The hosts are those that `members` was told, in that order.
fn restart(members: &str, more: &str) -> String {
    format!(
        r#"
name = "restart"
summary = "Restarts hosts in an order that is found."
[params.broken]
type = "boolean"
default = false
[steps.members]
uses = "make"
with = {{ thing = "members", value = "{members}" }}
[steps.restart]
uses = "make"
needs = ["members"]
hosts = {{ from = "{{{{ steps.members.value | split(',') }}}}", within = "nodes" }}
{more}
with = {{ thing = "restart", value = "1" }}
[steps.after]
uses = "make"
needs = ["restart"]
with = {{ thing = "after", value = "{{{{ steps.restart.hosts | join(',') }}}}" }}
"#
    )
}

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

fn chosen(events: &[Event]) -> Vec<Vec<String>> {
    let hosts = events.iter().filter_map(|event| match event {
        Event::HostsChosen { task, hosts } => {
            assert_eq!(task.as_str(), "restart:hosts");
            Some(hosts.clone())
        }
        _ => None,
    });
    hosts.collect()
}

#[tokio::test]
async fn the_chosen_hosts_are_worked_on_in_their_order_and_the_others_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let plan = plan(&engine, &restart("n3,n4,n1", "serial = 1"), &NODES);
    assert_eq!(
        names(&plan),
        ["members", "restart:hosts", "restart@n1", "restart@n2", "restart@n3", "restart@n4", "after"],
        "the plan has the whole set"
    );
    let drawing = plan.drawing();
    let choices = drawing.nodes.iter().flatten().filter(|task| task.choice);
    assert_eq!(choices.map(|task| task.name.as_str()).collect::<Vec<_>>(), ["restart:hosts"]);
    assert_eq!(plan.hosts().len(), 4, "and so do the locks");
    let (report, events) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.order(), ["members", "restart@n3", "restart@n4", "restart@n1", "after"]);
    assert_eq!(chosen(&events), [["n3", "n4", "n1"]]);
    assert!(events.iter().any(
        |event| matches!(event, Event::TaskSkipped { task, why } if task.host() == Some("n2") && why.contains("chosen"))
    ));
    assert_eq!(world.there()["after"], "n1,n3,n4");
}

#[tokio::test]
async fn a_resume_keeps_the_choice_and_goes_on_in_its_order() {
    for stop in [None, Some(Stop::AtOnce)] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        world.fault("restart@n2", &[if stop.is_some() { Fault::Hang } else { Fault::Fail }]);
        let engine = engine(&world);
        let plan = plan(&engine, &restart("n4,n2,n1,n3", "serial = 1"), &NODES);
        let mut run = engine.start(plan, store(folder.path()), None).unwrap();
        if let Some(stop) = stop {
            let begun = |notice: &Notice| {
                matches!(notice, Notice::Event(record)
                    if matches!(&record.event, Event::TaskIntended { task, .. } if task.host() == Some("n2")))
            };
            while let Some(notice) = run.notices.recv().await {
                if begun(&notice) {
                    break;
                }
            }
            while !world.faults_left().is_empty() {
                tokio::task::yield_now().await;
            }
            run.stop(stop);
        }
        let (report, _) = finish(run).await;
        assert_ne!(report.outcome, Outcome::Succeeded);
        assert_eq!(world.order(), ["members", "restart@n4"], "the rest didn't start");

        // What would be chosen now doesn't count.
        world.put("members", "n1");
        let (report, events) = finish(resume(&engine, folder.path(), &report.run)).await;
        assert_eq!(report.outcome, Outcome::Succeeded);
        assert!(chosen(&events).is_empty(), "it was not chosen again");
        let order = world.order();
        assert_eq!(order[1..], ["restart@n4", "restart@n2", "restart@n1", "restart@n3", "after"]);

        // The events alone give the same state.
        let records = store(folder.path()).events(&report.run).unwrap();
        let again = plan_again(&engine, &report.run, folder.path());
        let replayed = RunState::replay(Arc::clone(again.shape()), records.iter().map(|r| &r.event)).unwrap();
        assert_eq!(replayed, report.state);
    }
}

fn plan_again(
    engine: &flow_core::engine::Engine,
    run: &flow_core::run::RunId,
    folder: &std::path::Path,
) -> Plan {
    let definition = store(folder).definition(run).unwrap();
    let definition = flow_core::engine::read_definition(run, &definition).unwrap();
    let key = store(folder).fingerprint_key().unwrap();
    Plan::pinned(definition, None, engine.registry(), key).unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test]
async fn hosts_that_cannot_be_chosen_fail_the_choice_and_nothing_is_started() {
    for (members, message) in [
        ("n1,n9", "`from` gives n9, which is not within its set"),
        ("n1,n2,n1", "`from` gives n1 twice"),
        ("", "`from` gives , which is not within its set"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        let engine = engine(&world);
        let plan = plan(&engine, &restart(members, "retries = 3"), &NODES);
        let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
        assert_eq!(report.outcome, Outcome::Failed);
        let (task, error) = &report.failures[0];
        assert_eq!((task.as_str(), error.message.as_str()), ("restart:hosts", message));
        assert_eq!(world.order(), ["members"]);
        let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
        assert_eq!(report.failures[0].1.message, message, "it is tried again, with what was recorded");
    }
}

#[tokio::test]
async fn batches_are_made_of_what_is_chosen_and_failures_may_be_let_by() {
    let more = "serial = \"50%\"\nmax_failures = 2";
    for (failing, expected) in [
        (&["restart@n4"][..], &["members", "restart@n2", "restart@n1", "restart@n3"][..]),
        (&["restart@n4", "restart@n2"], &["members"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        failing.iter().for_each(|thing| world.fault(thing, &[Fault::Fail]));
        let engine = engine(&world);
        let plan = plan(&engine, &restart("n4,n2,n1,n3", more), &NODES);
        let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
        assert_eq!(report.outcome, Outcome::Failed);
        let mut order = world.order();
        order.sort();
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(order, expected);
        let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
        assert_eq!(report.outcome, Outcome::Succeeded);
        assert_eq!(world.total(), 6, "each thing was done once");
    }
}

#[tokio::test]
async fn none_may_be_chosen_and_a_step_whose_condition_is_false_chooses_none() {
    for (members, more) in [("", "if = \"host.name == 'n1'\""), ("nobody", "if = \"params.broken\"")] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        let engine = engine(&world);
        let text = restart(members, more)
            .replace("split(',') }}\"", "split(',') | reject('equalto', '') | list }}\"");
        let plan = plan(&engine, &text, &NODES);
        let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.failures);
        let skipped = report.state.in_state(TaskState::Skipped).count();
        assert!(skipped >= 4);
        assert_eq!(world.there()["after"], "");
    }
}

#[tokio::test]
async fn a_workflow_as_a_step_and_its_items_follow_the_order() {
    let outer = restart("n2,n1", "serial = 1\nforeach = [\"a\", \"b\"]")
        .replacen("uses = \"make\"\nneeds = [\"members\"]", "uses = \"workflow\"\nneeds = [\"members\"]", 1)
        .replace(
            "with = { thing = \"restart\", value = \"1\" }",
            "with = { file = \"one.toml\", params = { what = \"{{ item }}\" } }",
        );
    let one = r#"
name = "one"
summary = "s"
[params.what]
type = "string"
[steps.stop]
uses = "make"
with = { thing = "stop-{{ params.what }}" }
[steps.start]
uses = "make"
needs = ["stop"]
with = { thing = "start-{{ params.what }}" }
"#;
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let file = |text: &str, name: &str| BundledFile { display: name.to_owned(), text: text.to_owned() };
    let files = BTreeMap::from([
        ("outer.toml".to_owned(), file(&outer, "outer.toml")),
        ("one.toml".to_owned(), file(one, "one.toml")),
    ]);
    let request = Request {
        bundle: Bundle { root: "outer.toml".to_owned(), files },
        inventory: inventory(&["n1", "n2", "n3"]),
        inputs: Inputs::default(),
        filter: Filter::default(),
    };
    let plan = Plan::new(request, engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan.len(), 1 + 1 + 3 * 2 * 2 + 1);
    let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.failures);
    let order = world.order();
    let hosts: Vec<&str> =
        order.iter().filter_map(|thing| thing.split_once('@').map(|(_, host)| host)).collect();
    assert_eq!(hosts, ["n2", "n2", "n2", "n2", "n1", "n1", "n1", "n1"]);
    let skipped = |name: &str| {
        let node = report.state.shape().node(&TaskName::from_text(name)).unwrap();
        report.state.task(node) == TaskState::Skipped
    };
    assert!(skipped("restart[a]/stop@n3") && skipped("restart[b]/start@n3"));
}

#[tokio::test]
async fn the_hosts_that_a_limit_leaves_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.put("members", "n4,n3,n2,n1");
    let engine = engine(&world);
    let text = restart("n4,n3,n2,n1", "serial = 1\ntags = [\"restart\"]");
    let mut request = request(&text, &NODES, &[]);
    request.filter = Filter { limit: Some("n1:n3".to_owned()), tags: ["restart".to_owned()].into() };
    let plan = Plan::new(request, engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(names(&plan), ["members", "restart:hosts", "restart@n1", "restart@n3"]);
    let (report, events) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", report.failures);
    assert_eq!(world.order(), ["restart@n3", "restart@n1"]);
    assert_eq!(chosen(&events), [["n4", "n3", "n2", "n1"]]);
}

#[tokio::test]
async fn a_plan_tells_the_order_or_after_which_step_it_is_known() {
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let text = restart("n3,n1", "serial = 1");
    let of = |preview: &flow_core::engine::Preview, name: &str| {
        preview.tasks.iter().find(|task| task.name.as_str() == name).unwrap().finding.clone()
    };
    let preview = engine.preview(plan(&engine, &text, &NODES)).await;
    let within = NODES.map(str::to_owned).to_vec();
    match of(&preview, "restart:hosts") {
        Finding::HostsKnownAfter { step, within: set } => {
            assert_eq!((step.as_str(), set), ("members", within));
        }
        other => panic!("{other:?}"),
    }
    world.put("members", "n3,n1");
    let preview = engine.preview(plan(&engine, &text, &NODES)).await;
    assert!(matches!(of(&preview, "restart:hosts"), Finding::Hosts(hosts) if hosts == ["n3", "n1"]));
    assert!(matches!(of(&preview, "restart@n3"), Finding::Pending(_)));
    assert!(matches!(of(&preview, "restart@n2"), Finding::Skipped(_)));
    assert!(preview.has_changes() && !preview.has_errors());
}
