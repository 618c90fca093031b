use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Node, scalar};
use crate::inventory::raw::File;
use crate::inventory::vault::{NoPasswords, Vaults};
use crate::workflow::{Diagnostic, Source};

fn source(text: &str) -> File {
    File::new(Arc::new(Source { name: "test.yml".to_owned(), text: text.to_owned() }), false)
}

fn read(file: &File) -> Result<Option<Node>, Diagnostic> {
    super::read(file, &Vaults::new(&NoPasswords))
}

fn value(text: &str) -> Value {
    read(&source(text)).unwrap().map_or(Value::Null, |node| node.to_value())
}

fn error(text: &str) -> String {
    read(&source(text)).unwrap_err().message
}

#[test]
fn plain_scalars_have_the_types_that_pyyaml_gives_them() {
    for (text, value) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("y", json!("y")),
        ("oN", json!("oN")),
        ("~", json!(null)),
        ("010", json!(8)),
        ("08", json!("08")),
        ("0o10", json!("0o10")),
        ("0x1F", json!(31)),
        ("0b11", json!(3)),
        ("1_000", json!(1000)),
        ("-5", json!(-5)),
        ("1:30", json!(90)),
        ("22:60", json!("22:60")),
        ("1.5", json!(1.5)),
        ("1.", json!(1.0)),
        (".5", json!(0.5)),
        ("1e3", json!("1e3")),
        ("1.0e3", json!("1.0e3")),
        ("1.0e+3", json!(1000.0)),
        (".inf", json!(".inf")),
        ("1.2.3", json!("1.2.3")),
        ("2024-01-31", json!("2024-01-31")),
        ("15", json!(15)),
        ("-", json!("-")),
        ("+", json!("+")),
        ("0", json!(0)),
    ] {
        assert_eq!(scalar::typed(text), value, "{text}");
    }
}

#[test]
fn quoted_scalars_are_text() {
    assert_eq!(value("a: 'yes'\nb: \"1\"\nc: |\n  no\n"), json!({"a": "yes", "b": "1", "c": "no\n"}));
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let text = "base: &b {x: 1, y: 2}\nother: *b\nmore:\n  <<: *b\n  y: 3\nlist:\n  <<: [{x: 9}, *b]\n";
    let b = json!({"x": 1, "y": 2});
    assert_eq!(
        value(text),
        json!({"base": b, "other": b, "more": {"y": 3, "x": 1}, "list": {"x": 9, "y": 2}})
    );
}

#[test]
fn what_is_not_understood_is_an_error() {
    assert_eq!(error("a: 1\na: 2\n"), "`a` is there twice");
    assert_eq!(error("a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n"), "a vault that is cut short or damaged");
    assert_eq!(error("a: !mine 1\n"), "the tag `!mine` is not understood");
    assert_eq!(error("a: 1\n---\nb: 2\n"), "a second document in one file");
    assert!(error("a: [1\n").starts_with("not YAML: "));
    assert_eq!(error("[a]: 1\n"), "a key must be text");
}

#[test]
fn an_empty_file_and_one_of_comments_hold_nothing() {
    for text in ["", "# nothing\n", "---\n", "---\n# nothing\n...\n"] {
        assert!(read(&source(text)).unwrap().is_none(), "{text:?}");
    }
}

#[test]
fn deep_nesting_and_multiplying_aliases_are_refused() {
    assert!(read(&source(&"[".repeat(5000))).is_err());
    assert!(read(&source(&"- ".repeat(5000))).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = format!("*a{}, ", n - 1).repeat(10);
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    assert_eq!(error(&bomb), "more than 500000 values in one file");
}

proptest! {
    #[test]
    fn any_text_is_a_tree_or_an_error(text in "[-a: \\[\\]{}&*!|>'\"\n#,?0-9]{0,200}") {
        let _ = read(&source(&text));
    }

    #[test]
    fn any_bytes_are_a_tree_or_an_error(text in "\\PC{0,200}") {
        let _ = read(&source(&text));
    }
}
