//! One run at a time for a host, across operators' laptops; and what became of one that was overtaken.

use std::thread;
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

    two.flow(&["unlock", &run, "--limit", "promoters", "--confirm", &run]).ended(1).says(&["still at work"]);
    assert!(lab.on_all("head -n1 /var/lib/flow/lock").values().all(|lock| lock.starts_with(&run)));

    let_go(&lab);
    until("the end of the attempts on the hosts", || {
        let done = two.flow(&["unlock", &run, "--limit", "promoters", "--confirm", &run]);
        if done.code() == Some(0) { Ok(()) } else { Err(done.text()) }
    });
    two.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);

    first.signal("CONT");
    first.wait().ended(1).says(&["no longer holds the host's lock", "nothing was changed"]);
    let after = lab.on_all("test ! -e /root/after && echo untouched");
    assert!(after.values().all(|text| text == "untouched"), "{after:?}");
}

/// Longer than any time that flow gives a connection, a look or an answer (30 s).
const PAST_EVERY_TIME_OUT: Duration = Duration::from_secs(35);

#[test]
fn a_flow_that_is_stopped_past_every_time_out_keeps_its_locks_and_once_overtaken_changes_nothing_more() {
    let lab = Lab::deployed();
    let (one, two) = (Operator::new(&lab), Operator::new(&lab));
    let workflow = hold(&one);
    let mut first = one.start(&["run", &workflow, "--output", "json"]);
    first.wait_events("task_intended", "work", 3);
    let run = one.runs()[0].0.clone();
    first.signal("STOP");
    // Whether a process elsewhere has ended, only a person can know.
    let asked = two.flow(&["unlock", &run, "--limit", "promoters"]).ended(3);
    asked.says(&["is not in this store", "still works on it", &format!("--confirm {run}")]);
    thread::sleep(PAST_EVERY_TIME_OUT);

    // No time takes a lock over, and nobody while something of the run is at work.
    two.flow(&["run", "deploy.toml"]).ended(3).says(&["locked by run", &run]);
    two.flow(&["unlock", &run, "--limit", "promoters", "--confirm", &run]).ended(1).says(&["still at work"]);
    assert!(lab.on_all("head -n1 /var/lib/flow/lock").values().all(|lock| lock.starts_with(&run)));

    let_go(&lab);
    until("the end of the attempts on the hosts", || {
        let done = two.flow(&["unlock", &run, "--limit", "promoters", "--confirm", &run]);
        if done.code() == Some(0) { Ok(()) } else { Err(done.text()) }
    });
    let other = two.write("other.toml", OTHER);
    two.flow(&["run", &other]).ended(0);
    let look = "cat /root/after; stat -c '%i %Y %Z' /root/after";
    let before = lab.on_all(look);
    assert!(before.values().all(|text| text.starts_with("of the other\n")), "{before:?}");

    first.signal("CONT");
    first.wait().ended(1).says(&["the answer was lost"]);
    assert_eq!(lab.on_all(look), before);
    two.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
}

/// Writes the file that [`hold`] would write next.
const OTHER: &str = r#"
name = "other"
summary = "Writes the same file with other content."

[steps.after]
uses = "file"
hosts = "promoters"
with = { path = "/root/after", content = "of the other\n" }
"#;
