//! DAGs of tasks and joins, and what they promise.

use std::collections::BTreeSet;
use std::sync::Arc;

use flow_core::run::{NodeId, Shape, TaskName};
use proptest::prelude::*;

/// No shape has more nodes.
pub(crate) const MOST: u32 = 8;

/// A DAG: nodes that may be joins, edges from smaller to greater numbers.
pub(crate) fn shape() -> impl Strategy<Value = Arc<Shape>> {
    let nodes = prop::collection::vec(prop::bool::weighted(0.7), 1..=MOST as usize);
    (nodes, prop::collection::vec((0..MOST, 0..MOST), 0..16)).prop_map(|(nodes, pairs)| {
        let count = nodes.len() as u32;
        let edges: BTreeSet<(NodeId, NodeId)> =
            pairs.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a < b).collect();
        let name = |(n, task): (usize, bool)| task.then(|| name(n as u32));
        let names = nodes.into_iter().enumerate().map(name).collect();
        Arc::new(Shape::new(names, &edges.into_iter().collect::<Vec<_>>()))
    })
}

/// The name of the task of a node, should it be one.
pub(crate) fn name(node: NodeId) -> TaskName {
    TaskName::from_text(&format!("t{node}"))
}

/// The nodes that are tasks.
pub(crate) fn tasks(shape: &Shape) -> impl Iterator<Item = NodeId> + '_ {
    (0..shape.len() as NodeId).filter(|node| shape.name(*node).is_some())
}

/// The tasks that must have passed before this node: those right before it, and those before the joins
/// right before it.
pub(crate) fn needs(shape: &Shape, node: NodeId) -> BTreeSet<NodeId> {
    let mut needs = BTreeSet::new();
    for before in (0..shape.len() as NodeId).filter(|before| shape.after(*before).contains(&node)) {
        if shape.name(before).is_some() {
            needs.insert(before);
        } else {
            needs.extend(self::needs(shape, before));
        }
    }
    needs
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

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
        prop_assert_eq!(shape.tasks(), tasks(&shape).count());
    }
}
