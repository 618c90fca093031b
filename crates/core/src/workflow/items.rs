//! The items of `foreach`, and the key under which each stands in the names of tasks.

use std::collections::HashMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A list longer than this is refused.
pub const MAX_ITEMS: usize = 10_000;
/// A key longer than this is cut, and ends in a digest: bytes.
const MAX_KEY: usize = 64;
/// What of a longer key is kept: bytes.
const KEPT: usize = 48;

/// One item of a `foreach`.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What `steps.NAME.items[...]` finds it by: a text as it is, a table's `name`.
    pub label: String,
    /// The same as it stands in a task's name: `create[KEY]@host`.
    pub key: String,
    /// Its place in the list, from 0.
    pub index: usize,
    /// The item itself.
    pub value: Value,
}

/// Why a list can't be gone through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemFault {
    /// It isn't a list; this is what it is.
    NoList(String),
    /// More than [`MAX_ITEMS`]: so many.
    TooMany(usize),
    /// This item, counted from 0, has no key.
    NoKey(usize),
    /// Two items, counted from 0, have the same key.
    Twice(usize, usize, String),
}

impl ItemFault {
    /// What is wrong, as a fragment.
    pub fn message(&self) -> String {
        match self {
            Self::NoList(what) => format!("`foreach` must be a list, this is {what}"),
            Self::TooMany(count) => format!("`foreach` has {count} items, {MAX_ITEMS} are the limit"),
            Self::NoKey(at) => format!("item {} can't be told from others by name", at + 1),
            Self::Twice(first, again, label) => {
                format!("`{label}` is in `foreach` twice: items {} and {}", first + 1, again + 1)
            }
        }
    }

    /// What would be right.
    pub fn help(&self) -> String {
        match self {
            Self::NoList(_) => "write: foreach = [\"ITEM\"] or foreach = \"{{ params.NAME }}\"".to_owned(),
            Self::TooMany(_) => "let one step go through the list itself".to_owned(),
            Self::NoKey(_) => {
                "an item is a text that isn't empty, a number, a boolean, or a table with such a `name`".to_owned()
            }
            Self::Twice(..) => {
                "each item's task is named after it: leave one out, or make it a table with a `name` of its own"
                    .to_owned()
            }
        }
    }
}

/// The items of a list, each with a key of its own.
pub fn items(list: Value) -> Result<Vec<Item>, ItemFault> {
    let Value::Array(values) = list else {
        return Err(ItemFault::NoList(list.to_string()));
    };
    if values.len() > MAX_ITEMS {
        return Err(ItemFault::TooMany(values.len()));
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(values.len());
    let mut items = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let label = label(&value).ok_or(ItemFault::NoKey(index))?;
        let key = key(&label);
        if let Some(first) = seen.insert(key.clone(), index) {
            return Err(ItemFault::Twice(first, index, label));
        }
        items.push(Item { label, key, index, value });
    }
    Ok(items)
}

/// What an item is called.
pub(super) fn label(value: &Value) -> Option<String> {
    let value = match value {
        Value::Object(fields) => fields.get("name")?,
        value => value,
    };
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A label as a part of a task's name.
///
/// Letters, digits and `. _ - : / +` stand as they are, every other byte as `%` and two hexadecimal
/// digits: so a key has no bracket and no `@`, and no two labels have the same. One that is too long is
/// cut, and ends in `~` and a digest of the whole.
fn key(label: &str) -> String {
    let mut key = String::with_capacity(label.len());
    for c in label.chars() {
        if c.is_alphanumeric() || "._-:/+".contains(c) {
            key.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                key.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if key.len() <= MAX_KEY {
        return key;
    }
    let kept = (0..=KEPT).rev().find(|at| key.is_char_boundary(*at)).unwrap_or(0);
    let digest: String =
        Sha256::digest(label.as_bytes())[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}~{digest}", &key[..kept])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn keys(list: Value) -> Vec<String> {
        items(list).unwrap().into_iter().map(|item| item.key).collect()
    }

    #[test]
    fn keys_are_made_of_the_items_and_never_hold_what_parts_a_name() {
        assert_eq!(
            keys(json!(["app", "/var/lib", "a b", "x@y[0]", "ü", 5, true, { "name": "t", "size": 1 }])),
            ["app", "/var/lib", "a%20b", "x%40y%5B0%5D", "ü", "5", "true", "t"]
        );
        assert!(items(json!([])).unwrap().is_empty());
    }

    #[test]
    fn a_long_item_is_cut_and_stays_apart_from_one_that_begins_the_same() {
        let long = "x".repeat(300);
        let keys = keys(json!([long, format!("{long}y"), "ü".repeat(60)]));
        assert!(keys.iter().all(|key| key.len() <= MAX_KEY && key.contains('~')), "{keys:?}");
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn lists_that_cannot_be_gone_through_are_refused() {
        assert_eq!(items(json!("a")).unwrap_err(), ItemFault::NoList("\"a\"".to_owned()));
        assert_eq!(items(json!([1, "1"])).unwrap_err(), ItemFault::Twice(0, 1, "1".to_owned()));
        for bad in
            [json!([""]), json!([["a"]]), json!([null]), json!([{ "size": 1 }]), json!([{ "name": [] }])]
        {
            assert_eq!(items(bad).unwrap_err(), ItemFault::NoKey(0));
        }
        let many = Value::from((0..=MAX_ITEMS).collect::<Vec<_>>());
        assert_eq!(items(many).unwrap_err(), ItemFault::TooMany(MAX_ITEMS + 1));
    }

    proptest! {
        #[test]
        fn different_items_have_different_keys(a in "\\PC{1,90}", b in "\\PC{1,90}") {
            let keys = (key(&a), key(&b));
            prop_assert_eq!(keys.0 == keys.1, a == b);
            prop_assert!(!keys.0.contains(['@', '[', ']', ' ', '\n']));
        }
    }
}
