//! Hosts that are down, rebooted, cut off, or not who they were.

use crate::harness::{Lab, Operator, PROMOTERS, until};
use crate::killed::drop_connections;
use crate::locks::let_go;

#[test]
fn a_recovery_with_a_host_down_is_refused_before_anything_is_changed() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    lab.must(&["kill", "patroni3"]);
    let there = ["patroni1", "patroni2"];
    let look = "systemctl show -p MainPID,InvocationID,UnitFileState patroni.service; \
                ls -d /var/lib/postgresql/[0-9]*/main*; test ! -e /var/lib/flow/lock || echo locked";
    let before = lab.each(&there, look);
    let done = operator.recover().wait().ended(3).says(&["patroni3", "198.18.0.13", "nothing was changed"]);
    assert!(done.changed_nothing());
    assert_eq!(lab.each(&there, look), before);
}

#[test]
fn a_deploy_with_a_host_down_changes_nothing_and_is_resumed_once_it_is_back() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    lab.must(&["kill", "patroni3"]);
    let done = operator.flow(&["run", "deploy.toml"]).ended(1);
    done.says(&["clocks@patroni3", "198.18.0.13", "flow resume"]);
    lab.on("patroni1", "test ! -e /etc/postgresql-common/createcluster.conf");
    lab.must(&["boot", "patroni3"]);
    operator.flow(&["resume"]).ended(0);
    lab.assert_healthy();
}

#[test]
fn a_changed_host_key_is_refused_with_both_fingerprints_and_the_remedy() {
    let lab = Lab::deployed();
    let text = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let known = std::fs::read_to_string(lab.file("known_hosts")).unwrap();
    let mut lines: Vec<String> = known.lines().map(str::to_owned).collect();
    let key = |line: &str| line.split(' ').skip(1).collect::<Vec<_>>().join(" ");
    let (right, wrong) = (key(&lines[1]), key(&lines[0]));
    assert!(lines[1].contains("patroni2"));
    lines[1] = lines[1].replace(&right, &wrong);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let inventory = text.replace(lab.file("known_hosts").to_str().unwrap(), file.to_str().unwrap());
    let operator = Operator::with_inventory(&lab, &inventory);
    let footprint = lab.footprint(None);

    let done = operator.flow(&crate::harness::operator::RECOVER).ended(3);
    let done = done.says(&["patroni2", "198.18.0.12", "the host key has changed", "ssh-keygen -R"]);
    for key in [&right, &wrong] {
        let print = fingerprint(folder.path(), key);
        assert!(done.text().contains(&print), "{print} is not named: {}", done.text());
    }
    assert!(done.changed_nothing());
    assert_eq!(lab.footprint(None), footprint);
}

/// `SHA256:...` of a public key, by ssh-keygen.
fn fingerprint(folder: &std::path::Path, key: &str) -> String {
    let file = folder.join("key.pub");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let output = std::process::Command::new("ssh-keygen").arg("-lf").arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_host_rebooted_between_stop_and_set_aside_stays_stopped_and_the_run_ends_well() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let before = lab.before(None);
    let mut running = operator.recover();
    running.wait_event("task_done", "stop-leader");
    running.kill();
    let leader = lab.key("/service/demo/leader");
    let host = if leader == "patroni3" { "patroni2" } else { "patroni3" };
    lab.must(&["kill", host]);
    lab.must(&["boot", host]);
    let patroni = lab.on(
        host,
        "systemctl is-active patroni.service; systemctl is-enabled patroni.service; pgrep -x postgres; true",
    );
    assert_eq!(patroni, "inactive\nmasked", "a reboot brings nothing back");
    lab.assert_resumes(&operator, &before);
}

#[test]
fn a_cable_pulled_in_the_middle_is_told_with_the_host_s_name_and_the_run_goes_on_once_it_is_back() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let before = lab.before(None);
    let mut running = operator.recover();
    running.wait_event("task_done", "purge");
    // Held meanwhile: on a busy machine all members could be started before the cable is out.
    running.signal("STOP");
    lab.must(&["cut", "patroni2"]);
    running.signal("CONT");
    let done = running.wait();
    assert!(matches!(done.code(), Some(1 | 4)), "{}", done.text());
    let result = done.result();
    let told = |failure: &serde_json::Value| {
        let message = failure["error"]["message"].as_str().unwrap_or_default();
        failure["task"].as_str().is_some_and(|task| task.ends_with("@patroni2"))
            && message.contains("patroni2")
    };
    assert!(result["failures"].as_array().unwrap().iter().any(told), "{result:#}");
    lab.must(&["heal", "patroni2"]);
    until("the host's sshd", || lab.try_on("patroni2", "true"));
    lab.assert_resumes(&operator, &before);
}

#[test]
fn a_host_that_is_down_in_the_middle_of_a_recovery_keeps_no_other_down() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let mut running = operator.recover();
    running.wait_event("task_done", "stop-leader");
    running.kill();
    let run = operator.runs()[0].0.clone();
    let away = &healthy.replicas()[0];
    lab.must(&["cut", away]);
    let without = format!("--keep-host {away}");
    operator.flow(&["resume", &run]).ended(3).says(&[away, "flow undo", &without]);
    operator.flow(&["undo", &run, "--yes"]).ended(3).says(&[away, &without]);

    operator
        .flow(&["undo", &run, "--yes", "--keep-host", away])
        .ended(0)
        .says(&["taken back", "is left as the run left it"]);
    // Whoever of the two leads now, it has the data.
    until("a leader among the other two", || {
        let script = "cd / && runuser -u postgres -- psql -X -At -c 'select pg_is_in_recovery(), count(*) from accounts'";
        let seen = [healthy.leader(), &healthy.replicas()[1]].map(|host| lab.try_on(host, script));
        let leads = |seen: &Result<String, String>| seen.as_ref().is_ok_and(|rows| rows == "f|1000");
        if seen.iter().any(leads) { Ok(()) } else { Err(format!("{seen:?}")) }
    });

    lab.must(&["heal", away]);
    until("the host's sshd", || lab.try_on(away, "true"));
    operator.flow(&["unlock", &run]).ended(0).says(&[away, "unlocked"]);
    operator.flow(&["run", "deploy.toml"]).ended(0);
    let again = lab.wait_healthy();
    assert_eq!(again.system_identifier(), healthy.system_identifier());
    let aside = lab.on_all("ls -d /var/lib/postgresql/[0-9]*/main.set-aside-* 2>/dev/null || true");
    assert!(aside.values().all(String::is_empty), "{aside:?}");
}

#[test]
fn a_detached_command_outlives_its_connection_and_is_not_run_twice() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let workflow = operator.write(
        "long.toml",
        r#"
name = "long"
summary = "A command that takes long."

[steps.long]
uses = "command"
hosts = "promoters"
with = { script = "echo once >>/root/runs; until [ -e /var/tmp/go ]; do sleep 0.1; done", creates = "/var/tmp/go", detached = true }
"#,
    );
    let mut running = operator.start(&["run", &workflow, "--output", "json"]);
    running.wait_events("task_intended", "long", 3);
    for host in PROMOTERS {
        until("the command's start", || lab.try_on(host, "test -e /root/runs"));
        drop_connections(&lab, host);
    }
    let_go(&lab);
    running.wait().ended(0);
    assert!(lab.on_all("cat /root/runs").values().all(|runs| runs == "once"));
}
