//! The laws of a run's state: whatever events come, those that are not allowed change nothing, and
//! those that were taken in give the same state when they are read back.

use std::collections::BTreeSet;
use std::sync::Arc;

use flow_core::run::{
    Event, Identity, NodeId, Outcome, RunState, RunStatus, Settler, Shape, TaskName, TaskState,
};
use flow_core::step::{Change, Output, StepError};
use proptest::prelude::*;

/// A DAG: nodes that may be joins, edges from smaller to greater numbers.
fn shape() -> impl Strategy<Value = Arc<Shape>> {
    let nodes = prop::collection::vec(prop::bool::weighted(0.7), 1..9);
    (nodes, prop::collection::vec((0..9u32, 0..9u32), 0..16)).prop_map(|(nodes, pairs)| {
        let count = nodes.len() as u32;
        let edges: BTreeSet<(NodeId, NodeId)> =
            pairs.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a < b).collect();
        let name = |(n, task): (usize, bool)| task.then(|| TaskName::from_text(&format!("t{n}")));
        let names = nodes.into_iter().enumerate().map(name).collect();
        Arc::new(Shape::new(names, &edges.into_iter().collect::<Vec<_>>()))
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Interrupted,
        Outcome::Undecided,
        Outcome::Undone,
    ])
}

/// Any event, about tasks that are there and one that isn't, with attempts and epochs around the right ones.
fn event() -> impl Strategy<Value = Event> {
    let task = || (0..10u32).prop_map(|n| TaskName::from_text(&format!("t{n}")));
    let of_task = (task(), 0..5u32, 0..15u8).prop_map(|(task, attempt, kind)| {
        let error = StepError::failed("x");
        let output = Output::empty();
        match kind {
            0 => Event::TaskSkipped { task, why: "x".into() },
            1 => Event::TaskSatisfied { task, output },
            2 => Event::TaskIntended { task, attempt, change: Change::default() },
            3 => Event::TaskDone { task, attempt, output, by: None },
            4 => Event::TaskFailed { task, attempt, error, retry_in_ms: None },
            5 => Event::TaskFailed { task, attempt, error, retry_in_ms: Some(1) },
            6 => Event::TaskUnknown { task, attempt, error },
            7 => Event::TaskNotDone { task, attempt, by: Settler::Step },
            8 | 9 => Event::UndoIntended { task, attempt },
            10 => Event::TaskUndone { task, attempt, by: None },
            11 => Event::UndoFailed { task, attempt, error, retry_in_ms: None },
            12 => Event::UndoUnknown { task, attempt, error },
            13 => Event::UndoNotDone { task, attempt, by: Settler::Step },
            _ => Event::TaskKept { task, why: "x".into() },
        }
    });
    let of_run = (0..4u64, outcome(), 0..6u8).prop_map(|(epoch, outcome, kind)| {
        let (owner, host) = ("x".to_owned(), "h".to_owned());
        match kind {
            0 => Event::RunStarted { owner, epoch },
            1 => Event::RunResumed { owner, epoch },
            2 => Event::HostMet {
                host,
                identity: Identity { machine_id: format!("m{}", epoch % 2), key_fingerprint: String::new() },
            },
            3 => Event::RunInterrupted { at_once: false },
            4 => Event::UndoStarted { owner, epoch },
            _ => Event::RunEnded { outcome },
        }
    });
    prop_oneof![12 => of_task, 1 => of_run]
}

/// Everything that can be seen of a state.
fn look(state: &RunState) -> String {
    let shape = state.shape();
    let nodes: Vec<_> = (0..shape.len() as NodeId)
        .map(|n| (state.task(n), state.attempt(n), state.begun(n), state.can_undo(n)))
        .collect();
    let back = (state.undoing(), state.turned_back(), state.all_undone());
    format!(
        "{nodes:?} {:?} {} {:?} {} {back:?}",
        state.status(),
        state.epoch(),
        state.hosts(),
        state.all_passed()
    )
}

/// An event that the state allows, as the engine would write it.
fn allowed(state: &RunState, choice: usize) -> Option<Event> {
    let shape = state.shape();
    match state.status() {
        RunStatus::New => return Some(Event::RunStarted { owner: "x".into(), epoch: 1 }),
        RunStatus::Ended(Outcome::Succeeded | Outcome::Undone) => return None,
        RunStatus::Ended(_) => {
            return Some(Event::RunResumed { owner: "x".into(), epoch: state.epoch() + 1 });
        }
        RunStatus::Open => {}
    }
    let named = (0..shape.len() as NodeId).filter(|n| shape.name(*n).is_some());
    let open: Vec<NodeId> = named
        .filter(|n| matches!(state.task(*n), TaskState::Ready | TaskState::Intended | TaskState::Unknown))
        .collect();
    let Some(&node) = open.get(choice % open.len().max(1)) else {
        let outcome = if state.all_passed() { Outcome::Succeeded } else { Outcome::Failed };
        return Some(Event::RunEnded { outcome });
    };
    let task = shape.name(node)?.clone();
    let (attempt, error, output) = (state.attempt(node), StepError::failed("x"), Output::empty());
    let kind = choice / 8;
    Some(match state.task(node) {
        TaskState::Ready => match kind % 5 {
            0 => Event::TaskSkipped { task, why: "x".into() },
            1 => Event::TaskSatisfied { task, output },
            2 => Event::TaskFailed { task, attempt: attempt + 1, error, retry_in_ms: None },
            _ => Event::TaskIntended { task, attempt: attempt + 1, change: Change::default() },
        },
        _ => match kind % 5 {
            0 => Event::TaskFailed { task, attempt, error, retry_in_ms: Some(1) },
            1 => Event::TaskUnknown { task, attempt, error },
            2 => Event::TaskNotDone { task, attempt, by: Settler::Step },
            _ => Event::TaskDone { task, attempt, output, by: None },
        },
    })
}

/// An event of an undo that the state allows, as the engine would write it: whatever is open is settled,
/// what is free is taken back, now and then something fails, and the process is killed.
fn allowed_back(state: &RunState, choice: usize) -> Option<Event> {
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
        return Some(Event::RunEnded { outcome: Outcome::Undone });
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

/// A node is ready or further only where all before it have passed; a join is done exactly then.
fn assert_order(state: &RunState) -> Result<(), TestCaseError> {
    let shape = state.shape();
    let passed = |n: NodeId| state.task(n).passes();
    for before in 0..shape.len() as NodeId {
        for &after in shape.after(before) {
            prop_assert!(passed(before) || state.task(after) == TaskState::Waiting, "{}", look(state));
        }
    }
    let waits = |n: NodeId| (0..shape.len() as NodeId).any(|m| shape.after(m).contains(&n) && !passed(m));
    for join in (0..shape.len() as NodeId).filter(|n| shape.name(*n).is_none()) {
        prop_assert_eq!(state.task(join) == TaskState::Done, !waits(join));
    }
    let tasks = (0..shape.len() as NodeId).filter(|n| shape.name(*n).is_some());
    prop_assert_eq!(state.all_passed(), tasks.into_iter().all(passed));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_illegal_event_changes_nothing_and_the_legal_ones_replay_to_the_same_state(
        shape in shape(),
        steps in prop::collection::vec((event(), any::<bool>(), 0..1000usize), 0..60),
    ) {
        let mut state = RunState::new(Arc::clone(&shape), &mut Vec::new());
        let mut taken = Vec::new();
        for (wild, legal, choice) in steps {
            let event = if legal { allowed(&state, choice).unwrap_or(wild) } else { wild };
            let before = look(&state);
            let mut ready = Vec::new();
            match state.apply(&event, &mut ready) {
                Ok(()) => taken.push(event),
                Err(_) => {
                    prop_assert_eq!(look(&state), before);
                    prop_assert!(ready.is_empty());
                }
            }
            let next = |n: &NodeId| match state.undoing() {
                true => state.can_undo(*n),
                false => state.task(*n) == TaskState::Ready,
            };
            prop_assert!(ready.iter().all(next));
        }
        let read_back = RunState::replay(shape, &taken).unwrap();
        prop_assert_eq!(look(&read_back), look(&state));
    }

    #[test]
    fn a_run_that_only_does_what_is_allowed_starts_each_task_after_what_it_needs_and_ends(
        shape in shape(),
        choices in prop::collection::vec(0..1000usize, 400),
    ) {
        let mut told = Vec::new();
        let mut state = RunState::new(Arc::clone(&shape), &mut told);
        for choice in choices {
            let Some(event) = allowed(&state, choice) else { break };
            state.apply(&event, &mut told).unwrap();
            assert_order(&state)?;
        }
        // Every task that ever was ready was told, and no join.
        let named = |n: &NodeId| shape.name(*n).is_some();
        prop_assert!(told.iter().all(named));
        let begun = (0..shape.len() as NodeId).filter(named).filter(|n| state.task(*n) != TaskState::Waiting);
        for node in begun {
            prop_assert!(told.contains(&node));
        }
    }

    #[test]
    fn a_run_is_taken_back_in_reverse_order_each_task_once_and_only_what_was_begun(
        shape in shape(),
        forward in prop::collection::vec(0..1000usize, 0..60),
        back in prop::collection::vec(0..10_000usize, 400),
    ) {
        let mut state = RunState::new(Arc::clone(&shape), &mut Vec::new());
        for choice in forward {
            let Some(event) = allowed(&state, choice) else { break };
            state.apply(&event, &mut Vec::new()).unwrap();
        }
        let untouched: Vec<NodeId> = (0..shape.len() as NodeId).filter(|n| !state.begun(*n)).collect();
        let (mut undone, mut attempts, mut free) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for choice in back {
            let Some(event) = allowed_back(&state, choice) else { break };
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
                prop_assert_eq!(state.can_undo(node), defined, "{}", look(&state));
            }
            if state.status() == RunStatus::Open && !matches!(event, Event::UndoFailed { .. }) {
                let failed = |n: &NodeId| state.task(*n) == TaskState::UndoFailed;
                let can = (0..shape.len() as NodeId).filter(|n| state.can_undo(*n) && !failed(n));
                prop_assert!(can.into_iter().all(|n| free.contains(&n)), "not told: {}", look(&state));
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

    #[test]
    fn names_and_successors_of_a_shape_are_those_it_was_made_of(shape in shape()) {
        let count = shape.len() as NodeId;
        for node in 0..count {
            if let Some(name) = shape.name(node) {
                prop_assert_eq!(shape.node(name), Some(node));
            }
            let incoming = (0..count).filter(|m| shape.after(*m).contains(&node)).count();
            prop_assert_eq!(incoming as u32, shape.incoming(node));
        }
        prop_assert_eq!(shape.tasks(), (0..count).filter(|n| shape.name(*n).is_some()).count());
    }
}
