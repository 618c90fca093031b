use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::parse;
use crate::workflow::{ArgumentKind, Diagnostics, Hosts, ParamKind, Retry, Serial, Source, Workflow};

/// A document with every key of the language.
const FULL: &str = r#"
name = "restart-patroni"
summary = "Restart Patroni on every member, one at a time."
description = """
Replicas first,
the leader last.
"""
whole = true
confirm = "{{ params.scope }}"
params_from = "deploy.toml"

[params.scope]
type = "string"
help = "Patroni scope, the cluster's name"

[params.version]
type = "integer"
default = "{{ group_var('promoters', 'postgres_version') }}"

[params.mode]
type = "string"
choices = ["reset", "keep"]
default = "keep"

[params.password]
type = "secret"
default = "{{ group_var('promoters', 'password') }}"

[params.names]
type = "list"
default = []

[steps.stop-replicas]
uses = "systemd.unit"
with = { name = "patroni.service", limits = [1, 2.5, { hard = true }] }
hosts = "promoters:!patroni1"
serial = "30%"
tags = ["stop"]
if = "params.mode == 'reset'"
retries = 3
backoff = "500ms"
timeout = "1m 30s"
help = "Stops the replicas."

[steps.verify]
uses = "command"
needs = ["stop-replicas"]
guards = ["stop-replicas"]
hosts = "promoters"
serial = 1
with.command = "true"

[steps.after]
uses = "command"
needs_per_host = ["verify"]
hosts = "promoters"

[outputs]
leader = "{{ steps.verify.stdout }}"
"#;

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source { name: "test.toml".to_owned(), text: text.to_owned() })
}

fn read(text: &str) -> Result<Workflow, Diagnostics> {
    parse(&source(text))
}

fn messages(text: &str) -> Vec<String> {
    read(text).unwrap_err().0.into_iter().map(|one| one.message).collect()
}

#[test]
fn every_key_is_read() {
    let workflow = read(FULL).unwrap();
    assert_eq!(workflow.name.value, "restart-patroni");
    assert!(workflow.whole);
    assert_eq!(workflow.description.unwrap().value, "Replicas first,\nthe leader last.\n");
    assert_eq!(workflow.confirm.unwrap().value, "{{ params.scope }}");
    assert_eq!(workflow.params_from.unwrap().value, "deploy.toml");
    let kinds: Vec<_> = workflow.params.values().map(|param| param.kind).collect();
    assert_eq!(
        kinds,
        [ParamKind::String, ParamKind::Integer, ParamKind::String, ParamKind::Secret, ParamKind::List]
    );
    assert!(workflow.params["scope"].default.is_none());
    let choices: Vec<_> = workflow.params["mode"].choices.iter().map(|choice| choice.value.clone()).collect();
    assert_eq!(choices, [json!("reset"), json!("keep")]);

    let stop = &workflow.steps["stop-replicas"];
    assert_eq!(stop.uses.value, "systemd.unit");
    assert_eq!(stop.hosts.as_ref().unwrap().value, Hosts::Pattern("promoters:!patroni1".to_owned()));
    assert_eq!(stop.serial, Some(Serial::Percent(30)));
    assert_eq!(stop.tags[0].value, "stop");
    assert_eq!(stop.condition.as_ref().unwrap().value, "params.mode == 'reset'");
    assert_eq!(stop.retry, Retry { retries: 3, backoff: Duration::from_millis(500) });
    assert_eq!(stop.timeout, Some(Duration::from_secs(90)));
    assert_eq!(stop.help.as_deref(), Some("Stops the replicas."));

    let verify = &workflow.steps["verify"];
    assert_eq!(verify.needs[0].value, "stop-replicas");
    assert_eq!(verify.guards[0].value, "stop-replicas");
    assert_eq!(verify.serial, Some(Serial::Count(1)));
    assert_eq!(verify.retry, Retry::default());
    assert_eq!(verify.timeout, None);
    assert_eq!(workflow.steps["after"].needs_per_host[0].value, "verify");
    assert!(workflow.outputs["leader"].is_dynamic());
}

#[test]
fn steps_keep_the_order_of_the_text_and_values_their_places() {
    let text = "name = \"n\"\nsummary = \"s\"\n[steps.b]\nuses = \"x\"\nwith = { k = [\"v\"] }\n[steps.a]\nuses = \"y\"\n";
    let workflow = read(text).unwrap();
    assert_eq!(workflow.steps.keys().collect::<Vec<_>>(), ["b", "a"]);
    let step = &workflow.steps["b"];
    assert_eq!(&text[step.id.span.clone()], "b");
    assert_eq!(&text[step.uses.span.clone()], "\"x\"");
    let argument = &step.with.value["k"];
    assert_eq!(&text[argument.key.clone().unwrap()], "k");
    let ArgumentKind::List(items) = &argument.kind else { panic!("a list") };
    assert_eq!(&text[items[0].span.clone()], "\"v\"");
}

#[test]
fn all_errors_come_at_once() {
    let text = "nam = 1\nsummary = 2\n[params.x]\ntype = \"y\"\n[steps.s]\nuses = 3\nserial = 0\n";
    assert_eq!(messages(text).len(), 6, "{:?}", messages(text));
}

#[test]
fn a_key_that_is_there_twice_is_told_with_both_places_wherever_it_stands() {
    for (text, first, again) in [
        ("a = 1\nb = 2\na = 3\n", 0, 12),
        ("a = { b = 1, b = 2 }\n", 6, 13),
        ("a.b = 1\na.b = 2\n", 2, 10),
        ("\"a\" = 1\na = 2\n", 0, 8),
        ("x = [{ b = 1, b = 2 }]\n", 7, 14),
        ("[a]\n[b]\n[a]\n", 1, 9),
        ("[a.b]\n[c]\nb = 1\n[a.b]\n", 3, 19),
    ] {
        let error = read(text).unwrap_err().0.into_iter().find(|one| one.message.contains("twice")).unwrap();
        let places: Vec<usize> = error.labels.iter().map(|(span, _)| span.start).collect();
        assert_eq!(places, [again, first], "{text}");
    }
}

#[test]
fn what_is_no_document_is_an_error_soon() {
    let parts = ["a"; 79].join(".");
    for (what, text) in [
        ("nothing", String::new()),
        ("white space", " \n\t\n".to_owned()),
        ("5,000 open brackets", "x = ".to_owned() + &"[".repeat(5000)),
        ("5,000 brackets", format!("x = {}{}", "[".repeat(5000), "]".repeat(5000))),
        ("5,000 tables in each other", format!("x = {}1{}", "{a=".repeat(5000), "}".repeat(5000))),
        ("a key of 5,000 parts", ["a"; 5000].join(".") + " = 1"),
        ("a header of 5,000 parts", format!("[{}]", ["a"; 5000].join("."))),
        ("5,000 tables", (0..5000).map(|n| format!("[t{n}]\n")).collect()),
        ("one table 5,000 times", "[t]\n".repeat(5000)),
        (
            "as deep as the parser lets it be",
            format!("[{parts}]\n{parts} = {}1{}", format!("{{{parts}=").repeat(78), "}".repeat(78)),
        ),
        ("100,000 errors on one line", format!("x = [{}", ",".repeat(100_000))),
        ("100,000 errors on as many lines", "=\n".repeat(100_000)),
        ("30,000 unknown keys", (0..30_000).map(|n| format!("k{n} = 1\n")).collect()),
        ("10 MB of junk", "\u{1}[x\n\"".repeat(2 << 20)),
    ] {
        let errors = read(&text).unwrap_err();
        assert!((1..=120).contains(&errors.0.len()), "{what}: {} errors", errors.0.len());
        for error in &errors.0 {
            for (span, _) in &error.labels {
                assert!(text.get(span.clone()).is_some(), "{what}: a label outside the text");
            }
        }
    }
}

#[test]
fn serial_as_a_share_is_rounded_down_and_at_least_one() {
    let shares = [(30, 3, 1), (30, 4, 1), (50, 5, 2), (99, 3, 2), (100, 7, 7), (1, 1, 1), (33, 0, 1)];
    for (percent, hosts, batch) in shares {
        assert_eq!(Serial::Percent(percent).batch(hosts), batch, "{percent}% of {hosts}");
    }
    assert_eq!(Serial::Count(2).batch(7), 2);
    assert_eq!(Serial::Count(9).batch(7), 9, "more than there are is all at once");
    for wrong in ["0", "-1", "1.5", "\"0%\"", "\"101%\"", "\"-5%\"", "\"30\"", "\"3.5%\"", "\" 30%\"", "true"]
    {
        let text = format!(
            "name = \"n\"\nsummary = \"s\"\n[steps.a]\nuses = \"x\"\nhosts = \"all\"\nserial = {wrong}\n"
        );
        assert_eq!(messages(&text), ["`serial` says how many hosts at once"], "{wrong}");
    }
}

/// A text, a bit of which is taken out, doubled, or replaced.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(String::new()),
        Just("\"".to_owned()),
        Just("[".to_owned()),
        Just("}}".to_owned()),
        Just("\n".to_owned()),
        Just(" = ".to_owned()),
        Just("{{".to_owned()),
        "\\PC{0,6}",
    ];
    (0..FULL.len(), 0..40_usize, piece, any::<bool>()).prop_map(|(start, length, piece, double)| {
        let end = (start + length).min(FULL.len());
        let cut = FULL.get(start..end).unwrap_or_default();
        let kept = if double { cut.repeat(2) } else { String::new() };
        format!("{}{kept}{piece}{}", &FULL[..start], &FULL[end..])
    })
}

proptest! {
    #[test]
    fn random_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&String::from_utf8_lossy(&bytes)).is_err());
    }

    #[test]
    fn a_mutated_document_is_read_or_refused_and_labels_stay_in_the_text(text in mutated()) {
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.0.is_empty());
            for error in errors.0 {
                for (span, _) in error.labels {
                    prop_assert!(text.get(span.clone()).is_some(), "{} at {:?}", error.message, span);
                }
            }
        }
    }
}
