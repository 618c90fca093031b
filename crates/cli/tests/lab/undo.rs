//! A run that is taken back on real hosts: files, units, a data directory and the dynamic configuration are
//! what they were, also where the undo is killed in the midst.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::cluster::Healthy;
use crate::harness::{Lab, Operator, PROMOTERS};

const DATA: &str = "/var/lib/postgresql/[0-9]*/main";

/// Changes something of every kind that can be taken back; the last step does what `last` says.
fn workflow(operator: &Operator, healthy: &Healthy, config: &Value, first: &str, last: &str) -> String {
    operator.write("app.conf", "host = {{ host.name }}\n");
    let text = r#"
name = "maintenance"
summary = "Changes this and that."
confirm = "demo"
FIRST

[steps.issue]
uses = "file"
hosts = "promoters"
with = { path = "/etc/issue.net", content = "maintenance\n", owner = "daemon", group = "adm", mode = "0640" }

[steps.app]
uses = "template"
needs = ["issue"]
hosts = "promoters"
with = { src = "app.conf", path = "/etc/lab-app/conf.d/app.conf", parents = true }

[steps.configuration]
uses = "patroni.config"
needs = ["app"]
hosts = "promoters"

[steps.stopped]
uses = "systemd.unit"
needs = ["configuration"]
hosts = "REPLICA"
with = { unit = "patroni.service", state = "stopped", enabled = false, masked = true }

[steps.aside]
uses = "postgres.data_set_aside"
needs = ["stopped"]
hosts = "REPLICA"
with = { data_dir = "{{ steps.configuration.data_dir }}", bin_dir = "{{ steps.configuration.bin_dir }}" }

[steps.dynamic]
uses = "patroni.dynamic_config"
needs = ["aside"]
hosts = "LEADER"
with = { config = CONFIG }

[steps.last]
uses = "command"
needs = ["dynamic"]
hosts = "LEADER"
with = { script = "LAST", repeatable = true, undo = "true" }
"#;
    let text = text
        .replace("FIRST", first)
        .replace("LAST", last)
        .replace("REPLICA", &healthy.replicas()[0])
        .replace("LEADER", healthy.leader())
        .replace("CONFIG", &inline(config));
    operator.write("maintenance.toml", &text)
}

/// A JSON value as TOML has it in one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name:?} = {}", inline(value));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// What must be as it was: files with owner and mode, units, the data directory with its inode, what flow
/// keeps, and the dynamic configuration.
#[derive(Debug, PartialEq)]
struct Seen {
    hosts: BTreeMap<String, String>,
    dynamic: Value,
}

fn look(lab: &Lab, leader: &str) -> Seen {
    let script = format!(
        "stat -c '%n %U %G %a %F' /etc/issue.net; sha256sum </etc/issue.net; ls -d /etc/lab-app 2>&1; \
         ls -a /var/lib/flow | grep -v lock; \
         systemctl is-enabled patroni.service; systemctl is-active patroni.service; \
         ls -d {DATA}*; stat -c '%i %U %G %a' {DATA}; cat {DATA}/PG_VERSION"
    );
    Seen { hosts: lab.on_all(&script), dynamic: lab.dynamic_configuration(leader) }
}

/// Another dynamic configuration than that.
fn another(dynamic: &Value) -> Value {
    let mut config = dynamic.clone();
    config["maximum_lag_on_failover"] = 3_145_728.into();
    config["postgresql"]["parameters"]["log_min_duration_statement"] = "1234ms".into();
    config
}

/// Whether all of it was changed, so that there is something to take back.
fn assert_changed(lab: &Lab, healthy: &Healthy, before: &Seen) {
    let now = look_at_changed(lab, &healthy.replicas()[0]);
    assert_eq!(now, "640 daemon adm|maintenance|host = REPLICA|masked|inactive|set aside");
    let dynamic = lab.dynamic_configuration(healthy.leader());
    assert_eq!(dynamic, another(&before.dynamic));
}

fn look_at_changed(lab: &Lab, replica: &str) -> String {
    let script = format!(
        "stat -c '%a %U %G' /etc/issue.net; cat /etc/issue.net /etc/lab-app/conf.d/app.conf; \
         systemctl is-enabled patroni.service; systemctl is-active patroni.service; \
         test ! -e {DATA} && ls -d {DATA}.set-aside-* >/dev/null && echo set aside"
    );
    lab.on(replica, &script).replace(replica, "REPLICA").lines().collect::<Vec<_>>().join("|")
}

#[test]
fn short_a_run_that_is_taken_back_leaves_the_cluster_as_it_was() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let before = look(&lab, healthy.leader());
    let workflow = workflow(&operator, &healthy, &another(&before.dynamic), "", "true");

    operator.flow(&["run", &workflow, "--confirm", "demo"]).ended(0);
    assert_changed(&lab, &healthy, &before);
    operator.flow(&["show"]).ended(0).says(&["take back what 10 tasks did: flow undo"]);
    operator.flow(&["undo"]).ended(3).says(&[
        "in the order in which it is taken back",
        "stays: what the unit itself wrote",
        "nothing was changed",
    ]);
    assert_changed(&lab, &healthy, &before);

    operator.flow(&["undo", "--yes"]).ended(0).says(&["taken back"]);
    let again = lab.wait_healthy();
    assert_eq!(again.system_identifier(), healthy.system_identifier());
    assert_eq!(look(&lab, again.leader()), before);
    assert_eq!(lab.sql(&healthy.replicas()[0], "select count(*) from accounts"), "1000");
    let locks = lab.on_all("cat /var/lib/flow/lock 2>/dev/null || true");
    assert!(locks.values().all(String::is_empty), "locks are left: {locks:?}");
    assert_eq!(operator.runs()[0].1, "undone");
}

#[test]
fn a_run_that_unwinds_is_killed_on_its_way_back_and_gone_on_with() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let before = look(&lab, healthy.leader());
    let unwind = "on_failure = \"unwind\"";
    let workflow = workflow(&operator, &healthy, &another(&before.dynamic), unwind, "false");

    let mut running = operator.start(&["run", &workflow, "--confirm", "demo", "--output", "json"]);
    running.wait_event("task_undone", "dynamic");
    running.wait_event("undo_intended", "aside");
    running.kill();
    assert_eq!(operator.runs()[0].1, "killed");
    // Killed once more, while Patroni is started again.
    let mut running = operator.start(&["undo", "--yes", "--output", "json"]);
    running.wait_event("undo_intended", "stopped");
    running.kill();
    operator.flow(&["undo", "--yes"]).ended(0).says(&["taken back"]);

    let again = lab.wait_healthy();
    assert_eq!(again.system_identifier(), healthy.system_identifier());
    assert_eq!(look(&lab, again.leader()), before);
    assert_eq!(operator.runs().len(), 1);
    assert_eq!(PROMOTERS.len(), again.replicas().len() + 1);
}
