//! Files, units, commands, locks, attempts and faults of single hosts.

use std::time::Duration;

use flow_steps::host::sim::{CannedReply, Fault, FaultKind, Release, ScriptMatch, SimWorld};
use flow_steps::host::{AttemptState, Command, HostChange, HostError, UnitVerb};

use crate::support::*;

#[tokio::test]
async fn the_state_is_seen_by_another_world_of_the_same_file() {
    let (_directory, world) = bare(Release::Bookworm);
    let other = SimWorld::open(world.path()).unwrap();
    let host = locked(&world, "patroni1").await;
    host.change(&by(), &write("/srv/a", "one")).await.unwrap();
    assert_eq!(other.host("patroni1").read("/srv/a", 100).await.unwrap().unwrap(), b"one");
    other.host("patroni1").change(&by(), &write("/srv/a", "two")).await.unwrap();
    assert_eq!(host.read("/srv/a", 100).await.unwrap().unwrap(), b"two");
    assert_eq!(world.effects().unwrap().len(), 2);
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_no_effect() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = locked(&world, "patroni1").await;
    for _ in 0..2 {
        host.change(&by(), &directory("/srv/x/y")).await.unwrap();
        host.change(&by(), &HostChange::RemoveFile { path: "/srv/none".into() }).await.unwrap();
        unit(&host, "patroni", UnitVerb::Mask).await;
    }
    let effects = world.effects().unwrap();
    let texts: Vec<&str> = effects.iter().map(|effect| effect.text.as_str()).collect();
    assert_eq!(texts, ["make-directory /srv/x/y", "unit mask patroni.service"]);
    assert_eq!(effects[0].attempt, Some(by().name()));
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = locked(&world, "patroni1").await;
    let before = world.state().unwrap();
    let error = host.change(&by(), &write("/nowhere/a", "x")).await.unwrap_err();
    assert_eq!(error.to_string(), "patroni1: /nowhere/a: No such file or directory");
    let start = HostChange::Unit { unit: "patroni".into(), verb: UnitVerb::Start };
    let error = host.change(&by(), &start).await.unwrap_err();
    assert_eq!(error.to_string(), "patroni1: Unit patroni.service not found.");
    assert_eq!(world.state().unwrap().hosts, before.hosts);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_effect_and_a_lost_request_does_not() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = locked(&world, "patroni1").await;
    world.inject(Fault::at("patroni1", "write-file /srv/a", FaultKind::LoseAnswer)).unwrap();
    world.inject(Fault::at("patroni1", "write-file /srv/b", FaultKind::LoseRequest)).unwrap();
    for path in ["/srv/a", "/srv/b"] {
        let error = host.change(&by(), &write(path, "x")).await.unwrap_err();
        assert!(matches!(error, HostError::Lost { .. }), "{error}");
    }
    assert!(host.stat("/srv/a").await.unwrap().is_some());
    assert!(host.stat("/srv/b").await.unwrap().is_none());
    assert_eq!(world.effects().unwrap().len(), 1);
    host.change(&by(), &write("/srv/b", "x")).await.unwrap();
}

#[tokio::test]
async fn a_fault_fails_hangs_or_is_unreachable_once() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = locked(&world, "patroni1").await;
    let full = FaultKind::Fail("no space left on device".into());
    for (n, kind) in [(1, full), (2, FaultKind::Hang), (3, FaultKind::Unreachable)] {
        world.inject(Fault::nth("patroni1", n, kind)).unwrap();
    }
    let error = host.change(&by(), &write("/srv/a", "x")).await.unwrap_err();
    assert_eq!(error.to_string(), "patroni1: no space left on device");
    let hung = tokio::time::timeout(Duration::ZERO, host.stat("/srv/a")).await;
    assert!(hung.is_err(), "a hung call has no answer");
    assert!(matches!(host.stat("/srv/a").await, Err(HostError::Unreachable { .. })));
    assert_eq!(host.stat("/srv/a").await.unwrap(), None);
}

#[tokio::test]
async fn a_change_without_the_lock_is_fenced_and_changes_nothing() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = world.host("patroni1");
    let change = write("/srv/a", "x");
    assert!(matches!(host.change(&by(), &change).await, Err(HostError::Fenced { .. })));
    assert_eq!(host.stat("/srv/a").await.unwrap(), None);
    host.lock(&claim("run1", "me", 1)).await.unwrap();
    host.change(&by(), &change).await.unwrap();
    assert!(matches!(host.lock(&claim("run2", "you", 9)).await, Err(HostError::Locked { .. })));
    host.lock(&claim("run1", "me again", 2)).await.unwrap();
    assert!(matches!(host.change(&by(), &change).await, Err(HostError::Fenced { .. })));
    assert!(matches!(host.run(&by(), &Command::new("true")).await, Err(HostError::Fenced { .. })));
    assert!(matches!(host.fence(&by()).await, Err(HostError::Fenced { .. })));
    assert!(matches!(host.lock(&claim("run1", "me", 1)).await, Err(HostError::Fenced { .. })));
    host.fence(&attempt(2, 2)).await.unwrap();
    host.unlock(&claim("run2", "you", 9), false).await.unwrap();
    assert_eq!(host.lock_holder().await.unwrap().unwrap().run, "run1");
    host.unlock(&claim("run1", "me again", 2), false).await.unwrap();
    assert_eq!(host.lock_holder().await.unwrap(), None);
}

#[tokio::test]
async fn a_detached_command_outlives_its_caller_and_has_one_effect() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = locked(&world, "patroni1").await;
    let script = "pg_basebackup -D /srv/backup | cat";
    let slow = CannedReply::new(ScriptMatch::Exact(script.into()), "done");
    world.reply(CannedReply { polls: Some(2), ..slow }).unwrap();
    world.inject(Fault::at("patroni1", "run pg_basebackup", FaultKind::LoseAnswer)).unwrap();
    let command = Command::new(script).detached();
    assert_eq!(host.attempt(&by()).await.unwrap(), AttemptState::Absent);
    assert!(matches!(host.run(&by(), &command).await, Err(HostError::Lost { .. })));
    assert_eq!(host.attempt(&by()).await.unwrap(), AttemptState::Running);
    let error = host.unlock(&claim("run1", "you", 1), true).await.unwrap_err();
    assert!(error.to_string().contains("still running"), "{error}");
    let reply = host.run(&by(), &command).await.unwrap();
    assert_eq!(reply.text(), "done");
    assert_eq!(host.run(&by(), &command).await.unwrap(), reply);
    assert_eq!(host.attempt(&by()).await.unwrap(), AttemptState::Ended(Some(reply)));
    assert_eq!(world.effects().unwrap().len(), 1);
    world.reboot("patroni1").unwrap();
    assert_eq!(host.attempt(&by()).await.unwrap(), AttemptState::Absent);
    host.unlock(&claim("run1", "you", 1), true).await.unwrap();
}

#[tokio::test]
async fn scripts_answer_from_the_table_or_by_the_forms_that_are_understood() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = locked(&world, "patroni1").await;
    world.reply(CannedReply::new(ScriptMatch::Prefix("df ".into()), "100\n")).unwrap();
    assert_eq!(host.probe("df /srv").await.unwrap().text(), "100");
    assert_eq!(host.probe("test -e /srv && exit 3").await.unwrap().code, 3);
    assert_eq!(host.probe("awk nonsense | sort").await.unwrap().code, 127);
    assert_eq!(host.probe("touch /srv/x").await.unwrap().code, 127);
    for (script, code) in [
        ("false", 1),
        ("echo one >> /srv/log", 0),
        ("anything | else", 0),
        ("apt-get install -y nonsuch", 100),
    ] {
        assert_eq!(host.run(&by(), &Command::new(script)).await.unwrap().code, code, "{script}");
    }
    let effects: Vec<String> = world.effects().unwrap().into_iter().map(|effect| effect.text).collect();
    assert_eq!(effects, ["echo one >> /srv/log", "anything | else"]);
}

#[tokio::test]
async fn installing_starts_services_and_makes_a_cluster_unless_told_not_to() {
    let (_directory, world) = bare(Release::Bookworm);
    let host = locked(&world, "patroni1").await;
    let install = Command::new("apt-get install -y etcd-server postgresql-15 patroni").detached();
    assert_eq!(host.run(&by(), &install).await.unwrap().code, 0);
    assert_eq!(host.unit("etcd").await.unwrap().active, "active");
    assert_eq!(host.unit("patroni").await.unwrap().active, "inactive", "it has no configuration yet");
    assert!(host.stat(&format!("{DATA}/PG_VERSION")).await.unwrap().is_some());
    let packages = host.packages(&["patroni".into(), "haproxy".into()]).await.unwrap();
    assert_eq!((packages.len(), packages["patroni"].as_str()), (1, "3.0.2-1"));
}

#[tokio::test]
async fn a_reboot_starts_what_is_enabled_and_not_masked() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    let before = hosts[0].facts().await.unwrap();
    unit(&hosts[2], "patroni", UnitVerb::Stop).await;
    unit(&hosts[2], "patroni", UnitVerb::Mask).await;
    for name in ["patroni1", "patroni3"] {
        world.reboot(name).unwrap();
    }
    let after = hosts[0].facts().await.unwrap();
    assert_eq!(before.machine_id, after.machine_id);
    assert_ne!(before.boot_id, after.boot_id);
    assert_eq!(hosts[0].unit("patroni").await.unwrap().active, "active");
    let masked = hosts[2].unit("patroni").await.unwrap();
    assert!(masked.masked() && masked.active == "inactive", "{masked:?}");
    let start = HostChange::Unit { unit: "patroni".into(), verb: UnitVerb::Start };
    let error = hosts[2].change(&by(), &start).await.unwrap_err();
    assert!(error.to_string().contains("masked"), "{error}");
}
