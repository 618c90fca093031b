//! Which variables are secret: those out of vaults and what was rendered from them, and those of a secret's name.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Host, Inventory};
use crate::step::{MASK, Redactor};

/// Whether a variable of that name is taken for a secret wherever it stands.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "secret", "token", "_pass", "private_key"]
        .iter()
        .any(|word| name.contains(word))
        && !name.ends_with("_file")
        && !name.ends_with("_path")
}

/// Whether a variable is secret, by its name or by that of a field inside it.
pub(crate) fn holds_a_secret(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => false,
        _ if names_a_secret(name) => true,
        Value::Array(items) => items.iter().any(|item| holds_a_secret("", item)),
        Value::Object(fields) => fields.iter().any(|(name, field)| holds_a_secret(name, field)),
        _ => false,
    }
}

/// All secrets among an inventory's variables.
pub(crate) fn secrets_of(inventory: &Inventory) -> BTreeSet<String> {
    let mut secrets: BTreeSet<String> = inventory.secrets.iter().map(str::to_owned).collect();
    for host in inventory.hosts.values() {
        for (name, value) in &host.vars {
            add_secrets(name, value, &mut secrets);
        }
    }
    secrets
}

/// The texts and numbers of a value that have a secret's name, and all those below such a name.
fn add_secrets(name: &str, value: &Value, secrets: &mut BTreeSet<String>) {
    let name_below = |field: &str| if names_a_secret(name) { name.to_owned() } else { field.to_owned() };
    match value {
        Value::String(text) if names_a_secret(name) => {
            secrets.insert(text.clone());
        }
        Value::Number(number) if names_a_secret(name) => {
            secrets.insert(number.to_string());
        }
        Value::Array(items) => items.iter().for_each(|item| add_secrets(name, item, secrets)),
        Value::Object(fields) => {
            fields.iter().for_each(|(field, inner)| add_secrets(&name_below(field), inner, secrets));
        }
        _ => {}
    }
}

/// Masks secrets in what is shown of an inventory.
pub struct Masked {
    secrets: BTreeSet<String>,
    parts: Redactor,
}

impl Masked {
    /// For the secrets of this inventory.
    pub fn new(inventory: &Inventory) -> Self {
        let secrets = secrets_of(inventory);
        // Inside other text a short one can't be told from a word.
        let long = secrets.iter().filter(|text| text.chars().count() >= 6).map(String::as_str);
        Self { parts: Redactor::new(long), secrets }
    }

    /// A host's variables as they may be shown.
    pub fn vars(&self, host: &Host) -> Map<String, Value> {
        let mut vars = host.vars.clone();
        for (name, value) in &mut vars {
            self.mask(names_a_secret(name), value);
        }
        vars
    }

    fn mask(&self, by_name: bool, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask(by_name, item)),
            Value::Object(fields) => {
                fields.iter_mut().for_each(|(name, field)| self.mask(by_name || names_a_secret(name), field));
            }
            Value::Null | Value::Bool(_) => {}
            Value::String(text) if !by_name && !self.secrets.contains(text) => self.parts.value(value),
            Value::Number(number) if !by_name && !self.secrets.contains(&number.to_string()) => {}
            _ => *value = MASK.into(),
        }
    }
}
