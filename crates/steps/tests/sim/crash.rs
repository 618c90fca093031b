//! Processes that die in the midst of their work.

use std::process::{Child, Command, Stdio};

use flow_steps::host::sim::{Fault, FaultKind, Release, SimWorld};

use crate::support::*;

/// Not a test of its own: what the crash tests start as another process. It writes numbers until
/// something ends it.
#[tokio::test]
#[ignore = "started by the crash tests, with SIM_WORLD set"]
async fn writer() {
    let world = SimWorld::open(std::env::var("SIM_WORLD").unwrap()).unwrap();
    let host = world.host("patroni1");
    for number in 0.. {
        host.change(&by(), &write("/srv/counter", &number.to_string())).await.unwrap();
    }
}

fn start_writer(world: &SimWorld) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--ignored"])
        .env("SIM_WORLD", world.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the writer has made more than `count` effects; it must not end by itself.
fn wait_for_more_than(count: usize, world: &SimWorld, child: &mut Child) {
    while SimWorld::open(world.path()).unwrap().effects().unwrap().len() <= count {
        assert!(child.try_wait().unwrap().is_none(), "the writer failed");
        std::thread::yield_now();
    }
}

/// The last number that was written.
fn counter(world: &SimWorld) -> Option<usize> {
    let state = world.state().unwrap();
    state.hosts["patroni1"].files.text("/srv/counter").map(|text| text.parse().unwrap())
}

#[tokio::test]
async fn a_process_killed_at_any_moment_leaves_each_effect_whole() {
    let (_directory, world) = bare(Release::Bookworm);
    locked(&world, "patroni1").await;
    for round in 0..10 {
        let before = world.effects().unwrap().len();
        let mut child = start_writer(&world);
        // Killed in the midst of its work, each round a little later.
        wait_for_more_than(before + round, &world, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        let fresh = SimWorld::open(world.path()).unwrap();
        let written = fresh.effects().unwrap().len() - before;
        assert_eq!(counter(&fresh), Some(written - 1), "the file and the count of effects agree");
    }
}

#[tokio::test]
async fn processes_at_work_together_lose_no_effect() {
    let (_directory, world) = bare(Release::Bookworm);
    locked(&world, "patroni1").await;
    let count = || world.effects().unwrap().len();
    let mut child = start_writer(&world);
    wait_for_more_than(0, &world, &mut child);
    let host = world.host("patroni2");
    host.lock(&claim("run1", "me", 1)).await.unwrap();
    for number in 0..20 {
        host.change(&by(), &write("/srv/counter", &number.to_string())).await.unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(count(), 20 + counter(&world).unwrap() + 1);
}

#[tokio::test]
async fn a_crash_is_before_the_effect_or_after_it_as_told() {
    for (kind, last) in [(FaultKind::CrashBefore, 1), (FaultKind::Crash, 2)] {
        let (_directory, world) = bare(Release::Bookworm);
        locked(&world, "patroni1").await;
        world.inject(Fault::nth("patroni1", 3, kind)).unwrap();
        let status = start_writer(&world).wait().unwrap();
        assert!(!status.success());
        assert_eq!(counter(&world), Some(last));
        assert_eq!(world.effects().unwrap().len(), last + 1);
        assert!(world.state().unwrap().faults.is_empty(), "the fault is used up");
    }
}
