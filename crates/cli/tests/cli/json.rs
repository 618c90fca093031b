//! `--output json`: the fields that docs/json.md promises.

use serde_json::Value;

use crate::run::{FAILS, MAKE};
use crate::support::Place;

/// The names of an object's fields.
fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Every field must be told of in the documentation.
fn documented(value: &Value) {
    let docs = include_str!("../../../../docs/json.md");
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                assert!(docs.contains(&format!("`{name}`")), "docs/json.md does not tell of `{name}`");
                // What a step type puts there is its own.
                if !["output", "data", "params", "schema"].contains(&name.as_str()) {
                    documented(inner);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(documented),
        _ => {}
    }
}

#[test]
fn a_run_gives_one_object_a_line_and_ends_with_its_result() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    let ran = place.flow("run fill.toml --output json").exits(1);
    assert_eq!(ran.err, "", "with JSON, standard error is for errors");
    let objects = ran.objects();
    objects.iter().for_each(documented);
    let (result, events) = objects.split_last().unwrap();
    assert!(events.iter().all(|event| event["type"] == "event" || event["type"] == "progress"));
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["event"]["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(
        fields(result),
        [
            "type",
            "run",
            "workflow",
            "outcome",
            "changed",
            "ok",
            "skipped",
            "failures",
            "left_at_work",
            "not_started",
            "undone",
            "kept",
            "to_take_back",
            "not_unwound",
            "waits_for_approval",
            "outputs",
            "locks_kept"
        ]
    );
    assert_eq!(result["outcome"], "failed");
    assert_eq!(result["failures"][0]["task"], "second@web2");
    assert_eq!(result["not_started"].as_array().unwrap().len(), 3);
    place.file("room", "");
    let resumed = place.flow("resume --output json").exits(0).objects();
    assert_eq!(resumed.last().unwrap()["outcome"], "succeeded");
    assert!(
        resumed.iter().all(|object| object["event"]["task"] != "first@web1"),
        "done before, and told again"
    );
}

#[test]
fn everything_else_gives_one_document() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    let plan = place.flow("plan make.toml --output json").exits(2).document();
    assert_eq!(fields(&plan), ["workflow", "changes", "errors", "confirm", "tasks"]);
    assert_eq!(plan["tasks"][0]["finding"], "change");
    let valid = place.flow("validate make.toml --output json").exits(0).document();
    assert_eq!(fields(&valid), ["workflow", "steps", "tasks"]);
    place.flow("run make.toml").exits(0);
    let runs = place.flow("runs --output json").exits(0).document();
    assert_eq!(fields(&runs[0]), ["id", "workflow", "started", "status", "waits_for_approval"]);
    let show = place.flow("show --output json").exits(0).document();
    assert_eq!(fields(&show), ["id", "workflow", "started", "status", "tasks", "events"]);
    assert_eq!(
        fields(&show["tasks"][0]),
        [
            "task",
            "state",
            "attempts",
            "began",
            "ended",
            "change",
            "output",
            "error",
            "undo",
            "not_undoable",
            "pivot",
            "left"
        ]
    );
    let steps = place.flow("steps --output json").exits(0).document();
    let step = place.flow("steps command --output json").exits(0).document();
    assert_eq!(
        fields(&step),
        [
            "name",
            "destructive",
            "undoable",
            "undo_leaves",
            "undo_argument",
            "waits",
            "read_only",
            "version",
            "schema",
            "plugin"
        ]
    );
    assert!(steps.as_array().unwrap().contains(&step));
    let workflows = place.flow("workflows --output json").exits(0).document();
    assert_eq!(fields(&workflows[0]), ["file", "name", "summary", "params"]);
    for document in [plan, valid, runs, show, step, workflows] {
        documented(&document);
    }
}

#[test]
fn an_error_is_an_object_with_the_exit_code_and_the_places() {
    let place = Place::new();
    place.file("make.toml", &MAKE.replace("uses", "usse"));
    let ran = place.flow("run make.toml --output json").exits(3);
    let error = ran.document();
    documented(&error);
    assert_eq!(fields(&error), ["type", "exit_code", "errors"]);
    assert_eq!(error["exit_code"], 3);
    assert_eq!(error["errors"][0]["place"]["line"], 6);
    assert_eq!(error["errors"][0]["code"], "flow::unknown-key");
    let missing = place.flow("show nosuch --output json").exits(3).document();
    documented(&missing);
    assert_eq!(fields(&missing["errors"][0]), ["code", "message", "detail", "hint"]);
}
