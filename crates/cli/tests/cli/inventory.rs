//! The inventory that people have: shown as flow reads it, opened where it is encrypted, and nothing of that told.

use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::support::{Place, Ran};

/// What ansible-vault made of `c0rrect horse`.
const VAULT: &str = include_str!("../../../core/src/inventory/vault/string.vault");
const PASSWORD: &str = "a password of tests";
const SECRET: &str = "c0rrect horse";
/// The same in base 64, as a template makes it.
const RENDERED: &str = "YWRtaW46YzBycmVjdCBob3JzZQ==";

const WORKFLOW: &str = r#"
name = "uses"
summary = "Uses variables."
[steps.use]
uses = "command"
hosts = "web[0]"
[steps.use.with]
script = "cat >DIR/seen; cat DIR/seen; cat DIR/seen >&2; exit ${FAIL:-0}"
stdin = "{{ vars.dsn }} {{ vars.header }}"
check = "test -e DIR/ok"
"#;

fn place() -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.path("group_vars")).unwrap();
    let vault: String = VAULT.trim_end().lines().map(|line| format!("  {line}\n")).collect();
    place.file(
        "group_vars/web.yml",
        &format!(
            "password: !vault |\n{vault}port: 5432\ndsn: \"host={{{{ inventory_hostname }}}} password={{{{ password }}}}\"\n\
             header: \"{{{{ ('admin:' ~ password) | b64encode }}}}\"\nfact: \"{{{{ ansible_hostname }}}}\"\n"
        ),
    );
    place.file("uses.toml", WORKFLOW);
    place.file("pw", PASSWORD);
    place
}

fn hides(ran: Ran) -> Ran {
    for secret in [SECRET, RENDERED, PASSWORD] {
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{}{}", ran.out, ran.err);
    }
    ran
}

fn stores_nothing_of_it(place: &Place) {
    let bytes = place.store_bytes();
    assert!(bytes.len() > 1000, "the store was not read");
    for secret in [SECRET, RENDERED, PASSWORD] {
        assert!(
            !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "the store holds {secret}"
        );
    }
}

#[test]
fn the_inventory_is_shown_with_where_each_value_stands_and_secrets_masked() {
    let place = place();
    let shown = hides(place.flow("inventory --vault-password-file pw").exits(0));
    assert_snapshot!(shown, @r#"
    $ flow inventory --vault-password-file pw
    2| read: inventory.ini, group_vars/web.yml
    2| flow inventory HOST shows a host's variables
    1| groups
    1|   web  web1, web2, web3
    1|
    1| hosts
    1|   web1  7 variables, 1 that can't be evaluated
    1|   web2  7 variables, 1 that can't be evaluated
    1|   web3  7 variables, 1 that can't be evaluated
    exit 0
    "#);
    let shown = hides(place.flow("inventory web1 --vault-password-file pw").exits(0));
    assert_snapshot!(shown, @r#"
    $ flow inventory web1 --vault-password-file pw
    1| web1  web1  in web
    1|   ansible_connection  "local"  inventory.ini:2
    1|   dsn                 "••••••"  group_vars/web.yml:9
    1|   fact                can't be evaluated: `ansible_hostname` is not defined (group_vars/web.yml:11); flow gathers no facts, set it in the inventory  group_vars/web.yml:11
    1|   flow_state_dir      "DIR/state-of-web1"  inventory.ini:2
    1|   header              "••••••"  group_vars/web.yml:10
    1|   password            "••••••"  group_vars/web.yml:1
    1|   port                5432  group_vars/web.yml:8
    exit 0
    "#);
}

#[test]
fn as_json_it_has_the_shape_of_ansible_inventory() {
    let place = place();
    let list = hides(place.flow("inventory --output json --limit web[0] --vault-password-file pw").exits(0))
        .document();
    assert_eq!(list["web"]["hosts"], serde_json::json!(["web1"]));
    assert_eq!(list["all"]["children"], serde_json::json!(["ungrouped", "web"]));
    let vars = &list["_meta"]["hostvars"]["web1"];
    assert_eq!(
        (&vars["port"], &vars["password"], &vars["dsn"]),
        (&5432.into(), &"••••••".into(), &"••••••".into())
    );
    assert!(list["_meta"]["hostvars"].get("web2").is_none());
    assert_eq!(list["_meta"]["sources"]["web1"]["port"], "group_vars/web.yml:8");
    let why = list["_meta"]["faults"]["web1"]["fact"].as_str().unwrap();
    assert!(why.contains("`ansible_hostname` is not defined (group_vars/web.yml:11)"), "{why}");
}

#[test]
fn a_secret_out_of_a_vault_reaches_the_host_and_is_shown_and_stored_nowhere() {
    let place = place();
    let password = [("FLOW_VAULT_PASSWORD", PASSWORD)];
    // It fails after it was used, with the secret in all it says.
    hides(place.flow_with("run uses.toml", &password).exits(1));
    let seen = std::fs::read_to_string(place.path("seen")).unwrap();
    assert_eq!(seen, format!("host=web1 password={SECRET} {RENDERED}"));
    stores_nothing_of_it(&place);
    hides(place.flow("resume").exits(3)).says("no password for it was given");
    place.file("ok", "");
    hides(place.flow_with("resume --output json", &password).exits(0));
    for line in ["show -v", "show --output json", "report --out report.html"] {
        hides(place.flow(line));
    }
    hides(place.flow_with("plan uses.toml --output json --out saved.json", &password));
    for file in ["report.html", "saved.json"] {
        let text = std::fs::read_to_string(place.path(file)).unwrap_or_default();
        assert!(!text.contains(SECRET) && !text.contains(RENDERED), "{file}");
    }
    stores_nothing_of_it(&place);
}

#[test]
fn the_password_of_a_vault_comes_from_where_ansible_takes_it() {
    let place = place();
    let program = place.file("program", &format!("#!/bin/sh\necho '{PASSWORD}'\n"));
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o700)).unwrap();
    for line in
        ["--vault-password-file pw", "--vault-password-file program", "--vault-id any@pw", "--vault-id @pw"]
    {
        hides(place.flow(&format!("inventory {line}")).exits(0));
    }
    for (name, value) in [
        ("ANSIBLE_VAULT_PASSWORD_FILE", "pw"),
        ("ANSIBLE_VAULT_PASSWORD_FILE", "~/pw"),
        ("ANSIBLE_VAULT_IDENTITY_LIST", "other@wrong, any@pw"),
        ("FLOW_VAULT_PASSWORD", PASSWORD),
    ] {
        place.file("wrong", "another password");
        hides(place.flow_with("inventory", &[(name, value)]).exits(0));
    }
    let mut running = place.start_on_a_terminal("inventory");
    running.wait_to_write("Vault password (group_vars/web.yml)");
    running.types(PASSWORD);
    hides(running.ended().exits(0));
    // Nothing is asked where nothing is encrypted.
    place.file("group_vars/web.yml", "a: 1\n");
    let (code, seen) = place.at_a_terminal("inventory", "");
    assert!(code == 0 && !seen.contains("Vault password"), "{seen}");
}

#[test]
fn a_vault_that_can_t_be_opened_is_told_with_its_place() {
    let place = place();
    place.file("wrong", "another password");
    assert_snapshot!(hides(place.flow("inventory").exits(3)), @r#"
    $ flow inventory
    2| flow::inventory
    2|
    2|   × encrypted with ansible-vault: no password for it was given
    2|    ╭─[group_vars/web.yml:1:11]
    2|  1 │ password: !vault |
    2|    ·           ──────
    2|  2 │   $ANSIBLE_VAULT;1.1;AES256
    2|    ╰────
    2|   help: give it: --vault-password-file FILE, or the variable
    2|         ANSIBLE_VAULT_PASSWORD_FILE or FLOW_VAULT_PASSWORD
    exit 3
    "#);
    assert_snapshot!(hides(place.flow("inventory --vault-password-file wrong").exits(3)), @r#"
    $ flow inventory --vault-password-file wrong
    2| flow::inventory
    2|
    2|   × no password opens this vault
    2|    ╭─[group_vars/web.yml:1:11]
    2|  1 │ password: !vault |
    2|    ·           ──────
    2|  2 │   $ANSIBLE_VAULT;1.1;AES256
    2|    ╰────
    2|   help: the password tried is from wrong
    exit 3
    "#);
    place.flow("inventory --vault-password-file none").exits(3).says("its password can't be read from none");
    place.file("group_vars/web.yml", VAULT.lines().take(2).collect::<Vec<_>>().join("\n").as_str());
    assert_snapshot!(hides(place.flow("inventory --vault-password-file pw").exits(3)), @r#"
    $ flow inventory --vault-password-file pw
    2| flow::inventory
    2|
    2|   × `group_vars/web.yml`: a vault that is cut short or damaged
    2|   help: encrypt it anew: ansible-vault encrypt
    exit 3
    "#);
}

#[test]
fn variables_beside_the_workflow_count_as_the_playbook_s() {
    let place = Place::new();
    for folder in ["play/group_vars", "inv"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
    }
    place.file("inv/hosts", "web1 ansible_connection=local flow_state_dir=DIR/s\n");
    place.file("play/group_vars/all.yml", "word: beside\n");
    let text = "name = \"w\"\nsummary = \"W.\"\n[steps.use]\nuses = \"command\"\nhosts = \"all\"\n\
                with = { script = \"echo {{ vars.word }} >DIR/seen\", repeatable = true }\n";
    place.file("play/w.toml", text);
    place.flow("run play/w.toml -i inv/hosts").exits(0);
    assert_eq!(std::fs::read_to_string(place.path("seen")).unwrap(), "beside\n");
    place.flow("validate play/w.toml -i inv/hosts --playbook-dir inv").exits(0);
    place.flow("run play/w.toml -i inv/hosts --playbook-dir inv").exits(1);
    let shown = place.flow("inventory -i inv/hosts --playbook-dir play web1").exits(0);
    assert!(shown.out.contains("\"beside\"  play/group_vars/all.yml:1"), "{}", shown.out);
}

#[test]
fn several_inventories_and_hosts_by_name_are_read_and_a_limit_may_name_a_file() {
    let place = Place::new();
    place.file("more.yml", "web:\n  hosts:\n    web9:\n");
    place.file("retry", "web9\nextra\n");
    let list =
        place.flow("inventory -i inventory.ini -i more.yml -i extra, --limit @retry --output json").exits(0);
    assert_eq!(list.document()["web"]["hosts"], serde_json::json!(["web9"]));
    assert_eq!(list.document()["ungrouped"]["hosts"], serde_json::json!(["extra"]));
    place.flow("inventory --limit @missing").exits(3).says("`missing` can't be read");
    place.flow("inventory --limit ~web(").exits(3).says("no regular expression");
}

#[test]
fn a_host_whose_address_can_t_be_evaluated_is_refused_with_the_line() {
    let place = place();
    place.file("inventory.ini", "[web]\nweb1 ansible_host='{{ ansible_default_ipv4.address }}'\n");
    let ran = hides(place.flow("plan uses.toml --vault-password-file pw"));
    assert!(
        ran.code() != 0 && format!("{}{}", ran.out, ran.err).contains("inventory.ini:2"),
        "{}{}",
        ran.out,
        ran.err
    );
}
