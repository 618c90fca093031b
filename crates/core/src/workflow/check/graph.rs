//! `needs` and `guards`: do they name steps, and can the steps be put in an order?

use std::collections::HashMap;
use std::sync::Arc;

use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use super::Checker;
use crate::workflow::parse::list;
use crate::workflow::{Code, Diagnostic, Spanned, StepDef, Workflow, nearest};

/// Which step needs which. A step is its position in the document.
pub(super) struct Graph<'w> {
    steps: Vec<&'w StepDef>,
    positions: HashMap<&'w str, usize>,
    /// Those of `needs` and of `needs_per_host`.
    needs: Vec<Vec<usize>>,
}

/// How much of a step has ended before another one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Upstream {
    /// Nothing need have.
    No,
    /// Some of its hosts' parts, but not surely this host's.
    Elsewhere,
    /// This host's part of it.
    OwnHost,
    /// All of it.
    Whole,
}

impl<'w> Graph<'w> {
    pub(super) fn new(workflow: &'w Workflow) -> Self {
        let steps: Vec<&StepDef> = workflow.steps.values().collect();
        let positions: HashMap<&str, usize> =
            steps.iter().enumerate().map(|(at, step)| (step.id.value.as_str(), at)).collect();
        let needs = steps
            .iter()
            .map(|step| {
                step.all_needs().filter_map(|need| positions.get(need.value.as_str()).copied()).collect()
            })
            .collect();
        Self { steps, positions, needs }
    }

    /// How much of each step has ended before one starts, at its position.
    ///
    /// A step that any step upstream has in its `needs` is whole then. What is reached by nothing but
    /// `needs_per_host` has ended on the host itself, whatever the others do. A choice of the step's hosts
    /// waits for its `needs` only.
    pub(super) fn upstream(&self, step: &str, choice: bool) -> Vec<Upstream> {
        let mut upstream = vec![Upstream::No; self.steps.len()];
        // Whether a step was gone through, and as what this host's part waits for.
        let mut seen: Vec<Option<bool>> = vec![None; self.steps.len()];
        let mut pending: Vec<(usize, bool)> =
            self.positions.get(step).map(|&at| (at, true)).into_iter().collect();
        while let Some((at, own)) = pending.pop() {
            if seen[at] >= Some(own) {
                continue;
            }
            seen[at] = Some(own);
            let part = if own { Upstream::OwnHost } else { Upstream::Elsewhere };
            let whole = self.steps[at].needs.iter().map(|need| (need, Upstream::Whole, false));
            let of_choice = choice && Some(at) == self.position(step);
            let parts = if of_choice { &[][..] } else { &self.steps[at].needs_per_host[..] };
            let parts = parts.iter().map(|need| (need, part, own));
            for (need, reached, own) in whole.chain(parts) {
                let Some(need) = self.position(&need.value) else { continue };
                upstream[need] = upstream[need].max(reached);
                pending.push((need, own));
            }
        }
        upstream
    }

    pub(super) fn position(&self, step: &str) -> Option<usize> {
        self.positions.get(step).copied()
    }

    /// Groups of steps that wait for each other. One that needs itself is told elsewhere.
    fn circles(&self) -> Vec<Vec<usize>> {
        let mut graph = DiGraph::<(), ()>::with_capacity(self.steps.len(), self.steps.len());
        let nodes: Vec<_> = self.steps.iter().map(|_| graph.add_node(())).collect();
        for (at, needs) in self.needs.iter().enumerate() {
            for &need in needs {
                graph.add_edge(nodes[at], nodes[need], ());
            }
        }
        let mut circles: Vec<Vec<usize>> = tarjan_scc(&graph)
            .into_iter()
            .filter(|circle| circle.len() > 1)
            .map(|circle| {
                let mut steps: Vec<usize> =
                    circle.into_iter().map(petgraph::graph::NodeIndex::index).collect();
                steps.sort_unstable();
                steps
            })
            .collect();
        circles.sort_unstable();
        circles
    }

    /// The way round from the first step of a circle, where there is only one way.
    fn round(&self, circle: &[usize]) -> Option<Vec<usize>> {
        let mut way = vec![*circle.first()?];
        loop {
            let at = *way.last()?;
            let mut inner = self.needs[at].iter().filter(|need| circle.contains(need));
            let (next, other) = (*inner.next()?, inner.next());
            if other.is_some() {
                return None;
            }
            if next == way[0] {
                return (way.len() == circle.len()).then_some(way);
            }
            way.push(next);
        }
    }
}

impl<'c> Checker<'c> {
    /// Checks `needs` and `guards` of all steps.
    pub(super) fn order(&mut self) {
        let workflow = self.workflow;
        for step in workflow.steps.values() {
            self.step_names(step, "needs", &step.needs);
            self.step_names(step, "needs_per_host", &step.needs_per_host);
            self.per_host(step);
            self.step_names(step, "guards", &step.guards);
            self.guards(step);
        }
        for circle in self.graph.circles() {
            let diagnostic = self.circle(&circle);
            self.push(diagnostic);
        }
    }

    fn step_names(&mut self, step: &StepDef, key: &str, names: &[Spanned<String>]) {
        for (at, name) in names.iter().enumerate() {
            if name.value == step.id.value {
                let own = self
                    .at(Code::NEEDS, &name.span, format!("`{}` names itself in `{key}`", name.value))
                    .help("take it out");
                self.push(own);
            } else if self.graph.position(&name.value).is_none() {
                let unknown = self.unknown_step(name);
                self.push(unknown);
            } else if let Some(first) = names[..at].iter().find(|first| first.value == name.value) {
                let twice = self
                    .at(Code::NEEDS, &name.span, format!("`{}` is in `{key}` twice", name.value))
                    .label("again")
                    .also(first.span.clone(), "first here");
                self.push(twice);
            }
        }
    }

    /// A step that is needed per host must have hosts, and not be needed as a whole too.
    fn per_host(&mut self, step: &StepDef) {
        let workflow = self.workflow;
        for name in &step.needs_per_host {
            if let Some(whole) = step.needs.iter().find(|whole| whole.value == name.value) {
                let twice = self
                    .at(Code::NEEDS, &name.span, format!("`{}` is in `needs` already", name.value))
                    .label("has no effect")
                    .also(whole.span.clone(), "waits for all its hosts")
                    .help("take it out of one of the two");
                self.push(twice);
            } else if workflow.steps.get(&name.value).is_some_and(|needed| needed.hosts.is_none()) {
                let nowhere = self
                    .at(Code::NEEDS, &name.span, format!("`{}` has no hosts of its own", name.value))
                    .label("there is no part of it for each host")
                    .help(format!("wait for it as a whole: needs = [\"{}\"]", name.value));
                self.push(nowhere);
            }
        }
    }

    fn unknown_step(&self, name: &Spanned<String>) -> Diagnostic {
        let names: Vec<&str> = self.workflow.steps.keys().map(String::as_str).collect();
        let unknown = self.at(Code::NEEDS, &name.span, format!("there is no step `{}`", name.value));
        match nearest(&name.value, names.iter().copied()) {
            Some(near) => unknown.help(format!("did you mean `{near}`?")),
            None if names.len() <= 8 => unknown.help(format!("the steps are {}", list(&names))),
            None => unknown,
        }
    }

    fn guards(&mut self, step: &StepDef) {
        if step.guards.is_empty() {
            return;
        }
        let upstream = self.graph.upstream(&step.id.value, false);
        let per_host = |name: &str| step.needs_per_host.iter().any(|need| need.value == name);
        for guard in step.guards.iter().filter(|guard| guard.value != step.id.value) {
            let Some(at) = self.graph.position(&guard.value) else { continue };
            let asks =
                self.workflow.steps.get(&guard.value).and_then(|def| self.registry.get(&def.uses.value));
            if asks.is_some_and(|info| info.gate) {
                let message = format!("`{}` can't guard `{}`", guard.value, step.id.value);
                let wrong = self
                    .at(Code::NEEDS, &guard.span, message)
                    .label("an approval is given once; there is nothing to look at again")
                    .help("take it out: `needs` is enough");
                self.push(wrong);
                continue;
            }
            let included = self.graph.steps[at].uses.value == "workflow";
            let (label, help) = match upstream[at] {
                _ if included => (
                    "is a workflow, which has no check of its own",
                    "name a step of this workflow that looks at what must hold".to_owned(),
                ),
                Upstream::Whole => continue,
                Upstream::Elsewhere | Upstream::OwnHost if per_host(&guard.value) => continue,
                Upstream::Elsewhere | Upstream::OwnHost => (
                    "needn't have run on all its hosts before it",
                    match step.hosts {
                        Some(_) => format!("add \"{}\" to `needs`, or to `needs_per_host`", guard.value),
                        None => format!("add \"{}\" to `needs`", guard.value),
                    },
                ),
                Upstream::No => (
                    "doesn't run before it",
                    format!("a guard is a step upstream: add \"{}\" to `needs`", guard.value),
                ),
            };
            let message = format!("`{}` can't guard `{}`", guard.value, step.id.value);
            let wrong = self.at(Code::NEEDS, &guard.span, message).label(label).help(help);
            self.push(wrong);
        }
    }

    fn circle(&self, circle: &[usize]) -> Diagnostic {
        let name = |at: &usize| self.graph.steps[*at].id.value.as_str();
        let message = match self.graph.round(circle) {
            Some(way) => {
                let names: Vec<&str> = way.iter().chain(way.first()).map(name).collect();
                format!("steps wait for each other in a circle: {}", names.join(" > "))
            }
            None => {
                format!("steps wait for each other: {}", list(&circle.iter().map(name).collect::<Vec<_>>()))
            }
        };
        let waits = circle.iter().flat_map(|at| {
            let step = self.graph.steps[*at];
            step.all_needs()
                .filter(|need| circle.iter().any(|other| name(other) == need.value))
                .map(move |need| (need, format!("{} waits for {}", step.id.value, need.value)))
        });
        Diagnostic {
            code: Code::CYCLE,
            message,
            labels: waits.map(|(need, text)| (need.span.clone(), text)).collect(),
            help: Some("take one of these out of its `needs`".to_owned()),
            source: Some(Arc::clone(&self.workflow.source)),
        }
    }
}
