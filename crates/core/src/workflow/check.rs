//! What a workflow says against what there is: step types and their arguments, the steps that need
//! each other, the names in expressions. Finds everything that is wrong, not only the first.

mod arguments;
mod expressions;
mod graph;
mod includes;
mod names;
mod schema;
mod tokens;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::expr::Evaluator;
use super::{Bundle, Code, Diagnostic, Diagnostics, Span, Workflow};
use crate::step::Registry;
use graph::Graph;

pub use schema::check_values;

/// Checks every workflow of a bundle, which were read before. Of those in `without_params` not all params are
/// known, which was told.
pub(super) fn check(
    bundle: &Bundle,
    files: &BTreeMap<String, Arc<Workflow>>,
    without_params: &BTreeSet<String>,
    registry: &Registry,
    diagnostics: &mut Diagnostics,
) {
    let evaluator = Evaluator::new();
    includes::circles(&bundle.root, files, diagnostics);
    let destructive = includes::destructive(files, registry);
    for (path, workflow) in files {
        let graph = Graph::new(workflow);
        let mut checker = Checker {
            workflow,
            bundle,
            files,
            params_known: !without_params.contains(path),
            registry,
            evaluator: &evaluator,
            destructive: &destructive,
            graph,
            diagnostics,
        };
        checker.steps();
        checker.order();
        checker.expressions();
        checker.confirmation();
        checker.undo();
    }
}

/// One workflow while it is checked.
struct Checker<'c> {
    workflow: &'c Workflow,
    bundle: &'c Bundle,
    files: &'c BTreeMap<String, Arc<Workflow>>,
    /// False where it takes params over that could not be found.
    params_known: bool,
    registry: &'c Registry,
    evaluator: &'c Evaluator,
    /// The destructive step type that each file leads to, where it leads to one.
    destructive: &'c BTreeMap<String, String>,
    graph: Graph<'c>,
    diagnostics: &'c mut Diagnostics,
}

impl Checker<'_> {
    fn at(&self, code: Code, span: &Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(code, &self.workflow.source, span.clone(), message)
    }

    /// Whether something was told of that very place already.
    fn told(&self, span: &Span) -> bool {
        self.diagnostics.0.iter().any(|known| {
            known.source.as_ref() == Some(&self.workflow.source)
                && known.labels.first().is_some_and(|(place, _)| place == span)
        })
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }
}
