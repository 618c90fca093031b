//! `flow steps`: the step types and their arguments, from their own documentation.

use console::style;
use flow_core::step::{StepInfo, Undoability};
use flow_core::workflow::nearest;
use serde_json::{Value, json};

use crate::args::{Format, Global, StepsArgs};
use crate::exit::{Error, Exit};
use crate::{context, screen};

pub fn steps(global: &Global, args: &StepsArgs) -> Result<Exit, Error> {
    let registry = context::registry();
    let Some(name) = &args.step_type else {
        for (source, why) in registry.problems() {
            screen::tell(&format!("{} {source} is left out: {why}", style("note:").for_stderr().cyan()));
        }
        if global.output == Format::Json {
            screen::json(&registry.iter().map(as_json).collect::<Vec<_>>());
            return Ok(Exit::Success);
        }
        let width = registry.iter().map(|info| info.name.len()).max().unwrap_or(0);
        for info in registry.iter() {
            let summary = info.summary().lines().next().unwrap_or_default();
            let from = info.origin.as_ref().map(|origin| format!(" ({})", origin.path.display()));
            let from = from.unwrap_or_default();
            screen::line(&format!("{:width$}  {summary}{}{from}", info.name, marks(info)));
        }
        return Ok(Exit::Success);
    };
    let Some(info) = registry.get(name) else {
        if let Some(why) = registry.why_not(name) {
            let hint = "mend the plugin, or take it away from the plugin path";
            return Err(Error::refused(format!("the step type `{name}` can't be had: {why}"), hint));
        }
        let hint = match nearest(name, registry.names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`flow steps` lists them".to_owned(),
        };
        return Err(Error::refused(format!("there is no step type `{name}`"), hint));
    };
    if global.output == Format::Json {
        screen::json(&as_json(info));
    } else {
        show(info);
    }
    Ok(Exit::Success)
}

fn as_json(info: &StepInfo) -> Value {
    json!({
        "name": info.name, "destructive": info.destructive, "undoable": info.undoable, "undo_leaves": info.undo_leaves,
        "undo_argument": info.undo_argument, "waits": info.waits, "read_only": info.read_only,
        "version": info.version, "schema": info.schema, "plugin": info.origin,
    })
}

fn marks(info: &StepInfo) -> String {
    let mut marks = Vec::new();
    if info.destructive {
        marks.push("destructive");
    }
    if info.read_only {
        marks.push("only looks");
    }
    if marks.is_empty() { String::new() } else { format!(" [{}]", marks.join(", ")) }
}

fn show(info: &StepInfo) {
    screen::line(&format!("{}{}", info.name, marks(info)));
    screen::line("");
    screen::indented(info.description(), 2);
    let empty = serde_json::Map::new();
    let properties = info.schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> = info
        .schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if !properties.is_empty() {
        screen::line("\nArguments:");
    }
    for (name, schema) in properties {
        let must = if required.contains(&name.as_str()) { ", required".to_owned() } else { default(schema) };
        screen::line(&format!("  {name} ({}{must})", type_name(schema, info.schema.as_value())));
        if let Some(text) = schema.get("description").and_then(Value::as_str) {
            screen::indented(text, 6);
        }
    }
    let taken_back = match (info.undoability(|_| true), info.undo_argument) {
        (Undoability::Nothing, _) if info.read_only => None,
        (Undoability::Nothing, _) => Some("It changes nothing: there is nothing to take back.".to_owned()),
        (Undoability::Impossible(why), _) => Some(format!("What it does can't be taken back: {why}.")),
        (_, Some(argument)) => Some(format!("What it does can be taken back where `{argument}` is given.")),
        (_, None) => Some(match info.undo_leaves {
            Some(leaves) => format!("What it does can be taken back; what stays: {leaves}."),
            None => "What it does can be taken back.".to_owned(),
        }),
    };
    if let Some(text) = taken_back {
        screen::line(&format!("\n{text}"));
    }
    if let Some(origin) = &info.origin {
        screen::line(&format!("\nFrom the plugin {}, version {}", origin.path.display(), info.version));
        screen::line(&format!("  SHA-256 {}", origin.sha256));
        for (file, sha256) in &origin.files {
            screen::line(&format!("  SHA-256 {sha256}  {file}"));
        }
    }
}

fn default(schema: &Value) -> String {
    match schema.get("default") {
        None | Some(Value::Null) => String::new(),
        Some(value) => format!(", default {value}"),
    }
}

/// A schema's type in words.
fn type_name(schema: &Value, root: &Value) -> String {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#'));
        return target.map_or_else(|| "value".to_owned(), |target| type_name(target, root));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    if let Some(constant) = schema.get("const") {
        return constant.to_string();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array) {
            let names: Vec<String> =
                choices.iter().map(|choice| type_name(choice, root)).filter(|name| name != "null").collect();
            return names.join(" | ");
        }
    }
    let of = |name: &str| match name {
        "array" => match schema.get("items") {
            Some(items) => format!("list of {}", type_name(items, root)),
            None => "list".to_owned(),
        },
        "object" => "table".to_owned(),
        name => name.to_owned(),
    };
    match schema.get("type") {
        Some(Value::String(name)) => of(name),
        Some(Value::Array(names)) => {
            let names: Vec<String> =
                names.iter().filter_map(Value::as_str).filter(|n| *n != "null").map(of).collect();
            names.join(" | ")
        }
        _ => "value".to_owned(),
    }
}
