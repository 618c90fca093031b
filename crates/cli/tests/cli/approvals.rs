//! Approvals: given at a terminal, or by another process, while the run waits or while nobody works on it.

use insta::assert_snapshot;

use crate::support::Place;

fn workflow(place: &Place) {
    place.file(
        "gated.toml",
        r#"
name = "gated"
summary = "Asks before it goes on."
[steps.aside]
uses = "command"
hosts = "web[1]"
with = { script = "touch DIR/aside", creates = "DIR/aside" }
[steps.ask]
uses = "approval"
with = { message = "web1 is drained: go on?" }
[steps.after]
uses = "command"
needs = ["ask"]
hosts = "web[0]"
with = { script = "echo {{ steps.ask.by }} >DIR/after", creates = "DIR/after" }
"#,
    );
}

#[test]
fn a_run_without_a_terminal_waits_and_says_how_to_approve_and_another_process_does() {
    let place = Place::new();
    workflow(&place);
    let running = place.start("run gated.toml");
    running.wait_to_say("flow approve");
    place.wait_for("aside");
    let run = place.newest();
    assert_snapshot!(place.flow("runs").exits(0), @r#"
    $ flow runs
    1| RUN  WHEN  running       gated  waits for approval: ask
    exit 0
    "#);
    assert_eq!(place.runs()[0]["waits_for_approval"][0], "ask");
    let shown = place.flow("show").exits(0);
    assert!(shown.out.contains("asked") && shown.out.contains("approve with: flow approve"), "{}", shown.out);
    assert!(!place.has("after"));

    place.flow(&format!("approve {run} after@web1")).exits(3).says("these do: ask");
    assert_snapshot!(place.flow(&format!("approve {run}")).exits(0), @r#"
    $ flow approve RUN
    1| approved: ask of run RUN: web1 is drained: go on?
    exit 0
    "#);
    let ended = running.ended().exits(0);
    assert!(ended.err.contains("approved ask"), "{}", ended.err);
    let by = std::fs::read_to_string(place.path("after")).unwrap();
    assert!(by.starts_with("tester@"), "{by}");
    let shown = place.flow("show").exits(0);
    assert!(shown.out.contains("ask approved by tester@"), "{}", shown.out);
    place.flow(&format!("approve {run}")).exits(3).says("waits for no approval");
}

#[test]
fn the_wait_survives_sigkill_and_what_was_approved_meanwhile_is_found() {
    let place = Place::new();
    workflow(&place);
    let running = place.start("run gated.toml");
    running.wait_to_say("flow approve");
    running.signal("KILL");
    running.ended().exits(-1);
    let run = place.newest();
    assert_eq!(place.runs()[0]["waits_for_approval"][0], "ask");
    place.flow(&format!("approve {run} ask")).exits(0).says("no process works on the run");
    place.flow(&format!("approve {run} ask")).exits(3).says("was answered already, by tester@");
    assert!(!place.has("after"), "an approval starts nothing by itself");
    place.flow("resume").exits(0);
    assert!(place.has("after"));
}

#[test]
fn ctrl_c_while_it_waits_leaves_a_run_that_can_be_gone_on_with_and_a_rejection_ends_it() {
    let place = Place::new();
    workflow(&place);
    let running = place.start("run gated.toml");
    running.wait_to_say("flow approve");
    place.wait_for("aside");
    running.wait_to_say("changed  aside");
    running.signal("INT");
    assert_snapshot!(running.ended().exits(130), @r#"
    $ flow run gated.toml
    2| run RUN: gated, 3 tasks
    2| approval ask         web1 is drained: go on?
    2|                      answer with: flow approve RUN ask (--reject to refuse)
    2| changed  aside@web2  run: touch DIR/aside
    2| stopping: nothing new is started, what runs may finish; Ctrl-C again stops at once
    2|
    2| waits for approval: ask
    2|   flow approve RUN ask
    2| not started: after@web1
    2| go on with: flow resume RUN
    1| gated interrupted in SECONDS: 1 changed, 0 ok
    exit 130
    "#);
    let run = place.newest();
    place.flow(&format!("approve {run} --reject --reason tomorrow")).exits(0);
    let ended = place.flow("resume").exits(1);
    assert_snapshot!(ended, @r#"
    $ flow resume
    2| run RUN: gated, 3 tasks, going on: 1 done before
    2| approval ask         web1 is drained: go on?
    2|                      answer with: flow approve RUN ask (--reject to refuse)
    2| rejected ask         by PERSON: tomorrow
    2|
    2| failed: ask: rejected by PERSON: tomorrow
    2| hint: `flow resume` asks again
    2|
    2| not started: after@web1
    2| go on with: flow resume RUN
    1| gated failed in SECONDS: 0 changed, 0 ok, 1 failed
    exit 1
    "#);
    assert!(!place.has("after"));
    // Asked again, and answered.
    let again = place.start("resume");
    again.wait_to_say("flow approve");
    place.flow(&format!("approve {run}")).exits(0);
    again.ended().exits(0);
}

#[test]
fn at_a_terminal_it_is_asked_below_what_goes_on() {
    let place = Place::new();
    workflow(&place);
    let mut running = place.start_on_a_terminal("run gated.toml");
    running.wait_to_write("Approve ask? Type yes, or no and the reason:");
    running.types("maybe");
    running.types("yes");
    let ended = running.ended().exits(0);
    assert_eq!(ended.out.matches("Approve ask?").count().min(2), 2, "asked again:\n{}", ended.out);
    assert!(place.has("after"));

    std::fs::remove_file(place.path("after")).unwrap();
    let mut running = place.start_on_a_terminal("run gated.toml");
    running.wait_to_write("Approve ask?");
    running.types("no not while the backup runs");
    let ended = running.ended().exits(1);
    assert!(ended.out.contains("not while the backup runs"), "{}", ended.out);
    assert!(!place.has("after"));
}

#[test]
fn a_plan_shows_the_gate() {
    let place = Place::new();
    workflow(&place);
    assert_snapshot!(place.flow("plan gated.toml").exits(2), @r#"
    $ flow plan gated.toml
    2| gated: Asks before it goes on.
    2|
    2| gated: 1 task to change, 1 known only later; nothing was changed yet
    2| can't be taken back: aside: the step has no `undo`
    2| can't be taken back: after: the step has no `undo`
    1| change   aside@web2  run: touch DIR/aside
    1| gate     ask         waits for approval: web1 is drained: go on?
    1| later    after@web1  known after ask
    exit 2
    "#);
}

#[test]
fn an_approval_stands_in_no_way_of_taking_back() {
    let place = Place::new();
    place.file(
        "file.toml",
        r#"
name = "file"
summary = "Writes a file once somebody said so."
on_failure = "unwind"

[steps.ask]
uses = "approval"
with = { message = "go on?" }

[steps.write]
uses = "file"
hosts = "web1"
needs = ["ask"]
with = { path = "DIR/written", content = "a\n" }
"#,
    );
    let running = place.start("run file.toml");
    running.wait_to_say("flow approve");
    place.flow(&format!("approve {}", place.newest())).exits(0);
    running.ended().exits(0);
    assert!(place.has("written"));
    place.flow("undo --yes").exits(0);
    assert!(!place.has("written"));
}
