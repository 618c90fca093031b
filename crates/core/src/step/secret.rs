//! Secrets: a type that shows itself nowhere, and the masking of text that may hold one.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "••••••";

/// Text that must not be shown. It can't be serialized, and its `Debug` is a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Call it only where it is handed to what needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// Masks every known secret in what is stored, shown or logged.
#[derive(Clone, Default)]
pub struct Redactor(Vec<String>);

impl Redactor {
    /// A redactor of these secrets. Empty ones are passed over.
    ///
    /// Each is also known in its usual other forms: inside a JSON string, inside a URL, in a shell's quotes, in
    /// base 64 (an HTTP header); and each line of one with several lines (a private key)
    /// by itself.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Vec::new();
        for secret in secrets {
            if secret.trim().is_empty() {
                continue;
            }
            known.push(secret.to_owned());
            known.extend(secret.lines().filter(|line| line.len() >= 8 && *line != secret).map(str::to_owned));
            let json = Value::from(secret).to_string();
            let forms =
                [json[1..json.len() - 1].to_owned(), in_url(secret), in_shell(secret), base64(secret)];
            known.extend(forms.into_iter().filter(|form| form != secret));
        }
        // Longest first, so that a secret that contains another is masked whole.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        Self(known)
    }

    /// True where there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text with every secret masked.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), MASK));
            }
        }
        text
    }

    /// Masks in every string of a value, keys included.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(masked) = self.text(text) {
                    *text = masked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                let keys: Vec<String> =
                    fields.keys().filter(|k| matches!(self.text(k), Cow::Owned(_))).cloned().collect();
                for key in keys {
                    if let Some(field) = fields.remove(&key) {
                        fields.insert(self.text(&key).into_owned(), field);
                    }
                }
                fields.values_mut().for_each(|field| self.value(field));
            }
            Value::Number(number) => {
                // A secret made of digits is a number once YAML or TOML has read it.
                let text = number.to_string();
                if self.0.contains(&text) {
                    *value = Value::from(MASK);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// Percent-encoded.
fn in_url(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(byte);
    let coded = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(coded).collect()
}

/// As it stands between single quotes.
fn in_shell(text: &str) -> String {
    text.replace('\'', r"'\''")
}

/// RFC 4648, without the padding and the last character, which depend on what follows.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digits =
            (0..chunk.len()).map(|place| char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
        coded.extend(digits);
        if chunk.len() == 3 {
            coded.push(char::from(DIGITS[(bits & 63) as usize]));
        }
    }
    coded
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_in_text_in_values_and_in_json_form() {
        let redactor = Redactor::new(["pa\"ss", "1234567"]);
        assert_eq!(redactor.text("x pa\"ss y"), format!("x {MASK} y"));
        assert_eq!(redactor.text(r#"{"k":"pa\"ss"}"#), format!(r#"{{"k":"{MASK}"}}"#));
        let mut value = serde_json::json!({ "a": ["pa\"ss"], "n": 1234567, "m": 12345678 });
        redactor.value(&mut value);
        assert_eq!(value, serde_json::json!({ "a": [MASK], "n": MASK, "m": 12345678 }));
    }

    #[test]
    fn a_secret_is_masked_in_its_usual_other_forms() {
        let redactor = Redactor::new(["it's 1+1"]);
        for (form, masked) in [
            ("GET /?t=it%27s%201%2B1", format!("GET /?t={MASK}")),
            (r"P='it'\''s 1+1'", format!("P='{MASK}'")),
            ("aXQncyAxKzE=", format!("{MASK}E=")),
        ] {
            assert_eq!(redactor.text(form), masked);
        }
    }

    #[test]
    fn a_secret_that_holds_another_is_masked_whole() {
        let redactor = Redactor::new(["abc", "abcdef"]);
        assert_eq!(redactor.text("abcdef"), MASK);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Secret::new("hidden")), MASK);
    }
}
