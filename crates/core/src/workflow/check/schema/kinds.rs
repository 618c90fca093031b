//! What kind of value a schema names, and of what kind a value is.

use serde_json::Value;

use crate::workflow::parse::literal;
use crate::workflow::{Argument, ArgumentKind};

/// How many values an argument is made of.
pub(super) fn size(argument: &Argument) -> usize {
    match &argument.kind {
        ArgumentKind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        ArgumentKind::Table(fields) => 1 + fields.values().map(size).sum::<usize>(),
        ArgumentKind::Text(_) | ArgumentKind::Plain(_) => 1,
    }
}

/// Whether it is the schema of null.
pub(super) fn is_null(schema: &Value) -> bool {
    schema.get("type") == Some(&Value::from("null"))
}

/// The JSON types that a schema names; none means any.
pub(super) fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a value is of a type that a schema names.
pub(super) fn fits(schema: &Value, value: &Argument) -> bool {
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|kind| match (*kind, &value.kind) {
            ("string", ArgumentKind::Text(_))
            | ("array", ArgumentKind::List(_))
            | ("object", ArgumentKind::Table(_)) => true,
            ("boolean", ArgumentKind::Plain(value)) => value.is_boolean(),
            ("integer", ArgumentKind::Plain(value)) => value.is_i64() || value.is_u64(),
            ("number", ArgumentKind::Plain(value)) => value.is_number(),
            _ => false,
        })
}

/// Whether a table's literal fields agree with what the schema fixes, such as the tag of an enum.
pub(super) fn tag_fits(schema: &Value, value: &Argument) -> bool {
    let (ArgumentKind::Table(fields), Some(properties)) =
        (&value.kind, schema.get("properties").and_then(Value::as_object))
    else {
        return true;
    };
    properties.iter().all(|(name, property)| match (property.get("const"), fields.get(name)) {
        (Some(fixed), Some(field)) => field.is_dynamic() || literal(field) == *fixed,
        _ => true,
    })
}
