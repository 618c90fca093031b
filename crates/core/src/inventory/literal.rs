//! Values of INI inventories: Python literals, or else text, as Ansible types them
//! (`ast.literal_eval`, Python 3).

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

/// Lists and dicts in each other deeper than this are text.
const MAX_DEPTH: usize = 64;
/// The letters that may stand before a string's quote: `rb`.
const MAX_PREFIX: usize = 2;

/// The value that a text stands for: a Python literal, or the text itself.
pub(super) fn read(text: &str) -> Value {
    let mut parser = Parser { rest: text.trim_start_matches([' ', '\t']) };
    parser.whole().unwrap_or_else(|| Value::from(text))
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    /// A literal and nothing after it but a comment. `1, 2` is a tuple, which becomes a list.
    fn whole(&mut self) -> Option<Value> {
        let first = self.value(0)?;
        self.skip();
        let value = if self.rest.starts_with(',') {
            let mut items = vec![first];
            while self.eat(",") {
                self.skip();
                if self.rest.is_empty() || self.rest.starts_with('#') {
                    break;
                }
                items.push(self.value(0)?);
                self.skip();
            }
            Value::Array(items)
        } else {
            first
        };
        (self.rest.is_empty() || self.rest.starts_with('#')).then_some(value)
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip();
        match self.rest.chars().next()? {
            '[' => self.items(depth, "[", "]").map(|(items, _)| Value::Array(items)),
            '(' => self.items(depth, "(", ")").and_then(|(mut items, comma)| match items.len() {
                // Parentheses around one value are only parentheses.
                1 if !comma => items.pop(),
                _ => Some(Value::Array(items)),
            }),
            '{' => self.braces(depth),
            '+' | '-' | '.' | '0'..='9' => self.number(),
            _ => self.string().or_else(|| self.word()),
        }
    }

    /// The items between two signs, and whether a comma came.
    fn items(&mut self, depth: usize, open: &str, close: &str) -> Option<(Vec<Value>, bool)> {
        self.eat(open).then_some(())?;
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            self.skip();
            if self.eat(close) {
                return Some((items, comma));
            }
            items.push(self.value(depth + 1)?);
            self.skip();
            if self.eat(",") {
                comma = true;
            } else {
                return self.eat(close).then_some((items, comma));
            }
        }
    }

    /// A dict, or a set: which of the two, the sign after its first value tells.
    fn braces(&mut self, depth: usize) -> Option<Value> {
        self.eat("{");
        self.skip();
        if self.eat("}") {
            return Some(Value::Object(Map::new()));
        }
        let first = self.value(depth + 1)?;
        self.skip();
        if self.eat(":") { self.dict(depth, &first) } else { self.set(depth, first) }
    }

    /// A dict, after the colon of its first key.
    fn dict(&mut self, depth: usize, first: &Value) -> Option<Value> {
        let mut fields = Map::new();
        let mut key = key_text(first)?;
        loop {
            fields.insert(key, self.value(depth + 1)?);
            self.skip();
            let more = self.eat(",");
            self.skip();
            if self.eat("}") {
                return Some(Value::Object(fields));
            }
            more.then_some(())?;
            key = key_text(&self.value(depth + 1)?)?;
            self.skip();
            self.eat(":").then_some(())?;
        }
    }

    /// A set after its first item; it becomes a list.
    fn set(&mut self, depth: usize, first: Value) -> Option<Value> {
        let mut known = HashSet::from([first.to_string()]);
        let mut items = vec![first];
        loop {
            self.skip();
            let more = self.eat(",");
            self.skip();
            if self.eat("}") {
                return Some(Value::Array(items));
            }
            more.then_some(())?;
            let item = self.value(depth + 1)?;
            if known.insert(item.to_string()) {
                items.push(item);
            }
        }
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let value = match word {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "None" => Value::Null,
            _ => return None,
        };
        self.rest = rest;
        Some(value)
    }

    fn number(&mut self) -> Option<Value> {
        let negative = match self.rest.chars().next()? {
            '-' => true,
            '+' => false,
            _ => return self.unsigned(false),
        };
        self.rest = &self.rest[1..];
        self.skip();
        self.unsigned(negative)
    }

    fn unsigned(&mut self, negative: bool) -> Option<Value> {
        let mut end = 0;
        let bytes = self.rest.as_bytes();
        while let Some(byte) = bytes.get(end) {
            let exponent_sign = matches!(byte, b'+' | b'-')
                && matches!(bytes.get(end.wrapping_sub(1)), Some(b'e' | b'E'))
                && !self.rest.starts_with("0x")
                && !self.rest.starts_with("0X");
            if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign {
                end += 1;
            } else {
                break;
            }
        }
        let (token, rest) = self.rest.split_at(end);
        let value = integer(token, negative).or_else(|| float(token, negative))?;
        self.rest = rest;
        Some(value)
    }

    /// A string, with what stands next to it joined, as Python does.
    fn string(&mut self) -> Option<Value> {
        let mut text = self.one_string()?;
        loop {
            let before = self.rest;
            self.skip();
            match self.one_string() {
                Some(more) => text.push_str(&more),
                None => {
                    self.rest = before;
                    return Some(Value::String(text));
                }
            }
        }
    }

    fn one_string(&mut self) -> Option<String> {
        let mut beginning = self.rest.char_indices().take(MAX_PREFIX + 1);
        let (quote_at, _) = beginning.find(|(_, c)| matches!(c, '\'' | '"'))?;
        let prefix = self.rest[..quote_at].to_ascii_lowercase();
        let (raw, bytes) = match prefix.as_str() {
            "" | "u" => (false, false),
            "r" => (true, false),
            "b" => (false, true),
            "rb" | "br" => (true, true),
            _ => return None,
        };
        let body = &self.rest[quote_at..];
        let single = &body[..1];
        let triple = single.repeat(3);
        let quote = if body.starts_with(&triple) { triple.as_str() } else { single };
        let (text, rest) = string_body(&body[quote.len()..], quote, raw, bytes)?;
        self.rest = rest;
        Some(text)
    }
}

/// The text up to the closing quote, and what follows that.
fn string_body<'t>(body: &'t str, quote: &str, raw: bool, bytes: bool) -> Option<(String, &'t str)> {
    let mut text = String::new();
    let mut rest = body;
    loop {
        if let Some(after) = rest.strip_prefix(quote) {
            return Some((text, after));
        }
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            if bytes && !c.is_ascii() {
                return None;
            }
            text.push(c);
            continue;
        }
        let escaped = rest.chars().next()?;
        if raw {
            text.push('\\');
            text.push(escaped);
            rest = &rest[escaped.len_utf8()..];
        } else {
            rest = escape(rest, escaped, &mut text)?;
        }
    }
}

/// Reads one escape after its backslash. Unknown ones stay as they are.
fn escape<'t>(rest: &'t str, escaped: char, text: &mut String) -> Option<&'t str> {
    let simple = match escaped {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        '\\' | '\'' | '"' => Some(escaped),
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'v' => Some('\u{b}'),
        _ => None,
    };
    if let Some(simple) = simple {
        text.push(simple);
        return Some(&rest[1..]);
    }
    let (digits, skip) = match escaped {
        'x' => (rest.get(1..3)?, 3),
        'u' => (rest.get(1..5)?, 5),
        'U' => (rest.get(1..9)?, 9),
        '0'..='7' => {
            let length = rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            let code = u32::from_str_radix(&rest[..length], 8).ok()?;
            text.push(char::from_u32(code)?);
            return Some(&rest[length..]);
        }
        'N' => return None,
        _ => {
            text.push('\\');
            return Some(rest);
        }
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    text.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
    Some(&rest[skip..])
}

/// Digits with Python's underscores: single ones, between digits.
fn digits(text: &str, good: impl Fn(char) -> bool) -> Option<String> {
    let groups: Vec<&str> = text.split('_').collect();
    let all_good = groups.iter().all(|group| !group.is_empty() && group.chars().all(&good));
    all_good.then(|| groups.concat())
}

fn integer(token: &str, negative: bool) -> Option<Value> {
    let lower = token.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, lower[2..].trim_start_matches('_')),
        Some("0o") => (8, lower[2..].trim_start_matches('_')),
        Some("0b") => (2, lower[2..].trim_start_matches('_')),
        _ => (10, lower.as_str()),
    };
    let body = digits(body, |c| c.is_digit(radix))?;
    if radix == 10 && body.len() > 1 && body.starts_with('0') && body.bytes().any(|byte| byte != b'0') {
        return None; // Python refuses 010, so it is text.
    }
    let number = i128::from_str_radix(&body, radix).ok()?;
    let number = if negative { -number } else { number };
    i64::try_from(number).map(Value::from).or_else(|_| u64::try_from(number).map(Value::from)).ok()
}

fn float(token: &str, negative: bool) -> Option<Value> {
    let lower = token.to_ascii_lowercase();
    if !lower.contains(['.', 'e']) {
        return None;
    }
    let (mantissa, exponent) = lower.split_once('e').map_or((lower.as_str(), None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let part =
        |text: &str| if text.is_empty() { Some(String::new()) } else { digits(text, |c| c.is_ascii_digit()) };
    let exponent = match exponent {
        Some(text) => {
            let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
            digits(unsigned, |c| c.is_ascii_digit())?;
            text.replace('_', "")
        }
        None => "0".to_owned(),
    };
    let number: f64 = format!("0{}.{}0e{exponent}", part(whole)?, part(fraction)?).parse().ok()?;
    Number::from_f64(if negative { -number } else { number }).map(Value::Number)
}

/// A dict's key as JSON has it.
fn key_text(key: &Value) -> Option<String> {
    Some(match key {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests;
