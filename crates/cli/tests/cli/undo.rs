//! Taking a run back.

use insta::assert_snapshot;

use crate::support::Place;

/// A file, a command with an `undo`, and one that may stay; the last step needs the file `room`.
const MADE: &str = r#"
name = "made"
summary = "Makes this and that."

[steps.config]
uses = "file"
hosts = "web[0]"
with = { path = "DIR/etc/app.conf", content = "new\n", parents = true }

[steps.link]
uses = "command"
needs = ["config"]
hosts = "web[0]"
with = { script = "touch DIR/linked", creates = "DIR/linked", undo = "echo x >>DIR/undos; rm -f DIR/linked" }

[steps.log]
uses = "command"
needs = ["link"]
keep = true
hosts = "web[0]"
with = { script = "touch DIR/log", creates = "DIR/log" }

[steps.last]
uses = "command"
needs = ["log"]
hosts = "web[0]"
with = { script = "test -e DIR/room && touch DIR/last", creates = "DIR/last", undo = "rm -f DIR/last" }
"#;

fn made(text: &str) -> Place {
    let place = Place::new();
    place.file("made.toml", text);
    place.file("room", "");
    place
}

#[test]
fn what_would_be_taken_back_is_shown_and_nothing_is_done_without_a_yes() {
    let place = made(MADE);
    place.flow("run made.toml").exits(0);
    let asked = place.flow("undo").exits(3);
    assert_snapshot!(asked, @r#"
    $ flow undo
    2| run RUN (RUN), made, begun WHEN
    2| What it did, in the order in which it is taken back:
    2|   undo  last@web1    run: test -e DIR/room && touch DIR/last
    2|   keep  log@web1     as the workflow says
    2|   undo  link@web1    run: touch DIR/linked
    2|   undo  config@web1  create DIR/etc/app.conf
    2|
    2| error: not confirmed; nothing was changed
    2| hint: to go ahead: flow undo RUN --yes
    exit 3
    "#);
    assert!(place.has("linked") && place.has("etc/app.conf"));
    assert_eq!(place.runs()[0]["status"], "succeeded");
}

#[test]
fn a_run_is_taken_back_in_reverse_order_and_only_once() {
    let place = made(MADE);
    place.flow("run made.toml").exits(0);
    let undone = place.flow("undo --yes").exits(0);
    assert_snapshot!(undone, @r#"
    $ flow undo --yes
    2| run RUN (RUN), made, begun WHEN
    2| What it did, in the order in which it is taken back:
    2|   undo  last@web1    run: test -e DIR/room && touch DIR/last
    2|   keep  log@web1     as the workflow says
    2|   undo  link@web1    run: touch DIR/linked
    2|   undo  config@web1  create DIR/etc/app.conf
    2|
    2| run RUN: taking back made
    2| undone   last@web1    run: test -e DIR/room && touch DIR/last
    2| kept     log@web1     as the workflow says
    2| undone   link@web1    run: touch DIR/linked
    2| undone   config@web1  create DIR/etc/app.conf
    1| made taken back in SECONDS: 3 undone, 1 kept
    exit 0
    "#);
    assert!(
        !place.has("last") && !place.has("linked") && !place.has("etc"),
        "and the folder that was made for it"
    );
    assert!(place.has("log"), "the workflow says that it may stay");
    assert_eq!(place.runs()[0]["status"], "undone");
    let id = place.newest();
    place.flow(&format!("undo {id} --yes")).exits(3).says("has ended: undone");
    place.flow(&format!("resume {id}")).exits(3).says("has ended: undone");
    place.flow("undo --yes").exits(3).says("is taken back already");
    let shown = place.flow("show --output json").exits(0).document();
    let states: Vec<&str> =
        shown["tasks"].as_array().unwrap().iter().map(|task| task["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["undone", "undone", "kept", "undone"]);
}

#[test]
fn what_cannot_be_taken_back_is_named_and_can_be_left_as_it_is() {
    let place = made(&MADE.replace("keep = true\n", ""));
    place.flow("run made.toml").exits(0);
    place.flow("show").exits(0);
    let refused = place.flow("undo --yes").exits(3);
    assert_snapshot!(refused, @r#"
    $ flow undo --yes
    2| run RUN (RUN), made, begun WHEN
    2| What it did, in the order in which it is taken back:
    2|   undo  last@web1    run: test -e DIR/room && touch DIR/last
    2|   can't log@web1     the step has no `undo`
    2|   undo  link@web1    run: touch DIR/linked
    2|   undo  config@web1  create DIR/etc/app.conf
    2|
    2| error: run RUN can't be taken back as a whole; nothing was changed
    2|     log@web1: the step has no `undo`
    2| hint: --keep-impossible takes back the rest and leaves these as they are, --keep TASK one of them
    exit 3
    "#);
    assert!(place.has("last"));
    place.flow("undo --yes --keep nothing").exits(3).says("has no task `nothing`");
    place.flow("undo --yes --keep-impossible").exits(0);
    assert!(!place.has("linked") && place.has("log"));
}

#[test]
fn what_somebody_changed_since_stops_the_undo_and_is_left_as_it_is() {
    let place = made(MADE);
    place.flow("run made.toml").exits(0);
    place.file("etc/app.conf", "theirs\n");
    let stopped = place.flow("undo --yes").exits(1);
    assert_snapshot!(stopped, @r#"
    $ flow undo --yes
    2| run RUN (RUN), made, begun WHEN
    2| What it did, in the order in which it is taken back:
    2|   undo  last@web1    run: test -e DIR/room && touch DIR/last
    2|   keep  log@web1     as the workflow says
    2|   undo  link@web1    run: touch DIR/linked
    2|   undo  config@web1  create DIR/etc/app.conf
    2|
    2| run RUN: taking back made
    2| undone   last@web1    run: test -e DIR/room && touch DIR/last
    2| kept     log@web1     as the workflow says
    2| undone   link@web1    run: touch DIR/linked
    2| failed   config@web1  DIR/etc/app.conf was changed since: it is left as it is
    2|
    2| failed: config@web1: DIR/etc/app.conf was changed since: it is left as it is
    2| hint: see what was changed; `--keep TASK` leaves it so and takes back the rest
    2|
    2| go on with: flow undo RUN
    1| made not taken back, failed in SECONDS: 2 undone, 1 kept, 1 failed
    exit 1
    "#);
    place.flow("resume").exits(3).says("there is no run to go on with");
    let id = place.newest();
    place.flow(&format!("resume {id}")).exits(3).says("is being taken back: it can't be resumed");
    let shown = place.flow("show").exits(0);
    assert!(shown.out.contains("not undone") && shown.out.contains("go on with: flow undo"), "{}", shown.out);
    place.flow("undo --yes --keep config@web1").exits(0);
    assert_eq!(std::fs::read_to_string(place.path("etc/app.conf")).unwrap(), "theirs\n");
    assert_eq!(std::fs::read_to_string(place.path("undos")).unwrap(), "x\n", "nothing was taken back twice");
}

#[test]
fn an_undo_that_was_killed_is_waited_for_and_gone_on_with() {
    let waits = "rm -f DIR/linked; echo x >>DIR/begun; while ! test -e DIR/go; do sleep 0.02; done";
    let place = made(&MADE.replace("echo x >>DIR/undos; rm -f DIR/linked", waits));
    place.flow("run made.toml").exits(0);
    let running = place.start("undo --yes");
    place.wait_for("begun");
    running.signal("KILL");
    running.ended().exits(-1);
    assert_eq!(place.runs()[0]["status"], "killed");
    let again = place.start("undo --yes");
    again.wait_to_say("still at work");
    place.file("go", "");
    again.ended().exits(0);
    assert!(!place.has("linked") && !place.has("etc"));
}

#[test]
fn of_an_undo_that_was_killed_the_evidence_is_shown_and_goes_before_anyone_s_word() {
    let waits =
        "touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; rm -f DIR/linked; touch DIR/ended";
    let place = made(&MADE.replace("echo x >>DIR/undos; rm -f DIR/linked", waits));
    place.flow("run made.toml").exits(0);
    let running = place.start("undo --yes");
    place.wait_for("begun");
    running.signal("KILL");
    running.ended().exits(-1);
    let run = place.newest();
    assert_snapshot!(place.flow(&format!("resolve {run} link@web1")).exits(4), @r"
    $ flow resolve RUN link@web1
    1| link@web1 of run RUN, attempt 2
    1|   it was to undo:   run: touch DIR/linked
    1|   on its host now:  a process of it is at work
    1|
    1| wait for its end, or end it on the host; `flow undo` waits for it too
    exit 4
    ");
    place.flow(&format!("resolve {run} link@web1 --done")).exits(3).says("still at work");
    place.file("go", "");
    place.wait_for("ended");
    // The shell that made the file may not have ended yet.
    while place.flow(&format!("resolve {run} link@web1")).out.contains("a process of it") {}
    assert_snapshot!(place.flow(&format!("resolve {run} link@web1")).exits(0), @r"
    $ flow resolve RUN link@web1
    1| link@web1 of run RUN, attempt 2
    1|   it was to undo:   run: touch DIR/linked
    1|   on its host now:  nothing of it is at work
    1|   the step finds:   it can't tell that all was taken back, so it is taken back again
    1|
    1| `flow undo` goes on from there
    exit 0
    ");
    place.flow(&format!("resolve {run} link@web1 --done")).exits(3).says("nobody's word is needed");
    place.flow("undo --yes").exits(0);
    assert!(!place.has("linked") && !place.has("etc"));
}

#[test]
fn after_ctrl_c_what_runs_is_finished_and_the_next_undo_goes_on() {
    let waits = "touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; rm -f DIR/linked";
    let place = made(&MADE.replace("echo x >>DIR/undos; rm -f DIR/linked", waits));
    place.flow("run made.toml").exits(0);
    let running = place.start("undo --yes");
    place.wait_for("begun");
    running.signal("INT");
    running.wait_to_say("stopping");
    place.file("go", "");
    running.ended().exits(130).says("go on with: flow undo");
    assert!(!place.has("linked") && place.has("etc/app.conf"));
    place.flow("undo --yes").exits(0);
    assert!(!place.has("etc"));
}

#[test]
fn a_run_that_fails_is_taken_back_by_itself_where_its_workflow_says_so() {
    let place = made(&MADE.replace("[steps.config]", "on_failure = \"unwind\"\n[steps.config]"));
    place.flow("run made.toml").exits(0);
    place.flow("undo --yes").exits(0);
    std::fs::remove_file(place.path("room")).unwrap();
    let failed = place.flow("run made.toml").exits(1);
    assert_snapshot!(failed, @r#"
    $ flow run made.toml
    2| run RUN: made, 4 tasks
    2| changed  config@web1  create DIR/etc/app.conf
    2| changed  link@web1    run: touch DIR/linked
    2| ok       log@web1
    2| failed   last@web1    exit status 1
    2| the run has failed; what it did is taken back
    2| undone   last@web1    run: test -e DIR/room && touch DIR/last
    2| undone   link@web1    run: touch DIR/linked
    2| undone   config@web1  create DIR/etc/app.conf
    2|
    2| failed: last@web1: exit status 1
    1| made failed and was taken back in SECONDS: 3 undone
    exit 1
    "#);
    assert!(!place.has("linked") && !place.has("etc"));
    let results = place.flow("run made.toml --output json").exits(1).objects();
    let result = results.last().unwrap();
    assert_eq!((&result["outcome"], &result["undone"]), (&"undone".into(), &3.into()));
    assert_eq!(result["failures"][0]["task"], "last@web1");
}

#[test]
fn past_its_pivot_a_run_is_not_taken_back() {
    let text = MADE
        .replace("[steps.config]", "on_failure = \"unwind\"\n[steps.config]")
        .replace("keep = true", "pivot = true");
    let place = made(&text);
    std::fs::remove_file(place.path("room")).unwrap();
    place.flow("run made.toml").exits(1).says("log@web1 was begun, the point of no return");
    place.flow("undo --yes").exits(3).says("can't be taken back: log@web1 was begun, the point of no return");
    let shown = place.flow("show").exits(0);
    assert!(shown.out.contains("can't be taken back: log@web1 was begun"), "{}", shown.out);
    place.file("room", "");
    place.flow("resume").exits(0);
}

#[test]
fn before_an_older_run_is_taken_back_the_later_ones_that_changed_something_are_named() {
    let place = made(MADE);
    place.flow("run made.toml").exits(0);
    let older = place.newest();
    place.file("later-room", "");
    place.file("later.toml", &MADE.replace("\"made\"", "\"later\"").replace("DIR/", "DIR/later-"));
    place.flow("run later.toml").exits(0);
    let later = place.newest();
    let asked = place.flow(&format!("undo {older}")).exits(3);
    assert!(asked.err.contains("later runs have changed something"), "{}", asked.err);
    assert!(asked.err.contains(&later[..4]) && asked.err.contains("(later)"), "{}", asked.err);
    // What was found as it should be, or is taken back already, is nothing to stand on.
    place.flow(&format!("undo {later} --yes")).exits(0);
    place.flow("run made.toml").exits(0);
    let asked = place.flow(&format!("undo {older}")).exits(3);
    assert!(!asked.err.contains("later runs"), "{}", asked.err);
}
