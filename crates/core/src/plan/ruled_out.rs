//! Tasks of which the params say already that they are never done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::value::{Object, Value as Jinja};
use petgraph::graph::NodeIndex;

use super::{Plan, params};
use crate::run::TaskName;
use crate::workflow::expr;

/// Outputs that nobody knows yet; remembers that one was asked for.
#[derive(Debug, Default)]
struct NotKnown(AtomicBool);

impl Object for NotKnown {
    fn get_value(self: &Arc<Self>, _key: &Jinja) -> Option<Jinja> {
        self.0.store(true, Ordering::Relaxed);
        None
    }
}

impl Plan {
    /// Whether the condition of a task's step is false whatever earlier steps find: params and inventory alone decide it.
    pub fn is_ruled_out(&self, task: &TaskName) -> bool {
        let step =
            self.shape.node(task).and_then(|node| self.graph.node_weight(NodeIndex::new(node as usize)));
        let Some(step) = step.and_then(super::Node::task).map(|task| &self.steps[task.step]) else {
            return false;
        };
        let Some(condition) = step.def.condition.as_ref().filter(|_| step.frame == 0) else { return false };
        let outputs = Arc::new(NotKnown::default());
        let mut names = params::static_names(&self.inventory, &self.params);
        names.insert("steps", Jinja::from_dyn_object(outputs.clone()));
        let value = self.evaluator.expression(&condition.value, &Jinja::from(names));
        let is_false = value.is_ok_and(|value| expr::as_condition(&value).is_ok_and(|holds| !holds));
        is_false && !outputs.0.load(Ordering::Relaxed)
    }
}
