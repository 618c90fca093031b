//! Expressions and templates: where they stand, and can they be read?

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use super::Checker;
use super::graph::Upstream;
use super::names::{FOREACH, FROM, ROOTS, ROOTS_OF_CHOICE, ROOTS_OF_ITEM};
use super::tokens::Words;
use crate::workflow::documents::literal_text;
use crate::workflow::{Argument, Code, Diagnostic, Hosts, Param, Source, Span, StepDef, expr};

/// Where an expression stands, which decides what it may name.
pub(super) struct Place<'p> {
    /// In words: "the default of a param".
    pub(super) what: &'static str,
    /// The names it may begin with.
    pub(super) roots: &'p [&'static str],
    /// The params that it may use; none means all.
    pub(super) params: Option<Vec<&'p str>>,
    /// The step it belongs to, and, once that was asked for, what runs before it.
    pub(super) step: Option<(&'p str, OnceCell<Vec<Upstream>>)>,
    /// A bare expression rather than a template.
    pub(super) bare: bool,
}

/// A place that is evaluated before there are tasks: it sees params and the inventory.
fn before_hosts(what: &'static str) -> Place<'static> {
    Place { what, roots: &["params", "groups", "hostvars"], params: None, step: None, bare: false }
}

impl Checker<'_> {
    /// Checks every expression of the workflow.
    pub(super) fn expressions(&mut self) {
        let workflow = self.workflow;
        let mut before = Vec::new();
        for (name, param) in &workflow.params {
            if Arc::ptr_eq(&param.source, &workflow.source) {
                self.default(param, &before);
            }
            before.push(name.as_str());
        }
        let described = workflow.description.iter().map(|text| ("the description", text));
        let confirmed = workflow.confirm.iter().map(|text| ("`confirm`", text));
        for (what, text) in described.chain(confirmed) {
            self.expression(&text.value, &text.span, &before_hosts(what));
        }
        for (name, step) in &workflow.steps {
            if let Some(hosts) = &step.hosts {
                match &hosts.value {
                    Hosts::Pattern(pattern) => {
                        self.expression(pattern, &hosts.span, &before_hosts("`hosts`"));
                    }
                    Hosts::Chosen { from, within } => {
                        self.expression(&within.value, &within.span, &before_hosts("`within`"));
                        let (roots, step) = (&ROOTS_OF_CHOICE[..], Some((name.as_str(), OnceCell::new())));
                        let place = Place { what: FROM, roots, params: None, step, bare: false };
                        self.expression(&from.value, &from.span, &place);
                    }
                }
            }
            if let Some(list) = &step.foreach {
                self.arguments_of(std::iter::once(list), &before_hosts(FOREACH));
            }
            let roots: &[&str] = if step.foreach.is_some() { &ROOTS_OF_ITEM } else { &ROOTS };
            let mut place = Place { what: "a step", roots, params: None, step: None, bare: false };
            place.step = Some((name, OnceCell::new()));
            self.arguments_of(step.with.value.values(), &place);
            for path in self.templates(step) {
                if let Some(source) = self.bundle.source(path) {
                    self.file(source, &place);
                }
            }
            place.bare = true;
            if let Some(condition) = &step.condition {
                self.expression(&condition.value, &condition.span, &place);
            }
        }
        let place = Place { what: "an output", roots: &ROOTS, params: None, step: None, bare: false };
        self.arguments_of(workflow.outputs.values(), &place);
    }

    /// The files that a step renders, as far as they are known.
    fn templates<'d>(&self, step: &'d StepDef) -> Vec<&'d str> {
        let names = self.registry.get(&step.uses.value).map_or(&[][..], |info| info.templates);
        names
            .iter()
            .filter_map(|name| literal_text(step.with.value.get(*name)?))
            .map(|(path, _)| path)
            .collect()
    }

    fn default(&mut self, param: &Param, before: &[&str]) {
        let place = Place { params: Some(before.to_vec()), ..before_hosts("the default of a param") };
        self.arguments_of(param.default.iter(), &place);
    }

    fn arguments_of<'a>(&mut self, arguments: impl Iterator<Item = &'a Argument>, place: &Place<'_>) {
        for argument in arguments {
            argument.texts(&mut |text, span| self.expression(text, span, place));
        }
    }

    /// A text of the document.
    fn expression(&mut self, text: &str, span: &Span, place: &Place<'_>) {
        if !place.bare && !expr::is_template(text) {
            return;
        }
        let source = Arc::clone(&self.workflow.source);
        let words = Words::new(text, place.bare);
        self.read(&Text { text, source, span: span.clone(), words }, place);
    }

    /// The text of a file that a step renders.
    fn file(&mut self, source: Arc<Source>, place: &Place<'_>) {
        let text = Arc::clone(&source);
        let words = Words::new(&text.text, false);
        self.read(&Text { text: &text.text, span: 0..text.text.len(), source, words }, place);
    }

    fn read(&mut self, text: &Text<'_>, place: &Place<'_>) {
        if let Some(at) = dollar(text.text).filter(|_| !place.bare) {
            let fault = Fault {
                code: Code::EXPRESSION,
                message: "a `$` before the braces would stay in the text".to_owned(),
                help: Some("templates are written {{ ... }}, without it".to_owned()),
            };
            self.tell(text, Some(at..at + 3), fault);
        }
        let names = if place.bare {
            self.evaluator.expression_names(text.text)
        } else {
            self.evaluator.names(text.text)
        };
        match names {
            Ok(names) => self.names(&names.into_iter().collect(), text, place),
            Err(error) => {
                let range = error.range.clone().map(|range| shifted(text.text, place.bare, range));
                let assigns = range.clone().and_then(|range| text.text.get(range)) == Some("=");
                let fault = Fault {
                    code: Code::EXPRESSION,
                    message: format!("this expression can't be read: {error}"),
                    help: assigns.then(|| "to compare, write `==`".to_owned()),
                };
                self.tell(text, range, fault);
            }
        }
    }

    /// Tells what is wrong at a range of a text, once.
    pub(super) fn tell(&mut self, text: &Text<'_>, range: Option<Range<usize>>, fault: Fault) {
        let mut diagnostic = Diagnostic::at(fault.code, &text.source, text.place(range), fault.message);
        diagnostic.help = fault.help;
        let known = self.diagnostics.0.iter().any(|known| {
            known.message == diagnostic.message
                && known.labels == diagnostic.labels
                && known.source == diagnostic.source
        });
        if !known {
            self.push(diagnostic); // A file that two steps render is read twice.
        }
    }
}

/// A text with expressions, and where it stands.
pub(super) struct Text<'t> {
    pub(super) words: Words<'t>,
    text: &'t str,
    source: Arc<Source>,
    span: Span,
}

impl Text<'_> {
    /// The place of a range: in the string, where that stands in the document as it is, else all of
    /// the string.
    fn place(&self, range: Option<Range<usize>>) -> Span {
        let written = self.source.text.get(self.span.clone()).unwrap_or_default();
        match (range, written.find(self.text)) {
            (Some(range), Some(start)) => {
                let range = whole_characters(self.text, range);
                self.span.start + start + range.start..self.span.start + start + range.end
            }
            _ if self.span.start == 0 => 0..0, // A whole file.
            _ => self.span.clone(),
        }
    }
}

/// What is wrong with a name.
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// The range with the characters whole in which it begins and ends: the engine counts bytes.
fn whole_characters(text: &str, range: Range<usize>) -> Range<usize> {
    let length = text.len();
    let start = (0..=range.start.min(length)).rev().find(|at| text.is_char_boundary(*at));
    let end = (range.end.min(length)..=length).find(|at| text.is_char_boundary(*at));
    let start = start.unwrap_or_default();
    start..end.unwrap_or(length).max(start)
}

/// Where `${{` stands, as users of GitHub Actions write it; a shell has no such thing.
fn dollar(text: &str) -> Option<usize> {
    text.find("${{")
}

/// The range in the text, where the engine was given only the expression inside the braces.
fn shifted(text: &str, bare: bool, range: Range<usize>) -> Range<usize> {
    let inner = if bare { None } else { expr::whole_expression(text) };
    let offset = inner.map_or(0, |inner| inner.as_ptr() as usize - text.as_ptr() as usize);
    let end = (range.end + offset).min(text.len());
    (range.start + offset).min(end)..end
}
