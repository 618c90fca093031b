//! `pivot`, `keep` and `on_failure`: do they make sense, and could a run that fails take back its steps?

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Checker;
use super::graph::{Graph, Upstream};
use crate::step::{Registry, Undoability};
use crate::workflow::documents::included_file;
use crate::workflow::{Code, OnFailure, StepDef, Workflow};

impl Checker<'_> {
    /// Checks what the workflow says of taking back.
    pub(super) fn undo(&mut self) {
        let workflow = self.workflow;
        for step in workflow.steps.values() {
            self.pivot_and_keep(step);
        }
        let is_root = self.files.get(&self.bundle.root).is_some_and(|root| std::ptr::eq(&**root, workflow));
        let unwinds = workflow.on_failure.as_ref().is_some_and(|what| what.value == OnFailure::Unwind);
        if is_root && unwinds {
            self.unwinding();
        }
    }

    fn pivot_and_keep(&mut self, step: &StepDef) {
        if step.pivot && step.keep {
            let message = format!("`{}` is a pivot, and to be kept", step.id.value);
            let both = self
                .at(Code::UNDO, &step.id.span, message)
                .help("a pivot is never taken back: take `keep` out");
            self.push(both);
        }
        let undo = self.registry.get(&step.uses.value).map(|info| info.undoability(|_| true));
        if undo != Some(Undoability::Nothing) || !(step.pivot || step.keep) {
            return;
        }
        let (what, help) = if step.pivot {
            ("be a pivot", "say `pivot = true` where something is changed")
        } else {
            ("be kept", "take `keep` out")
        };
        let message = format!("`{}` changes nothing, so it can't {what}", step.uses.value);
        let wrong = self.at(Code::UNDO, &step.uses.span, message).help(help);
        self.push(wrong);
    }

    /// Tells which steps stand in the way of an unwinding run.
    fn unwinding(&mut self) {
        let impossible = impossible(self.workflow, self.files, self.registry, &mut Vec::new());
        let Some(((first, why), more)) = impossible.split_first() else { return };
        let message = format!("`{}` can't be taken back, so this workflow can't unwind", first.id.value);
        let mut wrong = self.at(Code::UNDO, &first.uses.span, message).label(why).help(
            "say `keep = true` where what it does may stay, `pivot = true` where there is no way back, \
             or let it come after the pivot",
        );
        for (step, why) in more {
            wrong = wrong.also(step.uses.span.clone(), why);
        }
        self.push(wrong);
    }
}

/// The steps that may have been done before any pivot was begun and can't be taken back, with the reason.
fn impossible<'w>(
    workflow: &'w Workflow,
    files: &'w BTreeMap<String, Arc<Workflow>>,
    registry: &Registry,
    chain: &mut Vec<&'w str>,
) -> Vec<(&'w StepDef, String)> {
    let graph = Graph::new(workflow);
    let pivots: Vec<usize> = workflow
        .steps
        .values()
        .filter(|step| step.pivot)
        .filter_map(|step| graph.position(&step.id.value))
        .collect();
    let behind_a_pivot = |step: &StepDef| {
        let upstream = graph.upstream(&step.id.value, false);
        pivots.iter().any(|&at| matches!(upstream[at], Upstream::Whole | Upstream::OwnHost))
    };
    let mut found = Vec::new();
    for step in workflow.steps.values() {
        if step.keep || step.pivot || (!pivots.is_empty() && behind_a_pivot(step)) {
            continue;
        }
        if let Some((path, _)) = included_file(step) {
            let Some(included) = files.get(path).filter(|_| !chain.contains(&path)) else { continue };
            chain.push(path);
            if let Some((inner, why)) = impossible(included, files, registry, chain).first() {
                found.push((step, format!("`{}` of {path}: {why}", inner.id.value)));
            }
            chain.pop();
            continue;
        }
        let undo = registry.get(&step.uses.value);
        if let Some(Undoability::Impossible(why)) =
            undo.map(|info| info.undoability(|name| step.with.value.contains_key(name)))
        {
            found.push((step, why));
        }
    }
    found
}
