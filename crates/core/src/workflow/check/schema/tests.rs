use serde_json::json;

use super::*;

#[test]
fn a_schema_that_leads_to_itself_is_left_to_the_step_type() {
    let round = json!({ "$ref": "#/properties/a" });
    for of in ["anyOf", "oneOf", "allOf"] {
        for branches in [vec![round.clone()], vec![round.clone(); 20]] {
            let schema = json!({ "properties": { "a": { of: branches } } });
            let values = json!({ "a": { "b": [1, { "c": "x" }] } });
            let _ = check_values(&schema, values.as_object().unwrap());
        }
    }
    let list = json!({ "properties": { "a": { "items": { "$ref": "#/properties/a" }, "type": "array" } } });
    let values = json!({ "a": [[[[1]]]] });
    assert_eq!(check_values(&list, values.as_object().unwrap()), Err("`a` must be a list".to_owned()));
}
