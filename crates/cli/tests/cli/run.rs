//! Runs that go well, and runs that fail.

use insta::assert_snapshot;

use crate::support::Place;

pub(crate) const MAKE: &str = r#"
name = "make"
summary = "Makes a file for each host."

[steps.make]
uses = "command"
hosts = "web"
with = { script = "touch DIR/made-{{ host.name }}", creates = "DIR/made-{{ host.name }}" }
"#;

/// Fails on web2 as long as there is no file `room`.
pub(crate) const FAILS: &str = r#"
name = "fill"
summary = "Fails in the middle."

[steps.first]
uses = "command"
hosts = "web"
with = { script = "echo x >>DIR/first-{{ host.name }}", creates = "DIR/first-{{ host.name }}" }

[steps.second]
uses = "command"
needs = ["first"]
hosts = "web"
retries = 1
backoff = "10ms"

[steps.second.with]
repeatable = true
script = """
test {{ host.name }} != web2 || test -e DIR/room || { echo 'no room' >&2; echo 'it is full' >&2; exit 7; }
"""

[steps.third]
uses = "command"
needs = ["second"]
hosts = "web"
with = { script = "true", repeatable = true }
"#;

#[test]
fn a_run_tells_each_change_and_a_second_one_that_there_is_nothing_to_do() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    let first = place.flow("run make.toml").exits(0);
    assert!(place.has("made-web1") && place.has("made-web3"));
    let second = place.flow("run make.toml").exits(0);
    assert_snapshot!(format!("{first}\n\n{second}"), @r#"
    $ flow run make.toml
    2| run RUN: make, 3 tasks
    2| changed  make@web1  run: touch DIR/made-web1
    2| changed  make@web2  run: touch DIR/made-web2
    2| changed  make@web3  run: touch DIR/made-web3
    1| make succeeded in SECONDS: 3 changed, 0 ok
    exit 0

    $ flow run make.toml
    2| run RUN: make, 3 tasks
    2| ok       make@web1
    2| ok       make@web2
    2| ok       make@web3
    1| make: nothing to do: all 3 tasks are as they should be (SECONDS)
    exit 0
    "#);
}

#[test]
fn a_run_that_fails_says_what_failed_why_what_was_not_started_and_how_to_go_on() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    let failed = place.flow("run fill.toml").exits(1);
    assert_snapshot!(failed, @r#"
    $ flow run fill.toml
    2| run RUN: fill, 9 tasks
    2| changed  first@web1   run: echo x >>DIR/first-web1
    2| changed  first@web2   run: echo x >>DIR/first-web2
    2| changed  first@web3   run: echo x >>DIR/first-web3
    2| changed  second@web1  run: test web1 != web2 || test -e DIR/room || { echo 'no room' >&2; echo 'it is full' >&2; exit 7; }
    2| retrying second@web2  exit status 7: it is full; again in SECONDS
    2| failed   second@web2  exit status 7: it is full
    2| changed  second@web3  run: test web3 != web2 || test -e DIR/room || { echo 'no room' >&2; echo 'it is full' >&2; exit 7; }
    2|
    2| failed: second@web2: exit status 7: it is full
    2|     no room
    2|     it is full
    2|
    2| not started: third@web1, third@web2, third@web3
    2| go on with: flow resume RUN
    1| fill failed in SECONDS: 5 changed, 0 ok, 1 failed
    exit 1
    "#);
}

#[test]
fn a_plan_shows_changes_and_makes_none() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.file("made-web2", "");
    let plan = place.flow("plan make.toml").exits(2);
    assert!(!place.has("made-web1"), "a plan changed something");
    for host in ["web1", "web3"] {
        place.file(&format!("made-{host}"), "");
    }
    let nothing = place.flow("plan make.toml").exits(0);
    assert_snapshot!(format!("{plan}\n\n{nothing}"), @r#"
    $ flow plan make.toml
    2| make: Makes a file for each host.
    2|
    2| make: 2 tasks to change; nothing was changed yet
    2| can't be taken back: make: the step has no `undo`
    1| change   make@web1  run: touch DIR/made-web1
    1| ok       make@web2
    1| change   make@web3  run: touch DIR/made-web3
    exit 2

    $ flow plan make.toml
    2| make: Makes a file for each host.
    2|
    2| make: nothing to do: all 3 tasks are as they should be
    1| ok       make@web1
    1| ok       make@web2
    1| ok       make@web3
    exit 0
    "#);
    assert!(!place.has("state-of-web1"), "a plan took a lock");
}

#[test]
fn only_the_hosts_and_tags_that_are_asked_for_are_worked_on() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.flow("run make.toml --limit web1,web3").exits(0);
    assert!(place.has("made-web1") && !place.has("made-web2") && place.has("made-web3"));
}

#[test]
fn what_is_filtered_out_but_needed_must_hold() {
    let place = Place::new();
    place.file(
        "two.toml",
        r#"
name = "two"
summary = "One after the other."
[steps.base]
uses = "command"
hosts = "web[0]"
with = { script = "touch DIR/base", creates = "DIR/base" }
[steps.top]
uses = "command"
needs = ["base"]
hosts = "web[0]"
tags = ["top"]
with = { script = "touch DIR/top", creates = "DIR/top" }
"#,
    );
    let refused = place.flow("run two.toml --tags top").exits(1);
    assert!(!place.has("base") && !place.has("top"));
    assert_snapshot!(refused, @r#"
    $ flow run two.toml --tags top
    2| run RUN: two, 2 tasks
    2| failed   base@web1  it was filtered out, but is needed and isn't so yet: run: touch DIR/base
    2|
    2| failed: base@web1: it was filtered out, but is needed and isn't so yet: run: touch DIR/base
    2| hint: run it first, with wider --limit and --tags or without them
    2|
    2| not started: top@web1
    2| nothing was changed; to look again: flow resume RUN
    1| two failed in SECONDS: 0 changed, 0 ok, 1 failed
    exit 1
    "#);
    let planned = place.flow("plan two.toml --tags top").exits(1);
    assert_snapshot!(planned, @r#"
    $ flow plan two.toml --tags top
    2| two: One after the other.
    2|
    2| two: 1 of 2 tasks can't go ahead as things are; nothing was changed
    1| error    base@web1  it was filtered out, but is needed and isn't so yet: run: touch DIR/base
    1|            hint: run it first, with wider --limit and --tags or without them
    1| change   top@web1   run: touch DIR/top
    exit 1
    "#);
    place.file("base", "");
    let planned = place.flow("plan two.toml --tags top").exits(2);
    assert!(planned.out.contains("ok       base@web1  filtered out, so only looked at"), "{}", planned.out);
    let run = place.flow("run two.toml --tags top").exits(0);
    assert_snapshot!(run, @r#"
    $ flow run two.toml --tags top
    2| run RUN: two, 2 tasks
    2| ok       base@web1
    2| changed  top@web1   run: touch DIR/top
    1| two succeeded in SECONDS: 1 changed, 1 ok
    exit 0
    "#);
}
