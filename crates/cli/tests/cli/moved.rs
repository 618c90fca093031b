//! Runs that are written to a file and taken in elsewhere.

use std::fs;

use insta::assert_snapshot;
use serde_json::Value;

use crate::run::{FAILS, MAKE};
use crate::support::Place;

/// The store of another machine.
const THERE: &str = "--store sqlite:there/runs.db";

fn exported(workflow: &str, code: i32) -> (Place, String) {
    let place = Place::new();
    place.file("w.toml", workflow);
    place.flow("run w.toml").exits(code);
    let id = place.newest();
    place.flow(&format!("export {id} --out run.flow")).exits(0);
    (place, id)
}

#[test]
fn a_run_looks_the_same_elsewhere() {
    let (place, id) = exported(FAILS, 1);
    let export = place.flow(&format!("export {id}")).exits(0);
    assert_eq!(export.out, fs::read_to_string(place.path("run.flow")).unwrap());
    let taken = place.flow("import run.flow --store sqlite:there/runs.db").exits(0);
    let again = place.flow("import run.flow --store sqlite:there/runs.db").exits(0);
    let here = place.flow("show -v").exits(0);
    let there = place.flow(&format!("show -v {THERE}")).exits(0);
    let to_go_on = |line: &&str| !line.starts_with("can't be taken back: ");
    assert_eq!(
        here.out.replace("\ngo on with: ", "").lines().filter(to_go_on).count(),
        there.out.lines().count() - 1,
        "{here}\n{there}"
    );
    assert!(here.out.lines().filter(|line| line.contains('@')).all(|line| there.out.contains(line)));
    let [here, there] =
        ["", THERE].map(|store| place.flow(&format!("show --output json {store}")).document());
    for field in ["id", "workflow", "started", "tasks", "events", "status"] {
        assert_eq!(here[field], there[field], "{field}");
    }
    let resumed = place.flow(&format!("resume {id} {THERE}")).exits(3);
    let nothing = place.flow(&format!("resume {THERE}")).exits(3);
    assert_snapshot!(format!("{taken}\n\n{again}\n\n{resumed}\n\n{nothing}"), @r#"
    $ flow import run.flow --store sqlite:there/runs.db
    2| look at it with: flow show RUN
    1| imported run RUN, fill: 19 events
    exit 0

    $ flow import run.flow --store sqlite:there/runs.db
    2| look at it with: flow show RUN
    1| run RUN is in the store already, the same to the last event
    exit 0

    $ flow resume RUN --store sqlite:there/runs.db
    2| error: run RUN was imported: it can be looked at here, and gone on with only where it was started
    2| hint: `flow show RUN` shows it; where its store is lost, `flow unlock RUN` frees the hosts and a new run does what is left
    exit 3

    $ flow resume --store sqlite:there/runs.db
    2| error: there is no run to go on with
    2| hint: `flow runs` lists the runs
    exit 3
    "#);
    assert!(!place.has("third-web1"));
    // And from there it can be handed on.
    place.flow(&format!("export {id} --out again.flow {THERE}")).exits(0);
    assert_eq!(fs::read(place.path("again.flow")).unwrap(), fs::read(place.path("run.flow")).unwrap());
}

#[test]
fn a_run_that_had_not_ended_is_said_to_be_elsewhere() {
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
    place.flow(&format!("export {} --out run.flow", place.newest())).exits(0);
    place.flow(&format!("import run.flow {THERE}")).exits(0);
    let there = place.flow(&format!("runs --output json {THERE}")).document();
    assert_eq!(there[0]["status"], "elsewhere");
    place.file("go", "");
    running.ended().exits(0);
    // It has gone on: what is there is no longer the same.
    place.flow(&format!("export {} --out later.flow", place.newest())).exits(0);
    place.flow(&format!("import later.flow {THERE}")).exits(3).says("with other content");
}

#[test]
fn a_file_that_is_no_true_account_of_a_run_is_not_taken_in() {
    let (place, _) = exported(MAKE, 0);
    let text = fs::read_to_string(place.path("run.flow")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let whole = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    // Written by somebody who means to: the checksum is right.
    let forged = |edit: &dyn Fn(&mut Vec<Value>)| {
        let mut values: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        values.pop();
        edit(&mut values);
        values[0]["events"] = (values.len() - 1).into();
        let body: String = values.iter().map(|value| format!("{value}\n")).collect();
        use sha2::{Digest, Sha256};
        let sum: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{body}{}\n", serde_json::json!({ "sha256": sum }))
    };
    let cases = [
        ("short", whole(&lines[..lines.len() - 2])),
        ("edited", text.replace("touch", "rm -f")),
        ("newer", text.replacen("\"flow_run\":1", "\"flow_run\":2", 1)),
        ("impossible", forged(&|values| values[10]["task"] = "make@web9".into())),
        ("gap", forged(&|values| drop(values.remove(2)))),
        ("outside", forged(&|values| values[0]["id"] = "../../../../x".into())),
        ("empty", String::new()),
    ];
    let mut told = Vec::new();
    for (name, text) in cases {
        fs::write(place.path(name), text).unwrap();
        told.push(place.flow(&format!("import {name} {THERE}")).exits(3).to_string());
    }
    assert_snapshot!(told.join("\n\n"), @r#"
    $ flow import short --store sqlite:there/runs.db
    2| error: short is not taken in: line 11 can't be read: the file has 11 lines, not 13: it isn't whole; nothing was stored
    2| hint: write it anew where the run is: `flow export RUN --out FILE`
    exit 3

    $ flow import edited --store sqlite:there/runs.db
    2| error: edited is not taken in: its checksum is wrong: it was damaged or edited; nothing was stored
    2| hint: write it anew where the run is: `flow export RUN --out FILE`
    exit 3

    $ flow import newer --store sqlite:there/runs.db
    2| error: newer is not taken in: it has format 2, this flow reads 1; nothing was stored
    2| hint: use the flow that wrote it; its version stands in the first line
    exit 3

    $ flow import impossible --store sqlite:there/runs.db
    2| error: impossible is not taken in: event 10 can't be: the plan has no task `make@web9`; nothing was stored
    2| hint: write it anew where the run is: `flow export RUN --out FILE`
    exit 3

    $ flow import gap --store sqlite:there/runs.db
    2| error: gap is not taken in: line 3 can't be read: event 3 stands where event 2 must; nothing was stored
    2| hint: write it anew where the run is: `flow export RUN --out FILE`
    exit 3

    $ flow import outside --store sqlite:there/runs.db
    2| error: outside is not taken in: line 1 can't be read: `../../../../x` is no run's id; nothing was stored
    2| hint: write it anew where the run is: `flow export RUN --out FILE`
    exit 3

    $ flow import empty --store sqlite:there/runs.db
    2| error: empty is not taken in: line 1 can't be read: EOF while parsing a value at line 1 column 0; nothing was stored
    2| hint: write it anew where the run is: `flow export RUN --out FILE`
    exit 3
    "#);
    assert_eq!(place.flow(&format!("runs --output json {THERE}")).document(), serde_json::json!([]));
    // What the forging does is right where nothing is edited.
    fs::write(place.path("same"), forged(&|_| {})).unwrap();
    place.flow(&format!("import same {THERE}")).exits(0);
}
