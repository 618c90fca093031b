//! Two processes at once: on one run, on one set of hosts, and one that slept through the other's work.

use flow_core::store::Store;

use crate::case::{Case, Ended, each};
use crate::killing_store::{Kill, Point, wait_for};
use crate::recovery::reference;

fn killed_at(task: &str, point: Point) -> Case {
    let case = Case::recovery(&reference().broken);
    assert_eq!(case.work(Some(&Kill::at(task, point))), Ended::Killed);
    case
}

#[test]
fn while_a_process_works_on_a_run_another_is_refused() {
    let case = killed_at("set-aside@patroni2", Point::AfterIntent);
    let before = case.effects();
    let claim = case.job.store().claim(&case.run().unwrap(), "somebody").unwrap();
    assert_eq!(case.work(None), Ended::Error);
    assert!(case.log().contains("is being worked on by another process (somebody)"), "{}", case.log());
    assert_eq!(case.effects(), before);
    drop(claim);
    case.finish("once the other has ended");
    case.end().assert_equal(&reference().end, &case, "once the other has ended");
}

#[test]
fn of_processes_that_resume_at_once_one_does_the_work() {
    let case = killed_at("set-aside@patroni2", Point::AfterEffect);
    let rivals = [case.spawn(None), case.spawn(None), case.spawn(None)];
    let statuses = rivals.map(|mut child| child.wait().unwrap().success());
    assert_eq!(statuses.iter().filter(|ok| **ok).count(), 1, "{}", case.log());
    case.end().assert_equal(&reference().end, &case, "three resumed at once");
}

#[test]
fn another_run_on_the_hosts_is_refused_until_the_interrupted_one_has_ended() {
    let case = killed_at("set-aside@patroni1", Point::AfterResult);
    let other = Case::beside(&case);
    let before = case.effects();
    assert_eq!(other.work(None), Ended::Error);
    assert!(other.log().contains(case.run().unwrap().as_str()), "it says whose it is: {}", other.log());
    assert_eq!(case.effects(), before);
    case.finish("the interrupted run");
    case.end().assert_equal(&reference().end, &case, "the interrupted run");
}

/// A process falls asleep at a point; another with a copy of its store takes the run over and ends it;
/// then the first one wakes up.
fn sleeper(task: &str, point: Point) {
    let mut case = Case::recovery(&reference().broken);
    // One task at a time: while it sleeps, nothing else goes on in it.
    case.job.concurrency = 1;
    // Woken, its purge waits for the new leader to go; that needn't take a minute.
    let purge = "uses = \"etcd.prefix_absent\"\n".to_owned();
    case.job.edit = Some((purge.clone(), purge + "timeout = \"300ms\"\n"));
    let (task, folder) = (task.to_owned(), case.path().to_owned());
    let mut sleeper = case.spawn(Some(&Kill::Sleep { task: task.clone(), point, folder }));
    wait_for(&case.path().join("asleep"));
    let second = Case::beside(&case);
    second.copy_store(&case);
    let story = format!("another took over at {task}, {point:?}");
    second.finish(&story);
    second.end().assert_equal(&reference().end, &second, &story);
    std::fs::write(case.path().join("wake"), "").unwrap();
    sleeper.wait().unwrap();
    second.end().assert_equal(&reference().end, &case, "after the first one woke up");
}

#[test]
fn a_process_that_slept_while_another_took_over_changes_nothing_more() {
    let cases = [
        ("saved@patroni2", Point::AfterIntent),
        ("stop-leader@patroni1", Point::AfterIntent),
        ("set-aside@patroni2", Point::AfterIntent),
        ("purge@patroni1", Point::AfterIntent),
        ("start-first@patroni1", Point::AfterIntent),
        ("start-others@patroni2", Point::BeforeIntent),
    ];
    each(&cases, |(task, point)| sleeper(task, *point));
}
