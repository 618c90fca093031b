use proptest::prelude::*;
use serde_json::json;

use super::read;

#[test]
fn python_literals_are_typed() {
    for (text, value) in [
        ("5432", json!(5432)),
        ("-1", json!(-1)),
        ("- 1", json!(-1)),
        ("0x10", json!(16)),
        ("1_000", json!(1000)),
        ("00", json!(0)),
        ("1.50", json!(1.5)),
        (".5", json!(0.5)),
        ("1e3", json!(1000.0)),
        ("True", json!(true)),
        ("False", json!(false)),
        ("None", json!(null)),
        ("'quoted'", json!("quoted")),
        (r#""a\tb\x41\101""#, json!("a\tbAA")),
        ("r'a\\tb'", json!("a\\tb")),
        ("'a' 'b'", json!("ab")),
        ("['a', 1, [True]]", json!(["a", 1, [true]])),
        ("(1, 2)", json!([1, 2])),
        ("(1)", json!(1)),
        ("(1,)", json!([1])),
        ("1, 2", json!([1, 2])),
        ("{'a': {'b': [1]}}", json!({"a": {"b": [1]}})),
        ("{1, 1}", json!([1])),
        ("{}", json!({})),
        ("7  # seven", json!(7)),
    ] {
        assert_eq!(read(text), value, "{text}");
    }
}

#[test]
fn all_else_is_text() {
    for text in [
        "yes",
        "true",
        "on",
        "null",
        "010",
        "1.2.3.4",
        "5h",
        "1__0",
        "0x",
        "'open",
        "[1, 2",
        "a b",
        "{'a'}x",
        "1 + 2",
        "--1",
        "1+2j",
        "/var/lib",
        "",
        "{{ x }}",
        "[a]",
        "'a' b",
        "99999999999999999999999",
    ] {
        assert_eq!(read(text), json!(text), "{text}");
    }
}

#[test]
fn deep_nesting_is_text_and_not_an_end_of_the_stack() {
    let deep = "[".repeat(100_000);
    assert_eq!(read(&deep), json!(deep));
}

proptest! {
    #[test]
    fn any_text_is_some_value(text in "\\PC*") {
        read(&text);
    }

    #[test]
    fn a_list_of_integers_comes_back(numbers in proptest::collection::vec(any::<i64>(), 0..8)) {
        prop_assert_eq!(read(&format!("{numbers:?}")), json!(numbers));
    }
}
