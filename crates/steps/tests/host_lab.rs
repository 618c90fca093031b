//! What needs a host with systemd. Run at a lab's operator's place, with `FLOW_LAB_DIR` set to the
//! lab's folder (`lab dir`): `lab run env FLOW_LAB_DIR=... cargo test --test host_lab`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic where a test would, and say why one is skipped"
)]

use std::sync::Arc;

use flow_core::inventory;
use flow_core::run::{RunId, TaskName};
use flow_core::step::{Attempt, Secret};
use flow_steps::host::{
    AttemptState, Command, Content, Host, HostChange, HostError, Hosts, HostsConfig, LockClaim, Ownership,
    ProcessQuery, UnitVerb,
};
use serde_json::{Value, json};

/// A host, and the name under which this test works on it.
struct Lab {
    host: Arc<dyn Host>,
    run: String,
}

async fn lab(test: &str, address: &str) -> Option<Lab> {
    let Ok(dir) = std::env::var("FLOW_LAB_DIR") else {
        println!("skipped: FLOW_LAB_DIR is not set");
        return None;
    };
    let host = connect(&dir, address).await;
    let run = format!("{test}{}", jiff::Timestamp::now().as_microsecond());
    // One test at a time has the host.
    let lab = Lab { host, run };
    while let Err(HostError::Locked { .. }) = lab.host.lock(&lab.claim()).await {}
    Some(lab)
}

async fn connect(dir: &str, address: &str) -> Arc<dyn Host> {
    let vars = json!({
        "ansible_host": address, "ansible_user": "root",
        "ansible_ssh_private_key_file": format!("{dir}/id_ed25519"),
        "ansible_ssh_common_args": format!("-o UserKnownHostsFile={dir}/known_hosts"),
    });
    let Value::Object(vars) = vars else { unreachable!() };
    let entry = Arc::new(inventory::Host { name: "lab".into(), vars, ..inventory::Host::default() });
    Hosts::new(HostsConfig::default()).get(&entry).await.unwrap()
}

impl Lab {
    fn claim(&self) -> LockClaim {
        LockClaim {
            run: self.run.clone(),
            workflow: "test".into(),
            owner: "test".into(),
            epoch: 1,
            since: jiff::Timestamp::now(),
        }
    }

    fn attempt(&self, number: u32) -> Attempt {
        let task = TaskName::new("do/it", Some("lab"));
        Attempt { run: RunId::from_text(&self.run), task, number, epoch: 1 }
    }

    async fn unit(&self, unit: &str, verb: UnitVerb) -> Result<(), HostError> {
        self.host.change(&self.attempt(1), &HostChange::Unit { unit: unit.into(), verb }).await
    }

    async fn end(self) {
        self.host.unlock(&self.claim(), false).await.unwrap();
    }
}

#[tokio::test]
async fn a_detached_command_survives_its_connection_and_is_joined_again() {
    let Some(lab) = lab("detached", "198.18.0.11").await else { return };
    let (host, by) = (&lab.host, lab.attempt(1));
    let gate = format!("/run/{}", lab.run);
    let mut command = Command::new(format!(
        "mkfifo {gate}; echo \"$WORD\"; read x < {gate}; echo more; echo err >&2; exit 4"
    ))
    .detached();
    command.environment.insert("WORD".into(), Secret::new("un'seen-word"));
    let session = host.probe("echo $PPID").await.unwrap().text();
    let cut = async {
        while host.stat(&gate).await.unwrap().is_none() {}
        let shown = format!(
            "systemctl show {0}.service; cat /proc/[0-9]*/cmdline; ls /run/flow/attempts/{0}.*",
            by.name()
        );
        let shown = host.probe(&shown).await.unwrap().text();
        assert!(!shown.contains("seen-word") && shown.contains(".out") && !shown.contains(".cmd"), "{shown}");
        // The answer to this one is lost with the connection, and asked for again.
        host.probe(&format!("kill -9 {session}")).await.ok();
    };
    let (lost, ()) = tokio::join!(host.run(&by, &command), cut);
    assert!(matches!(lost, Err(HostError::Lost { .. })), "{lost:?}");
    assert_eq!(host.attempt(&by).await.unwrap(), AttemptState::Running);

    let open = format!("echo x > {gate}");
    let open = host.probe(&open);
    let (joined, _) = tokio::join!(host.run(&by, &command), open);
    let joined = joined.unwrap();
    assert_eq!(
        (joined.text().as_str(), joined.error_text().as_str(), joined.code),
        ("un'seen-word\nmore", "err", 4)
    );
    assert_eq!(host.attempt(&by).await.unwrap(), AttemptState::Ended(Some(joined.clone())));
    assert_eq!(host.run(&by, &command).await.unwrap(), joined, "it is not run again");
    lab.end().await;
}

#[tokio::test]
async fn a_detached_command_that_is_stopped_from_outside_is_an_error() {
    let Some(lab) = lab("stopped", "198.18.0.12").await else { return };
    let (host, by) = (&lab.host, lab.attempt(1));
    let command = Command::new("echo begun; exec sleep 600").detached();
    let stop = async {
        // In this order: an attempt that is looked at before it has begun is over, and begins no more.
        while host.unit(&format!("{}.service", by.name())).await.unwrap().active != "active"
            || host.attempt(&by).await.unwrap() != AttemptState::Running
        {}
        host.probe(&format!("systemctl stop {}.service", by.name())).await.unwrap();
    };
    let (ended, ()) = tokio::join!(host.run(&by, &command), stop);
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("was ended before its command was"), "{text}");
    assert_eq!(host.attempt(&by).await.unwrap(), AttemptState::Ended(None));
    lab.end().await;
}

#[tokio::test]
async fn units_are_started_stopped_masked_and_seen_with_all_their_processes() {
    let Some(lab) = lab("units", "198.18.0.13").await else { return };
    let (host, name) = (&lab.host, "flow-test.service");
    // KillMode=process leaves the second process behind, as Debian's Patroni unit would.
    let unit = "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'sleep 3001 & exec sleep 3002'\n";
    let write = HostChange::WriteFile {
        path: format!("/run/systemd/system/{name}"),
        content: Content(unit.into()),
        ownership: Ownership::default(),
    };
    host.change(&lab.attempt(1), &write).await.unwrap();
    lab.unit(name, UnitVerb::DaemonReload).await.unwrap();
    lab.unit(name, UnitVerb::Start).await.unwrap();
    let mut running = host.unit(name).await.unwrap();
    while running.processes.len() < 2 {
        running = host.unit(name).await.unwrap();
    }
    assert_eq!((running.active.as_str(), running.processes.len()), ("active", 2), "{running:?}");
    assert!(running.processes.contains(&running.main_pid) && !running.invocation.is_empty());

    lab.unit(name, UnitVerb::Stop).await.unwrap();
    let stopped = host.unit(name).await.unwrap();
    assert_eq!((stopped.active.as_str(), stopped.main_pid), ("inactive", 0));
    assert_eq!(stopped.processes.len(), 1, "what is left behind is seen: {stopped:?}");
    let query = ProcessQuery { command_contains: Some("sleep 3001".into()), ..ProcessQuery::default() };
    let left = host.processes(&query).await.unwrap();
    assert_eq!(left.iter().map(|p| p.pid).collect::<Vec<_>>(), stopped.processes);
    host.probe(&format!("kill {}", left[0].pid)).await.unwrap();

    lab.unit("cron.service", UnitVerb::Mask).await.unwrap();
    assert!(host.unit("cron.service").await.unwrap().masked());
    lab.unit("cron.service", UnitVerb::Unmask).await.unwrap();
    assert!(!host.unit("cron.service").await.unwrap().masked());

    let failed = lab.unit("no-such.service", UnitVerb::Start).await.unwrap_err().to_string();
    assert!(failed.starts_with("lab: systemctl start no-such.service failed: "), "{failed}");
    let gone = HostChange::RemoveFile { path: format!("/run/systemd/system/{name}") };
    host.change(&lab.attempt(1), &gone).await.unwrap();
    lab.end().await;
}
