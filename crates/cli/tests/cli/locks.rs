//! Whose lock each host has, and what to do about it.

use insta::assert_snapshot;

use crate::support::Place;

fn workflow(place: &Place) {
    place.file(
        "hold.toml",
        r#"
name = "hold"
summary = "Holds one host."
[steps.wait]
uses = "command"
hosts = "web[0]"
with = { script = "touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done; touch DIR/ended", creates = "DIR/ended" }
"#,
    );
}

#[test]
fn locks_are_shown_with_run_owner_what_is_alive_and_the_next_action() {
    let place = Place::new();
    workflow(&place);
    let running = place.start("run hold.toml");
    place.wait_for("begun");
    assert_snapshot!(place.flow("locks").exits(0), @r#"
    $ flow locks
    1| web1  locked by run RUN (hold) of OWNER since WHEN
    1|       in this store, running; at work there: flow-RUN-wait-web1-508333d8d796-1
    1|       its run is at work; `flow show RUN` tells how far it is
    1| web2  not locked
    1| web3  not locked
    exit 0
    "#);
    let other = format!("sqlite:{}", place.path("other.db").display());
    let elsewhere = place.flow_with("locks --limit web1", &[("FLOW_STORE", &other)]);
    assert_snapshot!(elsewhere.exits(0), @r#"
    $ flow locks --limit web1
    1| web1  locked by run RUN (hold) of OWNER since WHEN
    1|       not in this store; at work there: flow-RUN-wait-web1-508333d8d796-1
    1|       something of it is at work; ask OWNER
    exit 0
    "#);
    running.signal("KILL");
    running.ended();
    let found = place.flow("locks --limit web1 --output json").exits(0).document();
    assert_eq!(
        (&found[0]["lock"]["status"], found[0]["lock"]["alive"].as_array().unwrap().len()),
        (&"killed".into(), 1)
    );
    let run = place.newest();
    place.flow(&format!("unlock {run} --limit web1")).exits(1).says("still at work");

    place.file("go", "");
    place.wait_for("ended");
    place.flow("resume").exits(0);
    assert_snapshot!(place.flow("locks").exits(0), @r#"
    $ flow locks
    1| web1  not locked
    1| web2  not locked
    1| web3  not locked
    exit 0
    "#);
}
