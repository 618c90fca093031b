//! Arguments against a step type's JSON schema, as far as they are known: what a template will give
//! is passed over where it stands. Knows the part of JSON schema that `schemars` writes.

mod kinds;

use std::cell::Cell;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use self::kinds::{fits, is_null, size, tag_fits, types};
use crate::workflow::parse::{describe, list, literal};
use crate::workflow::{Argument, ArgumentKind, Span, expr, nearest};

/// References that lead to others more often than this are circular.
const MAX_REFERENCES: usize = 16;

/// Schemas that lead to others deeper than this, a plugin's that leads to itself, are left to the step type.
const MAX_DEPTH: usize = 100;
/// So many schemas are compared with each value; the rest is left to the step type.
const LOOKS: usize = 200;

/// One thing that is wrong with arguments.
#[derive(Debug)]
pub(super) enum Problem {
    /// A field that isn't there. `parent` names the argument that it stands in, none the step type.
    Unknown { name: String, span: Span, parent: Option<String>, known: Vec<String> },
    /// A field that must be there.
    Missing { name: String, span: Option<Span>, parent: Option<String>, description: Option<String> },
    /// A value of the wrong type or outside its range.
    Wrong { span: Span, message: String, label: String, help: Option<String> },
}

/// A step type's schema.
pub(super) struct Schema<'s> {
    root: &'s Value,
    /// Values as a workflow's author wrote them: templates are passed over, secrets refused.
    written: bool,
    /// How deep in schemas the one is that is looked at.
    depth: Cell<usize>,
    /// How many more may be looked at.
    looks: Cell<usize>,
}

/// Compares values, all templates rendered, with a step type's schema.
///
/// # Errors
/// Everything that is wrong, as one fragment.
pub fn check_values(schema: &Value, values: &Map<String, Value>) -> Result<(), String> {
    let schema = Schema { written: false, ..Schema::new(schema) };
    let fields = values.iter().map(|(name, value)| (name.clone(), known(value))).collect();
    let problems = schema.check_arguments(&fields);
    let told: Vec<String> = problems
        .into_iter()
        .map(|problem| match problem {
            Problem::Unknown { name, .. } => format!("there is no argument `{name}`"),
            Problem::Missing { name, .. } => format!("the argument `{name}` is missing"),
            Problem::Wrong { message, .. } => message,
        })
        .collect();
    if told.is_empty() { Ok(()) } else { Err(told.join("; ")) }
}

/// A value that stands in no document.
fn known(value: &Value) -> Argument {
    let kind = match value {
        Value::String(text) => ArgumentKind::Text(text.clone()),
        Value::Array(items) => ArgumentKind::List(items.iter().map(known).collect()),
        Value::Object(fields) => {
            ArgumentKind::Table(fields.iter().map(|(name, field)| (name.clone(), known(field))).collect())
        }
        plain => ArgumentKind::Plain(plain.clone()),
    };
    Argument { span: 0..0, key: None, kind }
}

impl<'s> Schema<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        Self { root, written: true, depth: Cell::new(0), looks: Cell::new(0) }
    }

    /// Checks the table of arguments.
    pub(super) fn check_arguments(&self, fields: &IndexMap<String, Argument>) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.looks.set(LOOKS.saturating_mul(1 + fields.values().map(size).sum::<usize>()));
        self.fields(self.resolve(self.root), None, None, fields, &mut problems);
        problems
    }

    /// Looks at one more schema, where there aren't too many; `otherwise` is the answer for what is not looked at.
    fn look<T>(&self, otherwise: T, look: impl FnOnce() -> T) -> T {
        let (depth, left) = (self.depth.get(), self.looks.get());
        if depth >= MAX_DEPTH || left == 0 {
            return otherwise;
        }
        self.looks.set(left - 1);
        self.depth.set(depth + 1);
        let found = look();
        self.depth.set(depth);
        found
    }

    /// Follows `$ref`.
    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            match target {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    /// A table's fields. One that has branches (an enum flattened into it) is left to the step type.
    fn fields(
        &self,
        schema: &'s Value,
        parent: Option<&str>,
        span: Option<&Span>,
        fields: &IndexMap<String, Argument>,
        problems: &mut Vec<Problem>,
    ) {
        let branches = ["oneOf", "anyOf", "allOf"].iter().any(|key| schema.get(key).is_some());
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let other = schema.get("additionalProperties").filter(|other| **other != Value::Bool(false));
        for (name, field) in fields {
            match (properties.get(name), other) {
                (Some(property), _) => self.value(property, name, field, problems),
                (None, Some(other)) => self.value(other, name, field, problems),
                (None, None) if branches => {}
                (None, None) => problems.push(Problem::Unknown {
                    name: name.clone(),
                    span: field.key.clone().unwrap_or_else(|| field.span.clone()),
                    parent: parent.map(str::to_owned),
                    known: properties.keys().cloned().collect(),
                }),
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            let typo = |given: &String| !properties.contains_key(given) && nearest(given, [name]).is_some();
            if !fields.contains_key(name) && !fields.keys().any(typo) {
                let description = properties.get(name).and_then(|property| self.description(property));
                problems.push(Problem::Missing {
                    name: name.to_owned(),
                    span: span.cloned(),
                    parent: parent.map(str::to_owned),
                    description,
                });
            }
        }
    }

    /// One value. `name` is the argument's, for messages.
    fn value(&self, schema: &'s Value, name: &str, value: &Argument, problems: &mut Vec<Problem>) {
        self.look((), || self.compare(schema, name, value, problems));
    }

    fn compare(&self, schema: &'s Value, name: &str, value: &Argument, problems: &mut Vec<Problem>) {
        let described = schema;
        let schema = self.resolve(schema);
        if let ArgumentKind::Text(text) = &value.kind
            && self.written
            && expr::is_template(text)
        {
            if expr::whole_expression(text).is_none() && !self.takes(schema, "string") {
                let wanted = self.wanted(schema);
                problems.push(Problem::Wrong {
                    span: value.span.clone(),
                    message: format!("`{name}` must be {wanted}"),
                    label: "this renders to a string".to_owned(),
                    help: Some("one whole `{{ expression }}` keeps its type".to_owned()),
                });
            }
            return;
        }
        if let Some(allowed) = self.choices(schema) {
            self.choice(&allowed, name, value, problems);
            return;
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = schema.get(key).and_then(Value::as_array) {
                self.branches(schema, branches, name, value, problems);
                return;
            }
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.value(part, name, value, problems);
        }
        if !fits(schema, value) {
            problems.push(Problem::Wrong {
                span: value.span.clone(),
                message: format!("`{name}` must be {}", self.wanted(schema)),
                label: format!("this is {}", describe(value)),
                help: self.description(described).map(|text| format!("{name}: {text}")),
            });
            return;
        }
        match &value.kind {
            ArgumentKind::Table(fields) => {
                // A table of any fields, such as a `Map`, says nothing about them.
                if schema.get("properties").is_some() || schema.get("additionalProperties").is_some() {
                    self.fields(schema, Some(name), Some(&value.span), fields, problems);
                }
            }
            ArgumentKind::List(items) => {
                if let Some(of) = schema.get("items") {
                    items.iter().for_each(|item| self.value(of, name, item, problems));
                }
            }
            ArgumentKind::Plain(Value::Number(number)) => range(schema, name, value, number, problems),
            ArgumentKind::Text(_) if self.written && schema.get("writeOnly") == Some(&Value::Bool(true)) => {
                problems.push(Problem::Wrong {
                    span: value.span.clone(),
                    message: "a secret must not stand in a workflow".to_owned(),
                    label: "anyone who reads the file reads it".to_owned(),
                    help: Some(format!(
                        "add a param of the type `secret` and write: {name} = \"{{{{ params.NAME }}}}\""
                    )),
                });
            }
            ArgumentKind::Text(_) | ArgumentKind::Plain(_) => {}
        }
    }

    /// A value that may be one of several things: told by the branch that it comes nearest to.
    fn branches(
        &self,
        schema: &'s Value,
        branches: &'s [Value],
        name: &str,
        value: &Argument,
        problems: &mut Vec<Problem>,
    ) {
        let mut nearest: Option<Vec<Problem>> = None;
        let mut others = Vec::new();
        for branch in branches {
            let resolved = self.resolve(branch);
            if is_null(resolved) {
                continue; // TOML has no null; leaving it out is how it's written.
            }
            let mut found = Vec::new();
            self.value(branch, name, value, &mut found);
            if found.is_empty() {
                return;
            }
            let near = self.choices(resolved).is_some() && matches!(value.kind, ArgumentKind::Text(_))
                || fits(resolved, value) && tag_fits(resolved, value);
            if near && nearest.as_ref().is_none_or(|best| found.len() < best.len()) {
                nearest = Some(found);
            } else {
                others.push(found);
            }
        }
        match (nearest, others.pop().filter(|_| others.is_empty())) {
            (Some(found), _) | (None, Some(found)) => problems.extend(found),
            (None, None) => problems.push(Problem::Wrong {
                span: value.span.clone(),
                message: format!("`{name}` must be {}", self.wanted(schema)),
                label: format!("this is {}", describe(value)),
                help: self.description(schema).map(|text| format!("{name}: {text}")),
            }),
        }
    }

    /// The values of an enum, where the schema is one.
    fn choices(&self, schema: &Value) -> Option<Vec<Value>> {
        if let Some(value) = schema.get("const") {
            return Some(vec![value.clone()]);
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return Some(values.clone());
        }
        let branches = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
        let mut values = Vec::new();
        for branch in branches {
            let branch = self.resolve_any(branch);
            if !is_null(branch) {
                let constant = branch.get("const").cloned().map(|value| vec![value]);
                values.extend(constant.or_else(|| branch.get("enum")?.as_array().cloned())?);
            }
        }
        (!values.is_empty()).then_some(values)
    }

    /// Follows `$ref` from a schema of any lifetime.
    fn resolve_any<'a>(&self, schema: &'a Value) -> &'a Value
    where
        's: 'a,
    {
        match schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#')) {
            Some(pointer) => self.root.pointer(pointer).map_or(schema, |target| self.resolve(target)),
            None => schema,
        }
    }

    fn choice(&self, allowed: &[Value], name: &str, value: &Argument, problems: &mut Vec<Problem>) {
        let given = literal(value);
        if allowed.contains(&given) {
            return;
        }
        let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        let near = given.as_str().and_then(|given| nearest(given, words.iter().copied()));
        let shown: Vec<String> = allowed
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        problems.push(Problem::Wrong {
            span: value.span.clone(),
            message: match given.as_str() {
                Some(given) => format!("`{name}` can't be `{given}`"),
                None => format!("`{name}` can't be {}", describe(value)),
            },
            label: String::new(),
            help: Some(match near {
                Some(near) => format!("did you mean `{near}`? It can be {}", list(&shown)),
                None => format!("it can be {}", list(&shown)),
            }),
        });
    }

    /// Whether a value of that JSON type may stand there.
    fn takes(&self, schema: &'s Value, kind: &str) -> bool {
        self.look(true, || self.takes_so(self.resolve(schema), kind))
    }

    fn takes_so(&self, schema: &'s Value, kind: &str) -> bool {
        if let Some(values) = self.choices(schema) {
            return values.iter().any(|value| value.is_string()) && kind == "string";
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = schema.get(key).and_then(Value::as_array) {
                return branches.iter().any(|branch| self.takes(branch, kind));
            }
        }
        let types = types(schema);
        types.is_empty() || types.contains(&kind)
    }

    /// What a schema takes, in words.
    fn wanted(&self, schema: &'s Value) -> String {
        let schema = self.resolve(schema);
        let mut words: Vec<&'static str> = Vec::new();
        let mut add = |kind: &str| {
            let word = match kind {
                "string" => "a string",
                "integer" => "an integer",
                "number" => "a number",
                "boolean" => "`true` or `false`",
                "array" => "a list",
                "object" => "a table",
                _ => return,
            };
            if !words.contains(&word) {
                words.push(word);
            }
        };
        let branches = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        match branches {
            Some(branches) => {
                for branch in branches {
                    let branch = self.resolve(branch);
                    types(branch).into_iter().for_each(&mut add);
                    if types(branch).is_empty() && self.choices(branch).is_some() {
                        add("string");
                    }
                }
            }
            None => types(schema).into_iter().for_each(&mut add),
        }
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            Some((only, _)) => (*only).to_owned(),
            None => "something else".to_owned(),
        }
    }

    /// The first sentence of what the schema says of itself.
    fn description(&self, schema: &'s Value) -> Option<String> {
        let text = schema
            .get("description")
            .or_else(|| self.resolve(schema).get("description"))
            .and_then(Value::as_str)?;
        let paragraph = text.split("\n\n").next()?.replace('\n', " ");
        Some(paragraph.trim().trim_end_matches('.').to_owned())
    }
}

fn range(
    schema: &Value,
    name: &str,
    value: &Argument,
    number: &serde_json::Number,
    problems: &mut Vec<Problem>,
) {
    let Some(given) = number.as_f64() else { return };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let (low, high) = (bound("minimum"), bound("maximum"));
    if low.is_some_and(|low| given < low) || high.is_some_and(|high| given > high) {
        let wanted = match (low, high) {
            (Some(low), Some(high)) => format!("from {low} to {high}"),
            (Some(low), None) => format!("at least {low}"),
            (None, Some(high)) => format!("at most {high}"),
            (None, None) => return,
        };
        problems.push(Problem::Wrong {
            span: value.span.clone(),
            message: format!("`{name}` must be {wanted}"),
            label: String::new(),
            help: None,
        });
    }
}

#[cfg(test)]
mod tests;
