//! The small worlds, and what holds in each.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use stateright::{Checker, Model, Path};

use crate::world::{ALL, Budget, Rules, Seen, Small, World, choosing, shape};

const TWICE: &str = "no effect is brought about twice";
const UNLOCKED: &str = "nothing is changed without the lock";

/// Goes through the whole world: every property holds, and all of `wanted` was seen on the way.
fn holds(small: Small, wanted: &[Seen]) {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let record = Arc::clone(&seen);
    let visitor = move |path: Path<_, _>| {
        let last: &World = path.last_state();
        record.lock().unwrap().extend(last.seen.iter().copied());
    };
    let checker = small.checker().threads(2).visitor(visitor).spawn_bfs().join();
    checker.assert_properties();
    for each in wanted {
        assert!(
            seen.lock().unwrap().contains(each),
            "{each:?} never happened: the model shows nothing of it"
        );
    }
}

/// Without a rule the checker finds the harm.
fn breaks(small: Small, rules: Rules, property: &'static str) {
    let small = Small { rules, ..small };
    let checker = small.checker().threads(2).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "without {rules:?}, `{property}` holds all the same");
}

/// One run whose processes are killed and whose answers are lost.
fn one_run() -> Small {
    Small {
        shape: shape(2, &[(0, 1)]),
        gates: BTreeSet::new(),
        unwinds: false,
        bare: false,
        stores: vec![Some(0)],
        processes: vec![0, 0, 0],
        budget: Budget { kills: 1, losses: 1, ..Budget::default() },
        rules: ALL,
    }
}

/// Two operators with a store each; one process sleeps, its lock is taken away, it wakes up.
fn two_runs() -> Small {
    Small {
        shape: shape(1, &[]),
        gates: BTreeSet::new(),
        unwinds: false,
        bare: false,
        stores: vec![Some(0), Some(1)],
        // An operator whose run was refused, or whose lock was taken away, tries again.
        processes: vec![0, 0, 1, 1],
        budget: Budget { naps: 1, unlocks: 1, ..Budget::default() },
        rules: ALL,
    }
}

/// A process sleeps, and another takes its run over with a copy of its store.
fn copied() -> Small {
    Small {
        shape: shape(2, &[(0, 1)]),
        gates: BTreeSet::new(),
        unwinds: false,
        bare: false,
        stores: vec![Some(0), None],
        processes: vec![0, 1, 1],
        budget: Budget { naps: 1, ..Budget::default() },
        rules: ALL,
    }
}

#[test]
fn a_run_that_is_killed_and_loses_answers_does_each_thing_once_and_ends_well() {
    holds(one_run(), &[Seen::Fenced, Seen::FoundAlive, Seen::SettledDone, Seen::SettledNotDone]);
}

#[test]
fn tasks_side_by_side_are_safe_too() {
    let small = Small {
        shape: shape(2, &[]),
        processes: vec![0, 0],
        budget: Budget { kills: 1, losses: 1, ..Budget::default() },
        ..one_run()
    };
    holds(small, &[Seen::Fenced, Seen::FoundAlive]);
}

#[test]
fn a_bare_command_is_never_guessed_about_and_a_person_s_word_ends_the_run() {
    let small = Small { bare: true, shape: shape(1, &[]), processes: vec![0, 0, 0, 0], ..one_run() };
    holds(small, &[Seen::Unknown, Seen::Fenced]);
}

#[test]
fn of_two_runs_on_a_host_neither_changes_anything_once_its_lock_was_taken_away() {
    holds(two_runs(), &[Seen::Unlocked, Seen::Fenced]);
}

#[test]
fn a_process_that_slept_while_a_copy_of_its_store_was_gone_on_with_changes_nothing_more() {
    holds(copied(), &[Seen::Fenced, Seen::FoundAlive]);
}

/// One run that is taken back, at any time, by processes that may be killed.
fn taken_back() -> Small {
    Small { budget: Budget { kills: 1, turns: 1, ..Budget::default() }, ..one_run() }
}

#[test]
fn a_run_that_is_taken_back_leaves_nothing_goes_in_reverse_order_and_ends() {
    holds(taken_back(), &[Seen::Undone, Seen::UndoneAgain, Seen::Fenced, Seen::FoundAlive]);
}

#[test]
fn an_undo_whose_answer_is_lost_is_made_again() {
    let small = Small {
        shape: shape(1, &[]),
        budget: Budget { losses: 1, turns: 1, ..Budget::default() },
        ..one_run()
    };
    holds(small, &[Seen::Undone, Seen::UndoneAgain, Seen::Fenced]);
}

/// A run that loses an answer, fails by that, and takes itself back in the same process.
fn unwinding() -> Small {
    let budget = Budget { losses: 1, ..Budget::default() };
    Small { unwinds: true, processes: vec![0, 0], budget, ..one_run() }
}

#[test]
fn a_run_that_takes_itself_back_is_not_overtaken_by_its_own_late_request() {
    holds(unwinding(), &[Seen::Undone, Seen::Fenced]);
}

#[test]
fn hosts_that_are_chosen_keep_their_order_on_either_way() {
    let small = Small {
        shape: choosing(),
        processes: vec![0, 0],
        budget: Budget { turns: 1, ..Budget::default() },
        ..one_run()
    };
    holds(small, &[Seen::Reordered, Seen::Undone]);
}

#[test]
fn an_approval_counts_whichever_process_takes_it_in_and_nothing_begins_without_it() {
    let small = Small {
        gates: BTreeSet::from([0]),
        budget: Budget { kills: 1, turns: 1, ..Budget::default() },
        ..one_run()
    };
    holds(small, &[Seen::ApprovedLater, Seen::Undone]);
}

#[test]
fn each_rule_is_needed() {
    breaks(
        unwinding(),
        Rules { closing: false, ..ALL },
        "no result is lost, and none is recorded that isn't there",
    );
    breaks(one_run(), Rules { epoch: false, ..ALL }, UNLOCKED);
    breaks(one_run(), Rules { waiting: false, ..ALL }, TWICE);
    breaks(one_run(), Rules { closing: false, ..ALL }, TWICE);
    breaks(two_runs(), Rules { lock: false, ..ALL }, UNLOCKED);
    breaks(two_runs(), Rules { proof: false, ..ALL }, UNLOCKED);
}
