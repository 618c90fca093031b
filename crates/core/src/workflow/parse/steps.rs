//! `[steps.NAME]`

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::Value;

use super::fields::{Reader, is_step_name, place};
use super::params::literal;
use crate::workflow::toml::Fields;
use crate::workflow::{
    Argument, ArgumentKind, Code, Hosts, ItemFault, Retry, Serial, Span, Spanned, StepDef, expr, items,
};

pub(in crate::workflow) const KEYS: &[&str] = &[
    "uses",
    "with",
    "needs",
    "needs_per_host",
    "hosts",
    "foreach",
    "serial",
    "max_failures",
    "tags",
    "if",
    "guards",
    "retries",
    "backoff",
    "timeout",
    "pivot",
    "keep",
    "help",
];

/// How hosts are chosen.
const CHOSEN_EXAMPLE: &str = "hosts = { from = \"{{ steps.NAME.FIELD }}\", within = \"GROUP\" }";

/// The most retries that a step may have.
const MAX_RETRIES: u32 = 1000;

impl Reader<'_> {
    pub(super) fn steps(&mut self, fields: &Fields) -> IndexMap<String, StepDef> {
        let mut steps = IndexMap::new();
        let mut spellings: HashMap<String, (String, Span)> = HashMap::new();
        let table = self.table(fields, "steps");
        if table.as_ref().is_none_or(|table| table.value.is_empty()) {
            if !fields.contains_key("steps") || table.is_some() {
                let span = fields.get("steps").map_or(0..0, place);
                let none = self.at(Code::MISSING_KEY, span, "this workflow has no steps").help(
                    "add: [steps.NAME] and below it uses = \"STEP TYPE\"; `flow steps` lists the types",
                );
                self.push(none);
            }
            return steps;
        }
        for (name, field) in &table.map(|table| table.value).unwrap_or_default() {
            let span = place(field);
            if !is_step_name(name) {
                self.bad_name(
                    "a step",
                    name,
                    span.clone(),
                    "lower-case letters, digits, `_` and `-`, beginning with a letter",
                );
            }
            let ArgumentKind::Table(fields) = &field.kind else {
                let help = format!("write: [steps.{name}] and below it uses = \"STEP TYPE\"");
                self.mistyped::<()>(name, field, "a table", Some(&help));
                continue;
            };
            let spelled = name.replace('-', "_");
            match spellings.get(&spelled) {
                Some((other, place)) => {
                    self.same_in_expressions((other.as_str(), place), (name.as_str(), &span), &spelled);
                }
                None => {
                    spellings.insert(spelled, (name.clone(), span.clone()));
                }
            }
            let step = self.step(Spanned::new(name.clone(), span), fields);
            steps.insert(name.clone(), step);
        }
        steps
    }

    /// `a-b` and `a_b` are one name in expressions, so a workflow can't have both.
    fn same_in_expressions(&mut self, other: (&str, &Span), this: (&str, &Span), spelled: &str) {
        let clash = self
            .at(
                Code::ID,
                this.1.clone(),
                format!("`{}` and `{}` are the same name in expressions", this.0, other.0),
            )
            .label(format!("steps.{spelled}"))
            .also(other.1.clone(), format!("steps.{spelled} too"))
            .help("expressions write `_` for `-`; give one of the two another name");
        self.push(clash);
    }

    fn step(&mut self, id: Spanned<String>, fields: &Fields) -> StepDef {
        self.unknown_keys(fields, KEYS, "a step");
        let uses = self.required_text(
            fields,
            "uses",
            id.span.clone(),
            "uses = \"STEP TYPE\"; `flow steps` lists the types",
        );
        // One that isn't a table keeps its place, by which the check knows that it was told.
        let with_place = fields.get("with").map_or_else(|| id.span.clone(), |with| with.span.clone());
        let with = self.table(fields, "with");
        StepDef {
            uses: uses.unwrap_or_else(|| Spanned::new(String::new(), id.span.clone())),
            with: with.unwrap_or_else(|| Spanned::new(IndexMap::new(), with_place)),
            needs: self.names(fields, "needs"),
            needs_per_host: self.needs_per_host(fields),
            hosts: self.hosts(fields),
            foreach: self.foreach(fields),
            serial: self.serial(fields),
            max_failures: self.max_failures(fields),
            tags: self.tags(fields),
            condition: self.expression(fields, "if"),
            guards: self.names(fields, "guards"),
            retry: self.retry(fields),
            timeout: self.duration(fields, "timeout"),
            pivot: self.boolean(fields, "pivot").unwrap_or_default(),
            keep: self.boolean(fields, "keep").unwrap_or_default(),
            help: self.text(fields, "help").map(|help| help.value),
            id,
        }
    }

    fn needs_per_host(&mut self, fields: &Fields) -> Vec<Spanned<String>> {
        if let Some(field) = fields.get("needs_per_host")
            && !fields.contains_key("hosts")
        {
            let alone = self
                .at(Code::MISSING_KEY, place(field), "`needs_per_host` without `hosts` has no effect")
                .help("add: hosts = \"GROUP\"; to wait for all hosts, use `needs`");
            self.push(alone);
        }
        self.names(fields, "needs_per_host")
    }

    fn hosts(&mut self, fields: &Fields) -> Option<Spanned<Hosts>> {
        let field = fields.get("hosts")?;
        let pattern = match &field.kind {
            ArgumentKind::Text(text) => Spanned::new(text.clone(), field.span.clone()),
            ArgumentKind::Table(parts) => return self.chosen_hosts(parts, field),
            _ => return self.mistyped("hosts", field, "a pattern or a table", Some(CHOSEN_EXAMPLE)),
        };
        if pattern.value.trim().is_empty() {
            let empty = self
                .at(Code::HOSTS, pattern.span, "`hosts` is empty")
                .help("name a group, or leave it out for a step at the operator's place");
            self.push(empty);
            return None;
        }
        Some(Spanned::new(Hosts::Pattern(pattern.value), pattern.span))
    }

    fn chosen_hosts(&mut self, parts: &Fields, field: &Argument) -> Option<Spanned<Hosts>> {
        self.unknown_keys(parts, &["from", "within"], "`hosts`");
        let from = self.required_text(parts, "from", field.span.clone(), "from = \"{{ steps.NAME.FIELD }}\"");
        let within = self.required_text(parts, "within", field.span.clone(), "within = \"GROUP\"");
        let (from, within) = (from?, within?);
        if !expr::is_template(&from.value) {
            let fixed = self
                .at(Code::HOSTS, from.span.clone(), "`from` gives the same hosts in every run")
                .label("no template")
                .help(format!("write: hosts = \"{}\", or {CHOSEN_EXAMPLE}", from.value));
            self.push(fixed);
        }
        Some(Spanned::new(Hosts::Chosen { from, within }, field.span.clone()))
    }

    /// A list whose items are told apart, or a template that will give one.
    fn foreach(&mut self, fields: &Fields) -> Option<Argument> {
        let field = fields.get("foreach")?;
        let list = match &field.kind {
            ArgumentKind::List(list) => list,
            ArgumentKind::Text(text) if expr::whole_expression(text).is_some() => return Some(field.clone()),
            _ => {
                let help = "write: foreach = [\"ITEM\"] or foreach = \"{{ params.NAME }}\"";
                self.mistyped::<()>("foreach", field, "a list", Some(help));
                // The step still has items, as far as its expressions are concerned.
                return Some(Argument { kind: ArgumentKind::List(Vec::new()), ..field.clone() });
            }
        };
        // What a template gives is looked at once its value is known.
        let known = list.iter().filter(|item| !item.is_dynamic());
        let values = known.clone().map(literal).collect();
        if let Err(fault) = items(values) {
            let span = |at: usize| {
                known.clone().nth(at).map_or_else(|| field.span.clone(), |item| item.span.clone())
            };
            let mut wrong = match fault {
                ItemFault::Twice(first, again, _) => {
                    let twice = self.at(Code::TYPE, span(again), "this item is there twice");
                    twice.label("again").also(span(first), "first here")
                }
                ItemFault::NoKey(at) => {
                    self.at(Code::TYPE, span(at), "this item can't be told from others by name")
                }
                _ => self.at(Code::TYPE, field.span.clone(), fault.message()),
            };
            wrong.help = Some(fault.help());
            self.push(wrong);
        }
        Some(field.clone())
    }

    fn serial(&mut self, fields: &Fields) -> Option<Serial> {
        let field = fields.get("serial")?;
        if !fields.contains_key("hosts") && !fields.contains_key("foreach") {
            let alone = self
                .at(Code::MISSING_KEY, place(field), "`serial` without `hosts` has no effect")
                .help("add: hosts = \"GROUP\"");
            self.push(alone);
        }
        let serial = host_count(field);
        if serial.is_none() {
            let wrong = self
                .at(Code::TYPE, field.span.clone(), "`serial` says how many hosts at once")
                .help("a count from 1, such as 1, or a share of the hosts, such as \"30%\"");
            self.push(wrong);
        }
        serial
    }

    fn max_failures(&mut self, fields: &Fields) -> Option<Serial> {
        let field = fields.get("max_failures")?;
        if !fields.contains_key("serial") {
            let alone = self
                .at(Code::MISSING_KEY, place(field), "a step's `max_failures` without `serial` has no effect")
                .help("add: serial = 1; or write `max_failures` at the workflow's top, for all of its tasks");
            self.push(alone);
        }
        let limit = host_count(field);
        if limit.is_none() {
            let wrong = self
                .at(
                    Code::TYPE,
                    field.span.clone(),
                    "`max_failures` says with how many failed hosts the rest is not started",
                )
                .help("a count from 1, such as 2, or a share of the hosts, such as \"30%\"");
            self.push(wrong);
        }
        limit
    }

    fn tags(&mut self, fields: &Fields) -> Vec<Spanned<String>> {
        let tags = self.names(fields, "tags");
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for tag in &tags {
            if tag.value.is_empty() || !tag.value.chars().all(good) {
                self.bad_name("a tag", &tag.value, tag.span.clone(), "letters, digits, `_` and `-`");
            }
        }
        tags
    }

    fn retry(&mut self, fields: &Fields) -> Retry {
        let default = Retry::default();
        let retries = self.integer(fields, "retries", 0, MAX_RETRIES);
        let backoff = self.duration(fields, "backoff");
        if let Some(field) = fields.get("backoff")
            && !fields.contains_key("retries")
        {
            let alone = self
                .at(Code::MISSING_KEY, place(field), "`backoff` without `retries` has no effect")
                .help("add: retries = 3");
            self.push(alone);
        }
        Retry { retries: retries.unwrap_or(default.retries), backoff: backoff.unwrap_or(default.backoff) }
    }
}

/// A count of hosts, or a share of them.
fn host_count(field: &Argument) -> Option<Serial> {
    match &field.kind {
        ArgumentKind::Plain(Value::Number(number)) => number
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count > 0)
            .map(Serial::Count),
        ArgumentKind::Text(text) => text
            .strip_suffix('%')
            .and_then(|percent| percent.parse().ok())
            .filter(|percent| (1..=100).contains(percent))
            .map(Serial::Percent),
        _ => None,
    }
}
