//! The state machine against the plain account of its rules, with legal and illegal events.

use std::collections::BTreeSet;
use std::sync::Arc;

use flow_core::run::{NodeId, Outcome, Record, RunState, RunStatus, TaskState};
use proptest::prelude::*;

use crate::events::{any_event, awkward_record, good, legal};
use crate::reference::Reference;
use crate::shape::{needs, shape, tasks};
use crate::undo::legal_back;

/// The state says what the plain account says, of everything that can be asked.
fn assert_agreed(state: &RunState, reference: &Reference) -> Result<(), TestCaseError> {
    for node in 0..state.shape().len() as NodeId {
        prop_assert_eq!(state.task(node), reference.state(node), "node {} of {:?}", node, state);
        prop_assert_eq!(state.attempt(node), reference.attempt(node));
        if state.shape().name(node).is_some() {
            prop_assert_eq!(state.can_undo(node), reference.can_undo(node), "node {} of {:?}", node, state);
        }
    }
    prop_assert_eq!(state.status(), reference.status);
    prop_assert_eq!(state.epoch(), reference.epoch);
    prop_assert_eq!(state.hosts(), &reference.hosts);
    prop_assert_eq!(state.all_passed(), reference.all_passed());
    prop_assert_eq!(state.undoing(), reference.undoing);
    prop_assert_eq!(state.turned_back(), reference.turned);
    prop_assert_eq!(state.all_undone(), reference.all_undone());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn just_what_the_rules_allow_is_taken_in_and_anything_else_leaves_the_whole_state_as_it_was(
        shape in shape(),
        steps in prop::collection::vec((any_event(), prop::bool::weighted(0.6), 0..10_000usize), 0..80),
    ) {
        let mut first = Vec::new();
        let mut state = RunState::new(Arc::clone(&shape), &mut first);
        let mut reference = Reference::new(Arc::clone(&shape));
        prop_assert_eq!(first.iter().copied().collect::<BTreeSet<_>>(), reference.ready());
        let mut taken = Vec::new();
        for (wild, tame, choice) in steps {
            let tame_event = || match choice % 50 {
                0 => legal_back(&state, choice / 50),
                _ if state.undoing() => legal_back(&state, choice),
                _ => legal(&state, choice),
            };
            let event = if tame { tame_event().unwrap_or(wild) } else { wild };
            let before = state.clone();
            let mut ready = Vec::new();
            let result = state.apply(&event, &mut ready);
            prop_assert_eq!(result.is_ok(), reference.allows(&event), "{:?} in {:?}", event, before);
            if result.is_ok() {
                let told: BTreeSet<NodeId> = ready.iter().copied().collect();
                prop_assert_eq!(told.len(), ready.len(), "told twice: {:?}", &ready);
                prop_assert_eq!(told, reference.take(&event), "after {:?}", &event);
                taken.push(event);
            } else {
                prop_assert_eq!(&state, &before);
                prop_assert!(ready.is_empty());
            }
            assert_agreed(&state, &reference)?;
        }
        prop_assert_eq!(RunState::replay(shape, &taken).unwrap(), state);
    }

    #[test]
    fn a_run_that_only_does_what_is_allowed_is_never_refused_and_starts_each_task_after_what_it_needs(
        shape in shape(),
        choices in prop::collection::vec(0..10_000usize, 0..400),
    ) {
        let mut told = Vec::new();
        let mut state = RunState::new(Arc::clone(&shape), &mut told);
        for choice in choices {
            let Some(event) = legal(&state, choice) else { break };
            state.apply(&event, &mut told).unwrap();
            for node in tasks(&shape) {
                let may = needs(&shape, node).into_iter().all(|need| state.task(need).passes());
                prop_assert_eq!(may, state.task(node) != TaskState::Waiting, "node {} of {:?}", node, &state);
            }
        }
        // Every task that has begun was told before, and no join was.
        prop_assert!(told.iter().all(|node| shape.name(*node).is_some()));
        for node in tasks(&shape).filter(|node| state.task(*node) != TaskState::Waiting) {
            prop_assert!(told.contains(&node));
        }
    }

    #[test]
    fn from_wherever_a_run_stands_it_can_be_gone_on_with_to_a_good_end(
        shape in shape(),
        choices in prop::collection::vec(0..10_000usize, 0..60),
    ) {
        let mut state = RunState::new(Arc::clone(&shape), &mut Vec::new());
        for choice in choices {
            let Some(event) = legal(&state, choice) else { break };
            state.apply(&event, &mut Vec::new()).unwrap();
        }
        // Once more than there can be events where all goes well.
        for _ in 0..3 * shape.len() + 3 {
            let Some(event) = good(&state) else { break };
            state.apply(&event, &mut Vec::new()).unwrap();
        }
        prop_assert_eq!(state.status(), RunStatus::Ended(Outcome::Succeeded));
    }

    #[test]
    fn an_event_read_back_from_its_json_is_the_one_that_was_written(record in awkward_record()) {
        let text = serde_json::to_string(&record).unwrap();
        let back: Record = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&back, &record);
        // And once more by way of a value, as where secrets are masked.
        let value = serde_json::to_value(&record.event).unwrap();
        prop_assert_eq!(serde_json::from_value::<flow_core::run::Event>(value).unwrap(), record.event);
    }
}
