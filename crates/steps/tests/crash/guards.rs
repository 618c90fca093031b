//! What happens to the hosts while nobody works on the run: nothing destructive is done where what it
//! stands on no longer holds.

use flow_core::run::Outcome;
use flow_steps::host::sim::SimWorld;
use flow_steps::host::{HostChange, UnitVerb};

use crate::case::{Case, DATA, Ended};
use crate::killing_store::{Kill, Point};
use crate::recovery::reference;

/// Somebody at the machine: `systemctl`, by the lock's holder, since nobody else may.
async fn systemctl(case: &Case, host: &str, verbs: &[UnitVerb]) {
    let world: SimWorld = case.world();
    let claim = world.state().unwrap().hosts[host].lock.clone().unwrap();
    let by = flow_core::step::Attempt {
        run: flow_core::run::RunId::from_text(&claim.run),
        task: flow_core::run::TaskName::from_text("by-hand"),
        number: 1,
        epoch: claim.epoch,
    };
    for verb in verbs {
        let change = HostChange::Unit { unit: "patroni.service".into(), verb: *verb };
        world.host(host).change(&by, &change).await.unwrap();
    }
    // What is done by hand is no effect of the run.
    let by_hand = by.name();
    world.edit(|state| state.effects.retain(|e| e.attempt.as_deref() != Some(&by_hand))).unwrap();
}

/// Killed between intent and effect, Patroni is started by hand on a host: nothing is done. Stopped
/// again, the run comes to its end.
async fn patroni_is_back(task: &str, host: &str) {
    let reference = reference();
    let case = Case::recovery(&reference.broken);
    assert_eq!(case.work(Some(&Kill::at(task, Point::AfterIntent))), Ended::Killed);
    systemctl(&case, host, &[UnitVerb::Unmask, UnitVerb::Start]).await;
    let touched = |case: &Case| {
        let effects = case.world().effects().unwrap();
        let (step, _) = task.split_once('@').unwrap();
        effects
            .into_iter()
            .filter(|effect| match step {
                "purge" => effect.text.contains("delete-prefix"),
                _ => effect.host == host && effect.text.contains("rename"),
            })
            .count()
    };
    assert_eq!(touched(&case), 0);
    assert_eq!(case.work(None), Ended::With(Outcome::Failed), "{}", case.log());
    assert_eq!(touched(&case), 0, "nothing was done while Patroni ran on {host}");
    assert!(case.log().contains("no longer holds") || case.log().contains("is in use"), "{}", case.log());
    systemctl(&case, host, &[UnitVerb::Stop, UnitVerb::Mask]).await;
    case.finish("after Patroni was stopped again");
    assert_eq!(touched(&case), 1);
}

#[tokio::test]
async fn data_is_not_set_aside_where_patroni_was_started_again() {
    patroni_is_back("set-aside@patroni3", "patroni3").await;
}

#[tokio::test]
async fn keys_are_not_purged_while_patroni_runs_on_any_of_the_hosts() {
    patroni_is_back("purge@patroni1", "patroni2").await;
}

#[test]
fn a_reboot_of_every_host_in_the_midst_brings_nothing_back() {
    let reference = reference();
    for (task, point) in [
        ("stopped", Point::AfterResult),
        ("set-aside@patroni2", Point::AfterIntent),
        ("purge@patroni1", Point::AfterEffect),
    ] {
        let Some(task) = reference.tasks.iter().find(|name| name.starts_with(task)) else { continue };
        let case = Case::recovery(&reference.broken);
        assert_eq!(case.work(Some(&Kill::at(task, point))), Ended::Killed);
        for host in crate::case::NODES {
            case.world().reboot(host).unwrap();
        }
        let story = format!("rebooted at {task}, {point:?}");
        case.finish(&story);
        case.end().without_boot().assert_equal(&reference.end.clone().without_boot(), &case, &story);
    }
}

#[test]
fn a_host_that_is_away_at_the_resume_is_waited_for_and_nothing_is_done_without_it() {
    let reference = reference();
    let case = Case::recovery(&reference.broken);
    assert_eq!(case.work(Some(&Kill::at("set-aside@patroni1", Point::AfterResult))), Ended::Killed);
    case.world().cut("patroni2").unwrap();
    let before = case.effects();
    assert_eq!(case.work(None), Ended::Error);
    assert!(case.log().contains("patroni2"), "{}", case.log());
    assert_eq!(case.effects(), before);
    case.world().heal("patroni2").unwrap();
    case.finish("once it is back");
    case.end().assert_equal(&reference.end, &case, "once it is back");
}

#[test]
fn another_machine_under_the_name_is_refused() {
    let reference = reference();
    let case = Case::recovery(&reference.broken);
    assert_eq!(case.work(Some(&Kill::at("set-aside@patroni1", Point::AfterResult))), Ended::Killed);
    let before = case.effects();
    case.world().edit_host("patroni3", |host| host.machine_id = "f".repeat(32)).unwrap();
    assert_eq!(case.work(None), Ended::Error);
    assert!(case.log().contains("patroni3 is another machine than when the run began"), "{}", case.log());
    assert_eq!(case.effects(), before);
    assert!(case.world().state().unwrap().hosts["patroni1"].files.stat(DATA).is_none());
}
