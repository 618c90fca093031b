//! Ctrl-C, once and twice.

use crate::harness::{Lab, Operator};
use crate::locks::{hold, let_go};

#[test]
fn ctrl_c_once_lets_what_runs_finish_keeps_the_locks_and_is_resumed() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let before = lab.before(None);
    let mut running = operator.recover();
    let task = running.wait_event("task_intended", "stop-leader");
    running.signal("INT");
    let done = running.wait().ended(130);
    let result = done.result();
    assert_eq!(result["outcome"], "interrupted");
    assert_eq!(result["failures"], serde_json::json!([]));
    assert!(
        done.events.iter().any(|event| event["event"] == "task_done" && event["task"] == *task),
        "{}",
        done.text()
    );
    let later =
        |event: &serde_json::Value| event["task"].as_str().is_some_and(|task| task.starts_with("set-aside"));
    assert!(!done.events.iter().any(later), "nothing new was started: {}", done.text());

    let run = operator.runs()[0].0.clone();
    let locks = lab.on_all("head -n1 /var/lib/flow/lock");
    assert!(locks.values().all(|lock| lock.starts_with(&run)), "half done, it keeps its hosts: {locks:?}");
    Operator::new(&lab).flow(&["run", "deploy.toml"]).ended(3).says(&[&run]);
    lab.assert_resumes(&operator, &before);
}

#[test]
fn ctrl_c_twice_ends_at_once_and_the_run_is_resumed() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let workflow = hold(&operator);
    let mut running = operator.start(&["run", &workflow, "--output", "json"]);
    running.wait_events("task_intended", "work", 3);
    running.signal("INT");
    running.wait_line("the stop", |line| line.contains("run_interrupted"));
    running.signal("INT");
    // The command on the hosts would never end by itself.
    running.wait().ended(130);
    let_go(&lab);
    operator.flow(&["resume"]).ended(0);
    assert!(lab.on_all("cat /root/after").values().all(|text| text == "done"));
}
