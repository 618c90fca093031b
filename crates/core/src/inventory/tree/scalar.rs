//! Plain scalars by PyYAML's implicit types, YAML 1.1.

use serde_json::{Number, Value};

/// The value of an unquoted scalar. What is none of the types is text; dates and what JSON can't
/// hold (`.inf`, `.nan`) are text too.
pub(super) fn typed(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    integer(text)
        .or_else(|| float(text).and_then(Number::from_f64).map(Value::Number))
        .unwrap_or_else(|| Value::from(text))
}

fn sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

/// `[-+]?` and `0b..`, `0x..`, `0..` (octal), decimal, or sexagesimal (`1:30` is 90).
fn integer(text: &str) -> Option<Value> {
    let (negative, body) = sign(text);
    let first = body.chars().next().filter(char::is_ascii_digit)?;
    let clean = body.replace('_', "");
    let number = if let Some(digits) = body.strip_prefix("0b") {
        radix(digits, 2)?
    } else if let Some(digits) = body.strip_prefix("0x") {
        radix(digits, 16)?
    } else if first == '0' && body.len() > 1 {
        radix(&body[1..], 8)?
    } else if body.contains(':') {
        sexagesimal(&clean, true)? as i128
    } else {
        radix(body, 10)?
    };
    let number = if negative { -number } else { number };
    i64::try_from(number).map(Value::from).or_else(|_| u64::try_from(number).map(Value::from)).ok()
}

fn radix(digits: &str, radix: u32) -> Option<i128> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix) || c == '_') {
        return None;
    }
    let clean = digits.replace('_', "");
    i128::from_str_radix(&clean, radix).ok()
}

/// `[-+]?` and digits with a point; an exponent needs its sign, as PyYAML wants it.
fn float(text: &str) -> Option<f64> {
    let (negative, body) = sign(text);
    let signed = body.len() != text.len();
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '_');
    if !digits(fraction) || fraction.starts_with('_') && whole.is_empty() {
        return None;
    }
    if whole.contains(':') && exponent.is_none() {
        let value = sexagesimal(&whole.replace('_', ""), false)?;
        let part: f64 = format!("0.{}0", fraction.replace('_', "")).parse().ok()?;
        let value = value + part;
        return Some(if negative { -value } else { value });
    }
    let starts_well = match whole.chars().next() {
        Some(c) => c.is_ascii_digit() && digits(whole),
        None => !signed && !fraction.is_empty(),
    };
    if !starts_well {
        return None;
    }
    let exponent = match exponent {
        Some(exponent) => {
            let unsigned = exponent.strip_prefix(['-', '+'])?;
            (!unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit())).then_some(exponent)?
        }
        None => "0",
    };
    let number = format!("0{}.{}0e{exponent}", whole.replace('_', ""), fraction.replace('_', ""));
    number.parse::<f64>().ok().map(|value| if negative { -value } else { value })
}

/// `1:30:05`: each part but the first below 60.
fn sexagesimal(text: &str, whole: bool) -> Option<f64> {
    let mut parts = text.split(':');
    let first = parts.next()?;
    if first.is_empty() || (whole && first.starts_with('0')) || !first.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut value: f64 = first.parse().ok()?;
    for part in parts {
        let number: u32 = part.parse().ok()?;
        if part.is_empty() || part.len() > 2 || number >= 60 || part.starts_with('+') {
            return None;
        }
        value = value * 60.0 + f64::from(number);
    }
    Some(value)
}
