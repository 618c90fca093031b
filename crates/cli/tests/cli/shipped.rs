//! What the binary carries: workflows to be changed, completions, manual pages.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;

use crate::support::Place;

#[test]
fn an_ejected_workflow_is_the_shipped_one_with_its_files() {
    let place = Place::new();
    let ran = place.flow("eject deploy --to mine").exits(0);
    assert_snapshot!(ran, @r"
    $ flow eject deploy --to mine
    2| `flow validate mine/deploy.toml` checks it
    1| mine/deploy.toml
    1| mine/postgresql-parameters.toml
    1| mine/templates/etcd.env
    1| mine/templates/haproxy-answers
    1| mine/templates/haproxy.cfg
    1| mine/templates/keepalived.conf
    1| mine/templates/patroni.yml
    1| mine/verify.toml
    exit 0
    ");
    let shipped = include_str!("../../../../workflows/deploy.toml");
    assert_eq!(fs::read_to_string(place.path("mine/deploy.toml")).unwrap(), shipped);
    // Without an inventory nothing is asked of the hosts' variables.
    fs::remove_file(place.path("inventory.ini")).unwrap();
    for name in place.flow("workflows --output json").exits(0).document().as_array().unwrap() {
        let name = name["file"].as_str().unwrap();
        place.flow(&format!("eject {name} --to all-{name}")).exits(0);
        place.flow(&format!("validate all-{name}/{name}")).exits(0);
    }
}

#[test]
fn eject_writes_over_nothing_unless_it_is_told_to() {
    let place = Place::new();
    place.file("deploy.toml", "mine\n");
    let refused = place.flow("eject deploy.toml").exits(3);
    assert_snapshot!(refused, @r"
    $ flow eject deploy.toml
    2| error: these are there already, and nothing was written: ./deploy.toml
    2| hint: name another folder with --to DIR, or write over them with --force
    exit 3
    ");
    assert_eq!(fs::read_to_string(place.path("deploy.toml")).unwrap(), "mine\n");
    assert!(!place.has("templates"));
    place.flow("eject deploy --force").exits(0);
    assert_ne!(fs::read_to_string(place.path("deploy.toml")).unwrap(), "mine\n");
    place.flow("eject deploi").exits(3).says("did you mean `deploy.toml`?");
}

#[test]
fn bash_completes_commands_and_options() {
    let place = Place::new();
    let script = place.flow("completions bash").exits(0).out;
    fs::write(place.path("flow.bash"), script).unwrap();
    let complete = |words: &str| {
        let last = words.split(' ').count() - 1;
        let line = format!(
            "source flow.bash; COMP_WORDS=({}); COMP_CWORD={last}; _flow flow \"${{COMP_WORDS[{last}]}}\" \"\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.trim_end()
        );
        let ran =
            Command::new("bash").args(["--norc", "-c", &line]).current_dir(place.path("")).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    assert_eq!(complete("flow resu").trim(), "resume");
    assert_eq!(complete("flow run --conf").trim(), "--confirm");
    assert!(complete("flow completions z").contains("zsh"));
}

#[test]
fn completions_are_there_for_three_shells() {
    let place = Place::new();
    assert!(place.flow("completions zsh").exits(0).out.starts_with("#compdef flow"));
    assert!(place.flow("completions fish").exits(0).out.contains("complete -c flow"));
    place.flow("completions tcsh").exits(64);
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let place = Place::new();
    let whole = place.flow("man").exits(0).out;
    assert!(whole.contains(".TH flow 1") && whole.contains("Exit codes"), "{whole}");
    let written = place.flow("man --out man1").exits(0).out;
    let help = place.flow("--help").exits(0).out;
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut count = 1;
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let page = fs::read_to_string(place.path(&format!("man1/flow-{command}.1"))).unwrap();
        assert!(page.contains(&format!(".TH flow-{command} 1")), "{page}");
        count += 1;
    }
    assert_eq!(written.lines().count(), count);
}
