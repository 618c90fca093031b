//! `systemd.unit` on simulated hosts.

use super::*;
use crate::host::Ownership;
use crate::host::sim::{Fault, FaultKind, HostState, SimProcess};
use crate::testing::{Lab, done, pending, refused, satisfied};
use serde_json::json;

fn unit(with: serde_json::Value) -> SystemdUnit {
    let step: SystemdUnit = serde_json::from_value(with).unwrap();
    step.validate().unwrap();
    step
}

fn stopped() -> SystemdUnit {
    unit(json!({ "unit": "patroni.service", "state": "stopped", "masked": true, "grace": 0 }))
}

#[tokio::test]
async fn a_unit_is_stopped_and_masked_and_does_not_come_back_by_a_reboot() {
    let lab = Lab::deployed().await;
    let cx = lab.on("patroni2");
    let (change, _) = lab.establish(&stopped(), &cx).await;
    assert_eq!(change.summary, "patroni.service: active (running) -> stopped, unmasked -> masked");
    lab.world.reboot("patroni2").unwrap();
    satisfied(stopped().check(&cx).await.unwrap());
}

#[tokio::test]
async fn a_stop_whose_answer_was_lost_is_gone_on_with() {
    let lab = Lab::deployed().await;
    let cx = lab.on("patroni2");
    let change = pending(stopped().check(&cx).await.unwrap());
    lab.world.inject(Fault::at("patroni2", "unit stop", FaultKind::LoseAnswer)).unwrap();
    stopped().apply(&cx, &change).await.unwrap_err();
    assert!(matches!(stopped().resolve(&cx, &change).await.unwrap(), flow_core::step::Resolved::NotDone));
    lab.establish(&stopped(), &cx).await;
    done(stopped().resolve(&cx, &change).await.unwrap());
}

#[tokio::test]
async fn processes_that_live_on_are_told_and_nothing_is_called_stopped() {
    let lab = Lab::deployed().await;
    let cx = lab.on("patroni2");
    lab.establish(&stopped(), &cx).await;
    let left = SimProcess {
        user: "postgres".into(),
        comm: "postgres".into(),
        command: "postgres -D /data".into(),
        directory: "/data".into(),
        unit: Some("patroni.service".into()),
    };
    lab.world.edit_host("patroni2", |host| host.processes.insert(4711, left)).unwrap();
    let why = refused(stopped().check(&cx).await.unwrap());
    assert!(why.contains("processes of it are left: 4711 (postgres: postgres -D /data)"), "{why}");
    let lenient = SystemdUnit { no_process_left: false, ..stopped() };
    satisfied(lenient.check(&cx).await.unwrap());
}

#[tokio::test]
async fn running_unmasks_starts_and_enables_and_undo_goes_back() {
    let lab = Lab::deployed().await;
    let cx = lab.on("patroni3");
    lab.establish(&stopped(), &cx).await;
    let running = unit(json!({ "unit": "patroni.service", "state": "running", "masked": false }));
    let (change, output) = lab.establish(&running, &cx).await;
    running.undo(&cx, &change, Some(&output)).await.unwrap();
    satisfied(stopped().check(&cx).await.unwrap());
}

#[tokio::test]
async fn a_unit_that_was_enabled_below_its_mask_is_so_again() {
    let lab = Lab::deployed().await;
    let cx = lab.on("patroni3");
    lab.establish(&stopped(), &cx).await;
    let enabled = || lab.world.state().unwrap().hosts["patroni3"].units["patroni.service"].enabled;
    assert!(enabled());
    let running =
        unit(json!({ "unit": "patroni.service", "state": "running", "enabled": true, "masked": false }));
    let (change, _) = lab.establish(&running, &cx).await;
    running.undo(&cx, &change, None).await.unwrap();
    satisfied(stopped().check(&cx).await.unwrap());
    assert!(enabled());
}

#[tokio::test]
async fn a_unit_that_is_not_there_is_refused_in_a_run_and_deferred_in_a_plan() {
    let lab = Lab::bare().await;
    let running = unit(json!({ "unit": "no.service", "state": "running" }));
    assert_eq!(refused(running.check(&lab.on("patroni1")).await.unwrap()), "there is no unit no.service");
    let planned = running.check(&lab.planning("patroni1")).await.unwrap();
    assert_eq!(planned, Check::Deferred("there is no unit no.service yet".into()));
    let gone = unit(json!({ "unit": "no.service", "state": "stopped" }));
    satisfied(gone.check(&lab.on("patroni1")).await.unwrap());
}

#[test]
fn a_masked_unit_that_runs_is_refused() {
    let with = json!({ "unit": "a", "state": "running", "masked": true });
    assert!(serde_json::from_value::<SystemdUnit>(with).unwrap().validate().is_err());
    assert!(serde_json::from_value::<SystemdUnit>(json!({ "unit": "a" })).unwrap().validate().is_err());
}

#[tokio::test]
async fn a_unit_is_reloaded_or_restarted_once_after_its_files_were_written() {
    let lab = Lab::deployed().await;
    let cx = lab.on("patroni2");
    let config = "/etc/patroni/config.yml";
    let reloads =
        unit(json!({ "unit": "patroni.service", "state": "running", "reload_after": [config, "/no/such"] }));
    let restarts = unit(json!({ "unit": "patroni.service", "state": "running", "restart_after": [config] }));
    let invocation =
        || lab.world.state().unwrap().hosts["patroni2"].units["patroni.service"].invocation.clone();
    let write = |more: &str| {
        let text = lab.text("patroni2", config).unwrap() + more;
        let write = |host: &mut HostState| host.files.write(config, text, &Ownership::default()).unwrap();
        lab.world.edit_host("patroni2", write).unwrap();
    };
    let began = invocation();
    satisfied(reloads.check(&cx).await.unwrap());

    write("# one\n");
    let (change, _) = lab.establish(&reloads, &cx).await;
    assert_eq!(change.summary, "patroni.service: reload, since it hasn't read /etc/patroni/config.yml yet");
    satisfied(restarts.check(&cx).await.unwrap());
    assert_eq!(invocation(), began, "it was restarted");

    write("# two\n");
    let (change, _) = lab.establish(&restarts, &cx).await;
    assert_eq!(change.summary, "patroni.service: restart, since it hasn't read /etc/patroni/config.yml yet");
    assert_ne!(invocation(), began);
    satisfied(reloads.check(&cx).await.unwrap());

    // Without a state it is only for a unit that runs.
    let if_running = unit(json!({ "unit": "patroni.service", "reload_after": [config] }));
    write("# three\n");
    lab.establish(&if_running, &cx).await;
    lab.establish(&unit(json!({ "unit": "patroni.service", "state": "stopped" })), &cx).await;
    write("# four\n");
    satisfied(if_running.check(&cx).await.unwrap());
}

#[test]
fn a_unit_that_is_not_to_run_is_not_to_read_anything() {
    for with in [
        json!({ "unit": "a", "state": "stopped", "reload_after": ["/etc/a"] }),
        json!({ "unit": "a", "reload_after": [] }),
        json!({ "unit": "a", "state": "running", "restart_after": ["etc/a"] }),
    ] {
        assert!(serde_json::from_value::<SystemdUnit>(with).unwrap().validate().is_err());
    }
}
