use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::inventory::{Given, Loaded, Sources, VaultPassword, VaultPasswords, read_all};
use crate::step::Secret;

/// What `printf 'c0rrect horse' | ansible-vault encrypt_string` gives with the password below.
const VAULTED: &str = include_str!("../vault/string.vault");
const PASSWORD: &str = "a password of tests";

struct Password;

impl VaultPasswords for Password {
    fn passwords(&self, _: &str) -> Result<Vec<VaultPassword>, (String, String)> {
        Ok(vec![VaultPassword { id: None, password: Secret::new(PASSWORD), source: "the test".to_owned() }])
    }
}

/// Two hosts, `web1` and `web2`, with these variables for both.
fn load(vars: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("group_vars")).unwrap();
    std::fs::write(folder.path().join("hosts.ini"), "web1 n=1\nweb2 n=2\n").unwrap();
    let vaulted = VAULTED.trim_end().lines().map(|line| format!("  {line}\n")).collect::<String>();
    let text = vars.replace("VAULTED", &format!("!vault |\n{vaulted}"));
    std::fs::write(folder.path().join("group_vars/all.yml"), text).unwrap();
    let given = Given {
        inventories: vec![folder.path().join("hosts.ini")],
        playbook_dir: Some(PathBuf::from("/play")),
    };
    read_all(&Sources { given, vault: &Password }).unwrap_or_else(|errors| panic!("{errors}"))
}

fn value(vars: &str, name: &str) -> Value {
    let loaded = load(vars);
    let host = loaded.inventory.host("web1").unwrap();
    assert_eq!(host.faults.get(name), None);
    host.vars[name].clone()
}

/// Why a variable can't be evaluated, with the folder of its file left out.
fn fault(vars: &str, name: &str) -> String {
    let loaded = load(vars);
    let why = loaded.inventory.host("web1").unwrap().faults.get(name).cloned().unwrap_or_default();
    let folder =
        loaded.inventory.given.inventories[0].parent().unwrap_or(Path::new("")).display().to_string();
    why.replace(&format!("{folder}/"), "")
}

#[test]
fn each_host_has_its_own_values() {
    let loaded =
        load("a: \"{{ b }}\"\nb: \"{{ inventory_hostname }}-{{ n }}\"\nc: \"{{ hostvars['web2'].a }}\"\n");
    for (host, own) in [("web1", "web1-1"), ("web2", "web2-2")] {
        let host = loaded.inventory.host(host).unwrap();
        assert_eq!((&host.vars["a"], &host.vars["c"]), (&json!(own), &json!("web2-2")));
    }
}

#[test]
fn a_value_that_can_t_be_evaluated_harms_only_who_asks_for_it() {
    let vars = "bad: \"{{ nothing }}\"\ngood: 1\nreads: \"{{ bad }}\"\nmended: \"{{ bad | default(2) }}\"\n";
    assert_eq!(value(vars, "good"), 1);
    assert_eq!(value(vars, "mended"), 2);
    assert_eq!(fault(vars, "bad"), "`nothing` is not defined (group_vars/all.yml:1)");
    assert_eq!(fault(vars, "reads"), "`nothing` is not defined (group_vars/all.yml:1)");
}

#[test]
fn what_flow_does_not_have_is_named_with_its_line() {
    for (text, why) in [
        ("{{ n | no_such }}", "no_such"),
        ("{{ n | ansible.utils.ipaddr }}", "ansible.utils.ipaddr"),
        ("{{ lookup('password', 'x') }}", "the lookup `password` is unknown"),
        ("{{ 1 + }}", "syntax error"),
        ("{{ ansible_default_ipv4.address }}", "flow gathers no facts"),
    ] {
        let fault = fault(&format!("x: 1\na: \"{text}\"\n"), "a");
        assert!(fault.contains(why) && fault.contains("group_vars/all.yml:2"), "{text}: {fault}");
    }
}

#[test]
fn a_circle_is_named_and_a_long_way_is_refused() {
    let circle = fault("a: \"{{ b }}\"\nb: \"{{ c }}\"\nc: \"{{ a }}\"\n", "a");
    assert_eq!(circle, "it needs itself: a > b > c > a (group_vars/all.yml:1)");
    let mut long: String = (0..5000).map(|i| format!("v{i}: \"{{{{ v{} }}}}\"\n", i + 1)).collect();
    long.push_str("v5000: 1\n");
    assert!(fault(&long, "v0").contains("more than 48 deep"));
}

#[test]
fn hostile_templates_are_errors() {
    for text in
        ["(".repeat(5000), "[".repeat(5000), "{".repeat(5000), "{{".repeat(5000), "{% if 1 %}".repeat(5000)]
    {
        let loaded = load(&format!("a: '{{{{ {text} }}}}'\nb: '{text}'\n"));
        assert!(loaded.inventory.host("web1").unwrap().faults.contains_key("a"), "{}", &text[..10]);
    }
}

#[test]
fn what_is_rendered_from_a_secret_is_secret() {
    let vars = "pw: VAULTED\nurl: \"user:{{ pw }}@host\"\ncoded: \"{{ url | b64encode }}\"\nplain: \"{{ n + 1 }}\"\n\
                users: [{name: app_user, password: \"{{ pw }}\"}]\nnames: \"{{ users | map(attribute='name') | list }}\"\n\
                all: \"{{ users }}\"\nother: \"{{ hostvars['web2'].coded }}\"\nlength: \"{{ pw | length }}\"\n";
    let loaded = load(vars);
    let host = loaded.inventory.host("web1").unwrap();
    assert_eq!(host.vars["pw"], "c0rrect horse");
    let secret: Vec<&str> = host.secret.iter().map(String::as_str).collect();
    assert_eq!(secret, ["all", "coded", "length", "other", "pw", "url", "users"]);
    let texts: Vec<&str> = loaded.inventory.secrets.iter().collect();
    assert_eq!(texts, ["13", "c0rrect horse", "dXNlcjpjMHJyZWN0IGhvcnNlQGhvc3Q=", "user:c0rrect horse@host"]);
}

#[test]
fn an_error_about_a_secret_shows_nothing_of_it() {
    let vars = "pw: VAULTED\nbad: \"{{ pw | b64decode }}\"\nworse: \"{{ [1][pw] }}\"\nhow: \"{{ 'x' is version('1', pw) }}\"\n";
    let loaded = load(vars);
    let host = loaded.inventory.host("web1").unwrap();
    assert!(host.faults.len() >= 2, "{:?}", host.faults);
    let shown = format!("{:?}", host.faults);
    assert!(!shown.contains("horse"), "{shown}");
}

#[test]
fn values_keep_their_types_only_where_the_text_is_one_expression() {
    let vars = "a: \"{{ n }}\"\nb: \"{{ n }}{{ n }}\"\nc: \"{{ [n, true, none] }}\"\nd: \"is {{ [n, true, none, 'x'] }}\"\n";
    assert_eq!(value(vars, "a"), 1);
    assert_eq!(value(vars, "b"), "11");
    assert_eq!(value(vars, "c"), json!([1, true, null]));
    assert_eq!(value(vars, "d"), "is [1, True, None, 'x']");
}

proptest! {
    #[test]
    fn any_template_is_a_value_or_an_error(text in "[-a-c1{}%#()\\[\\].,|~ +*/<>=:]{0,60}", filter in "[a-z]{1,4}") {
        let text = text.replace('\'', "");
        load(&format!("a: '{{{{ {text} }}}}'\nb: '{{{{ n | {filter}({text}) }}}}'\nc: '{text}'\n"));
    }
}

#[test]
fn what_is_said_to_be_no_template_is_none() {
    assert_eq!(value("a: !unsafe \"{{ n }}\"\nb: \"{{ a }}\"\n", "b"), "{{ n }}");
}
