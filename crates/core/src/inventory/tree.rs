//! YAML text to a tree in which everything keeps its place, typed as Ansible types it (PyYAML's
//! `SafeLoader`, YAML 1.1: `yes` and `off` are booleans, `010` is 8, dates stay text here). `!vault` values are
//! opened on the way.

mod scalar;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span as YamlSpan, StructureStyle, Tag};

use super::raw::{self, File, Place, Raw, Template, Var, Vars};
use super::vault::Vaults;
use crate::workflow::{Code, Diagnostic, Source, Span};

/// Nesting deeper than this is refused.
const MAX_DEPTH: usize = 64;
/// The most values that a file may have, those that aliases repeat counted again.
const MAX_NODES: usize = 500_000;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) kind: NodeKind,
    pub(super) mark: Mark,
}

/// What a tag says of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    /// `!vault`: it was encrypted.
    Vault,
    /// `!unsafe`: it is no template.
    Unsafe,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    Scalar(Value),
    List(Vec<Node>),
    /// Keys, each with its place and its value.
    Table(Vec<(String, Span, Node)>),
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Scalar(Value::Null))
    }

    /// The value without its places.
    #[cfg(test)]
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            NodeKind::Scalar(value) => value.clone(),
            NodeKind::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            NodeKind::Table(fields) => Value::Object(
                fields.iter().map(|(name, _, field)| (name.clone(), field.to_value())).collect(),
            ),
        }
    }

    /// A variable of that name with this value.
    pub(super) fn to_var(&self, file: &File, name: &str, at: &Span) -> Var {
        Var { raw: Arc::new(self.to_raw(file, &name.into())), place: file.place(at.start) }
    }

    fn to_raw(&self, file: &File, variable: &Arc<str>) -> Raw {
        match &self.kind {
            NodeKind::Scalar(value) => {
                let secret = file.secret || self.mark == Mark::Vault;
                match value {
                    // What `!vault` hides is no template; what a whole vault holds may be.
                    Value::String(text) if self.mark == Mark::None && raw::is_template(text) => {
                        let (variable, place) = (Arc::clone(variable), self.place(file));
                        Raw::Template(Template { text: text.clone(), secret, variable, place })
                    }
                    Value::Null | Value::Bool(_) => Raw::Plain(value.clone()),
                    value if secret => Raw::Secret(value.clone()),
                    value => Raw::Plain(value.clone()),
                }
            }
            NodeKind::List(items) => {
                let items: Vec<Raw> = items.iter().map(|item| item.to_raw(file, variable)).collect();
                if items.iter().all(|item| matches!(item, Raw::Plain(_))) {
                    return Raw::Plain(items.iter().map(Raw::to_value).collect());
                }
                Raw::List(items.into_iter().map(Arc::new).collect())
            }
            NodeKind::Table(fields) => {
                let fields: IndexMap<String, Raw> = fields
                    .iter()
                    .map(|(name, _, field)| (name.clone(), field.to_raw(file, variable)))
                    .collect();
                if fields.values().all(|field| matches!(field, Raw::Plain(_))) {
                    let plain: Map<String, Value> =
                        fields.into_iter().map(|(name, field)| (name, field.to_value())).collect();
                    return Raw::Plain(plain.into());
                }
                Raw::Table(fields.into_iter().map(|(name, field)| (name, Arc::new(field))).collect())
            }
        }
    }

    fn place(&self, file: &File) -> Place {
        file.place(self.span.start)
    }

    /// What it is, in words.
    pub(super) fn describe(&self) -> &'static str {
        match &self.kind {
            NodeKind::Scalar(Value::Null) => "empty",
            NodeKind::Scalar(Value::Bool(_)) => "a boolean",
            NodeKind::Scalar(Value::Number(_)) => "a number",
            NodeKind::Scalar(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Table(_) => "a table",
        }
    }
}

/// The fields of a table as variables.
pub(super) fn to_vars(fields: &[(String, Span, Node)], file: &File) -> Vars {
    fields.iter().map(|(name, span, field)| (name.clone(), field.to_var(file, name, span))).collect()
}

/// Reads the one document of a file. None where it is empty.
///
/// # Errors
/// Text that isn't YAML, keys that are there twice, tags that flow doesn't know, vaults that can't be opened,
/// several documents, and files too large or too deep.
pub(super) fn read(file: &File, vaults: &Vaults<'_>) -> Result<Option<Node>, Diagnostic> {
    let source = &file.source;
    let mut reader = Reader {
        source,
        vaults,
        json: source.text.trim_start().starts_with('{')
            && serde_json::from_str::<serde::de::IgnoredAny>(&source.text).is_ok(),
        events: Parser::new_from_str(&source.text),
        anchors: HashMap::new(),
        nodes: 0,
        tag: None,
    };
    reader.document().map_err(|error| if file.secret { without_text(&error, file) } else { error })
}

/// An error in what was a vault: its text must not be shown.
fn without_text(error: &Diagnostic, file: &File) -> Diagnostic {
    let at = error.labels.first().map_or(0, |(span, _)| span.start);
    let message =
        format!("`{}`: what is in the vault can't be read, line {}", file.source.name, file.place(at).line);
    Diagnostic::general(Code::INVENTORY, message)
        .help("look at it: ansible-vault view FILE; it is YAML, such as NAME: VALUE on each line")
}

struct Reader<'s, E> {
    source: &'s Arc<Source>,
    vaults: &'s Vaults<'s>,
    /// The text is JSON, whose numbers are told otherwise: `1e3`.
    json: bool,
    events: E,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    /// Where the tag of the last value stands, where it has one.
    tag: Option<Span>,
}

type Read<'s> = Result<(Event<'s>, Span), Diagnostic>;

impl<'s, E> Reader<'s, E>
where
    E: Iterator<Item = Result<(Event<'s>, YamlSpan), serde_saphyr::granit_parser::ScanError>>,
{
    fn document(&mut self) -> Result<Option<Node>, Diagnostic> {
        let mut node = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if node.is_some() => {
                    return Err(self
                        .at(span, "a second document in one file")
                        .help("only one is read; split the file"));
                }
                Event::DocumentStart(..) => {
                    let first = self.next()?;
                    node = Some(self.node(first, 0)?);
                }
                _ => return Ok(node.filter(|node| !node.is_null())),
            }
        }
    }

    /// The next event that isn't a comment.
    fn next(&mut self) -> Read<'s> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => {
                    self.tag = span.tag_span().and_then(|tag| tag.byte_range());
                    return Ok((event, self.place(&span)));
                }
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().unwrap_or_default().min(self.source.text.len());
                    return Err(self
                        .at(at..at, format!("not YAML: {}", error.info()))
                        .help("mostly it is the indentation, or text that needs quotes"));
                }
                None => return Ok((Event::StreamEnd, self.source.text.len()..self.source.text.len())),
            }
        }
    }

    fn place(&self, span: &YamlSpan) -> Span {
        let range = span.byte_range().unwrap_or_default();
        let text = self.source.text.get(range.clone()).unwrap_or_default();
        range.start..range.start + text.trim_end().len()
    }

    fn at(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Code::INVENTORY, self.source, span, message)
    }

    fn node(&mut self, (event, span): (Event<'s>, Span), depth: usize) -> Result<Node, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(self.at(span, "nested too deep").help(format!("{MAX_DEPTH} levels are the limit")));
        }
        let before = self.nodes;
        self.count(1, &span)?;
        let (anchor, node) = match event {
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.at(span, "this alias stands inside what it repeats"));
                };
                self.count(size, &span)?;
                return Ok(Node { span, ..node });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let (value, mark) = self.scalar(&text, style, tag.as_deref(), &span)?;
                (anchor, Node { span, kind: NodeKind::Scalar(value), mark })
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.plain_tag(tag.as_deref(), &span)?;
                (anchor, self.list(span.start, style, depth)?)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.plain_tag(tag.as_deref(), &span)?;
                (anchor, self.table(span.start, style, depth)?)
            }
            _ => return Err(self.at(span, "not YAML: a value is missing here")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn count(&mut self, more: usize, span: &Span) -> Result<(), Diagnostic> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(self.at(span.clone(), format!("more than {MAX_NODES} values in one file")));
        }
        Ok(())
    }

    fn list(&mut self, start: usize, style: StructureStyle, depth: usize) -> Result<Node, Diagnostic> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, span) => {
                    let end = end(style, &span, items.last());
                    return Ok(Node { span: start..end, kind: NodeKind::List(items), mark: Mark::None });
                }
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn table(&mut self, start: usize, style: StructureStyle, depth: usize) -> Result<Node, Diagnostic> {
        let mut fields: Vec<(String, Span, Node)> = Vec::new();
        let mut places: HashMap<String, Span> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_span) = self.next()?;
            let key = match event {
                Event::MappingEnd => {
                    let end = end(style, &key_span, fields.last().map(|(_, _, last)| last));
                    let kind = NodeKind::Table(merge(fields, merged));
                    return Ok(Node { span: start..end, kind, mark: Mark::None });
                }
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<" => {
                    let value = self.next()?;
                    let value = self.node(value, depth + 1)?;
                    self.merge_source(value, &mut merged)?;
                    continue;
                }
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.at(key_span, "a key must be text")),
            };
            if let Some(first) = places.insert(key.clone(), key_span.clone()) {
                let twice = self.at(key_span, format!("`{key}` is there twice")).label("again");
                return Err(twice.also(first, "first here"));
            }
            let value = self.next()?;
            let value = self.node(value, depth + 1)?;
            fields.push((key, key_span, value));
        }
    }

    /// What `<<` names: a table, or a list of them.
    fn merge_source(&self, value: Node, merged: &mut Vec<(String, Span, Node)>) -> Result<(), Diagnostic> {
        match value.kind {
            NodeKind::Table(fields) => merged.extend(fields),
            NodeKind::List(items) => {
                items.into_iter().try_for_each(|item| self.merge_source(item, merged))?;
            }
            NodeKind::Scalar(_) => return Err(self.at(value.span, "`<<` takes a table")),
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: &Span,
    ) -> Result<(Value, Mark), Diagnostic> {
        let Some(tag) = tag else {
            let value = match style {
                ScalarStyle::Plain if self.json => {
                    serde_json::from_str(text).unwrap_or_else(|_| scalar::typed(text))
                }
                ScalarStyle::Plain => scalar::typed(text),
                _ => Value::from(text),
            };
            return Ok((value, Mark::None));
        };
        let wrong = |kind: &str| self.at(span.clone(), format!("`{text}` is not {kind}"));
        let value = match tag.core_suffix() {
            Some("str") => Ok(Value::from(text)),
            Some("int") => Some(scalar::typed(text)).filter(Value::is_i64).ok_or_else(|| wrong("an integer")),
            Some("bool") => {
                Some(scalar::typed(text)).filter(Value::is_boolean).ok_or_else(|| wrong("a boolean"))
            }
            Some("float") => {
                let number = Some(scalar::typed(text)).and_then(|value| value.as_f64());
                number.map(Value::from).ok_or_else(|| wrong("a number"))
            }
            Some("null") => Ok(Value::Null),
            _ => return self.tagged(text, tag, span),
        };
        Ok((value?, Mark::None))
    }

    fn tagged(&self, text: &str, tag: &Tag, span: &Span) -> Result<(Value, Mark), Diagnostic> {
        match (tag.handle(), tag.suffix()) {
            ("!", "unsafe") | ("", "!unsafe") => Ok((Value::from(text), Mark::Unsafe)),
            ("!" | "", "") | ("", "!") => Ok((Value::from(text), Mark::None)),
            ("!", "vault" | "vault-encrypted") | ("", "!vault" | "!vault-encrypted") => {
                let place = self.tag.clone().unwrap_or_else(|| span.clone());
                let opened = self.vaults.open(text, &self.source.name);
                opened
                    .map(|plain| (Value::from(plain), Mark::Vault))
                    .map_err(|(message, hint)| self.at(place, message).help(hint))
            }
            _ => self.plain_tag(Some(tag), span).map(|()| (Value::from(text), Mark::None)),
        }
    }

    /// Refuses tags that would give a value a meaning that flow doesn't know.
    fn plain_tag(&self, tag: Option<&Tag>, span: &Span) -> Result<(), Diagnostic> {
        match tag {
            Some(tag) if !matches!(tag.core_suffix(), Some("seq" | "map")) => {
                let message = format!("the tag `{}` is not understood", tag.original());
                let place = self.tag.clone().unwrap_or_else(|| span.clone());
                Err(self.at(place, message).help("`!unsafe` and YAML's own tags are"))
            }
            _ => Ok(()),
        }
    }
}

/// Where a list or table ends: at its bracket, or with the last thing in it.
fn end(style: StructureStyle, closing: &Span, last: Option<&Node>) -> usize {
    match last {
        Some(last) if style == StructureStyle::Block => last.span.end,
        _ => closing.end,
    }
}

/// A table's own fields, and those merged into it that it doesn't have itself; earlier sources win.
fn merge(own: Vec<(String, Span, Node)>, merged: Vec<(String, Span, Node)>) -> Vec<(String, Span, Node)> {
    let mut names = HashSet::new();
    own.into_iter().chain(merged).filter(|(name, ..)| names.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests;
