//! From documents to tasks: workflows as steps, conditions, filters, what is pinned.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::world::{World, engine, finish, inventory, names, plan, request, store};
use flow_core::engine::Engine;
use flow_core::plan::{Filter, Fingerprinter, Inputs, MadeSecret, NewSecrets, Plan, Request};
use flow_core::run::Outcome;
use flow_core::workflow::{Bundle, BundledFile};

const OUTER: &str = r#"
name = "outer"
summary = "Uses another workflow, once for each host."
[params.word]
type = "string"
default = "hello"
[steps.before]
uses = "make"
with = { thing = "before", value = "{{ params.word }}" }
[steps.restart]
uses = "workflow"
needs = ["before"]
hosts = "nodes"
serial = 1
tags = ["restart"]
with = { file = "inner.toml", params = { greeting = "{{ steps.before.value }}" } }
[steps.after]
uses = "make"
needs = ["restart"]
with = { thing = "after", value = "{{ steps.restart.hosts.n2.said }}" }
"#;

const INNER: &str = r#"
name = "inner"
summary = "Two steps on the host that it is used for."
[params.greeting]
type = "string"
[params.ending]
type = "string"
default = "{{ params.greeting }}!"
[steps.one]
uses = "make"
with = { thing = "one", value = "{{ params.ending }} {{ host.name }}" }
[steps.two]
uses = "make"
needs = ["one"]
if = "host.name != 'n1'"
with = { thing = "two", value = "{{ steps.one.value }}" }
[outputs]
said = "{{ steps.one.value }}"
"#;

fn nested(hosts: &[&str], filter: Filter) -> Request {
    let file = |text: &str, name: &str| BundledFile { display: name.to_owned(), text: text.to_owned() };
    let files = BTreeMap::from([
        ("outer.toml".to_owned(), file(OUTER, "outer.toml")),
        ("inner.toml".to_owned(), file(INNER, "inner.toml")),
    ]);
    Request {
        bundle: Bundle { root: "outer.toml".to_owned(), files },
        inventory: inventory(hosts),
        inputs: Inputs::default(),
        filter,
    }
}

fn nested_plan(engine: &Engine, filter: Filter) -> Plan {
    Plan::new(nested(&["n1", "n2"], filter), engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test]
async fn a_workflow_as_a_step_runs_once_for_each_host_and_leaves_its_declared_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let plan = nested_plan(&engine, Filter::default());
    assert_eq!(
        names(&plan),
        ["before", "restart/one@n1", "restart/two@n1", "restart/one@n2", "restart/two@n2", "after"]
    );
    let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    let there = world.there();
    assert_eq!(there["two@n2"], "hello! n2");
    assert!(!there.contains_key("two@n1"), "its condition was false");
    assert_eq!(there["after"], "hello! n2");
    assert_eq!(world.order(), ["before", "one@n1", "one@n2", "two@n2", "after"], "one host after the other");
}

#[test]
fn what_is_filtered_out_but_needed_must_hold_and_the_rest_is_left_out() {
    let engine = engine(&Arc::new(World::default()));
    let tags = Filter { tags: ["restart".to_owned()].into(), ..Filter::default() };
    let plan = nested_plan(&engine, tags);
    let must_hold: Vec<String> =
        plan.tasks().iter().filter(|task| task.must_hold).map(|task| task.name.to_string()).collect();
    assert_eq!(must_hold, ["before"]);
    assert!(!names(&plan).contains(&"after".to_owned()));
    let limit = Filter { limit: Some("n2".to_owned()), ..Filter::default() };
    let plan = nested_plan(&engine, limit);
    let must_hold: Vec<String> =
        plan.tasks().iter().filter(|task| task.must_hold).map(|task| task.name.to_string()).collect();
    assert_eq!(must_hold, ["restart/one@n1", "restart/two@n1"]);
}

/// What `inherits.toml` takes its params from, and includes.
const OWNER: &str = r#"
name = "owner"
summary = "Has params, and steps with tags."
[params.word]
type = "string"
default = "hello"
help = "What is said."
[params.answer]
type = "string"
default = "{{ params.word }}!"
[params.count]
type = "integer"
default = 1
choices = [1, 2]
[steps.base]
uses = "make"
with = { thing = "base", value = "{{ params.word }}" }
[steps.said]
uses = "make"
needs = ["base"]
tags = ["say"]
with = { thing = "said", value = "{{ params.answer }} {{ params.count }}" }
[steps.aside]
uses = "make"
needs = ["said"]
with = { thing = "aside", value = "done" }
[steps.proof]
uses = "workflow"
needs = ["aside"]
tags = ["prove"]
with = { file = "proof.toml" }
[steps.always]
uses = "make"
tags = ["always"]
with = { thing = "always", value = "done" }
[outputs]
said = "{{ steps.said.value }}"
"#;

const PROOF: &str = r#"
name = "proof"
summary = "A step without a tag."
[steps.look]
uses = "make"
with = { thing = "look", value = "done" }
"#;

/// A workflow with the params of [`OWNER`], of which it includes the steps with these tags.
fn inheriting(engine: &Engine, with: &str, set: &[(&str, &str)]) -> Result<Plan, String> {
    let file = |text: &str, name: &str| BundledFile { display: name.to_owned(), text: text.to_owned() };
    let text = format!(
        r#"
name = "inherits"
summary = "Has another workflow's params, and one of its own."
params_from = "owner.toml"
[params.own]
type = "string"
default = "{{{{ params.answer }}}}"
[params.answer]
type = "string"
default = "{{{{ params.word }}}}?"
[steps.first]
uses = "make"
with = {{ thing = "first", value = "{{{{ params.own }}}}" }}
[steps.deploy]
uses = "workflow"
needs = ["first"]
with = {{ file = "owner.toml", {with} }}
[steps.last]
uses = "make"
needs = ["deploy"]
with = {{ thing = "last", value = "{{{{ steps.deploy.said | default('nothing') }}}}" }}
"#
    );
    let files = [("inherits.toml", &*text), ("owner.toml", OWNER), ("proof.toml", PROOF)];
    let request = Request {
        bundle: Bundle {
            root: "inherits.toml".to_owned(),
            files: files.map(|(name, text)| (name.to_owned(), file(text, name))).into(),
        },
        inventory: inventory(&["n1"]),
        inputs: Inputs::new(set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))),
        filter: Filter::default(),
    };
    Plan::new(request, engine.registry(), [7; 32]).map_err(|wrong| format!("{wrong:?}"))
}

#[tokio::test]
async fn params_that_are_taken_over_are_given_on_and_own_ones_go_before() {
    for (set, with, said) in [
        (&[][..], "", "hello? 1"),
        (&[("word", "good day"), ("count", "2")], "", "good day? 2"),
        (&[("answer", "yes")], "params = { count = 2 }", "yes 2"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        let engine = engine(&world);
        let plan = inheriting(&engine, with, set).unwrap();
        let again = Plan::pinned(plan.definition.clone(), None, engine.registry(), [7; 32]).unwrap();
        assert_eq!(names(&again), names(&plan));
        let order: Vec<&String> = plan.definition.params.keys().collect();
        assert_eq!(order, ["word", "answer", "count", "own"], "the other one's stand before its own");
        let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
        assert_eq!(report.outcome, Outcome::Succeeded);
        let there = world.there();
        assert_eq!(there["said"], said);
        assert_eq!(there["first"], said.rsplit_once(' ').unwrap().0);
        assert_eq!(there["last"], said);
    }
    let engine = engine(&Arc::new(World::default()));
    let wrong = inheriting(&engine, "", &[("count", "3")]).err().unwrap();
    assert!(wrong.contains("`count` can't be 3") && wrong.contains("owner.toml"), "{wrong}");
}

#[tokio::test]
async fn of_an_included_workflow_only_the_steps_with_its_tags_run_and_what_they_need_must_hold() {
    let plan = |engine: &Engine, tags: &str| inheriting(engine, &format!("tags = [{tags}]"), &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let must_hold = |plan: &Plan| -> Vec<String> {
        plan.tasks().iter().filter(|task| task.must_hold).map(|task| task.name.to_string()).collect()
    };
    let say = plan(&engine, "'say'");
    assert_eq!(names(&say), ["first", "deploy/base", "deploy/said", "deploy/always", "last"]);
    assert_eq!(must_hold(&say), ["deploy/base"]);
    let again = Plan::pinned(say.definition.clone(), None, engine.registry(), [7; 32]).unwrap();
    assert_eq!((names(&again), must_hold(&again)), (names(&say), must_hold(&say)));
    let prove = plan(&engine, "'prove'");
    assert_eq!(must_hold(&prove), ["deploy/base", "deploy/said", "deploy/aside"]);
    assert!(
        names(&prove).contains(&"deploy/proof/look".to_owned()),
        "it has the tag of the step that includes it"
    );
    let both = inheriting(&engine, "tags = ['say', 'prove']", &[]).unwrap();
    assert_eq!(must_hold(&both), ["deploy/base", "deploy/aside"]);

    // What must hold and doesn't stops what needs it, and the next action is told.
    let (report, events) = finish(engine.start(say, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed);
    let told = format!("{events:?}");
    assert!(told.contains("run `owner.toml` first; here only its steps with the tags say are run"), "{told}");
    assert_eq!(world.order(), ["first", "always"]);
    world.put("base", "hello");
    let folder = tempfile::tempdir().unwrap();
    let say = plan(&engine, "'say'");
    let (report, _) = finish(engine.start(say, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(
        world.there()["last"],
        "hello? 1",
        "what needs the step goes on once the chosen steps have ended"
    );
}

#[test]
fn a_plan_made_again_from_what_was_pinned_is_the_same() {
    let engine = engine(&Arc::new(World::default()));
    let first = nested_plan(&engine, Filter::default());
    let text = serde_json::to_string(&first.definition).unwrap();
    let again = Plan::pinned(serde_json::from_str(&text).unwrap(), None, engine.registry(), [7; 32])
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(names(&first), names(&again));
    assert_eq!(format!("{:?}", first.drawing()), format!("{:?}", again.drawing()));
    assert_eq!(first.definition, again.definition);
}

#[test]
fn a_secret_is_pinned_by_its_source_and_fingerprint_and_another_one_is_refused() {
    let text = r#"
name = "secret"
summary = "s"
[params.password]
type = "secret"
default = "{{ group_var('nodes', 'db_password') }}"
[steps.a]
uses = "make"
hosts = "nodes"
with = { thing = "a", value = "{{ params.password }}" }
"#;
    let engine = engine(&Arc::new(World::default()));
    let with_password = |password: &str| {
        let mut request = request(text, &["n1"], &[]);
        let host = flow_core::inventory::Host {
            name: "n1".to_owned(),
            vars: serde_json::Map::from_iter([("db_password".to_owned(), password.into())]),
            ..Default::default()
        };
        request.inventory.hosts.insert("n1".to_owned(), host.into());
        request
    };
    let key = [7; 32];
    let plan =
        Plan::new(with_password("correct horse"), engine.registry(), key).unwrap_or_else(|e| panic!("{e}"));
    let pinned = serde_json::to_string(&plan.definition).unwrap();
    assert!(!pinned.contains("correct horse"), "{pinned}");
    assert!(pinned.contains(&Fingerprinter::new(key).of("correct horse")));
    assert_eq!(plan.redactor.text("a correct horse"), "a ••••••");

    let again = |password: &str| {
        let now = with_password(password).inventory;
        Plan::pinned(serde_json::from_str(&pinned).unwrap(), Some(&now), engine.registry(), key).map(|_| ())
    };
    again("correct horse").unwrap_or_else(|e| panic!("{e}"));
    let refused = again("battery staple").unwrap_err().to_string();
    assert!(refused.contains("`db_password` of n1 has changed"), "{refused}");

    let weak = Plan::new(with_password("nodes"), engine.registry(), key).map(|_| ()).unwrap_err().to_string();
    assert!(weak.contains("too easy to guess"), "{weak}");

    // Taken all the same it is named, and not masked: it stands elsewhere as a plain word.
    let mut request = with_password("nodes");
    request.inputs.allow_weak = true;
    let plan = Plan::new(request, engine.registry(), key).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan.weak_secrets, ["password"]);
    assert_eq!(plan.redactor.text("all nodes"), "all nodes");
    let pinned = serde_json::to_value(&plan.definition).unwrap();
    assert!(pinned["params"]["password"]["value"].is_null(), "{pinned}");
    let now = with_password("nodes").inventory;
    let again = Plan::pinned(serde_json::from_value(pinned).unwrap(), Some(&now), engine.registry(), key);
    assert_eq!(again.unwrap_or_else(|e| panic!("{e}")).weak_secrets, ["password"]);
}

#[test]
fn a_secret_that_nobody_gave_is_made_once_and_read_again_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("secrets/n/password");
    let text = r#"
name = "made"
summary = "s"

[params.name]
type = "string"
default = "n"

[params.password]
type = "secret"
default = "{{ hostvars['n1'].db_password | default('') }}"
generate = "FOLDER/secrets/{{ params.name }}/password"

[steps.use]
uses = "make"
hosts = "all"
with = { thing = "a", value = "{{ params.password }}" }
"#
    .replace("FOLDER", &folder.path().display().to_string());
    let engine = engine(&Arc::new(World::default()));
    let plan = |change: &dyn Fn(&mut Request)| {
        let mut request = request(&text, &["n1"], &[]);
        change(&mut request);
        Plan::new(request, engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"))
    };
    // A plan that is only drawn makes none, and a password that was given isn't made.
    assert!(plan(&|request| request.inputs.secrets = NewSecrets::OfNames).made_secrets.is_empty());
    let given = plan(&|request| {
        let vars = serde_json::Map::from_iter([("db_password".to_owned(), "correct horse".into())]);
        let host = flow_core::inventory::Host { name: "n1".to_owned(), vars, ..Default::default() };
        request.inventory.hosts.insert("n1".to_owned(), host.into());
    });
    assert!(given.made_secrets.is_empty() && !kept.exists());

    let first = plan(&|_| ());
    assert_eq!(first.made_secrets, [MadeSecret { param: "password".to_owned(), path: kept.clone() }]);
    let password = std::fs::read_to_string(&kept).unwrap();
    assert!(plan(&|_| ()).made_secrets.is_empty());
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), password);
    assert_eq!(first.redactor.text(&format!("a {}", password.trim())), "a ••••••");

    let pinned = serde_json::to_string(&first.definition).unwrap();
    assert!(!pinned.contains(password.trim()));
    let again =
        || Plan::pinned(serde_json::from_str(&pinned).unwrap(), None, engine.registry(), [7; 32]).map(|_| ());
    again().unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(&kept, "another one\n").unwrap();
    assert!(again().unwrap_err().to_string().contains("the secret `password` is another one"));
    std::fs::remove_file(&kept).unwrap();
    assert!(again().unwrap_err().to_string().contains("password can't be read"));
}

#[test]
fn ten_thousand_steps_in_a_row_are_planned_in_proportion() {
    // No time is asserted; what grows with the square would keep the test from ending.
    let mut text = String::from("name = \"long\"\nsummary = \"s\"\n");
    for n in 0..10_000 {
        let needs = if n == 0 { String::new() } else { format!("needs = [\"s{}\"]\n", n - 1) };
        text.push_str(&format!("[steps.s{n}]\nuses = \"make\"\n{needs}with = {{ thing = \"t{n}\" }}\n"));
    }
    let engine = engine(&Arc::new(World::default()));
    assert_eq!(plan(&engine, &text, &[]).len(), 10_000);
}
