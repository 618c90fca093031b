//! The JSON Schema of workflows, draft 7, for editors: the language's own types, and for each step type
//! its arguments. Where a typed value stands, a template may stand too.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::documents::INCLUDE;
use super::language::{Document, Include, TEMPLATE, WHOLE};
use crate::step::Registry;

/// Where definitions stand in draft 7.
const DEFINITIONS: &str = "#/definitions/";

/// The schema of workflows that use these step types.
pub fn json_schema(registry: &Registry) -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut root = generator.into_root_schema_for::<Document>().to_value();
    without_null(&mut root);
    let mut types: Vec<(String, String)> = Vec::new();
    let mut definitions = Map::new();
    for info in registry.iter() {
        let name = format!("with.{}", info.name);
        let mut schema = info.schema.clone().to_value();
        let own = take(&mut schema, "$defs");
        for key in ["$schema", "title"] {
            take(&mut schema, key);
        }
        for (own, mut schema) in own.as_ref().and_then(Value::as_object).into_iter().flatten().map(pair) {
            fit(&mut schema, &name);
            definitions.insert(format!("{name}.{own}"), schema);
        }
        fit(&mut schema, &name);
        definitions.insert(name, schema);
        types.push((info.name.to_owned(), first_line(info.summary())));
    }
    let mut include = SchemaSettings::draft07().into_generator().into_root_schema_for::<Include>().to_value();
    without_null(&mut include);
    for key in ["$schema", "title", "definitions"] {
        take(&mut include, key);
    }
    definitions.insert(format!("with.{INCLUDE}"), include);
    types.push((INCLUDE.to_owned(), "Runs another workflow in the place of this step.".to_owned()));
    types.sort();

    if let Some(step) = root.pointer_mut("/definitions/step").and_then(Value::as_object_mut) {
        arguments(step, &types, &definitions);
    }
    if let Some(all) = root.get_mut("definitions").and_then(Value::as_object_mut) {
        all.append(&mut definitions);
    }
    if let Some(root) = root.as_object_mut() {
        root.insert("title".to_owned(), "flow workflow".into());
    }
    root
}

/// Makes `uses` decide what `with` takes.
///
/// `if` and `then`, one in the other's `else`, tell what is wrong. Editors that complete by walking down
/// `anyOf` (Taplo) find the arguments there; its first branch takes anything, so that it never tells.
fn arguments(step: &mut Map<String, Value>, types: &[(String, String)], definitions: &Map<String, Value>) {
    let names: Vec<&str> = types.iter().map(|(name, _)| name.as_str()).collect();
    let texts: Vec<&str> = types.iter().map(|(_, text)| text.as_str()).collect();
    if let Some(uses) = step.get_mut("properties").and_then(|all| all.get_mut("uses")) {
        uses["enum"] = json!(names);
        uses["x-taplo"] = json!({ "docs": { "enumValues": texts } });
    }
    let mut decided = Value::Bool(true);
    let mut hints = vec![json!({})];
    for (name, _) in types.iter().rev() {
        let with = json!({ "properties": { "with": { "$ref": format!("{DEFINITIONS}with.{name}") } } });
        let needed = definitions[&format!("with.{name}")].get("required").and_then(Value::as_array);
        let mut then = with.clone();
        if needed.is_some_and(|needed| !needed.is_empty()) {
            then["required"] = json!(["with"]);
        }
        decided = json!({
            "if": { "properties": { "uses": { "const": name } }, "required": ["uses"] },
            "then": then,
            "else": decided,
        });
        hints.insert(1, with);
    }
    if let Value::Object(decided) = decided {
        step.extend(decided);
    }
    step.insert("anyOf".to_owned(), hints.into());
}

fn pair((name, schema): (&String, &Value)) -> (String, Value) {
    (name.clone(), schema.clone())
}

fn first_line(text: &str) -> String {
    text.split("\n\n").next().unwrap_or_default().replace('\n', " ")
}

fn take(schema: &mut Value, key: &str) -> Option<Value> {
    schema.as_object_mut()?.remove(key)
}

/// Makes a step type's schema one of draft 7 in which templates may stand for values.
fn fit(schema: &mut Value, owner: &str) {
    without_null(schema);
    in_place(schema, owner);
}

/// A schema whose place in a document is settled: looks into it, and leaves itself as it is.
fn in_place(schema: &mut Value, owner: &str) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(Value::String(reference)) = fields.get_mut("$ref")
        && let Some(name) = reference.strip_prefix("#/$defs/")
    {
        *reference = format!("{DEFINITIONS}{owner}.{name}");
    }
    for key in ["properties", "patternProperties"] {
        if let Some(Value::Object(properties)) = fields.get_mut(key) {
            properties.values_mut().for_each(|property| or_template(property, owner));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key).filter(|inner| inner.is_object()) {
            or_template(inner, owner);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(branches)) = fields.get_mut(key) {
            branches.iter_mut().for_each(|branch| in_place(branch, owner));
        }
    }
}

/// A value's schema: what it takes, or a template.
fn or_template(schema: &mut Value, owner: &str) {
    in_place(schema, owner);
    let Some(fields) = schema.as_object_mut() else { return };
    let plain_text = fields.get("type") == Some(&"string".into()) && !fields.contains_key("enum");
    if fields.remove("writeOnly").is_some() {
        fields.insert("pattern".to_owned(), TEMPLATE.into()); // A secret never stands in a workflow.
        return;
    }
    let anything = !["type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf"]
        .iter()
        .any(|key| fields.contains_key(*key));
    if anything || plain_text && !fields.contains_key("pattern") {
        return;
    }
    let texts = plain_text || ["enum", "oneOf", "allOf", "$ref"].iter().any(|key| fields.contains_key(*key));
    let template = json!({ "type": "string", "pattern": if texts { TEMPLATE } else { WHOLE } });
    let mut outer = Map::new();
    for key in ["description", "default"] {
        if let Some(value) = fields.remove(key) {
            outer.insert(key.to_owned(), value);
        }
    }
    let inner = std::mem::take(fields);
    outer.insert("anyOf".to_owned(), json!([inner, template]));
    *fields = outer;
}

/// TOML has no null: leaving a key out is how it is written.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            for key in ["anyOf", "oneOf"] {
                let Some(Value::Array(branches)) = fields.get_mut(key) else { continue };
                branches.retain(|branch| branch.get("type") != Some(&"null".into()));
                if let [Value::Object(only)] = &branches[..] {
                    let only = only.clone();
                    fields.remove(key);
                    // A reference's neighbours don't count in draft 7.
                    if only.contains_key("$ref") && !fields.is_empty() {
                        fields.insert("allOf".to_owned(), json!([only]));
                    } else {
                        // What is said of the key goes before what is said of its type.
                        only.into_iter().for_each(|(key, value)| {
                            fields.entry(key).or_insert(value);
                        });
                    }
                }
            }
            if fields.len() > 1
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(schema: &Value, pointer: &str) -> Vec<String> {
        let mut keys: Vec<String> =
            schema.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    }

    /// A key that the parser takes must be in `language.rs` too, with its words for editors.
    #[test]
    fn the_schema_has_the_keys_that_the_parser_takes() {
        let schema = json_schema(&Registry::new());
        for (pointer, known) in [
            ("/properties", crate::workflow::parse::KEYS),
            ("/definitions/step/properties", crate::workflow::parse::STEP_KEYS),
            ("/definitions/param/properties", crate::workflow::parse::PARAM_KEYS),
        ] {
            let mut known: Vec<&str> = known.to_vec();
            known.sort_unstable();
            assert_eq!(keys(&schema, pointer), known, "{pointer}: workflow/language.rs");
        }
        assert_eq!(keys(&schema, "/definitions/with.workflow/properties"), ["file", "params", "tags"]);
    }

    #[test]
    fn every_key_says_what_it_is_for() {
        let schema = json_schema(&Registry::new());
        for pointer in ["/properties", "/definitions/step/properties", "/definitions/param/properties"] {
            for (name, property) in schema.pointer(pointer).unwrap().as_object().unwrap() {
                assert!(property.get("description").is_some(), "{pointer}/{name}");
            }
        }
    }
}
