//! The way back: in reverse order, each task once, and only what was begun.

use std::collections::BTreeSet;
use std::sync::Arc;

use flow_core::run::{Event, NodeId, Outcome, RunState, RunStatus, Settler, Shape, TaskState};
use flow_core::step::{Output, StepError};
use proptest::prelude::*;

use crate::events::legal;
use crate::shape::shape;

/// An event of an undo that the state allows, as the engine would write it: whatever is open is settled,
/// what is free is taken back, now and then something fails, and the process is killed.
pub(crate) fn legal_back(state: &RunState, choice: usize) -> Option<Event> {
    let (shape, owner) = (state.shape(), "x".to_owned());
    match state.status() {
        RunStatus::New | RunStatus::Ended(Outcome::Undone) => return None,
        RunStatus::Open if state.undoing() && !choice.is_multiple_of(11) => {}
        _ => return Some(Event::UndoStarted { owner, epoch: state.epoch() + 1 }),
    }
    let kind = choice / 11;
    let named: Vec<NodeId> = (0..shape.len() as NodeId).filter(|n| shape.name(*n).is_some()).collect();
    let open = |n: &NodeId| {
        use TaskState::{Intended, UndoUnknown, Undoing, Unknown};
        matches!(state.task(*n), Intended | Unknown | Undoing | UndoUnknown)
    };
    let next: Vec<NodeId> = named.into_iter().filter(|n| open(n) || state.can_undo(*n)).collect();
    let Some(&node) = next.get(kind % next.len().max(1)) else {
        return Some(Event::ended(Outcome::Undone));
    };
    let task = shape.name(node)?.clone();
    let (attempt, error, output) = (state.attempt(node), StepError::failed("x"), Output::empty());
    let (kind, by) = (kind / 9 % 6, Settler::Step);
    Some(match (state.task(node), kind) {
        (TaskState::Intended | TaskState::Unknown, 0) => Event::TaskUnknown { task, attempt, error },
        (TaskState::Intended | TaskState::Unknown, 1 | 2) => Event::TaskNotDone { task, attempt, by },
        (TaskState::Intended | TaskState::Unknown, _) => Event::TaskDone { task, attempt, output, by: None },
        (TaskState::Undoing | TaskState::UndoUnknown, 0) => {
            Event::UndoFailed { task, attempt, error, retry_in_ms: None }
        }
        (TaskState::Undoing | TaskState::UndoUnknown, 1) => Event::UndoUnknown { task, attempt, error },
        (TaskState::Undoing | TaskState::UndoUnknown, 2) => Event::UndoNotDone { task, attempt, by },
        (TaskState::Undoing | TaskState::UndoUnknown, _) => Event::TaskUndone { task, attempt, by: None },
        (_, 0) => Event::TaskKept { task, why: "x".into() },
        (_, 1) => Event::UndoFailed { task, attempt: attempt + 1, error, retry_in_ms: None },
        _ => Event::UndoIntended { task, attempt: attempt + 1 },
    })
}

/// The tasks after a node, directly or through others.
fn all_after(shape: &Shape, node: NodeId) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        open.extend(shape.after(node).iter().filter(|after| found.insert(**after)));
    }
    found
}

/// Whether something of a task may be there.
fn is_left(state: &RunState, node: NodeId) -> bool {
    state.begun(node) && !matches!(state.task(node), TaskState::Undone | TaskState::Kept)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_is_taken_back_in_reverse_order_each_task_once_and_only_what_was_begun(
        shape in shape(),
        forward in prop::collection::vec(0..1000usize, 0..60),
        back in prop::collection::vec(0..10_000usize, 400),
    ) {
        let mut state = RunState::new(Arc::clone(&shape), &mut Vec::new());
        // Under its number an attempt is known on the host, whichever way it went.
        let mut attempts = BTreeSet::new();
        for choice in forward {
            let Some(event) = legal(&state, choice) else { break };
            state.apply(&event, &mut Vec::new()).unwrap();
            if let Event::TaskIntended { task, attempt, .. } = &event {
                prop_assert!(attempts.insert((shape.node(task).unwrap(), *attempt)));
            }
        }
        let untouched: Vec<NodeId> = (0..shape.len() as NodeId).filter(|n| !state.begun(*n)).collect();
        let (mut undone, mut free) = (BTreeSet::new(), BTreeSet::new());
        for choice in back {
            let Some(event) = legal_back(&state, choice) else { break };
            let mut told = Vec::new();
            state.apply(&event, &mut told).unwrap();
            let node = event.task().and_then(|task| shape.node(task));
            match (&event, node) {
                (Event::UndoStarted { .. }, _) => free.clear(),
                (Event::UndoIntended { attempt, .. }, Some(node)) => {
                    prop_assert!(all_after(&shape, node).iter().all(|n| !is_left(&state, *n)), "out of order");
                    prop_assert!(attempts.insert((node, *attempt)), "an attempt's number was used twice");
                    prop_assert!(free.remove(&node), "begun without being told free");
                }
                (Event::TaskUndone { .. }, Some(node)) => prop_assert!(undone.insert(node), "twice"),
                (Event::TaskKept { .. }, Some(node)) => drop(free.remove(&node)),
                // Not told again, but it may be tried again.
                (Event::UndoFailed { .. }, Some(node)) => drop(free.insert(node)),
                _ => {}
            }
            free.extend(told);
            // What is free is known at every moment, and is what the definition says.
            for node in 0..shape.len() as NodeId {
                let settled = {
                    use TaskState::{Intended, UndoUnknown, Undoing, Unknown};
                    !matches!(state.task(node), Intended | Unknown | Undoing | UndoUnknown)
                };
                let clear = all_after(&shape, node).iter().all(|n| !is_left(&state, *n));
                let defined = state.undoing() && is_left(&state, node) && settled && clear;
                prop_assert_eq!(state.can_undo(node), defined, "{:?}", &state);
            }
            if state.status() == RunStatus::Open && !matches!(event, Event::UndoFailed { .. }) {
                let failed = |n: &NodeId| state.task(*n) == TaskState::UndoFailed;
                let can = (0..shape.len() as NodeId).filter(|n| state.can_undo(*n) && !failed(n));
                prop_assert!(can.into_iter().all(|n| free.contains(&n)), "not told: {:?}", &state);
            }
        }
        prop_assert!(untouched.into_iter().all(|n| !matches!(
            state.task(n),
            TaskState::Undone | TaskState::Kept | TaskState::UndoFailed | TaskState::Undoing
        )));
        if state.status() == RunStatus::Ended(Outcome::Undone) {
            prop_assert!((0..shape.len() as NodeId).all(|n| !is_left(&state, n)));
        }
        if state.turned_back() {
            let resume = Event::RunResumed { owner: "x".into(), epoch: state.epoch() + 1 };
            prop_assert!(state.apply(&resume, &mut Vec::new()).is_err());
        }
    }
}
