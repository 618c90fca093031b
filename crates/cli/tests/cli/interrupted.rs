//! Runs that are killed or stopped, and gone on with.

use insta::assert_snapshot;

use crate::support::Place;

/// A command that waits for the file `go`; `EXTRA` says how its end can be known.
fn workflow(place: &Place, extra: &str) {
    place.file(
        "wait.toml",
        &r#"
name = "wait"
summary = "Waits in the middle."
[steps.wait]
uses = "command"
hosts = "web[0]"
EXTRA
[steps.after]
uses = "command"
needs = ["wait"]
hosts = "web[0]"
with = { script = "touch DIR/after", creates = "DIR/after" }
"#
        .replace(
            "EXTRA",
            &r#"with = { script = "echo x >>DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; touch DIR/ended"EXTRA }"#
                .replace("EXTRA", extra),
        ),
    );
}

const CREATES: &str = r#", creates = "DIR/ended""#;

fn begun(place: &Place) -> usize {
    std::fs::read_to_string(place.path("begun")).unwrap().lines().count()
}

#[test]
fn after_sigkill_a_bare_command_is_never_guessed_and_the_operator_says_what_became_of_it() {
    let place = Place::new();
    workflow(&place, "");
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("KILL");
    running.ended().exits(-1);
    assert_eq!(place.runs()[0]["status"], "killed");
    // The command outlived flow. Before it has ended, nothing is decided.
    let resumed = place.start("resume");
    resumed.wait_to_say("still at work");
    place.file("go", "");
    let undecided = resumed.ended().exits(4);
    assert_snapshot!(undecided, @r#"
    $ flow resume
    2| run RUN: wait, 2 tasks, going on: 0 done before
    2| waiting  wait@web1   an earlier attempt is still at work on the host; waiting for its end
    2| unknown  wait@web1   nobody can tell whether `echo x >>DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; touch DIR/ended` ran to its end: it has no `creates`, `unless`, `check` or `repeatable`
    2|
    2| unknown: wait@web1: nobody can tell whether `echo x >>DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; touch DIR/ended` ran to its end: it has no `creates`, `unless`, `check` or `repeatable`
    2|     the process that worked on it ended before its result was recorded
    2|
    2| not started: after@web1
    2| still locked for this run: web1
    2| see what is known, then say --done, or --not-done to run it again:
    2|   flow resolve RUN wait@web1
    2| go on with: flow resume RUN
    1| wait undecided in SECONDS: 0 changed, 0 ok, 1 unknown
    exit 4
    "#);
    assert!(!place.has("after"));
    let run = place.newest();
    place.flow(&format!("resolve {run} nothing --done")).exits(3).says("these is unknown: wait@web1");
    assert_snapshot!(place.flow(&format!("resolve {run} wait@web1")).exits(4), @r#"
    $ flow resolve RUN wait@web1
    1| wait@web1 of run RUN, attempt 1
    1|   it was to change: run: echo x >>DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; touch DIR/ended
    1|   on its host now:  nothing of it is at work
    1|   the step finds:   nobody can tell whether `echo x >>DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; touch DIR/ended` ran to its end: it has no `creates`, `unless`, `check` or `repeatable`
    1|
    1| look on the host whether the change is there, then say so:
    1|   flow resolve RUN wait@web1 --done      it is there
    1|   flow resolve RUN wait@web1 --not-done  it isn't; it is run again on resume
    exit 4
    "#);
    place.flow(&format!("resolve {run} wait@web1 --done")).exits(0).says("go on with: flow resume");
    assert!(!place.has("after"), "saying so starts nothing");
    let settled = place.flow("resume").exits(0);
    assert_snapshot!(settled, @r#"
    $ flow resume
    2| run RUN: wait, 2 tasks, going on: 1 done before
    2| changed  after@web1  run: touch DIR/after
    1| wait succeeded in SECONDS: 1 changed, 0 ok
    exit 0
    "#);
    assert_eq!(begun(&place), 1, "it was run again");
    assert!(place.flow("show").exits(0).out.contains("wait@web1 settled as done by tester@"));
}

#[test]
fn what_the_operator_says_was_not_done_is_run_again() {
    let place = Place::new();
    workflow(&place, "");
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("KILL");
    running.ended();
    let run = place.newest();
    // Before the attempt has ended, nobody's word is taken.
    place.flow(&format!("resolve {run} wait@web1 --not-done")).exits(3).says("still at work");
    place.file("go", "");
    place.wait_for("ended");
    let settled = || place.flow(&format!("resolve {run} wait@web1 --not-done"));
    while settled().code() != 0 {} // The last process of the attempt is about to end.
    place.flow("resume").exits(0);
    assert_eq!(begun(&place), 2);
    assert!(place.has("after"));
}

#[test]
fn after_sigkill_a_command_that_creates_something_is_settled_by_looking() {
    let place = Place::new();
    workflow(&place, CREATES);
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("KILL");
    running.ended();
    place.file("go", "");
    place.flow("resume").exits(0);
    assert_eq!(begun(&place), 1, "it was run again");
    assert!(place.has("after"));
}

#[test]
fn ctrl_c_once_lets_finish_what_runs_and_starts_nothing_new() {
    let place = Place::new();
    workflow(&place, CREATES);
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("INT");
    running.wait_to_say("stopping: nothing new is started");
    place.file("go", "");
    let stopped = running.ended().exits(130);
    assert_snapshot!(stopped, @r#"
    $ flow run wait.toml
    2| run RUN: wait, 2 tasks
    2| stopping: nothing new is started, what runs may finish; Ctrl-C again stops at once
    2| changed  wait@web1   run: echo x >>DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; touch DIR/ended
    2|
    2| not started: after@web1
    2| go on with: flow resume RUN
    1| wait interrupted in SECONDS: 1 changed, 0 ok
    exit 130
    "#);
    assert!(place.has("ended") && !place.has("after"));
    place.flow("resume").exits(0);
    assert_eq!(begun(&place), 1);
    assert!(place.has("after"));
}

#[test]
fn ctrl_c_twice_leaves_what_runs_and_a_resume_finds_out_what_became_of_it() {
    let place = Place::new();
    workflow(&place, CREATES);
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("INT");
    running.wait_to_say("stopping: nothing new is started");
    running.signal("INT");
    let stopped = running.ended().exits(130);
    assert_snapshot!(stopped, @r#"
    $ flow run wait.toml
    2| run RUN: wait, 2 tasks
    2| stopping: nothing new is started, what runs may finish; Ctrl-C again stops at once
    2| stopping at once: what runs is left as it is
    2|
    2| left at work: wait@web1; a resume finds out what became of it
    2| not started: after@web1
    2| still locked for this run: web1
    2| go on with: flow resume RUN
    1| wait interrupted in SECONDS: 0 changed, 0 ok
    exit 130
    "#);
    assert!(!place.has("ended"));
    place.file("go", "");
    place.flow("resume").exits(0);
    assert_eq!(begun(&place), 1);
}

#[test]
fn a_request_to_terminate_is_taken_as_ctrl_c() {
    let place = Place::new();
    workflow(&place, CREATES);
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("TERM");
    running.wait_to_say("stopping");
    place.file("go", "");
    running.ended().exits(130);
    assert!(place.has("ended"));
}

#[test]
fn locks_of_a_run_that_is_given_up_are_taken_off() {
    let place = Place::new();
    workflow(&place, "");
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("KILL");
    running.ended();
    let id = place.newest();
    let alive = place.flow(&format!("unlock {id} --limit web1")).exits(1);
    assert!(alive.err.contains("still at work on the host"), "{}", alive.err);
    place.file("go", "");
    place.wait_for("ended");
    // Another store can't tell whether the run's process has ended.
    let elsewhere = place.flow(&format!("unlock {id} --store sqlite:other.db")).exits(3);
    elsewhere.says(&format!("flow unlock {id} --confirm {id}"));
    let unlocked = loop {
        let ran = place.flow(&format!("unlock {id}"));
        // The process that wrote the file may live a moment longer.
        if ran.code() == 0 {
            break ran;
        }
    };
    assert_snapshot!(unlocked, @r#"
    $ flow unlock RUN
    1| web1: unlocked; it was locked by OWNER since WHEN
    1| web2: not locked
    1| web3: not locked
    exit 0
    "#);
    place.flow("unlock ../../outside").exits(3).says("is no run's id");
}

#[test]
fn a_terminal_that_goes_away_stops_the_run_gently_however_often_it_says_so() {
    let place = Place::new();
    workflow(&place, CREATES);
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    running.signal("HUP");
    running.wait_to_say("stopping: nothing new is started");
    running.signal("HUP");
    place.file("go", "");
    let stopped = running.ended().exits(130);
    assert!(!stopped.err.contains("stopping at once"), "{}", stopped.err);
    assert!(place.has("ended") && !place.has("after"), "what ran was let finish");
    assert_eq!(place.runs()[0]["status"], "interrupted");
}
