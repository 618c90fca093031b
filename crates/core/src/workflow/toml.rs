//! TOML text to a tree of values in which everything keeps its place. Knows nothing of workflows.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::{Argument, ArgumentKind, Code, Diagnostic, Diagnostics, Source, Span};

/// A document larger than this is refused unread: bytes.
const MAX_LEN: usize = 1 << 20;
/// Tables and lists in each other deeper than this are refused.
const MAX_DEPTH: usize = 64;
/// Further syntax errors than these are only counted.
const MAX_ERRORS: usize = 10;
/// Of keys that are there twice, as many are looked at.
const MAX_COMPARED: usize = 200;
/// Room for the parser's recursion, bytes: it limits the nesting of brackets and the parts of a key
/// to 80 each, but keys nest in brackets, and its tree of 80 x 80 levels takes several megabytes to
/// drop. Memory is taken only as it is used.
const STACK: usize = 64 << 20;
/// Errors in longer lines are told without showing the line: bytes.
const MAX_SHOWN_LINE: usize = 1000;

/// The fields of a table, in the order of the text.
pub(super) type Fields = IndexMap<String, Argument>;

/// Reads a document. A key that is there twice is an error, and the first one counts.
///
/// Where the text isn't TOML there is no table; else there may be errors beside it.
pub(super) fn read(source: &Arc<Source>) -> (Option<Fields>, Diagnostics) {
    let text = &source.text;
    if text.len() > MAX_LEN {
        let message = format!(
            "`{}` is too large for a workflow: {} bytes, {MAX_LEN} are the limit",
            source.name,
            text.len()
        );
        return (None, Diagnostic::general(Code::SYNTAX, message).into());
    }
    let parsed = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let reading = thread.spawn_scoped(scope, || parse(source))?;
        reading.join().map_err(|_| std::io::Error::other("the TOML parser gave up"))
    });
    parsed.unwrap_or_else(|error| {
        let message = format!("`{}` can't be read: {error}", source.name);
        (None, Diagnostic::general(Code::SYNTAX, message).into())
    })
}

fn parse(source: &Arc<Source>) -> (Option<Fields>, Diagnostics) {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let (duplicates, syntax): (Vec<_>, Vec<_>) =
        errors.iter().partition(|error| error.message() == "duplicate key");
    if !syntax.is_empty() {
        return (None, syntax_errors(source, &syntax));
    }
    let mut diagnostics = Diagnostics::default();
    let places = duplicates.iter().take(MAX_COMPARED).map(|error| error.span().unwrap_or_default());
    let mut places: Vec<Place> =
        places.map(|span| Place { header: header(source, &span).is_some(), span }).collect();
    places.sort_by_key(|place| place.span.start);
    // The keys of a table that is there twice are there twice as well; that helps nobody.
    let told = places.iter().enumerate().filter(|(at, place)| {
        let above = places[..*at].iter().rev().find(|other| other.header);
        place.header || !above.is_some_and(|header| is_below(source, header, place))
    });
    for (_, place) in told.take(MAX_ERRORS) {
        diagnostics.push(duplicate(source, place.span.clone()));
    }
    let mut reader = Reader { source, diagnostics };
    let fields = reader.table(table.into_inner(), 0);
    (Some(fields), reader.diagnostics)
}

/// The first error of each line: once the parser has stumbled, its further words there help nobody.
fn syntax_errors(source: &Arc<Source>, errors: &[&toml::de::Error]) -> Diagnostics {
    let newlines: Vec<usize> =
        source.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
    let mut diagnostics = Diagnostics::default();
    let mut last_line = None;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = newlines.partition_point(|newline| *newline < span.start);
        if last_line.replace(line) != Some(line) {
            let what = match error.message() {
                "recursion limit" | "cannot recurse further; max recursion depth met" => "nested too deep",
                "string values must be quoted, expected literal string" => "text must be in quotes",
                "invalid basic string, expected `\"`" | "invalid literal string, expected `'`" => {
                    "this quote is not closed"
                }
                what => what,
            };
            diagnostics.push(syntax(source, span, what));
        }
        if diagnostics.0.len() == MAX_ERRORS {
            break;
        }
    }
    diagnostics
}

fn syntax(source: &Arc<Source>, span: Span, what: &str) -> Diagnostic {
    let text = source.text.as_bytes();
    let at = span.start.min(text.len());
    let start = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let end = text[at..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |newline| at + newline);
    if end - start > MAX_SHOWN_LINE {
        let line = text[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        let message = format!("`{}` is not TOML: line {line}, byte {}: {what}", source.name, at - start + 1);
        return Diagnostic::general(Code::SYNTAX, message);
    }
    Diagnostic::at(Code::SYNTAX, source, at..span.end.clamp(at, end.max(at)), format!("not TOML: {what}"))
}

/// The header of a table, such as `[steps.stop]`, where a place is in one.
fn header<'s>(source: &'s Source, place: &Span) -> Option<&'s str> {
    let start = source.text.get(..place.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = source.text.get(start..)?.lines().next()?.trim();
    let header = &line[..=line.find(']')?];
    header.starts_with('[').then_some(header)
}

/// A key that is there twice.
struct Place {
    span: Span,
    /// It stands in the header of a table.
    header: bool,
}

/// Whether `place` is below that header, and below no further one.
fn is_below(source: &Source, header: &Place, place: &Place) -> bool {
    let between = source.text.get(header.span.end..place.span.start);
    between.is_some_and(|between| !between.lines().skip(1).any(|line| line.trim_start().starts_with('[')))
}

/// A key that is there twice, with both places.
///
/// The parser tells only the second. So that one is given a name of its own and the text is read
/// again: the first is then its neighbour.
fn duplicate(source: &Arc<Source>, span: Span) -> Diagnostic {
    let name = key_text(source.text.get(span.clone()).unwrap_or_default());
    let first = first_place(source, &span, &name);
    let (code, shown) = match header(source, &span) {
        Some(header) => (Code::ID, header),
        None => (Code::UNKNOWN_KEY, name.as_str()),
    };
    let found =
        Diagnostic::at(code, source, span.clone(), format!("`{shown}` is there twice")).label("again");
    match first {
        Some(first) => found.also(first, "first here"),
        None => found,
    }
}

/// What follows the line counts only where a value goes over several: there the key could come again.
fn first_place(source: &Source, span: &Span, name: &str) -> Option<Span> {
    const STAND_IN: &str = "\"\\u0001\"";
    let (before, after) = (source.text.get(..span.start)?, source.text.get(span.end..)?);
    let line = &after[..after.find('\n').unwrap_or(after.len())];
    [line, after].into_iter().find_map(|rest| {
        let text = format!("{before}{STAND_IN}{rest}");
        let (table, _) = DeTable::parse_recoverable(&text);
        find_neighbour(table.get_ref(), span.start, name).filter(|first| first.end <= span.start)
    })
}

/// A key without its quotes.
fn key_text(written: &str) -> String {
    let quoted = |quote| written.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(written).to_owned()
}

/// Where the key `name` stands in the table that has a key beginning at `at`.
fn find_neighbour(table: &DeTable<'_>, at: usize, name: &str) -> Option<Span> {
    if table.keys().any(|key| key.span().start == at) {
        return table.keys().find(|key| key.get_ref() == name).map(Spanned::span);
    }
    table.values().find_map(|value| find_in_value(value.get_ref(), at, name))
}

fn find_in_value(value: &DeValue<'_>, at: usize, name: &str) -> Option<Span> {
    match value {
        DeValue::Table(table) => find_neighbour(table, at, name),
        DeValue::Array(items) => items.iter().find_map(|item| find_in_value(item.get_ref(), at, name)),
        _ => None,
    }
}

struct Reader<'s> {
    source: &'s Arc<Source>,
    diagnostics: Diagnostics,
}

impl Reader<'_> {
    fn table(&mut self, table: DeTable<'_>, depth: usize) -> Fields {
        let mut entries: Vec<(Spanned<DeString<'_>>, Spanned<DeValue<'_>>)> = table.into_iter().collect();
        // The parser sorts by name; people expect their own order.
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut fields = Fields::with_capacity(entries.len());
        for (key, value) in entries {
            let place = key.span();
            if let Some(mut field) = self.value(value, depth) {
                field.key = Some(place);
                fields.insert(key.into_inner().into_owned(), field);
            }
        }
        fields
    }

    fn list(&mut self, items: DeArray<'_>, depth: usize) -> Vec<Argument> {
        items.into_iter().filter_map(|item| self.value(item, depth)).collect()
    }

    /// None where the value is refused, and told.
    fn value(&mut self, value: Spanned<DeValue<'_>>, depth: usize) -> Option<Argument> {
        let span = value.span();
        if depth >= MAX_DEPTH {
            self.refuse(span, "nested too deep".to_owned(), format!("{MAX_DEPTH} levels are the limit"));
            return None;
        }
        let kind = match value.into_inner() {
            DeValue::String(text) => ArgumentKind::Text(text.into_owned()),
            DeValue::Boolean(value) => ArgumentKind::Plain(value.into()),
            DeValue::Integer(integer) => {
                let Ok(number) = i64::from_str_radix(integer.as_str(), integer.radix()) else {
                    self.refuse(
                        span,
                        "this integer is too large".to_owned(),
                        format!("from {} to {}", i64::MIN, i64::MAX),
                    );
                    return None;
                };
                ArgumentKind::Plain(number.into())
            }
            DeValue::Float(float) => {
                let number = float.as_str().parse::<f64>().ok().and_then(Number::from_f64);
                let Some(number) = number else {
                    self.refuse(
                        span,
                        "not a finite number".to_owned(),
                        "write a number such as 1.5".to_owned(),
                    );
                    return None;
                };
                ArgumentKind::Plain(Value::Number(number))
            }
            DeValue::Datetime(_) => {
                self.refuse(
                    span,
                    "a date is not a value of workflows".to_owned(),
                    "write it in quotes, as text".to_owned(),
                );
                return None;
            }
            DeValue::Array(items) => ArgumentKind::List(self.list(items, depth + 1)),
            DeValue::Table(table) => ArgumentKind::Table(self.table(table, depth + 1)),
        };
        Some(Argument { span, key: None, kind })
    }

    fn refuse(&mut self, span: Span, message: String, help: String) {
        self.diagnostics.push(Diagnostic::at(Code::TYPE, self.source, span, message).help(help));
    }
}
