//! Hosts that don't answer.

use insta::assert_snapshot;

use crate::support::Place;

const TWO: &str = r#"
name = "two"
summary = "Two steps on every host."
[steps.first]
uses = "command"
hosts = "all"
with = { script = "true", repeatable = true }
[steps.second]
uses = "command"
needs = ["first"]
hosts = "all"
with = { script = "true", repeatable = true }
"#;

/// A port of this machine on which nothing listens.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn place() -> (Place, String) {
    let place = Place::new();
    let port = closed_port();
    let dead = format!("dead1 ansible_host=127.0.0.1 ansible_port={port}");
    place.file("inventory.ini", &format!("[web]\n{}{dead}\n", place.local_host("web1")));
    place.file("two.toml", TWO);
    (place, format!("127.0.0.1:{port}"))
}

#[test]
fn a_host_that_does_not_answer_fails_its_tasks_by_name_and_address_and_others_go_on() {
    let (place, address) = place();
    let ran = place.flow("run two.toml").exits(1);
    assert_snapshot!(ran.to_string().replace(&address, "ADDRESS"), @r#"
    $ flow run two.toml
    2| run RUN: two, 4 tasks
    2| failed   first@dead1   dead1 (ADDRESS) can't be reached: connection refused
    2| changed  first@web1    run: true
    2|
    2| failed: first@dead1: dead1 (ADDRESS) can't be reached: connection refused
    2|
    2| not started: second@web1, second@dead1
    2| go on with: flow resume RUN
    1| two failed in SECONDS: 1 changed, 0 ok, 1 failed
    exit 1
    "#);
}

#[test]
fn what_fails_for_one_cause_is_told_once_with_all_its_tasks() {
    let (place, address) = place();
    place.file("two.toml", &TWO.replace("needs = [\"first\"]", ""));
    let ran = place.flow("run two.toml").exits(1);
    let cause = format!("dead1 ({address}) can't be reached: connection refused");
    assert!(ran.err.contains(&format!("first@dead1, second@dead1: {cause}")), "{}", ran.err);
    assert_eq!(ran.err.matches("failed[flow::unreachable]:").count(), 1, "{}", ran.err);
}

#[test]
fn a_workflow_that_is_only_right_as_a_whole_is_not_begun_without_a_host() {
    let (place, address) = place();
    place.file("two.toml", &format!("whole = true\n{TWO}"));
    let ran = place.flow("run two.toml").exits(3);
    assert_snapshot!(ran.to_string().replace(&address, "ADDRESS"), @r#"
    $ flow run two.toml
    2| run RUN: two, 4 tasks
    2| error: dead1 (ADDRESS) can't be reached: connection refused; nothing was changed
    exit 3
    "#);
    assert_eq!(place.runs()[0]["status"], "refused");
}

#[test]
fn a_plan_shows_which_host_can_t_be_looked_at() {
    let (place, address) = place();
    let ran = place.flow("plan two.toml").exits(1);
    assert_snapshot!(ran.to_string().replace(&address, "ADDRESS"), @r#"
    $ flow plan two.toml
    2| two: Two steps on every host.
    2|
    2| two: 2 of 4 tasks can't go ahead as things are; nothing was changed
    1| change   first@web1    run: true
    1| error    first@dead1   dead1 (ADDRESS) can't be reached: connection refused (and so 1 more of its tasks)
    1| change   second@web1   run: true
    exit 1
    "#);
}

#[test]
fn a_run_of_diagnose_finds_what_the_command_finds_also_where_a_host_does_not_answer() {
    let (place, address) = place();
    let inventory = std::fs::read_to_string(place.path("inventory.ini")).unwrap();
    place.file("inventory.ini", &inventory.replace("[web]", "[haproxy]\ndead1\n[promoters]"));
    let told = place.flow("diagnose --output json").exits(2).document();
    let problems = told["problems"].as_array().unwrap();
    let is_told = |words: &str| problems.iter().any(|problem| problem.to_string().contains(words));
    assert!(is_told("web1") && is_told(&format!("dead1 ({address}) can't be reached")), "{told}");
    let ran = place.flow("run diagnose.toml --output json").exits(0);
    let result: serde_json::Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    let outputs = &result["outputs"];
    assert_eq!((&outputs["findings"], &outputs["healthy"]), (&told["problems"], &false.into()));
    assert_eq!((&outputs["verdict"], &outputs["evidence"]), (&told["verdict"], &told["evidence"]));
}
