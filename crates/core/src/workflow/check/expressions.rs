//! Expressions and templates: can they be read, and is everything there that they name?

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;

use super::Checker;
use super::tokens::Words;
use crate::workflow::expr;
use crate::workflow::parse::list;
use crate::workflow::{Argument, Code, Diagnostic, Hosts, Param, Span, nearest};

/// What a step may name.
const ROOTS: [&str; 7] = ["params", "steps", "host", "vars", "groups", "hostvars", "run"];
/// What stands for a host.
const HOST: [&str; 2] = ["name", "address"];
/// What stands for the run.
const RUN: [&str; 2] = ["id", "started"];
/// Functions that the engine adds when it evaluates.
const FUNCTIONS: [&str; 1] = ["group_var"];

/// Where an expression stands, which decides what it may name.
struct Place<'p> {
    /// In words: "the default of a param".
    what: &'static str,
    /// The names it may begin with.
    roots: &'p [&'static str],
    /// The params that it may use; none means all.
    params: Option<Vec<&'p str>>,
    /// The step it belongs to, and, once that was asked for, what runs before it.
    step: Option<(&'p str, OnceCell<Vec<bool>>)>,
    /// A bare expression rather than a template.
    bare: bool,
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
            self.default(param, &before);
            before.push(name.as_str());
        }
        let described = workflow.description.iter().map(|text| ("the description", text));
        let confirmed = workflow.confirm.iter().map(|text| ("`confirm`", text));
        for (what, text) in described.chain(confirmed) {
            self.expression(&text.value, &text.span, &before_hosts(what));
        }
        for (name, step) in &workflow.steps {
            if let Some(hosts) = &step.hosts {
                let Hosts::Pattern(pattern) = &hosts.value;
                self.expression(pattern, &hosts.span, &before_hosts("`hosts`"));
            }
            let mut place = Place { what: "a step", roots: &ROOTS, params: None, step: None, bare: false };
            place.step = Some((name, OnceCell::new()));
            self.arguments_of(step.with.value.values(), &place);
            place.bare = true;
            if let Some(condition) = &step.condition {
                self.expression(&condition.value, &condition.span, &place);
            }
        }
        let place = Place { what: "an output", roots: &ROOTS, params: None, step: None, bare: false };
        self.arguments_of(workflow.outputs.values(), &place);
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

    fn expression(&mut self, text: &str, span: &Span, place: &Place<'_>) {
        if !place.bare && !expr::is_template(text) {
            return;
        }
        if let Some(at) = dollar(text).filter(|_| !place.bare) {
            let foreign = self
                .within(
                    span,
                    text,
                    Some(at..at + 3),
                    "a `$` before the braces would stay in the text".to_owned(),
                )
                .help("templates are written {{ ... }}, without it");
            self.push(foreign);
        }
        let names =
            if place.bare { self.evaluator.expression_names(text) } else { self.evaluator.names(text) };
        let words = Words::new(text, place.bare);
        match names {
            Ok(names) => {
                let names: BTreeSet<String> = names.into_iter().collect();
                self.names(&names, &words, span, place);
            }
            Err(error) => {
                let range = error.range.clone().map(|range| shifted(text, place.bare, range));
                let assigns = range.clone().and_then(|range| text.get(range)) == Some("=");
                let message = format!("this expression can't be read: {error}");
                let mut unread = self.within(span, text, range, message);
                unread.help = assigns.then(|| "to compare, write `==`".to_owned());
                self.push(unread);
            }
        }
    }

    fn names(&mut self, names: &BTreeSet<String>, words: &Words<'_>, span: &Span, place: &Place<'_>) {
        if self.dashed_steps(words, span) {
            return; // What the engine made of it is not what is meant.
        }
        let mut told = BTreeSet::new();
        for name in names {
            let mut parts = name.split('.');
            let (root, field) = (parts.next().unwrap_or_default(), parts.next());
            if !told.insert((root, field)) {
                continue;
            }
            let fault = if place.roots.contains(&root) {
                field.and_then(|field| {
                    self.field(root, field, place).map(|fault| (words.find(root, Some(field)), fault))
                })
            } else if FUNCTIONS.contains(&root) || self.evaluator.has_global(root) {
                None
            } else {
                Some((words.find(root, None), self.unknown_root(root, words, place)))
            };
            if let Some((range, fault)) = fault {
                self.tell(span, words.text, range, fault);
            }
        }
        for root in ["params", "steps"].into_iter().filter(|root| names.contains(*root)) {
            for (field, range) in words.subscripts(root) {
                if let Some(fault) = self.field(root, field, place) {
                    self.tell(span, words.text, Some(range), fault);
                }
            }
        }
        self.filters_and_tests(words, span);
    }

    /// `steps.stop-replicas` is a subtraction to the engine.
    fn dashed_steps(&mut self, words: &Words<'_>, span: &Span) -> bool {
        let mut found = false;
        for (name, range) in words.dashed("steps") {
            if self.graph.position(name).is_none() {
                continue;
            }
            let fault = Fault {
                code: Code::EXPRESSION,
                message: format!("`steps.{name}` is a subtraction here"),
                help: Some(format!("write: steps.{}", name.replace('-', "_"))),
            };
            self.tell(span, words.text, Some(range), fault);
            found = true;
        }
        found
    }

    /// What is wrong with `root.field`, where the root is allowed.
    fn field(&self, root: &str, field: &str, place: &Place<'_>) -> Option<Fault> {
        match root {
            "params" => self.param(field, place),
            "steps" => self.step_output(field, place),
            "host" if !HOST.contains(&field) => Some(unknown_field(root, field, &HOST)),
            "run" if !RUN.contains(&field) => Some(unknown_field(root, field, &RUN)),
            _ => None,
        }
    }

    fn param(&self, name: &str, place: &Place<'_>) -> Option<Fault> {
        let known = self.workflow.params.contains_key(name);
        let usable = place.params.as_ref().is_none_or(|params| params.contains(&name));
        if known && usable {
            return None;
        }
        if known {
            return Some(Fault {
                code: Code::PARAM,
                message: format!("the param `{name}` is not known yet here"),
                help: Some("a default uses only params that stand before it".to_owned()),
            });
        }
        let names: Vec<&str> = self.workflow.params.keys().map(String::as_str).collect();
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `params.{near}`?"),
            None if names.is_empty() => format!("this workflow has no params; add: [params.{name}]"),
            None if names.len() <= 8 => format!("the params are {}", list(&names)),
            None => format!("add: [params.{name}]"),
        };
        Some(Fault { code: Code::PARAM, message: format!("there is no param `{name}`"), help: Some(help) })
    }

    fn step_output(&self, name: &str, place: &Place<'_>) -> Option<Fault> {
        let spelled = name.replace('-', "_");
        let step = self.workflow.steps.keys().find(|id| id.replace('-', "_") == spelled);
        let Some(step) = step else {
            let ids = self.workflow.steps.keys().map(String::as_str);
            let near = nearest(name, ids).map(|near| near.replace('-', "_"));
            return Some(Fault {
                code: Code::EXPRESSION,
                message: format!("there is no step `{name}`"),
                help: near.map(|near| format!("did you mean `steps.{near}`?")),
            });
        };
        let (own, upstream) = place.step.as_ref()?;
        if step == own {
            return Some(Fault {
                code: Code::NOT_UPSTREAM,
                message: format!("`{own}` uses its own output"),
                help: Some("a step sees the outputs of steps before it".to_owned()),
            });
        }
        // Most name a step that they need directly; only for others all that is upstream is looked for.
        let needed =
            self.workflow.steps.get(*own).is_some_and(|def| def.needs.iter().any(|need| need.value == *step));
        let upstream = || upstream.get_or_init(|| self.graph.upstream(own));
        let before = needed || self.graph.position(step).is_some_and(|at| upstream()[at]);
        (!before).then(|| Fault {
            code: Code::NOT_UPSTREAM,
            message: format!("`{own}` uses an output of `{step}`, which needn't have run before it"),
            help: Some(format!("add \"{step}\" to the `needs` of `{own}`")),
        })
    }

    fn unknown_root(&self, root: &str, words: &Words<'_>, place: &Place<'_>) -> Fault {
        let fault =
            |message: String, help: String| Fault { code: Code::EXPRESSION, message, help: Some(help) };
        if words.is_call(root) {
            let help = match nearest(root, FUNCTIONS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "the functions are `group_var`, `range`, `dict` and `namespace`".to_owned(),
            };
            return fault(format!("there is no function `{root}`"), help);
        }
        let roots: Vec<String> = place.roots.iter().map(|root| (*root).to_owned()).collect();
        if ROOTS.contains(&root) {
            return fault(
                format!("{} can't use `{root}`", place.what),
                format!("it can use {}", list(&roots)),
            );
        }
        let help = if self.workflow.params.contains_key(root) {
            format!("did you mean `params.{root}`?")
        } else if self.workflow.steps.keys().any(|id| id.replace('-', "_") == root) {
            format!("did you mean `steps.{root}`?")
        } else {
            match nearest(root, place.roots.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if place.roots.contains(&"vars") => {
                    format!("a variable of the host is `vars.{root}`; else names begin with {}", list(&roots))
                }
                None => format!("names begin with {}", list(&roots)),
            }
        };
        fault(format!("there is nothing called `{root}`"), help)
    }

    fn filters_and_tests(&mut self, words: &Words<'_>, span: &Span) {
        for (name, range) in words.filters() {
            if !self.evaluator.has_filter(name) {
                let fault = Fault {
                    code: Code::EXPRESSION,
                    message: format!("there is no filter `{name}`"),
                    help: nearest(name, COMMON_FILTERS).map(|near| format!("did you mean `{near}`?")),
                };
                self.tell(span, words.text, Some(range), fault);
            }
        }
        for (name, range) in words.tests() {
            if !self.evaluator.has_test(name) {
                let fault = Fault {
                    code: Code::EXPRESSION,
                    message: format!("there is no test `{name}`"),
                    help: nearest(name, COMMON_TESTS).map(|near| format!("did you mean `is {near}`?")),
                };
                self.tell(span, words.text, Some(range), fault);
            }
        }
    }

    fn tell(&mut self, span: &Span, text: &str, range: Option<Range<usize>>, fault: Fault) {
        let mut diagnostic = self.within(span, text, range, fault.message);
        diagnostic.code = fault.code;
        diagnostic.help = fault.help;
        self.push(diagnostic);
    }

    /// Points into a TOML string, where the string stands in the document as it is; else at all of it.
    fn within(&self, span: &Span, text: &str, range: Option<Range<usize>>, message: String) -> Diagnostic {
        let written = self.workflow.source.text.get(span.clone()).unwrap_or_default();
        let range = range.map(|range| whole_characters(text, range));
        let place = match (range, written.find(text)) {
            (Some(range), Some(start)) => span.start + start + range.start..span.start + start + range.end,
            _ => span.clone(),
        };
        self.at(Code::EXPRESSION, &place, message)
    }
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

/// What is wrong with a name.
struct Fault {
    code: Code,
    message: String,
    help: Option<String>,
}

fn unknown_field(root: &str, field: &str, known: &[&str]) -> Fault {
    Fault {
        code: Code::EXPRESSION,
        message: format!("`{root}` has no `{field}`"),
        help: Some(format!("it has {}", list(known))),
    }
}

/// The range in the text, where the engine was given only the expression inside the braces.
fn shifted(text: &str, bare: bool, range: Range<usize>) -> Range<usize> {
    let inner = if bare { None } else { expr::whole_expression(text) };
    let offset = inner.map_or(0, |inner| inner.as_ptr() as usize - text.as_ptr() as usize);
    let end = (range.end + offset).min(text.len());
    (range.start + offset).min(end)..end
}

/// Filters worth proposing for a typo.
const COMMON_FILTERS: [&str; 22] = [
    "abs", "bool", "default", "first", "float", "int", "items", "join", "last", "length", "list", "lower",
    "map", "reject", "replace", "round", "select", "sort", "split", "trim", "unique", "upper",
];

/// Tests worth proposing for a typo.
const COMMON_TESTS: [&str; 12] = [
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "false",
    "in",
    "integer",
    "none",
    "number",
    "startingwith",
    "string",
    "undefined",
];
