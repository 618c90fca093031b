//! Reading single keys: what type they take, and how a wrong one is told.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;

use crate::workflow::toml::Fields;
use crate::workflow::{
    Argument, ArgumentKind, Code, Diagnostic, Diagnostics, OnFailure, Source, Span, Spanned, nearest,
};

/// Takes values out of tables and collects what is wrong with them.
pub(super) struct Reader<'s> {
    pub(super) source: &'s Arc<Source>,
    diagnostics: Diagnostics,
    untold: usize,
}

/// The most errors of one file that are told.
const MAX_ERRORS: usize = 100;

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s Arc<Source>, diagnostics: Diagnostics) -> Self {
        Self { source, diagnostics, untold: 0 }
    }

    pub(super) fn at(&self, code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(code, self.source, span, message)
    }

    /// Adds what is wrong. Beyond what anyone reads it is only counted.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.0.len() < MAX_ERRORS {
            self.diagnostics.push(diagnostic);
        } else {
            self.untold += 1;
        }
    }

    /// All that was found.
    pub(super) fn finish(mut self) -> Diagnostics {
        if self.untold > 0 {
            let rest = format!("and {} more in `{}`", self.untold, self.source.name);
            self.diagnostics.push(Diagnostic::general(Code::SYNTAX, rest));
        }
        self.diagnostics
    }

    /// Whether there is room for another error.
    fn full(&self) -> bool {
        self.diagnostics.0.len() >= MAX_ERRORS
    }

    /// Refuses every key that isn't `known`. `owner` is "a step" or the like.
    pub(super) fn unknown_keys(&mut self, fields: &Fields, known: &[&str], owner: &str) {
        for (name, field) in fields {
            if known.contains(&name.as_str()) {
                continue;
            }
            if self.full() {
                self.untold += 1; // Without looking for the nearest name, which takes its time.
                continue;
            }
            let help = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{owner} has {}", list(known)),
            };
            let unknown =
                self.at(Code::UNKNOWN_KEY, place(field), format!("{owner} has no key `{name}`")).help(help);
            self.push(unknown);
        }
    }

    /// A text that must be there; `example` shows how to write it, `span` whose key it is.
    pub(super) fn required_text(
        &mut self,
        fields: &Fields,
        key: &str,
        span: Span,
        example: &str,
    ) -> Option<Spanned<String>> {
        if !fields.contains_key(key) {
            if fields.keys().any(|name| nearest(name, [key]).is_some()) {
                return None; // A typo, and told as one.
            }
            let missing = self
                .at(Code::MISSING_KEY, span, format!("`{key}` is missing"))
                .help(format!("add: {example}"));
            self.push(missing);
            return None;
        }
        let text = self.text(fields, key)?;
        if text.value.trim().is_empty() {
            let empty =
                self.at(Code::TYPE, text.span, format!("`{key}` is empty")).help(format!("write: {example}"));
            self.push(empty);
            return None;
        }
        Some(text)
    }

    pub(super) fn text(&mut self, fields: &Fields, key: &str) -> Option<Spanned<String>> {
        let field = fields.get(key)?;
        match &field.kind {
            ArgumentKind::Text(text) => Some(Spanned::new(text.clone(), field.span.clone())),
            _ => self.mistyped(key, field, "a string", None),
        }
    }

    /// A bare expression, such as `if` holds. `{{ }}` around it is refused.
    pub(super) fn expression(&mut self, fields: &Fields, key: &str) -> Option<Spanned<String>> {
        let field = fields.get(key)?;
        let ArgumentKind::Text(text) = &field.kind else {
            return self.mistyped(
                key,
                field,
                "an expression in quotes",
                Some("such as \"params.mode == 'reset'\""),
            );
        };
        let trimmed = text.trim();
        let fault = if trimmed.is_empty() {
            Some((format!("`{key}` is empty"), "leave it out, or write an expression".to_owned()))
        } else {
            trimmed.trim_start_matches('$').strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(
                |inner| {
                    let bare = inner.trim();
                    (
                        format!("`{key}` is an expression already"),
                        format!("without the braces: {key} = \"{bare}\""),
                    )
                },
            )
        };
        match fault {
            Some((message, help)) => {
                let refused = self.at(Code::EXPRESSION, field.span.clone(), message).help(help);
                self.push(refused);
                None
            }
            None => Some(Spanned::new(text.clone(), field.span.clone())),
        }
    }

    /// The name to be typed. `params.scope` without braces would be that very text.
    pub(super) fn confirm(&mut self, fields: &Fields) -> Option<Spanned<String>> {
        let text = self.text(fields, "confirm")?;
        let trimmed = text.value.trim();
        let fault = if trimmed.is_empty() {
            Some(("`confirm` is empty".to_owned(), "name what is at stake, such as the cluster".to_owned()))
        } else if trimmed.starts_with("params.") {
            let message = format!("one would have to type `{trimmed}` as it stands");
            Some((message, format!("write: confirm = \"{{{{ {trimmed} }}}}\"")))
        } else {
            None
        };
        if let Some((message, help)) = fault {
            let refused = self.at(Code::EXPRESSION, text.span.clone(), message).help(help);
            self.push(refused);
        }
        Some(text)
    }

    /// `stop` or `unwind`.
    pub(super) fn on_failure(&mut self, fields: &Fields) -> Option<Spanned<OnFailure>> {
        let text = self.text(fields, "on_failure")?;
        let what = match text.value.as_str() {
            "stop" => OnFailure::Stop,
            "unwind" => OnFailure::Unwind,
            other => {
                let wrong = self
                    .at(Code::TYPE, text.span, format!("`on_failure` can't be `{other}`"))
                    .help("`stop` leaves things as they are, `unwind` takes back what was done");
                self.push(wrong);
                return None;
            }
        };
        Some(Spanned::new(what, text.span))
    }

    pub(super) fn boolean(&mut self, fields: &Fields, key: &str) -> Option<bool> {
        let field = fields.get(key)?;
        match &field.kind {
            ArgumentKind::Plain(Value::Bool(value)) => Some(*value),
            _ => self.mistyped(key, field, "`true` or `false`", None),
        }
    }

    pub(super) fn table(
        &mut self,
        fields: &Fields,
        key: &str,
    ) -> Option<Spanned<IndexMap<String, Argument>>> {
        let field = fields.get(key)?;
        match &field.kind {
            ArgumentKind::Table(fields) => Some(Spanned::new(fields.clone(), field.span.clone())),
            _ => {
                self.mistyped(key, field, "a table", Some(&format!("write: {key} = {{ NAME = \"VALUE\" }}")))
            }
        }
    }

    pub(super) fn list(&mut self, fields: &Fields, key: &str) -> Option<Vec<Argument>> {
        let field = fields.get(key)?;
        match &field.kind {
            ArgumentKind::List(items) => Some(items.clone()),
            ArgumentKind::Text(text) => {
                let help = format!("write: {key} = [\"{text}\"]");
                self.mistyped(key, field, "a list", Some(&help))
            }
            _ => self.mistyped(key, field, "a list", None),
        }
    }

    /// A list of names.
    pub(super) fn names(&mut self, fields: &Fields, key: &str) -> Vec<Spanned<String>> {
        let mut names = Vec::new();
        for item in self.list(fields, key).unwrap_or_default() {
            match &item.kind {
                ArgumentKind::Text(text) => names.push(Spanned::new(text.clone(), item.span)),
                _ => {
                    let wrong = self.at(
                        Code::TYPE,
                        item.span.clone(),
                        format!("`{key}` takes strings, this is {}", describe(&item)),
                    );
                    self.push(wrong);
                }
            }
        }
        names
    }

    /// An integer from `low` to `high`.
    pub(super) fn integer(&mut self, fields: &Fields, key: &str, low: u32, high: u32) -> Option<u32> {
        let field = fields.get(key)?;
        let ArgumentKind::Plain(Value::Number(number)) = &field.kind else {
            return self.mistyped(key, field, "an integer", None);
        };
        let value = number.as_i64().and_then(|value| u32::try_from(value).ok());
        match value.filter(|value| (low..=high).contains(value)) {
            Some(value) => Some(value),
            None => {
                let wrong = self.at(
                    Code::TYPE,
                    field.span.clone(),
                    format!("`{key}` must be an integer from {low} to {high}"),
                );
                self.push(wrong);
                None
            }
        }
    }

    /// `[limits]`: for each step type, how many at once.
    pub(super) fn limits(&mut self, fields: &Fields) -> IndexMap<String, Spanned<u32>> {
        let Some(table) = self.table(fields, "limits") else { return IndexMap::new() };
        let mut limits = IndexMap::new();
        for (name, field) in &table.value {
            if let Some(limit) = self.integer(&table.value, name, 1, super::MAX_LIMIT) {
                limits.insert(name.clone(), Spanned::new(limit, place(field)));
            }
        }
        limits
    }

    /// A span of time, longer than none.
    pub(super) fn duration(&mut self, fields: &Fields, key: &str) -> Option<Duration> {
        const HELP: &str = "a number and its unit: ms, s, m or h, such as \"500ms\", \"2s\" or \"1m 30s\"";
        let field = fields.get(key)?;
        let ArgumentKind::Text(text) = &field.kind else {
            return self.mistyped(key, field, "a time in quotes", Some(HELP));
        };
        let duration = text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|signed| Duration::try_from(signed).ok())
            .filter(|duration| !duration.is_zero());
        if duration.is_none() {
            let wrong = self.at(Code::TYPE, field.span.clone(), format!("`{text}` is not a time")).help(HELP);
            self.push(wrong);
        }
        duration
    }

    pub(super) fn one_line(&mut self, key: &str, text: &Spanned<String>) {
        if text.value.trim_end().contains('\n') {
            let wrong = self
                .at(Code::TYPE, text.span.clone(), format!("`{key}` is one line"))
                .help("move the rest to `description`");
            self.push(wrong);
        }
    }

    /// A name that the pattern refuses is told with `rule`.
    pub(super) fn bad_name(&mut self, what: &str, name: &str, span: Span, rule: &str) {
        let wrong = self.at(Code::ID, span, format!("`{name}` can't be the name of {what}")).help(rule);
        self.push(wrong);
    }

    pub(super) fn workflow_name(&mut self, name: &Spanned<String>) {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.value.chars().all(good) {
            self.bad_name(
                "a workflow",
                &name.value,
                name.span.clone(),
                "lower-case letters, digits and `-`, such as `restart-patroni`",
            );
        }
    }

    pub(super) fn output_names(&mut self, outputs: &Fields) {
        for (name, output) in outputs {
            if !is_identifier(name) {
                self.bad_name("an output", name, place(output), IDENTIFIER_RULE);
            }
        }
    }

    /// Tells that a value has the wrong type. Always none.
    pub(super) fn mistyped<T>(
        &mut self,
        key: &str,
        field: &Argument,
        wanted: &str,
        help: Option<&str>,
    ) -> Option<T> {
        let mut wrong = self
            .at(Code::TYPE, field.span.clone(), format!("`{key}` must be {wanted}"))
            .label(format!("this is {}", describe(field)));
        wrong.help = help.map(str::to_owned);
        self.push(wrong);
        None
    }
}

/// What names of params and outputs are made of.
pub(super) const IDENTIFIER_RULE: &str = "lower-case letters, digits and `_`, not beginning with a digit";

/// `[a-z_][a-z0-9_]*`
pub(super) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `[a-z][a-z0-9_-]*`
pub(super) fn is_step_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

/// Where a field's key stands.
pub(super) fn place(field: &Argument) -> Span {
    field.key.clone().unwrap_or_else(|| field.span.clone())
}

/// A value's type, in words.
pub(in crate::workflow) fn describe(value: &Argument) -> &'static str {
    match &value.kind {
        ArgumentKind::Text(_) => "a string",
        ArgumentKind::Plain(Value::Bool(_)) => "a boolean",
        ArgumentKind::Plain(Value::Number(number)) if number.is_f64() => "a number",
        ArgumentKind::Plain(_) => "an integer",
        ArgumentKind::List(_) => "a list",
        ArgumentKind::Table(_) => "a table",
    }
}

/// `a`, `b` and `c`
pub(in crate::workflow) fn list<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
