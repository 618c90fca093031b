//! One run at a time for a host, across operators' laptops; and what became of one that was overtaken.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::operator::RECOVER;
use crate::harness::{Lab, Operator, until};

/// A workflow that works on the three hosts until [`let_go`], and then writes a file.
pub fn hold(operator: &Operator) -> String {
    operator.write(
        "hold.toml",
        r#"
name = "hold"
summary = "Works until it is let go, then writes a file."

[steps.work]
uses = "command"
hosts = "promoters"
with = { script = "until [ -e /var/tmp/go ]; do sleep 0.1; done", repeatable = true }

[steps.after]
uses = "file"
needs = ["work"]
hosts = "promoters"
with = { path = "/root/after", content = "done\n" }
"#,
    )
}

/// Ends the work of [`hold`].
pub fn let_go(lab: &Lab) {
    lab.on_all("touch /var/tmp/go");
}

#[test]
fn a_second_flow_on_the_cluster_is_refused_with_run_owner_and_next_action() {
    let lab = Lab::deployed();
    let (one, two) = (Operator::new(&lab), Operator::new(&lab));
    let workflow = hold(&one);
    let mut first = one.start(&["run", &workflow, "--output", "json"]);
    first.wait_events("task_intended", "work", 3);
    let run = one.runs()[0].0.clone();

    for arguments in [&RECOVER[..], &["run", "deploy.toml"]] {
        two.flow(arguments).ended(3).says(&[
            "locked by run",
            &run,
            "(hold)",
            "pid ",
            "nothing was changed",
            "hint:",
            "flow unlock",
        ]);
    }
    lab.assert_healthy();
    // In the store of the first one too, while it is at work.
    one.flow(&["resume", &run]).ended(3).says(&[&run]);
    one.flow(&["unlock", &run]).ended(3).says(&[&run]);

    let_go(&lab);
    first.wait().ended(0);
    two.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
}

#[test]
fn a_flow_that_was_overtaken_by_unlock_changes_nothing_more_and_says_so() {
    let lab = Lab::deployed();
    let (one, two) = (Operator::new(&lab), Operator::new(&lab));
    let workflow = hold(&one);
    let mut first = one.start(&["run", &workflow, "--output", "json"]);
    first.wait_events("task_intended", "work", 3);
    let run = one.runs()[0].0.clone();
    first.signal("STOP");

    two.flow(&["unlock", &run, "--limit", "promoters"]).ended(1).says(&["still at work"]);
    assert!(lab.on_all("head -n1 /var/lib/flow/lock").values().all(|lock| lock.starts_with(&run)));

    let_go(&lab);
    until("the end of the attempts on the hosts", || {
        let done = two.flow(&["unlock", &run, "--limit", "promoters"]);
        if done.code() == Some(0) { Ok(()) } else { Err(done.text()) }
    });
    two.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);

    first.signal("CONT");
    first.wait().ended(1).says(&["no longer holds the host's lock", "nothing was changed"]);
    let after = lab.on_all("test ! -e /root/after && echo untouched");
    assert!(after.values().all(|text| text == "untouched"), "{after:?}");
}

/// Every file that a procedure could have changed, with its digest, and the lock: what must stay as it is.
/// What the hosts write in their own time (journals, caches) is left out.
fn everything(lab: &Lab) -> BTreeMap<String, String> {
    lab.on_all(
        "cd / && find root etc usr/local srv var/tmp var/lib/flow -xdev -type f ! -name go \
         | sort | xargs -r -d '\\n' sha256sum; find root var/tmp -xdev | sort",
    )
}

/// A second operator's workflow: writes, works until it is let go, writes again.
fn theirs(operator: &Operator) -> String {
    operator.write(
        "theirs.toml",
        r#"
name = "theirs"
summary = "Writes a file, works until it is let go, writes another."

[steps.first]
uses = "file"
hosts = "promoters"
with = { path = "/root/after", content = "theirs\n" }

[steps.hold]
uses = "command"
needs = ["first"]
hosts = "promoters"
with = { script = "until [ -e /var/tmp/theirs ]; do sleep 0.1; done", repeatable = true }

[steps.last]
uses = "file"
needs = ["hold"]
hosts = "promoters"
with = { path = "/root/last", content = "theirs\n" }
"#,
    )
}

/// Longer than anything that flow waits for by itself: a lock's moment, a lost answer, a host that is gone.
const PAST_EVERY_TIMEOUT: Duration = Duration::from_secs(70);

#[test]
fn two_operators_with_two_stores_one_stopped_past_every_timeout_and_let_go_while_the_other_is_at_work() {
    let lab = Lab::bare();
    let (one, two) = (Operator::new(&lab), Operator::new(&lab));
    // With another attempt to make, once the answer of the first one is lost.
    let text = std::fs::read_to_string(hold(&one)).unwrap();
    let again = text.replacen("with = {", "retries = 1\nbackoff = \"100ms\"\nwith = {", 1);
    let mut first = one.start(&["run", &one.write("hold.toml", &again), "--output", "json"]);
    first.wait_events("task_intended", "work", 3);
    let run = one.runs()[0].0.clone();
    first.signal("STOP");
    std::thread::sleep(PAST_EVERY_TIMEOUT);

    // No time takes a lock away: it is still the first one's, and is shown as such.
    let theirs = theirs(&two);
    two.flow(&["run", &theirs]).ended(3).says(&["locked by run", &run, "nothing was changed"]);
    two.flow(&["locks", "--limit", "promoters"])
        .ended(0)
        .says(&[&format!("locked by run {run} (hold)"), "not in this store; at work there"]);
    two.flow(&["unlock", &run, "--limit", "promoters"]).ended(1).says(&["still at work"]);
    let_go(&lab);
    until("the end of the attempts on the hosts", || {
        let done = two.flow(&["unlock", &run, "--limit", "promoters"]);
        if done.code() == Some(0) { Ok(()) } else { Err(done.text()) }
    });

    let mut second = two.start(&["run", &theirs, "--output", "json"]);
    second.wait_events("task_intended", "hold", 3);
    let their_run = two.runs()[0].0.clone();
    let before = everything(&lab);
    first.signal("CONT");
    let stopped = first.wait().ended(1).says(&["locked by run", &their_run, "nothing was changed"]);
    let meant = stopped.events.iter().filter(|event| event["event"] == "task_intended");
    assert!(meant.count() > 3, "it tried to go on: {}", stopped.text());
    one.flow(&["resume", &run]).ended(3).says(&["locked by run", &their_run, "(theirs)"]);
    one.flow(&["unlock", &run, "--limit", "promoters"]).ended(0).says(&["left alone: locked by another run"]);
    assert_eq!(everything(&lab), before, "the one that was overtaken changed something");

    lab.on_all("touch /var/tmp/theirs");
    second.wait().ended(0);
    let written = lab.on_all("cat /root/after /root/last");
    assert!(written.values().all(|text| text == "theirs\ntheirs"), "{written:?}");
    one.flow(&["locks", "--limit", "promoters"])
        .ended(0)
        .says(&["patroni1 not locked", "patroni3 not locked"]);
}
