//! Hosts that are chosen while a run goes on: their order holds on the way forward, after a kill, and on
//! the way back.

use std::sync::Arc;

use flow_core::run::{Choice, ChoicePart, Event, NodeId, RunState, Shape, TaskState};
use flow_core::workflow::Serial;
use proptest::prelude::*;

use crate::events::legal;
use crate::shape::{name, needs, tasks};
use crate::undo::legal_back;

/// Task 0 chooses from hosts, whose parts are the tasks after it; the last task needs all of them.
fn shape(hosts: u32, serial: Option<u32>) -> Arc<Shape> {
    let last = hosts + 1;
    let part = |node: NodeId| ChoicePart { host: format!("h{node}"), nodes: Some((node, node)) };
    let parts = (1..last).map(part).collect();
    let choice = Choice { parts, serial: serial.map(Serial::Count), max_failures: None };
    let edges: Vec<(NodeId, NodeId)> = (1..last).flat_map(|node| [(0, node), (node, last)]).collect();
    let names = (0..=last).map(|node| Some(name(node))).collect();
    Arc::new(Shape::new(names, &edges).with_choices([(0, choice)].into()))
}

/// For each part that was chosen, those that are in earlier batches.
fn before(hosts: &[String], serial: Option<u32>) -> Vec<(NodeId, Vec<NodeId>)> {
    let node = |host: &String| host[1..].parse::<NodeId>().unwrap();
    let batch = serial.map_or(usize::MAX, |count| count as usize);
    let earlier = |place: usize| hosts[..place / batch * batch].iter().map(node).collect();
    hosts.iter().enumerate().map(|(place, host)| (node(host), earlier(place))).collect()
}

/// Whether something of a task may be there.
fn is_left(state: &RunState, node: NodeId) -> bool {
    state.begun(node) && !matches!(state.task(node), TaskState::Undone | TaskState::Kept)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chosen_hosts_are_worked_on_batch_by_batch_and_taken_back_the_other_way_round(
        hosts in 1..4u32,
        serial in prop::option::of(1..3u32),
        forward in prop::collection::vec(0..10_000usize, 0..80),
        back in prop::collection::vec(0..10_000usize, 0..80),
    ) {
        let shape = shape(hosts, serial);
        let mut state = RunState::new(Arc::clone(&shape), &mut Vec::new());
        let (mut taken, mut order) = (Vec::new(), Vec::new());
        let ways = forward.into_iter().map(|choice| (choice, true)).chain(back.into_iter().map(|n| (n, false)));
        for (choice, ahead) in ways {
            let event = if ahead && !state.undoing() { legal(&state, choice) } else { legal_back(&state, choice) };
            let Some(event) = event else { continue };
            let earlier = |task: &_| {
                let node = shape.node(task).unwrap();
                order.iter().find(|(part, _)| *part == node).map(|(_, earlier)| earlier)
            };
            let later = |task: &_| {
                let node = shape.node(task).unwrap();
                let behind = order.iter().filter(|(_, earlier): &&(NodeId, Vec<NodeId>)| earlier.contains(&node));
                behind.map(|(part, _)| *part).collect::<Vec<_>>()
            };
            match &event {
                Event::TaskIntended { task, .. } => {
                    let passed = |node: &NodeId| state.task(*node).passes();
                    prop_assert!(earlier(task).is_none_or(|nodes| nodes.iter().all(passed)), "{task} of {state:?}");
                }
                Event::UndoIntended { task, .. } => {
                    prop_assert!(later(task).iter().all(|node| !is_left(&state, *node)), "{task} of {state:?}");
                }
                _ => {}
            }
            state.apply(&event, &mut Vec::new()).unwrap();
            if let Event::HostsChosen { hosts, .. } = &event {
                order = before(hosts, serial);
            }
            if !state.undoing() {
                for node in tasks(state.shape()) {
                    let may = needs(state.shape(), node).into_iter().all(|need| state.task(need).passes());
                    prop_assert_eq!(may, state.task(node) != TaskState::Waiting, "node {} of {:?}", node, &state);
                }
            }
            taken.push(event);
        }
        prop_assert_eq!(RunState::replay(shape, &taken).unwrap(), state);
    }

    #[test]
    fn a_choice_of_a_host_outside_the_set_or_chosen_twice_changes_nothing(hosts in 1..4u32, wrong in 0..2usize) {
        let shape = shape(hosts, Some(1));
        let mut state = RunState::new(shape, &mut Vec::new());
        state.apply(&Event::RunStarted { owner: "x".into(), epoch: 1 }, &mut Vec::new()).unwrap();
        let before = state.clone();
        let chosen = [vec!["h1".to_owned(), "h1".to_owned()], vec!["elsewhere".to_owned()]];
        let event = Event::HostsChosen { task: name(0), hosts: chosen[wrong].clone() };
        prop_assert!(state.apply(&event, &mut Vec::new()).is_err());
        prop_assert_eq!(state, before);
    }
}
