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
    /// Each is also known in the form it takes inside a JSON string, and each line of one with
    /// several lines (a private key) by itself.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Vec::new();
        for secret in secrets {
            if secret.trim().is_empty() {
                continue;
            }
            known.push(secret.to_owned());
            known.extend(secret.lines().filter(|line| line.len() >= 8 && *line != secret).map(str::to_owned));
            let json = Value::from(secret).to_string();
            let json = &json[1..json.len() - 1];
            if json != secret {
                known.push(json.to_owned());
            }
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
    fn a_secret_that_holds_another_is_masked_whole() {
        let redactor = Redactor::new(["abc", "abcdef"]);
        assert_eq!(redactor.text("abcdef"), MASK);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Secret::new("hidden")), MASK);
    }
}
