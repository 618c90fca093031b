//! How many tasks are at work at once, and what is said once too many have failed.

use insta::assert_snapshot;

use crate::support::Place;

#[test]
fn once_so_many_have_failed_the_run_says_why_it_starts_nothing_new() {
    let place = Place::new();
    place.file(
        "few.toml",
        r#"
name = "few"
summary = "Stops with the first failure."
max_failures = 1
[steps.first]
uses = "command"
hosts = "web"
with = { script = "false", repeatable = true }
"#,
    );
    let ran = place.flow("run few.toml --concurrency 1").exits(1);
    assert_snapshot!(ran, @r#"
    $ flow run few.toml --concurrency 1
    2| run RUN: few, 3 tasks
    2| failed   first@web1  exit status 1
    2| note: a task failed, so nothing new is started (`max_failures` is 1)
    2|
    2| failed: first@web1: exit status 1
    2|
    2| not started: first@web2, first@web3
    2| go on with: flow resume RUN
    1| few failed in SECONDS: 0 changed, 0 ok, 1 failed
    exit 1
    "#);
}

#[test]
fn no_task_at_all_is_no_limit() {
    let place = Place::new();
    place.flow("run few.toml --concurrency 0").exits(64).says("expected a count from 1");
}
