//! Killed at any moment, resumed, the same end. SIGKILL of flow, so nothing of it can tidy up.

use std::process::Stdio;

use crate::harness::cluster::Before;
use crate::harness::lab::command;
use crate::harness::{Lab, Operator, PROMOTERS, Running, until};

/// A broken cluster, its recovery killed when `moment` says so, then resumed to the end.
fn killed_and_resumed(moment: impl FnOnce(&Lab, &mut Running)) {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let before = lab.before(Some(&broken));
    let mut running = operator.recover();
    moment(&lab, &mut running);
    running.kill();
    resume(&lab, &operator, &before);
}

fn resume(lab: &Lab, operator: &Operator, before: &Before) {
    assert_eq!(operator.runs()[0].1, "killed");
    lab.assert_resumes(operator, before);
    assert_eq!(operator.runs().len(), 1, "a resume is no second run");
    assert_eq!(operator.runs()[0].1, "succeeded");
}

#[test]
fn killed_while_replicas_are_being_stopped() {
    killed_and_resumed(|_, running| {
        running.wait_event("task_intended", "stop-replicas");
    });
}

#[test]
fn killed_when_the_leader_is_stopped_and_nothing_is_set_aside() {
    killed_and_resumed(|lab, running| {
        running.wait_event("task_done", "stop-leader");
        assert!(!lab.key("/service/demo/initialize").is_empty(), "the keys are there still");
    });
}

#[test]
fn killed_while_data_is_being_set_aside_with_one_host_still_to_go() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let before = lab.before(Some(&broken));
    let leader = lab.key("/service/demo/leader");
    let slow = PROMOTERS.into_iter().find(|host| *host != leader && *host != broken).unwrap();

    let mut running = operator.recover();
    running.wait_event("task_intended", "stop-leader");
    // What changes this host next, to set its data aside, has to wait for the lock's own lock.
    let held = Held::new(slow);
    let done = running.wait_events("task_done", "set-aside", 2);
    assert!(!done.contains(&format!("set-aside@{slow}")), "{done:?}");
    running.kill();
    // The attempt of the killed flow goes on by itself, before or beside the resume.
    drop(held);
    resume(&lab, &operator, &before);
}

/// Holds what every change on a host takes for a moment first.
struct Held(std::process::Child);

impl Held {
    fn new(host: &str) -> Self {
        let script = "exec 8>>/var/lib/flow/lock.flock && flock -x 8 && echo held && exec cat";
        let mut child = command(&["on", host, "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut told).unwrap();
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn killed_between_set_aside_and_purge() {
    killed_and_resumed(|_, running| {
        running.wait_events("task_done", "set-aside", 3);
    });
}

#[test]
fn killed_while_the_keys_are_purged() {
    killed_and_resumed(|_, running| {
        running.wait_event("task_intended", "purge");
    });
}

#[test]
fn killed_between_purge_and_redeploy() {
    killed_and_resumed(|lab, running| {
        running.wait_event("task_done", "purge");
        assert_eq!(lab.key("/service/demo/initialize"), "");
    });
}

#[test]
fn killed_during_the_bootstrap_of_the_first_member() {
    killed_and_resumed(|_, running| {
        running.wait_event("task_done", "start-first");
    });
}

#[test]
fn killed_while_the_replicas_clone() {
    killed_and_resumed(|_, running| {
        running.wait_event("task_done", "start-others");
    });
}

#[test]
fn killed_again_and_again_at_each_new_stage() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let before = lab.before(Some(&broken));
    let mut running = operator.recover();
    running.wait_event("task_intended", "stop-replicas");
    running.kill();
    for stage in ["set-aside", "purge", "start-first"] {
        let mut running = operator.resume();
        running.wait_event("task_intended", stage);
        running.kill();
    }
    resume(&lab, &operator, &before);
}

#[test]
fn a_deployment_killed_at_eight_points_on_its_way_and_resumed_each_time_is_the_same_cluster() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    let steps = [
        "packages",
        "certificate",
        "etcd-configuration",
        "etcd-running",
        "etcd-healthy",
        "patroni-running",
        "healthy",
        "balancer-leads",
    ];
    let mut identifier = String::new();
    for (kills, step) in steps.into_iter().enumerate() {
        let mut running = match kills {
            0 => operator.start(&["run", "deploy.toml", "--output", "json"]),
            _ => operator.resume(),
        };
        running.wait_step(step);
        running.kill();
        if let Some(now) = lab.key_if("/service/demo/initialize").ok().filter(|now| !now.is_empty()) {
            assert!(identifier.is_empty() || identifier == now, "a second bootstrap: {identifier}, {now}");
            identifier = now;
        }
    }
    operator.resume().wait().ended(0);
    assert_eq!(lab.assert_healthy().system_identifier(), identifier);
    assert_eq!(installs(&lab), ["1", "1", "1"], "nothing was installed twice");
    operator.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
}

/// Ends the SSH sessions on a host, those that work for flow among them.
pub fn drop_connections(lab: &Lab, host: &str) {
    lab.on(host, "for pid in $(pgrep -x sshd -P $(cat /run/sshd.pid)); do kill -KILL $pid; done");
}

/// Waits until apt is at work on a host, under a unit of its own.
fn wait_for_dpkg(lab: &Lab, host: &str) {
    until("the package install", || {
        let busy =
            lab.try_on(host, "pgrep -x dpkg >/dev/null && systemctl list-units --plain --no-legend 'flow-*'");
        match busy {
            Ok(units) if units.contains("running") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// How often dpkg was told to install the package that every cluster needs.
fn installs(lab: &Lab) -> Vec<String> {
    lab.on_all("grep -c ' install patroni:' /var/log/dpkg.log").into_values().collect()
}

#[test]
fn killed_with_the_connection_cut_while_the_remote_install_goes_on() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    let mut running = operator.start(&["run", "deploy.toml", "--output", "json"]);
    running.wait_events("task_intended", "packages", 3);
    for host in PROMOTERS {
        wait_for_dpkg(&lab, host);
        drop_connections(&lab, host);
    }
    running.kill();
    for host in PROMOTERS {
        let units = lab.on(host, "systemctl list-units --plain --no-legend 'flow-*'");
        assert!(units.contains("running"), "the install outlives the connection on {host}: {units}");
    }
    operator.resume().wait().ended(0);
    lab.assert_healthy();
    assert_eq!(installs(&lab), ["1", "1", "1"], "nothing was installed twice");
}
