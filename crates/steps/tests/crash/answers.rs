//! Answers that are lost, hosts that hang or are away for a moment, commands that go on: at every change
//! that an undisturbed run makes, and at calls all along the way.

use flow_core::run::Outcome;
use flow_steps::host::sim::{Effect, Fault, FaultKind};

use crate::case::{Case, Ended, NODES, each};
use crate::deploy;
use crate::killing_store::{Kill, Point};
use crate::recovery::reference;

/// The call that makes a change, as a fault knows it; without what differs from run to run.
fn call(effect: &Effect, run: &str) -> (String, String) {
    let text = match effect.kind.as_str() {
        "http" => effect.text.split(' ').next().unwrap_or_default().to_owned() + " /",
        _ => effect.text.clone(),
    };
    let text = text.split(run).next().unwrap_or_default();
    let text = text.split(".set-aside-").next().unwrap_or_default();
    (effect.host.clone(), text.to_owned())
}

/// Goes on until the run has ended well: a lost answer may cost an attempt.
pub(crate) fn finish(case: &Case, story: &str) {
    for _ in 0..3 {
        match case.work(None) {
            Ended::With(Outcome::Succeeded) => return,
            Ended::With(Outcome::Failed) | Ended::Killed | Ended::Error => {}
            other => panic!("{story}: {other:?}\n{}", case.log()),
        }
    }
    panic!("{story}: it does not come to an end\n{}", case.log());
}

fn recovered_with(fault: &Fault) {
    let case = Case::recovery(&reference().broken);
    let story = format!("the recovery with {fault:?}");
    case.world().inject(fault.clone()).unwrap();
    finish(&case, &story);
    assert!(case.world().state().unwrap().faults.is_empty(), "{story}: it never came to that call");
    case.end().assert_equal(&reference().end, &case, &story);
}

#[test]
fn a_lost_answer_or_a_crash_at_any_change_makes_no_difference_to_the_end() {
    let kinds = [FaultKind::LoseAnswer, FaultKind::LoseRequest, FaultKind::Crash, FaultKind::CrashBefore];
    let calls = &reference().changes;
    assert!(calls.len() > 15, "{calls:?}");
    let faults: Vec<Fault> =
        calls.iter().flat_map(|(host, text)| kinds.clone().map(|kind| Fault::at(host, text, kind))).collect();
    each(&faults, recovered_with);
}

#[test]
fn a_lost_answer_at_any_call_makes_no_difference_to_the_end() {
    let kinds = [FaultKind::LoseAnswer, FaultKind::LoseRequest, FaultKind::Unreachable, FaultKind::Crash];
    let faults: Vec<Fault> = (1..=24)
        .map(|n| Fault::nth(NODES[n as usize % 3], n, kinds[n as usize / 3 % kinds.len()].clone()))
        .collect();
    each(&faults, recovered_with);
}

#[test]
fn a_destructive_call_that_hangs_ends_by_the_step_s_timeout_and_is_done_once() {
    let cases = [
        ("postgres.data_set_aside", Fault::at("patroni2", "change rename", FaultKind::Hang)),
        ("etcd.prefix_absent", Fault::at("patroni1", "etcd delete-prefix", FaultKind::Hang)),
    ];
    each(&cases, |(uses, fault)| {
        let mut case = Case::recovery(&reference().broken);
        let uses = format!("uses = \"{uses}\"\n");
        case.job.edit = Some((uses.clone(), format!("{uses}timeout = \"300ms\"\n")));
        case.world().inject(fault.clone()).unwrap();
        assert_eq!(case.work(None), Ended::With(Outcome::Failed), "{}", case.log());
        assert!(case.log().contains("it took longer than 0.3 s"), "{}", case.log());
        case.finish("after the hang");
        case.end().assert_equal(&reference().end, &case, "after the hang");
    });
}

#[test]
fn a_command_that_goes_on_after_the_crash_is_waited_for_and_not_run_again() {
    let (_, end) = deploy::reference();
    let fault = |text: &str, kind| Fault::at("patroni2", text, kind);
    let cases = [
        Some(fault("run export", FaultKind::Crash)),
        Some(fault("run export", FaultKind::LoseAnswer)),
        Some(fault("attempt ", FaultKind::Crash)),
        Some(fault("attempt ", FaultKind::LoseAnswer)),
        None,
    ];
    each(&cases, |fault| {
        let case = Case::bare();
        let world = case.world();
        for host in NODES {
            world.edit_host(host, |host| host.detached_polls = 6).unwrap();
        }
        let story = format!("the deployment with {fault:?}");
        match fault {
            Some(fault) => world.inject(fault.clone()).unwrap(),
            None => {
                let kill = Kill::at("packages@patroni3", Point::AfterEffect);
                assert_eq!(case.work(Some(&kill)), Ended::Killed, "{}", case.log());
            }
        }
        finish(&case, &story);
        case.end().without_roles().assert_equal(end, &case, &story);
    });
}

/// The calls of all changes of a case, each once.
pub(crate) fn changes(case: &Case) -> Vec<(String, String)> {
    let run = case.run().unwrap();
    let mut calls: Vec<_> =
        case.world().effects().unwrap().iter().map(|effect| call(effect, run.as_str())).collect();
    calls.sort();
    calls.dedup();
    calls
}
