//! What is refused before anything is changed.

use insta::assert_snapshot;

use crate::run::MAKE;
use crate::support::Place;

/// Runs it, and checks that no run was recorded.
#[track_caller]
fn refused(place: &Place, line: &str) -> String {
    let ran = place.flow(line).exits(3);
    assert!(place.runs().is_empty(), "a run was recorded");
    ran.to_string()
}

#[test]
fn an_unknown_workflow_is_refused_with_the_nearest_name() {
    let place = Place::new();
    assert_snapshot!(refused(&place, "run deploi"), @r#"
    $ flow run deploi
    2| flow::file
    2|
    2|   × there is no file `deploi`, and no shipped workflow of that name
    2|   help: did you mean `deploy.toml`?
    exit 3
    "#);
    assert_snapshot!(refused(&place, "run ./nothing.toml"), @r#"
    $ flow run ./nothing.toml
    2| flow::file
    2|
    2|   × `./nothing.toml` can't be read: there is no such file
    exit 3
    "#);
}

#[test]
fn everything_that_is_wrong_in_a_workflow_is_shown_at_once() {
    let place = Place::new();
    place.file(
        "broken.toml",
        r#"name = "broken"
summary = "Several things are wrong."
[params.count]
type = "integr"
help = "How many."
[steps.a]
uses = "comand"
with = { script = "true" }
[steps.b]
uses = "command"
needs = ["z"]
hosts = "web"
with = { scrpt = "true" }
"#,
    );
    assert_snapshot!(refused(&place, "run broken.toml"), @r#"
    $ flow run broken.toml
    2| flow::type
    2|
    2|   × no param has the type `integr`
    2|    ╭─[broken.toml:4:8]
    2|  3 │ [params.count]
    2|  4 │ type = "integr"
    2|    ·        ────────
    2|  5 │ help = "How many."
    2|    ╰────
    2|   help: the types are `string`, `integer`, `number`, `boolean`, `list` and
    2|         `secret`
    2|
    2| flow::unknown-step-type
    2|
    2|   × there is no step type `comand`
    2|    ╭─[broken.toml:7:8]
    2|  6 │ [steps.a]
    2|  7 │ uses = "comand"
    2|    ·        ────────
    2|  8 │ with = { script = "true" }
    2|    ╰────
    2|   help: did you mean `command`?
    2|
    2| flow::needs
    2|
    2|   × there is no step `z`
    2|     ╭─[broken.toml:11:10]
    2|  10 │ uses = "command"
    2|  11 │ needs = ["z"]
    2|     ·          ───
    2|  12 │ hosts = "web"
    2|     ╰────
    2|   help: the steps are `a` and `b`
    2|
    2| flow::unknown-argument
    2|
    2|   × `command` has no argument `scrpt`
    2|     ╭─[broken.toml:13:10]
    2|  12 │ hosts = "web"
    2|  13 │ with = { scrpt = "true" }
    2|     ·          ─────
    2|     ╰────
    2|   help: did you mean `script`?
    2|
    2| 4 errors; nothing was changed
    exit 3
    "#);
}

#[test]
fn toml_that_is_none_is_refused_with_its_place() {
    let place = Place::new();
    place.file("syntax.toml", "name = \"x\nsummary = 1\n");
    assert_snapshot!(refused(&place, "run syntax.toml"), @r#"
    $ flow run syntax.toml
    2| flow::syntax
    2|
    2|   × not TOML: this quote is not closed
    2|    ╭─[syntax.toml:1:10]
    2|  1 │ name = "x
    2|    ·          ▲
    2|  2 │ summary = 1
    2|    ╰────
    exit 3
    "#);
}

const PARAMS: &str = r#"
name = "params"
summary = "Has params."
[params.scope]
type = "string"
help = "The cluster's name."
[params.count]
type = "integer"
default = 1
help = "How many."
[steps.a]
uses = "command"
hosts = "web"
with = { script = "true", repeatable = true }
"#;

#[test]
fn params_that_are_unknown_missing_or_of_the_wrong_type_are_refused_together() {
    let place = Place::new();
    place.file("params.toml", PARAMS);
    assert_snapshot!(refused(&place, "run params.toml --set count=many --set scop=demo"), @r#"
    $ flow run params.toml --set count=many --set scop=demo
    2| flow::param
    2|
    2|   × `params` has no param `scop`
    2|   help: did you mean `scope`?
    2|
    2| flow::param
    2|
    2|   × the param `scope` must be given
    2|    ╭─[params.toml:4:9]
    2|  3 │ summary = "Has params."
    2|  4 │ [params.scope]
    2|    ·         ──┬──
    2|    ·           ╰── The cluster's name.
    2|  5 │ type = "string"
    2|    ╰────
    2|   help: --set scope=VALUE
    2|
    2| flow::param
    2|
    2|   × --set count: `many` is not an integer
    2|
    2| 3 errors; nothing was changed
    exit 3
    "#);
}

#[test]
fn unknown_hosts_and_empty_sets_are_refused() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.file("typo.toml", &MAKE.replace("\"web\"", "\"wbe\""));
    place.file("none.toml", &MAKE.replace("\"web\"", "\"web:!web\""));
    assert_snapshot!(refused(&place, "run typo.toml"), @r#"
    $ flow run typo.toml
    2| flow::hosts
    2|
    2|   × there is no host or group `wbe`
    2|    ╭─[typo.toml:7:9]
    2|  6 │ uses = "command"
    2|  7 │ hosts = "wbe"
    2|    ·         ─────
    2|  8 │ with = { script = "touch DIR/made-{{ host.name }}", creates = "DIR/made-{{ host.name }}" }
    2|    ╰────
    2|   help: did you mean `web3`?
    exit 3
    "#);
    assert_snapshot!(refused(&place, "run none.toml"), @r#"
    $ flow run none.toml
    2| flow::hosts
    2|
    2|   × `web:!web` selects no host
    2|    ╭─[none.toml:7:9]
    2|  6 │ uses = "command"
    2|  7 │ hosts = "web:!web"
    2|    ·         ──────────
    2|  8 │ with = { script = "touch DIR/made-{{ host.name }}", creates = "DIR/made-{{ host.name }}" }
    2|    ╰────
    2|   help: groups with hosts: all, web
    exit 3
    "#);
    assert_snapshot!(refused(&place, "run make.toml --limit web9"), @r#"
    $ flow run make.toml --limit web9
    2| flow::filter
    2|
    2|   × --limit: there is no host or group `web9`
    2|   help: did you mean `web`?
    exit 3
    "#);
    assert_snapshot!(refused(&place, "run make.toml --tags nightly"), @r#"
    $ flow run make.toml --tags nightly
    2| flow::filter
    2|
    2|   × no step has the tag `nightly`
    2|   help: this workflow has no tags
    exit 3
    "#);
    assert_snapshot!(refused(&place, "run make.toml -i nowhere.ini"), @r#"
    $ flow run make.toml -i nowhere.ini
    2| flow::inventory
    2|
    2|   × `nowhere.ini` can't be read: there is no such file
    exit 3
    "#);
}

#[test]
fn a_workflow_that_is_only_right_as_a_whole_takes_no_filter() {
    let place = Place::new();
    place.file("whole.toml", &format!("whole = true\n{MAKE}"));
    assert_snapshot!(refused(&place, "run whole.toml --limit web1"), @r#"
    $ flow run whole.toml --limit web1
    2| flow::filter
    2|
    2|   × `make` is only right as a whole: it takes no --limit and no --tags
    2|   help: run it without them
    exit 3
    "#);
    place.flow("run whole.toml --tags x").exits(3).says("only right as a whole");
}

#[test]
fn a_wrong_command_line_has_a_code_of_its_own() {
    let place = Place::new();
    for line in [
        "",
        "run",
        "rnu make.toml",
        "run make.toml --set scope",
        "resume --settle a=done",
        "approve",
        "resolve a",
        "runs -n x",
    ] {
        place.flow(line).exits(64);
    }
}

#[test]
fn a_host_that_another_run_holds_is_refused_and_that_run_is_named() {
    let place = Place::new();
    place.file(
        "wait.toml",
        r#"
name = "wait"
summary = "Waits."
[steps.wait]
uses = "command"
hosts = "web"
with = { script = "touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done", creates = "DIR/go" }
"#,
    );
    place.file("make.toml", MAKE);
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    // Another operator has a store of their own.
    let refused = place.flow("run make.toml --store sqlite:other.db").exits(3);
    assert!(!place.has("made-web1"));
    place.file("go", "");
    running.ended().exits(0);
    assert_snapshot!(refused, @r#"
    $ flow run make.toml --store sqlite:other.db
    2| run RUN: make, 3 tasks
    2| error: web1 is locked by run RUN (wait), held by OWNER since WHEN; nothing was changed
    2| hint: where it was started, `flow show RUN` tells its state and `flow resume RUN` goes on with it; `flow unlock RUN` takes its locks off if it is given up
    exit 3
    "#);
    place.flow("run make.toml --store sqlite:other.db").exits(0);
}
