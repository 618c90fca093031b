//! The laws of a run's state: whatever events come, those that are not allowed change nothing, and
//! those that were taken in give the same state when they are read back.

use std::collections::{BTreeSet, HashMap};
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

/// The same, where some of the joins are gates.
fn gated_shape() -> impl Strategy<Value = Arc<Shape>> {
    let nodes = prop::collection::vec((prop::bool::weighted(0.6), prop::option::of(1..4u32)), 1..9);
    (nodes, prop::collection::vec((0..9u32, 0..9u32), 0..20)).prop_map(|(nodes, pairs)| {
        let count = nodes.len() as u32;
        let edges: BTreeSet<(NodeId, NodeId)> =
            pairs.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a < b).collect();
        let limit = |(n, (task, limit)): (usize, &(bool, Option<u32>))| {
            limit.filter(|_| !task).map(|limit| (n as NodeId, limit))
        };
        let gates: HashMap<NodeId, u32> = nodes.iter().enumerate().filter_map(limit).collect();
        let name = |(n, (task, _)): (usize, (bool, _))| task.then(|| TaskName::from_text(&format!("t{n}")));
        let names = nodes.into_iter().enumerate().map(name).collect();
        Arc::new(Shape::with_gates(names, &edges.into_iter().collect::<Vec<_>>(), gates))
    })
}

/// How a node has ended, told plainly: whether it passed, and the failures that it lets by or counts.
/// None where it hasn't ended.
fn ends(state: &RunState) -> Vec<Option<(bool, u32)>> {
    let shape = state.shape();
    let mut ends: Vec<Option<(bool, u32)>> = Vec::new();
    for node in 0..shape.len() as NodeId {
        let before: Vec<NodeId> = (0..node).filter(|n| shape.after(*n).contains(&node)).collect();
        let all: Option<Vec<(bool, u32)>> = before.iter().map(|n| ends[*n as usize]).collect();
        let blocked = all.as_ref().is_some_and(|all| all.iter().any(|(passed, _)| !passed));
        ends.push(match (shape.name(node), shape.gate(node)) {
            (Some(_), _) if state.task(node).passes() => Some((true, 0)),
            (Some(_), _) => match state.task(node) {
                TaskState::Failed => Some((false, 1)),
                TaskState::Waiting if blocked => Some((false, 1)),
                _ => None,
            },
            (None, None) => all.map(|_| if blocked { (false, 1) } else { (true, 0) }),
            (None, Some(limit)) => all.map(|all| {
                let failures = all.iter().map(|(_, failures)| failures).sum();
                (failures < limit, failures)
            }),
        });
    }
    ends
}

/// Joins and gates are passed exactly where the plain account says so, and tasks are ready exactly
/// where all before them has passed.
fn assert_gates(state: &RunState) -> Result<(), TestCaseError> {
    let shape = state.shape();
    let ends = ends(state);
    let passed = |n: NodeId| ends[n as usize].is_some_and(|(passed, _)| passed);
    for node in 0..shape.len() as NodeId {
        let free = (0..node).filter(|n| shape.after(*n).contains(&node)).all(passed);
        match state.task(node) {
            found if shape.name(node).is_none() => {
                prop_assert_eq!(found == TaskState::Done, passed(node), "node {} of {}", node, look(state));
            }
            TaskState::Ready => prop_assert!(free, "node {node} of {}", look(state)),
            TaskState::Waiting => prop_assert!(!free, "node {node} of {}", look(state)),
            _ => {}
        }
    }
    let tasks = (0..shape.len() as NodeId).filter(|n| shape.name(*n).is_some());
    prop_assert_eq!(state.all_passed(), tasks.into_iter().all(|n| state.task(n).passes()));
    Ok(())
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
    let of_task = (task(), 0..4u32, 0..10u8).prop_map(|(task, attempt, kind)| {
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
            8 => Event::UndoIntended { task },
            _ => Event::TaskUndone { task },
        }
    });
    let of_run = (0..4u64, outcome(), 0..5u8).prop_map(|(epoch, outcome, kind)| {
        let (owner, host) = ("x".to_owned(), "h".to_owned());
        match kind {
            0 => Event::RunStarted { owner, epoch },
            1 => Event::RunResumed { owner, epoch },
            2 => Event::HostMet {
                host,
                identity: Identity { machine_id: format!("m{}", epoch % 2), key_fingerprint: String::new() },
            },
            3 => Event::RunInterrupted { at_once: false },
            _ => Event::RunEnded { outcome },
        }
    });
    prop_oneof![12 => of_task, 1 => of_run]
}

/// Everything that can be seen of a state.
fn look(state: &RunState) -> String {
    let shape = state.shape();
    let nodes: Vec<_> = (0..shape.len() as NodeId).map(|n| (state.task(n), state.attempt(n))).collect();
    format!("{nodes:?} {:?} {} {:?} {}", state.status(), state.epoch(), state.hosts(), state.all_passed())
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
            prop_assert!(ready.iter().all(|n| state.task(*n) == TaskState::Ready));
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
    fn a_gate_lets_by_fewer_failures_than_its_limit_also_after_a_kill_and_a_resume(
        shape in gated_shape(),
        choices in prop::collection::vec(0..1000usize, 200),
    ) {
        let mut state = RunState::new(Arc::clone(&shape), &mut Vec::new());
        let mut taken = Vec::new();
        for choice in choices {
            let killed = choice % 17 == 0 && state.status() == RunStatus::Open;
            let resumed = || Event::RunResumed { owner: "x".into(), epoch: state.epoch() + 1 };
            let event = if killed { Some(resumed()) } else { allowed(&state, choice) };
            let Some(event) = event else { break };
            let mut ready = Vec::new();
            state.apply(&event, &mut ready).unwrap();
            prop_assert!(ready.iter().all(|n| state.task(*n) == TaskState::Ready));
            assert_gates(&state)?;
            taken.push(event);
        }
        let read_back = RunState::replay(shape, &taken).unwrap();
        prop_assert_eq!(look(&read_back), look(&state));
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
