//! Values as files hold them: templates not yet evaluated, secrets marked, each with its place.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::workflow::{Code, Diagnostic, Source, Span};

/// The variables of one host, group or file by name.
pub(super) type Vars = IndexMap<String, Var>;

/// A file and a line, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was given or found.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A variable.
#[derive(Debug, Clone)]
pub(super) struct Var {
    pub(super) raw: Arc<Raw>,
    pub(super) place: Place,
}

/// A value before it is evaluated. What holds neither a template nor a secret is one plain value.
pub(super) enum Raw {
    Plain(Value),
    /// Out of a vault, without a template.
    Secret(Value),
    Template(Template),
    List(Vec<Arc<Raw>>),
    Table(IndexMap<String, Arc<Raw>>),
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(value) => value.fmt(f),
            Self::Secret(_) => f.write_str(crate::step::MASK),
            Self::Template(template) if template.secret => f.write_str(crate::step::MASK),
            Self::Template(template) => template.text.fmt(f),
            Self::List(items) => items.fmt(f),
            Self::Table(fields) => fields.fmt(f),
        }
    }
}

/// A text with a template in it.
pub(super) struct Template {
    pub(super) text: String,
    /// The text itself is out of a vault.
    pub(super) secret: bool,
    /// The variable that it is, or is a part of.
    pub(super) variable: Arc<str>,
    pub(super) place: Place,
}

impl Raw {
    /// A value that is none of a vault's; its texts may be templates.
    pub(super) fn new(value: Value, variable: &Arc<str>, place: &Place) -> Self {
        if !has_template(&value) {
            return Self::Plain(value);
        }
        match value {
            Value::String(text) => {
                let (variable, place) = (Arc::clone(variable), place.clone());
                Self::Template(Template { text, secret: false, variable, place })
            }
            Value::Array(items) => {
                Self::List(items.into_iter().map(|item| Arc::new(Self::new(item, variable, place))).collect())
            }
            Value::Object(fields) => Self::Table(
                fields
                    .into_iter()
                    .map(|(name, field)| (name, Arc::new(Self::new(field, variable, place))))
                    .collect(),
            ),
            plain => Self::Plain(plain),
        }
    }

    /// The value as it stands in the file, for a comparison with Ansible's own.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Plain(value) | Self::Secret(value) => value.clone(),
            Self::Template(template) => Value::from(template.text.as_str()),
            Self::List(items) => items.iter().map(|item| item.to_value()).collect(),
            Self::Table(fields) => fields
                .iter()
                .map(|(name, field)| (name.clone(), field.to_value()))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    /// The fields, where it is a table.
    fn fields(&self) -> Option<IndexMap<String, Arc<Self>>> {
        match self {
            Self::Table(fields) => Some(fields.clone()),
            Self::Plain(Value::Object(fields)) => Some(
                fields
                    .iter()
                    .map(|(name, field)| (name.clone(), Arc::new(Self::Plain(field.clone()))))
                    .collect(),
            ),
            _ => None,
        }
    }
}

/// Sets a variable as Ansible does where one entity sets it twice: tables are merged one level deep.
pub(super) fn set(vars: &mut Vars, name: &str, var: Var) {
    if let Some(old) = vars.get_mut(name)
        && let (Some(mut fields), Some(more)) = (old.raw.fields(), var.raw.fields())
    {
        fields.extend(more);
        let plain = fields.values().all(|field| matches!(**field, Raw::Plain(_)));
        let merged = Raw::Table(fields);
        old.raw = Arc::new(if plain { Raw::Plain(merged.to_value()) } else { merged });
        old.place = var.place;
        return;
    }
    vars.insert(name.to_owned(), var);
}

/// Whether any text of a value is a template.
fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(fields) => fields.values().any(has_template),
        _ => false,
    }
}

pub(super) fn is_template(text: &str) -> bool {
    text.contains('{') && crate::workflow::expr::is_template(text)
}

/// A file that is read: its text, and where its lines begin.
pub(super) struct File {
    pub(super) source: Arc<Source>,
    name: Arc<str>,
    lines: Vec<usize>,
    /// All of it is out of a vault.
    pub(super) secret: bool,
}

impl File {
    pub(super) fn new(source: Arc<Source>, secret: bool) -> Self {
        let lines =
            source.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { name: source.name.as_str().into(), lines, source, secret }
    }

    /// The place of a byte.
    pub(super) fn place(&self, at: usize) -> Place {
        let line = self.lines.partition_point(|end| *end < at) + 1;
        Place { file: Arc::clone(&self.name), line: u32::try_from(line).unwrap_or(u32::MAX) }
    }

    /// An error at a place. Of a vault's text nothing is shown.
    pub(super) fn refuse(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        if self.secret {
            let line = self.place(span.start).line;
            let message = format!("`{}`: what is in the vault can't be read, line {line}", self.name);
            return Diagnostic::general(Code::INVENTORY, message);
        }
        Diagnostic::at(Code::INVENTORY, &self.source, span, message)
    }
}
