//! Destructive steps want a name.

use insta::assert_snapshot;

use crate::support::Place;

const ASIDE: &str = r#"
name = "aside"
summary = "Sets data directories aside."
confirm = "{{ params.scope }}"

[params.scope]
type = "string"
help = "The cluster's name."

[steps.aside]
help = "Renames the data directory. Nothing is removed."
uses = "postgres.data_set_aside"
hosts = "web"
with = { data_dir = "DIR/data-{{ host.name }}", bin_dir = "/usr/bin" }
"#;

fn place() -> Place {
    let place = Place::new();
    place.file("aside.toml", ASIDE);
    place
}

#[test]
fn without_a_terminal_what_is_destructive_is_listed_and_refused() {
    let place = place();
    let refused = place.flow("run aside.toml --set scope=demo").exits(3);
    assert_snapshot!(refused, @r#"
    $ flow run aside.toml --set scope=demo
    2| aside: Sets data directories aside.
    2|
    2| Destructive steps:
    2|   aside on web1, web2, web3
    2|     Renames the data directory. Nothing is removed.
    2|
    2| error: this run has destructive steps and was not confirmed; nothing was changed
    2| hint: `flow plan` with the same arguments shows what it would do; to go ahead: --confirm demo
    exit 3
    "#);
    assert!(place.runs().is_empty());
}

#[test]
fn a_wrong_name_is_refused() {
    let place = place();
    place
        .flow("run aside.toml --set scope=demo --confirm yes")
        .exits(3)
        .says("--confirm yes is not the name that this run asks for; nothing was changed");
    assert!(place.runs().is_empty());
}

#[test]
fn at_a_terminal_the_name_is_asked_for_and_typed() {
    let place = place();
    let (code, seen) = place.at_a_terminal("run aside.toml --set scope=demo", "yes\n");
    assert_eq!(code, 3, "{seen}");
    assert!(seen.contains("aside on web1, web2, web3"), "{seen}");
    assert!(seen.contains("Type demo to go ahead:"), "{seen}");
    assert!(seen.contains("not confirmed; nothing was changed"), "{seen}");
    assert!(place.runs().is_empty());

    let (code, seen) = place.at_a_terminal("run aside.toml --set scope=demo", "demo\n");
    assert_eq!(code, 0, "{seen}");
    assert_eq!(place.runs().len(), 1);
}

#[test]
fn at_a_terminal_no_answer_is_no() {
    let place = place();
    let (code, seen) = place.at_a_terminal("run aside.toml --set scope=demo", "");
    assert_eq!(code, 3, "{seen}");
    assert!(place.runs().is_empty());
}

#[test]
fn with_the_right_name_it_runs() {
    let place = place();
    // No data directory is there, so there is nothing to do; the name is asked for all the same.
    place.flow("run aside.toml --set scope=demo --confirm demo").exits(0);
}
