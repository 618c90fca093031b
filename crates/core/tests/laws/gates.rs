//! Gates: joins that let failures by, until there are too many.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use flow_core::run::{NodeId, RunState, Shape, TaskState};
use proptest::prelude::*;

use crate::events::legal;
use crate::shape::name;

/// A DAG of which some of the joins are gates.
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
        let name_of = |(n, (task, _)): (usize, (bool, _))| task.then(|| name(n as NodeId));
        let names = nodes.into_iter().enumerate().map(name_of).collect();
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
                prop_assert_eq!(found == TaskState::Done, passed(node), "node {} of {:?}", node, state);
            }
            TaskState::Ready => prop_assert!(free, "node {node} of {state:?}"),
            TaskState::Waiting => prop_assert!(!free, "node {node} of {state:?}"),
            _ => {}
        }
    }
    let tasks = (0..shape.len() as NodeId).filter(|n| shape.name(*n).is_some());
    prop_assert_eq!(state.all_passed(), tasks.into_iter().all(|n| state.task(n).passes()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_gate_lets_by_fewer_failures_than_its_limit_also_after_a_kill_and_a_resume(
        shape in gated_shape(),
        choices in prop::collection::vec(0..10_000usize, 200),
    ) {
        let mut state = RunState::new(Arc::clone(&shape), &mut Vec::new());
        let mut taken = Vec::new();
        for choice in choices {
            let Some(event) = legal(&state, choice) else { break };
            let mut ready = Vec::new();
            state.apply(&event, &mut ready).unwrap();
            prop_assert!(ready.iter().all(|n| state.task(*n) == TaskState::Ready));
            assert_gates(&state)?;
            taken.push(event);
        }
        let read_back = RunState::replay(shape, &taken).unwrap();
        prop_assert_eq!(read_back, state);
    }
}
