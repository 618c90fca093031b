//! `foreach`: one task for each item, under a name that stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::world::{Fault, World, engine, finish, inventory, names, plan, request, resume, store};
use flow_core::plan::{Filter, Inputs, Plan, Request};
use flow_core::run::{Outcome, TaskName};
use flow_core::workflow::{Bundle, BundledFile};

const DATABASES: &str = r#"
name = "databases"
summary = "Makes databases on each host, then counts them."
[params.names]
type = "list"
default = ["app", "a b"]
[steps.create]
uses = "make"
foreach = "{{ params.names }}"
hosts = "nodes"
with = { thing = "db-{{ item_index }}", value = "{{ item }} on {{ host.name }}" }
[steps.grant]
uses = "make"
needs_per_host = ["create"]
foreach = "{{ params.names }}"
hosts = "nodes"
with = { thing = "grant-{{ item_index }}", value = "{{ steps.create.items[item].value }}!" }
[steps.count]
uses = "make"
needs = ["create", "grant"]
with = { thing = "count", value = """{{ steps.create.hosts | join(',') }}:
{%- for host in groups.nodes %} {{ steps.create.hosts[host].items | join(',') }}{% endfor %}
{%- if steps.create.hosts %} {{ steps.create.hosts.n2.items['a b'].value }}{% endif %}""" }
"#;

#[tokio::test]
async fn each_item_has_its_task_and_its_outputs_are_found_by_item_and_host() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("db-1@n1", &[Fault::Fail]);
    let engine = engine(&world);
    let plan = plan(&engine, DATABASES, &["n1", "n2"]);
    assert_eq!(
        names(&plan),
        [
            "create[app]@n1",
            "create[a%20b]@n1",
            "create[app]@n2",
            "create[a%20b]@n2",
            "grant[app]@n1",
            "grant[a%20b]@n1",
            "grant[app]@n2",
            "grant[a%20b]@n2",
            "count"
        ]
    );
    let name = TaskName::from_text("create[a%20b]@n2");
    assert_eq!((name.step(), name.host()), ("create[a%20b]", Some("n2")));
    let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(world.count("grant-0@n1") + world.count("grant-1@n1"), 0, "its host isn't so far");
    assert_eq!(world.count("grant-0@n2"), 1);
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    let there = world.there();
    assert_eq!(there["grant-1@n1"], "a b on n1!");
    assert_eq!(there["count"], "n1,n2: app,a b app,a b a b on n2");
}

#[tokio::test]
async fn an_empty_list_passes_and_what_needs_it_still_waits_for_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.fault("before@n1", &[Fault::Fail]);
    let engine = engine(&world);
    let text = DATABASES.replace(
        "foreach = \"{{ params.names }}\"\nhosts = \"nodes\"\nwith = { thing = \"db",
        "\
        needs = [\"before\"]\nforeach = []\nhosts = \"nodes\"\nwith = { thing = \"db",
    ) + "[steps.before]\nuses = \"make\"\nhosts = \"nodes\"\nwith = { thing = \"before\" }\n";
    let text = text.replace("{{ steps.create.items[item].value }}", "{{ item }}");
    let (before, after) = text.split_once("value = \"\"\"").unwrap();
    let (_, after) = after.split_once("\"\"\"").unwrap();
    let text = format!(
        "{before}value = \"{{{{ steps.create.hosts | list }}}}{{{{ steps.create.items | list }}}}\"{after}"
    );
    let plan = plan(&engine, &text, &["n1", "n2"]);
    let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(world.total(), 1, "only before@n2");
    let (report, _) = finish(resume(&engine, folder.path(), &report.run)).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.there()["count"], "[][]");
}

#[tokio::test]
async fn serial_counts_hosts_with_all_their_items_and_items_where_there_are_no_hosts() {
    for (serial, hosts, expected) in [
        ("serial = 1", "hosts = \"nodes\"", vec![2, 2, 2]),
        ("serial = \"50%\"", "hosts = \"nodes\"", vec![2, 2, 2]),
        ("serial = \"67%\"", "hosts = \"nodes\"", vec![4, 2]),
        ("serial = 1", "", vec![1, 1]),
        ("serial = \"99%\"", "", vec![1, 1]),
        ("serial = 5", "", vec![2]),
    ] {
        let text = format!(
            "name = \"n\"\nsummary = \"s\"\n[steps.a]\nuses = \"make\"\nforeach = [\"x\", \"y\"]\n{hosts}\n{serial}\n\
             with = {{ thing = \"{{{{ item }}}}\" }}\n"
        );
        let engine = engine(&Arc::new(World::default()));
        let plan = plan(&engine, &text, &["n1", "n2", "n3"]);
        // How many tasks stand at each distance from the beginning.
        let shape = plan.shape();
        let mut depth = vec![0usize; shape.len()];
        let mut batches = BTreeMap::new();
        for node in 0..shape.len() as u32 {
            if shape.name(node).is_some() {
                *batches.entry(depth[node as usize]).or_insert(0) += 1;
            }
            for &after in shape.after(node) {
                depth[after as usize] = depth[after as usize].max(depth[node as usize] + 1);
            }
        }
        assert_eq!(batches.into_values().collect::<Vec<_>>(), expected, "{serial} {hosts}");
    }
}

#[tokio::test]
async fn a_workflow_as_a_step_is_used_once_for_each_item_and_passes_it_on() {
    let outer = r#"
name = "outer"
summary = "s"
[steps.each]
uses = "workflow"
foreach = [{ name = "one", hosts = "n1", parts = ["x", "y"] }, { name = "two", hosts = "n1:n2", parts = [] }]
serial = 1
with = { file = "inner.toml", params = { on = "{{ item.hosts }}", parts = "{{ item.parts }}", word = "{{ item.name }}" } }
[steps.after]
uses = "make"
needs = ["each"]
with = { thing = "after", value = "{{ steps.each.items.two.said }}" }
"#;
    let inner = r#"
name = "inner"
summary = "s"
[params.on]
type = "string"
[params.parts]
type = "list"
[params.word]
type = "string"
[steps.first]
uses = "make"
hosts = "{{ params.on }}"
with = { thing = "{{ params.word }}", value = "1" }
[steps.part]
uses = "make"
needs = ["first"]
foreach = "{{ params.parts }}"
with = { thing = "{{ params.word }}-{{ item }}" }
[outputs]
said = "{{ params.word }}{{ steps.first.hosts | length }}"
"#;
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let engine = engine(&world);
    let file = |text: &str, name: &str| BundledFile { display: name.to_owned(), text: text.to_owned() };
    let files = BTreeMap::from([
        ("outer.toml".to_owned(), file(outer, "outer.toml")),
        ("inner.toml".to_owned(), file(inner, "inner.toml")),
    ]);
    let request = Request {
        bundle: Bundle { root: "outer.toml".to_owned(), files },
        inventory: inventory(&["n1", "n2"]),
        inputs: Inputs::default(),
        filter: Filter::default(),
    };
    let plan = Plan::new(request, engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        names(&plan),
        [
            "each[one]/first@n1",
            "each[one]/part[x]",
            "each[one]/part[y]",
            "each[two]/first@n1",
            "each[two]/first@n2",
            "after"
        ]
    );
    let (report, _) = finish(engine.start(plan, store(folder.path()), None).unwrap()).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
    assert_eq!(world.there()["after"], "two2");
}

#[test]
fn limit_takes_the_items_of_the_hosts_that_are_left() {
    let engine = engine(&Arc::new(World::default()));
    let mut request = request(DATABASES, &["n1", "n2"], &[("names", "x")]);
    request.filter = Filter { limit: Some("n2".to_owned()), ..Filter::default() };
    let plan = Plan::new(request, engine.registry(), [7; 32]).unwrap_or_else(|e| panic!("{e}"));
    let run: Vec<&str> =
        plan.tasks().iter().filter(|task| !task.must_hold).map(|task| task.name.as_str()).collect();
    assert_eq!(run, ["create[x]@n2", "grant[x]@n2", "count"]);
}

#[test]
fn an_item_that_holds_a_secret_is_refused_since_names_are_shown() {
    let engine = engine(&Arc::new(World::default()));
    let text = "name = \"n\"\nsummary = \"s\"\n[steps.a]\nuses = \"make\"\n\
                foreach = \"{{ [hostvars.n1.db_password] }}\"\nwith = { thing = \"x\" }\n";
    let mut request = request(text, &["n1"], &[]);
    let host = flow_core::inventory::Host {
        name: "n1".to_owned(),
        vars: serde_json::Map::from_iter([("db_password".to_owned(), "correct horse".into())]),
        ..Default::default()
    };
    request.inventory.hosts.insert("n1".to_owned(), host.into());
    let refused = Plan::new(request, engine.registry(), [7; 32]).map(drop).unwrap_err().to_string();
    assert_eq!(refused, "item 1 holds a secret");
}
