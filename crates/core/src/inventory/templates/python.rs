//! Values as text the way Python writes them, since Ansible's templates show it: `True`, `['a', 'b']`.

use std::fmt::Write;

use minijinja::value::{Value as Jinja, ValueKind};
use minijinja::{Error, ErrorKind};

/// The value, where it is one: the engine leaves it to each filter to look.
pub(super) fn known(value: &Jinja) -> Result<&Jinja, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(ErrorKind::UndefinedError.into()),
        ValueKind::Invalid => Err(Error::new(ErrorKind::InvalidOperation, value.to_string())),
        _ => Ok(value),
    }
}

/// `str(value)` of one that is known.
pub(super) fn string(value: &Jinja) -> Result<String, Error> {
    Ok(text(known(value)?))
}

/// `str(value)`
pub(super) fn text(value: &Jinja) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let mut out = String::new();
            repr(value, &mut out);
            out
        }
    }
}

/// `repr(value)`
fn repr(value: &Jinja, out: &mut String) {
    match value.kind() {
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None => out.push_str("None"),
        ValueKind::Undefined => {}
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&item, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&key, out);
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
}

/// A number: `1`, `1.5`, `2.0`, `1e+16`.
pub(super) fn number(value: &Jinja) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(number) = f64::try_from(value.clone()) else { return value.to_string() };
    float(number)
}

fn float(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        let Some((mantissa, exponent)) = text.split_once('e') else { return text };
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{number:?}")
}

/// A text in quotes: single ones, unless it has some and no double ones.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// `json.dumps`
pub(super) struct Json {
    /// Spaces for each level; none: all on one line.
    pub(super) indent: Option<usize>,
    pub(super) sort_keys: bool,
    /// Everything but ASCII as `\uXXXX`.
    pub(super) ascii: bool,
}

impl Json {
    pub(super) fn write(&self, value: &serde_json::Value) -> String {
        let mut out = String::new();
        self.value(value, 0, &mut out);
        out
    }

    fn value(&self, value: &serde_json::Value, level: usize, out: &mut String) {
        use serde_json::Value;
        match value {
            Value::String(text) => self.string(text, out),
            Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(number) => out.push_str(&float(number)),
                None => out.push_str(&number.to_string()),
            },
            Value::Array(items) => self.many(('[', ']'), items.len(), level, out, |i, out| {
                self.value(&items[i], level + 1, out);
            }),
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sort_keys {
                    fields.sort_by_key(|(name, _)| *name);
                }
                self.many(('{', '}'), fields.len(), level, out, |i, out| {
                    self.string(fields[i].0, out);
                    out.push_str(": ");
                    self.value(fields[i].1, level + 1, out);
                });
            }
            plain => out.push_str(&plain.to_string()),
        }
    }

    fn many(
        &self,
        (open, close): (char, char),
        count: usize,
        level: usize,
        out: &mut String,
        each: impl Fn(usize, &mut String),
    ) {
        let line = |level: usize, out: &mut String| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.push_str(&" ".repeat(indent.min(64) * level));
            }
        };
        out.push(open);
        for i in 0..count {
            if i > 0 {
                out.push_str(if self.indent.is_some() { "," } else { ", " });
            }
            line(level + 1, out);
            each(i, out);
        }
        if count > 0 {
            line(level, out);
        }
        out.push(close);
    }

    fn string(&self, text: &str, out: &mut String) {
        let json = serde_json::Value::from(text).to_string();
        if !self.ascii {
            return out.push_str(&json);
        }
        let mut units = [0; 2];
        for c in json.chars() {
            if c.is_ascii() {
                out.push(c);
                continue;
            }
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}
