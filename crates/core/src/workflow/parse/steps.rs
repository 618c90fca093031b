//! `[steps.NAME]`

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::Value;

use super::fields::{Reader, is_step_name, place};
use crate::workflow::toml::Fields;
use crate::workflow::{ArgumentKind, Code, Hosts, Retry, Serial, Span, Spanned, StepDef};

const KEYS: &[&str] = &[
    "uses", "with", "needs", "hosts", "serial", "tags", "if", "guards", "retries", "backoff", "timeout",
    "pivot", "keep", "help",
];

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
            hosts: self.hosts(fields),
            serial: self.serial(fields),
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

    fn hosts(&mut self, fields: &Fields) -> Option<Spanned<Hosts>> {
        let pattern = self.text(fields, "hosts")?;
        if pattern.value.trim().is_empty() {
            let empty = self
                .at(Code::HOSTS, pattern.span, "`hosts` is empty")
                .help("name a group, or leave it out for a step at the operator's place");
            self.push(empty);
            return None;
        }
        Some(Spanned::new(Hosts::Pattern(pattern.value), pattern.span))
    }

    fn serial(&mut self, fields: &Fields) -> Option<Serial> {
        let field = fields.get("serial")?;
        if !fields.contains_key("hosts") {
            let alone = self
                .at(Code::MISSING_KEY, place(field), "`serial` without `hosts` has no effect")
                .help("add: hosts = \"GROUP\"");
            self.push(alone);
        }
        let serial = match &field.kind {
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
        };
        if serial.is_none() {
            let wrong = self
                .at(Code::TYPE, field.span.clone(), "`serial` says how many hosts at once")
                .help("a count from 1, such as 1, or a share of the hosts, such as \"30%\"");
            self.push(wrong);
        }
        serial
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
