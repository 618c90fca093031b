//! Going on with a run.

use insta::assert_snapshot;

use crate::run::{FAILS, MAKE};
use crate::support::Place;

#[test]
fn resume_goes_on_with_the_newest_open_run_and_repeats_nothing() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    place.file("make.toml", MAKE);
    place.flow("run fill.toml").exits(1);
    place.flow("run make.toml").exits(0);
    place.file("room", "");
    let resumed = place.flow("resume").exits(0);
    assert_snapshot!(resumed, @r#"
    $ flow resume
    2| run RUN: fill, 9 tasks, going on: 5 done before
    2| changed  second@web2  run: test web2 != web2 || test -e DIR/room || { echo 'no room' >&2; echo 'it is full' >&2; exit 7; }
    2| changed  third@web1   run: true
    2| changed  third@web2   run: true
    2| changed  third@web3   run: true
    1| fill succeeded in SECONDS: 4 changed, 0 ok
    exit 0
    "#);
    assert_eq!(std::fs::read_to_string(place.path("first-web1")).unwrap(), "x\n");
    let nothing = place.flow("resume").exits(3);
    assert_snapshot!(nothing, @r#"
    $ flow resume
    2| error: there is no run to go on with
    2| hint: `flow runs` lists the runs
    exit 3
    "#);
}

#[test]
fn a_run_is_named_by_any_unique_beginning_of_its_id() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    place.flow("run fill.toml").exits(1);
    let id = place.newest();
    place.file("room", "");
    place.flow(&format!("resume {}", &id[..4])).exits(0);
    let ended = place.flow(&format!("resume {id}")).exits(3);
    assert_snapshot!(ended, @r#"
    $ flow resume RUN
    2| error: run RUN has ended: succeeded
    2| hint: `flow show RUN` shows it; `flow run` starts a new one
    exit 3
    "#);
    place.flow("resume nosuch").exits(3).says("no run's id begins with `nosuch`");
}

#[test]
fn a_beginning_that_several_runs_share_is_refused_and_they_are_named() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.flow("run make.toml").exits(0);
    place.flow("run make.toml").exits(0);
    let ids: Vec<String> = place.runs().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect();
    // The empty beginning is every run's.
    let mut command = place.command("show");
    let ran = command.arg("").output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(3), "{said}");
    assert!(
        said.contains("2 runs begin with ``") && ids.iter().all(|id| said.contains(id.as_str())),
        "{said}"
    );
}

#[test]
fn the_command_to_go_on_names_the_store_that_was_named() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    let ran = place.flow("run fill.toml --store sqlite:here.db").exits(1);
    let go_on = ran.err.lines().find_map(|line| line.strip_prefix("go on with: flow ")).unwrap().to_owned();
    place.file("room", "");
    place.flow(&go_on).exits(0);
}

#[test]
fn an_edited_workflow_is_noted_and_the_run_goes_on_as_it_was_pinned() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    place.flow("run fill.toml").exits(1);
    place.file("room", "");
    place.file("fill.toml", &FAILS.replace("\"true\"", "\"touch DIR/edited\""));
    place.flow("resume").exits(0).says("fill.toml has changed since the run began");
    assert!(!place.has("edited"));
}

#[test]
fn a_second_process_on_the_same_run_is_refused() {
    let place = Place::new();
    place.file(
        "wait.toml",
        r#"
name = "wait"
summary = "Waits."
[steps.wait]
uses = "command"
hosts = "web[0]"
with = { script = "touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done", creates = "DIR/go" }
"#,
    );
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    let refused = place.flow("resume").exits(3);
    assert_snapshot!(refused, @r#"
    $ flow resume
    2| error: run RUN is being worked on by another process (OWNER)
    2| hint: wait for it, or end that process; `flow show RUN` tells its state
    exit 3
    "#);
    assert_eq!(place.runs()[0]["status"], "running");
    place.file("go", "");
    running.ended().exits(0);
}
