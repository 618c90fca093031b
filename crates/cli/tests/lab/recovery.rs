//! The reset recovery, undisturbed: what it explains, refuses, keeps and brings back.

use crate::harness::lab::ROWS;
use crate::harness::{Lab, Operator};

#[test]
fn short_a_system_id_mismatch_is_explained_then_recovered_and_nothing_is_lost() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    lab.rest(&leader, "PATCH", "/config", r#"{"maximum_lag_on_failover": 2097152}"#).unwrap();
    lab.put_key("/service/demo-other/x", "theirs");
    let before = lab.before(Some(&broken));
    let footprint = lab.footprint(Some(&broken));

    operator
        .flow(&["run", "system-id-recovery.toml"])
        .ended(3)
        .says(&["--confirm demo", "nothing was changed"]);
    operator
        .flow(&["run", "system-id-recovery.toml", "--set", "mode=reset"])
        .ended(3)
        .says(&["--confirm demo", "nothing was changed"]);
    operator
        .flow(&["run", "system-id-recovery.toml", "--set", "mode=reset", "--confirm", "dmo"])
        .ended(3)
        .says(&["--confirm demo", "nothing was changed"]);
    operator.flow(&["plan", "system-id-recovery.toml", "--set", "mode=reset"]).ended(2).says(&["set-aside-"]);
    assert_eq!(lab.footprint(Some(&broken)), footprint, "explaining, refusing and planning change nothing");

    let done = operator
        .flow(&[
            "run",
            "system-id-recovery.toml",
            "--set",
            "mode=reset",
            "--confirm",
            "demo",
            "--output",
            "json",
        ])
        .ended(0)
        .says(&["THE CLUSTER COMES BACK EMPTY", ".set-aside-TIME-RUN"]);
    let healthy = lab.assert_recovered(&before);
    let run = done.result()["run"].as_str().unwrap().to_owned();

    let dynamic = lab.dynamic_configuration(healthy.leader());
    assert_eq!(dynamic["maximum_lag_on_failover"], 2_097_152, "the dynamic configuration is back: {dynamic}");
    assert_eq!(lab.key("/service/demo-other/x"), "theirs", "a neighbour's keys stay");
    let tables = lab.sql(healthy.leader(), "select count(*) from pg_tables where tablename = 'accounts'");
    assert_eq!(tables, "0", "it is a new, empty cluster");

    for (host, aside) in lab.set_aside() {
        let output = done.output(&format!("set-aside@{host}"));
        assert_eq!(output["set_aside"], *aside, "the run says where the old data of {host} is");
        let data = aside.split(".set-aside-").next().unwrap();
        let saved = format!("{data}.flow-{run}.json");
        assert_eq!(lab.on(&host, &format!("stat -c '%a %U' {saved}")), "600 postgres");
        let saved: serde_json::Value = serde_json::from_str(&lab.on(&host, &format!("cat {saved}"))).unwrap();
        assert_eq!(saved["dynamic_config"]["maximum_lag_on_failover"], 2_097_152, "{saved:#}");
        assert_eq!(saved["prefix"], "/service/demo/");
    }
    let aside = &lab.set_aside()[&leader];
    assert_eq!(rows_of_a_copy(&lab, &leader, aside), ROWS.to_string(), "the old data can be served");
    operator.flow(&["show", &run, "--verbose"]).ended(0).says(&[aside]);
}

#[test]
fn a_cluster_in_pause_is_never_set_aside_under_a_running_postgresql() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let before = lab.before(None);
    let leader = lab.key("/service/demo/leader");
    lab.rest(&leader, "PATCH", "/config", r#"{"pause": true}"#).unwrap();
    crate::harness::until("the pause", || match lab.dynamic_configuration(&leader)["pause"].as_bool() {
        Some(true) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let mut running = operator.recover();
    running.wait_event("task_intended", "set-aside");
    let processes = lab.on_all("pgrep -x postgres || true");
    assert!(
        processes.values().all(String::is_empty),
        "PostgreSQL runs while data is set aside: {processes:?}"
    );
    running.wait().ended(0);
    lab.assert_recovered(&before);
}

/// Starts a copy of a set-aside directory on a port of its own and counts the table's rows.
fn rows_of_a_copy(lab: &Lab, host: &str, aside: &str) -> String {
    lab.on(
        host,
        &format!(
            "set -e; bin=$(ls -d /usr/lib/postgresql/*/bin); cd /; \
             cp -a {aside} /var/tmp/copy; rm -f /var/tmp/copy/postmaster.pid; \
             run() {{ runuser -u postgres -- \"$@\"; }}; \
             run $bin/pg_ctl -D /var/tmp/copy -s -w -l /dev/null -o '-p 5499 -c listen_addresses= -c archive_mode=off' start; \
             run psql -XqAt -p 5499 -c 'select count(*) from accounts'; \
             run $bin/pg_ctl -D /var/tmp/copy -s -m immediate stop; rm -rf /var/tmp/copy"
        ),
    )
}

#[test]
fn a_healthy_cluster_is_not_emptied_unless_it_is_asked_for() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let footprint = lab.footprint(None);
    let words = ["the cluster is healthy", healthy.system_identifier(), "even_if_healthy=true"];
    operator.flow(&["plan", "system-id-recovery.toml", "--set", "mode=reset"]).ended(1).says(&words);
    operator
        .flow(&["run", "system-id-recovery.toml", "--set", "mode=reset", "--confirm", "demo"])
        .ended(1)
        .says(&words);
    assert_eq!(lab.footprint(None), footprint);
    assert!(lab.on_all("cat /var/lib/flow/lock 2>/dev/null || true").values().all(String::is_empty));
}
