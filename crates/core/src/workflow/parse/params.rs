//! `[params.NAME]`

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::fields::{IDENTIFIER_RULE, Reader, describe, is_identifier, place};
use crate::workflow::toml::Fields;
use crate::workflow::{Argument, ArgumentKind, Code, Param, ParamKind, Span, Spanned, expr};

pub(in crate::workflow) const KEYS: &[&str] = &["type", "help", "default", "generate", "choices"];

const KINDS: &[ParamKind] = &[
    ParamKind::String,
    ParamKind::Integer,
    ParamKind::Number,
    ParamKind::Boolean,
    ParamKind::List,
    ParamKind::Secret,
];

impl Reader<'_> {
    /// The file of another workflow, written out.
    pub(super) fn params_from(&mut self, fields: &Fields) -> Option<Spanned<String>> {
        let file = self.text(fields, "params_from")?;
        if expr::is_template(&file.value) {
            let dynamic = self.at(
                Code::FILE,
                file.span.clone(),
                "the workflow that params come from is known before the run",
            );
            self.push(
                dynamic
                    .label("this is a template")
                    .help("write the file's name: params_from = \"deploy.toml\""),
            );
        }
        Some(file)
    }

    pub(super) fn params(&mut self, fields: &Fields) -> IndexMap<String, Param> {
        let mut params = IndexMap::new();
        let Some(table) = self.table(fields, "params") else { return params };
        for (name, field) in &table.value {
            let span = place(field);
            if !is_identifier(name) {
                self.bad_name("a param", name, span.clone(), IDENTIFIER_RULE);
            }
            let ArgumentKind::Table(fields) = &field.kind else {
                let help = format!("write: [params.{name}] and below it type = \"string\"");
                self.mistyped::<()>(name, field, "a table", Some(&help));
                continue;
            };
            params.insert(name.clone(), self.param(fields, span));
        }
        params
    }

    fn param(&mut self, fields: &Fields, span: Span) -> Param {
        self.unknown_keys(fields, KEYS, "a param");
        let kind = self.param_kind(fields, &span);
        let help = self.text(fields, "help");
        let choices = self.choices(fields, kind);
        let default = fields.get("default").cloned();
        if let (Some(kind), Some(default)) = (kind, &default) {
            self.default(kind, default, &choices);
        }
        let generate = fields.get("generate").cloned();
        if let Some(generate) = &generate {
            self.generate(kind, generate);
        }
        Param {
            source: Arc::clone(self.source),
            span,
            kind: kind.unwrap_or(ParamKind::String),
            help: help.map(|help| help.value).unwrap_or_default(),
            default,
            generate,
            choices,
        }
    }

    fn generate(&mut self, kind: Option<ParamKind>, path: &Argument) {
        if kind.is_some_and(|kind| kind != ParamKind::Secret) {
            let wrong = self.at(Code::TYPE, path.span.clone(), "only a secret is generated");
            self.push(wrong.help("leave `generate` out, or write type = \"secret\""));
            return;
        }
        let right = match &path.kind {
            ArgumentKind::Text(text) => {
                text.starts_with('/') || text.starts_with("~/") || text.trim_start().starts_with("{{")
            }
            _ => false,
        };
        if !right {
            let wrong =
                self.at(Code::TYPE, path.span.clone(), "`generate` is no path at the operator's place");
            self.push(
                wrong.help(
                    "generate = \"~/.config/flow/{{ params.scope }}/NAME\": it begins with `/` or `~/`",
                ),
            );
        }
    }

    fn param_kind(&mut self, fields: &Fields, span: &Span) -> Option<ParamKind> {
        let text = self.required_text(fields, "type", span.clone(), "type = \"string\"")?;
        let kind = KINDS.iter().copied().find(|kind| kind.as_str() == text.value);
        if kind.is_none() {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.as_str()).collect();
            let unknown = self
                .at(Code::TYPE, text.span, format!("no param has the type `{}`", text.value))
                .help(format!("the types are {}", super::fields::list(&names)));
            self.push(unknown);
        }
        kind
    }

    fn choices(&mut self, fields: &Fields, kind: Option<ParamKind>) -> Vec<Spanned<Value>> {
        let mut choices: Vec<Spanned<Value>> = Vec::new();
        let Some(items) = self.list(fields, "choices") else { return choices };
        if items.is_empty() {
            let span = fields.get("choices").map(|field| field.span.clone()).unwrap_or_default();
            let empty = self.at(Code::TYPE, span, "`choices` is empty, so no value is right");
            self.push(empty.help("leave it out, or name the values"));
        }
        for item in items {
            if let Some(kind) = kind
                && !matches_kind(&item, kind)
            {
                self.wrong_kind("a choice", &item, kind);
                continue;
            }
            if item.is_dynamic() {
                let dynamic = self.at(Code::TYPE, item.span, "a choice can't be a template");
                self.push(dynamic);
                continue;
            }
            let value = literal(&item);
            if choices.iter().any(|known| known.value == value) {
                let twice = self.at(Code::TYPE, item.span, "this choice is there twice");
                self.push(twice);
                continue;
            }
            choices.push(Spanned::new(value, item.span));
        }
        choices
    }

    fn default(&mut self, kind: ParamKind, default: &Argument, choices: &[Spanned<Value>]) {
        if !matches_kind(default, kind) {
            self.wrong_kind("the default", default, kind);
            return;
        }
        if kind == ParamKind::Secret
            && let ArgumentKind::Text(text) = &default.kind
            && !expr::is_template(text)
        {
            let bare = self
                .at(Code::TYPE, default.span.clone(), "a secret must not stand in a workflow")
                .help(
                    "take it from the inventory, \"{{ group_var('GROUP', 'NAME') }}\", or leave the default out and \
                     give it as --set NAME=env:VARIABLE or --set NAME=file:PATH",
                );
            self.push(bare);
        }
        if !choices.is_empty() && !default.is_dynamic() {
            let value = literal(default);
            if !choices.iter().any(|choice| choice.value == value) {
                let shown: Vec<String> = choices.iter().map(|choice| choice.value.to_string()).collect();
                let outside = self
                    .at(Code::TYPE, default.span.clone(), "the default is not among the choices")
                    .help(format!("the choices are {}", shown.join(", ")));
                self.push(outside);
            }
        }
    }

    fn wrong_kind(&mut self, what: &str, value: &Argument, kind: ParamKind) {
        let wrong = self
            .at(Code::TYPE, value.span.clone(), format!("{what} must be {}", in_words(kind)))
            .label(format!("this is {}", describe(value)));
        self.push(wrong);
    }
}

/// Whether a value can be one of that kind. A template that is a whole expression can be anything;
/// any other template is text.
pub(in crate::workflow) fn matches_kind(value: &Argument, kind: ParamKind) -> bool {
    if let ArgumentKind::Text(text) = &value.kind
        && expr::whole_expression(text).is_some()
    {
        return true;
    }
    match (kind, &value.kind) {
        (ParamKind::String | ParamKind::Secret, ArgumentKind::Text(_)) => true,
        (ParamKind::Integer, ArgumentKind::Plain(value)) => value.is_i64(),
        (ParamKind::Number, ArgumentKind::Plain(value)) => value.is_number(),
        (ParamKind::Boolean, ArgumentKind::Plain(value)) => value.is_boolean(),
        (ParamKind::List, ArgumentKind::List(items)) => {
            items.iter().all(|item| matches!(item.kind, ArgumentKind::Text(_)))
        }
        _ => false,
    }
}

/// A kind with its article.
pub(in crate::workflow) fn in_words(kind: ParamKind) -> &'static str {
    match kind {
        ParamKind::String => "a string",
        ParamKind::Integer => "an integer",
        ParamKind::Number => "a number",
        ParamKind::Boolean => "`true` or `false`",
        ParamKind::List => "a list of strings",
        ParamKind::Secret => "a string that names where the secret is",
    }
}

/// The value as it stands, templates left as they are.
pub(in crate::workflow) fn literal(value: &Argument) -> Value {
    match &value.kind {
        ArgumentKind::Text(text) => Value::from(text.as_str()),
        ArgumentKind::Plain(value) => value.clone(),
        ArgumentKind::List(items) => Value::Array(items.iter().map(literal).collect()),
        ArgumentKind::Table(fields) => {
            Value::Object(fields.iter().map(|(name, field)| (name.clone(), literal(field))).collect())
        }
    }
}
