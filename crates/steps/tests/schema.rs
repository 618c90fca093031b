//! The JSON Schema of workflows: `docs/workflow.schema.json` is the one of these step types, and what flow
//! ships is right by it.

#![expect(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::path::Path;

use flow_core::step::Registry;
use flow_core::workflow::json_schema;
use serde_json::{Value, json};

fn schema() -> Value {
    let mut registry = Registry::new();
    flow_steps::register(&mut registry);
    json_schema(&registry)
}

/// What is wrong with a workflow by the schema.
fn faults(text: &str) -> Vec<String> {
    let document = serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap();
    let validator = jsonschema::draft7::new(&schema()).unwrap();
    validator.iter_errors(&document).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

#[test]
fn the_file_in_docs_is_the_schema_of_these_step_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/workflow.schema.json");
    let now = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == now, "docs/workflow.schema.json is not current; UPDATE_EXPECT=1 writes it anew");
}

#[test]
fn it_is_a_schema_and_has_no_reference_to_nowhere() {
    let schema = schema();
    jsonschema::draft7::meta::validate(&schema).unwrap();
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        assert!(schema.pointer(&reference[1..]).is_some(), "{reference}");
    }
}

#[test]
fn every_shipped_workflow_is_right_by_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What `flow test` reads beside a workflow is none.
        if name.ends_with(".toml") && !name.ends_with(".test.toml") {
            assert_eq!(faults(&std::fs::read_to_string(&entry).unwrap()), [""; 0], "{}", entry.display());
            found += 1;
        }
    }
    assert!(found >= 2);
}

#[test]
fn arguments_are_those_of_the_step_type_and_may_be_templates() {
    let step = |step: &str| format!("name = \"n\"\nsummary = \"s\"\n[steps.a]\n{step}\n");
    for right in [
        "uses = \"systemd.unit\"\nwith = { unit = \"a.service\", state = \"stopped\", enabled = true }",
        "uses = \"systemd.unit\"\nwith = { unit = \"a.service\", state = \"{{ params.state }}\", enabled = \"{{ 1 == 1 }}\" }",
        "uses = \"package\"\nwith = { names = \"{{ params.names }}\" }",
        "uses = \"package\"\nwith = { names = [\"a\", \"{{ params.name }}\"] }",
        "uses = \"postgres.query\"\nwith = { sql = \"SELECT 1\", password = \"{{ params.password }}\" }",
        "uses = \"workflow\"\nwith = { file = \"a.toml\", params = { a = 1 } }",
        "uses = \"command\"\nhosts = { from = \"{{ steps.b.c }}\", within = \"all\" }\nserial = \"30%\"\nwith = { script = \"true\" }",
    ] {
        assert_eq!(faults(&step(right)), [""; 0], "{right}");
    }
    for wrong in [
        "uses = \"systemd.unit\"",
        "uses = \"systemd.unit\"\nwith = { unit = \"a.service\", state = \"gone\" }",
        "uses = \"systemd.unit\"\nwith = { unit = \"a.service\", state = \"stopped\", enabled = \"yes\" }",
        "uses = \"systemd.unit\"\nwith = { unit = \"a.service\", state = \"stopped\", path = \"/\" }",
        "uses = \"package\"\nwith = { names = \"a\" }",
        "uses = \"postgres.query\"\nwith = { sql = \"SELECT 1\", password = \"hunter2\" }",
        "uses = \"workflow\"\nwith = { params = { a = 1 } }",
        "uses = \"no.such\"",
        "uses = \"command\"\nhosts = { from = \"a\", within = \"all\" }\nwith = { script = \"true\" }",
        "uses = \"command\"\nserial = 0\nwith = { script = \"true\" }",
        "uses = \"command\"\nforeach = \"all\"\nwith = { script = \"true\" }",
    ] {
        assert_ne!(faults(&step(wrong)), [""; 0], "{wrong}");
    }
}

#[test]
fn editors_find_words_for_keys_arguments_and_step_types() {
    let schema = schema();
    let at = |pointer: &str| schema.pointer(pointer).unwrap_or(&Value::Null).clone();
    assert!(at("/definitions/step/properties/needs/description").is_string());
    assert!(at("/definitions/with.systemd.unit/properties/unit/description").is_string());
    let uses = at("/definitions/step/properties/uses");
    let names = uses["enum"].as_array().unwrap().len();
    assert_eq!(uses["x-taplo"]["docs"]["enumValues"].as_array().unwrap().len(), names);
    let hints = at("/definitions/step/anyOf");
    assert_eq!(hints[0], json!({}), "the first takes anything");
    assert_eq!(hints.as_array().unwrap().len(), names + 1);
}
