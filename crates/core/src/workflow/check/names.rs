//! What the names in expressions mean: params, outputs of steps, hosts, functions, filters, tests.

use std::collections::BTreeSet;

use super::Checker;
use super::expressions::{Fault, Place, Text};
use super::graph::Upstream;
use crate::workflow::parse::list;
use crate::workflow::{Code, ParamKind, nearest};

/// What a step may name.
pub(super) const ROOTS: [&str; 7] = ["params", "steps", "host", "vars", "groups", "hostvars", "run"];
/// What a step with `foreach` may name.
pub(super) const ROOTS_OF_ITEM: [&str; 9] =
    ["params", "steps", "item", "item_index", "host", "vars", "groups", "hostvars", "run"];
/// The place of a list that a step goes through.
pub(super) const FOREACH: &str = "`foreach`";
/// What a choice of hosts may name: it is made before there is a host.
pub(super) const ROOTS_OF_CHOICE: [&str; 5] = ["params", "steps", "groups", "hostvars", "run"];
/// The place of a choice of hosts.
pub(super) const FROM: &str = "`from`";
/// What stands for a host.
const HOST: [&str; 2] = ["name", "address"];
/// What a step with `foreach` has instead of the fields of one output.
const OF_ITEMS: [&str; 2] = ["items", "hosts"];
/// What stands for the run.
const RUN: [&str; 2] = ["id", "started"];
/// Functions that the engine adds when it evaluates.
const FUNCTIONS: [&str; 2] = ["addresses", "group_var"];

impl Checker<'_> {
    /// Tells every name that isn't there, or not at this place.
    pub(super) fn names(&mut self, names: &BTreeSet<String>, text: &Text<'_>, place: &Place<'_>) {
        if self.dashed_steps(text) {
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
                    self.field(root, field, place).map(|fault| (text.words.find(root, Some(field)), fault))
                })
            } else if FUNCTIONS.contains(&root) || self.evaluator.has_global(root) {
                None
            } else {
                Some((text.words.find(root, None), self.unknown_root(root, text, place)))
            };
            if let Some((range, fault)) = fault {
                self.tell(text, range, fault);
            }
        }
        for root in ["params", "steps"].into_iter().filter(|root| names.contains(*root)) {
            for (field, range) in text.words.subscripts(root) {
                if let Some(fault) = self.field(root, field, place) {
                    self.tell(text, Some(range), fault);
                }
            }
        }
        if names.iter().any(|name| name.split('.').next() == Some("steps")) {
            self.outputs(text, place);
        }
        self.filters_and_tests(text);
    }

    /// `steps.stop-replicas` is a subtraction to the engine.
    fn dashed_steps(&mut self, text: &Text<'_>) -> bool {
        let mut found = false;
        for (name, range) in text.words.dashed("steps") {
            if self.graph.position(name).is_none() {
                continue;
            }
            let fault = Fault {
                code: Code::EXPRESSION,
                message: format!("`steps.{name}` is a subtraction here"),
                help: Some(format!("write: steps.{}", name.replace('-', "_"))),
            };
            self.tell(text, Some(range), fault);
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
        let secret = self.workflow.params.get(name).is_some_and(|param| param.kind == ParamKind::Secret);
        if secret && place.what == FOREACH {
            return Some(Fault {
                code: Code::EXPRESSION,
                message: format!("`foreach` can't go through `{name}`, which is secret"),
                help: Some("each task is named after its item, and names are shown".to_owned()),
            });
        }
        let usable = place.params.as_ref().is_none_or(|params| params.contains(&name));
        if known && usable || !known && !self.params_known {
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
        let def = self.workflow.steps.get(*own);
        let needed = def.is_some_and(|def| def.needs.iter().any(|need| need.value == *step));
        let upstream = || upstream.get_or_init(|| self.graph.upstream(own, place.what == FROM));
        if needed {
            return None;
        }
        let when = match self.graph.position(step).map_or(Upstream::No, |at| upstream()[at]) {
            // Of the latter, other hosts' outputs are refused where they stand.
            Upstream::Whole | Upstream::OwnHost => return None,
            Upstream::Elsewhere => "on all its hosts before it",
            Upstream::No => "before it",
        };
        Some(Fault {
            code: Code::NOT_UPSTREAM,
            message: format!("`{own}` uses an output of `{step}`, which needn't have run {when}"),
            help: Some(format!("add \"{step}\" to the `needs` of `{own}`")),
        })
    }

    /// What stands after `steps.NAME`: an output of another host that may not be so far, or one of a step
    /// that has outputs only for each item.
    fn outputs(&mut self, text: &Text<'_>, place: &Place<'_>) {
        for (name, field, range) in text.words.outputs() {
            let spelled = name.replace('-', "_");
            let at = self.workflow.steps.keys().position(|id| id.replace('-', "_") == spelled);
            let Some((at, (step, def))) = at.and_then(|at| Some((at, self.workflow.steps.get_index(at)?)))
            else {
                continue;
            };
            if let Some(fault) = self.other_hosts(at, step, field, place) {
                self.tell(text, Some(range), fault);
            } else if let (Some(_), Some(field)) =
                (&def.foreach, field.filter(|field| !OF_ITEMS.contains(field)))
            {
                let fault = Fault {
                    code: Code::EXPRESSION,
                    message: format!("`{step}` has no `{field}` of its own: it runs once for each item"),
                    help: Some(format!("write: steps.{spelled}.items['ITEM'].{field}")),
                };
                self.tell(text, Some(range), fault);
            }
        }
    }

    /// Outputs of other hosts, of a step that has ended on the step's own host only.
    fn other_hosts(&self, at: usize, step: &str, field: Option<&str>, place: &Place<'_>) -> Option<Fault> {
        let (own, upstream) = place.step.as_ref()?;
        if field.is_some_and(|field| field != "hosts") {
            return None;
        }
        let reached = upstream.get_or_init(|| self.graph.upstream(own, place.what == FROM))[at];
        (reached == Upstream::OwnHost).then(|| Fault {
            code: Code::NOT_UPSTREAM,
            message: format!("`{own}` waits for `{step}` on its own host only, not on others"),
            help: Some(format!(
                "use steps.{}.FIELD, or wait for all its hosts: add \"{step}\" to `needs`",
                step.replace('-', "_")
            )),
        })
    }

    fn unknown_root(&self, root: &str, text: &Text<'_>, place: &Place<'_>) -> Fault {
        let fault =
            |message: String, help: String| Fault { code: Code::EXPRESSION, message, help: Some(help) };
        if text.words.is_call(root) {
            let help = match nearest(root, FUNCTIONS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    "the functions are `addresses`, `group_var`, `range`, `dict` and `namespace`".to_owned()
                }
            };
            return fault(format!("there is no function `{root}`"), help);
        }
        if ["item", "item_index"].contains(&root) && !self.workflow.params.contains_key(root) {
            return fault(
                format!("there is no `{root}` here"),
                "it is there in `with` and `if` of a step with `foreach`".to_owned(),
            );
        }
        let roots: Vec<String> = place.roots.iter().map(|root| (*root).to_owned()).collect();
        if place.what == FOREACH && root == "steps" {
            return fault(
                "`foreach` can't go through what a step gives: its list is known before the run".to_owned(),
                format!("let one step go through it; `foreach` can use {}", list(&roots)),
            );
        }
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

    fn filters_and_tests(&mut self, text: &Text<'_>) {
        for (name, range) in text.words.filters() {
            if !self.evaluator.has_filter(name) {
                let fault = Fault {
                    code: Code::EXPRESSION,
                    message: format!("there is no filter `{name}`"),
                    help: nearest(name, COMMON_FILTERS).map(|near| format!("did you mean `{near}`?")),
                };
                self.tell(text, Some(range), fault);
            }
        }
        for (name, range) in text.words.tests() {
            if !self.evaluator.has_test(name) {
                let fault = Fault {
                    code: Code::EXPRESSION,
                    message: format!("there is no test `{name}`"),
                    help: nearest(name, COMMON_TESTS).map(|near| format!("did you mean `is {near}`?")),
                };
                self.tell(text, Some(range), fault);
            }
        }
    }
}

fn unknown_field(root: &str, field: &str, known: &[&str]) -> Fault {
    Fault {
        code: Code::EXPRESSION,
        message: format!("`{root}` has no `{field}`"),
        help: Some(format!("it has {}", list(known))),
    }
}

/// Filters worth proposing for a typo.
const COMMON_FILTERS: [&str; 23] = [
    "abs", "bool", "default", "first", "float", "int", "items", "join", "last", "length", "list", "lower",
    "map", "reject", "replace", "round", "select", "sort", "split", "tojson", "trim", "unique", "upper",
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
