//! The expected values are what `ansible-inventory --list` (ansible-core 2.19) gives for these files.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::load;
use crate::inventory::Inventory;
use crate::workflow::Diagnostics;

fn read(files: &[(&str, &str)]) -> Result<Inventory, Diagnostics> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    load(&folder.path().join(files[0].0))
}

fn vars(inventory: &Inventory, host: &str) -> Value {
    Value::Object(inventory.host(host).unwrap().vars.clone())
}

const HOSTS: &str = r#"
# lab
lonely ansible_host=10.0.0.9

[promoters]
patroni1 ansible_host=198.18.0.11 prio=1 flag=True s="a b" t='5' u='"5"' l="[1, 'x', {'k': None}]" yesno=yes
patroni2 ansible_host=198.18.0.12   # a comment
patroni[3:4] f=1.50 oct=010 hex=0x1f tup=1,2
node[01:03:2].lan:2222

[promoters:vars]
scope = demo
ver = 15
quoted = "q u"
comment = 5 # five
text = foo # bar
empty =
eq = a=b
shared=from_promoters

[west:children]
promoters
lbs

[west:vars]
shared=from_west
shared2=from_west

[lbs]
lb2
lb1 sudo=True

[lbs:vars]
tie=lbs

[zzz]
lb1
[zzz:vars]
tie=zzz

[all:vars]
shared=from_all
onlyall=1

[empty]
"#;

#[test]
fn an_ini_inventory_has_the_hosts_groups_and_types_that_ansible_gives_it() {
    let inventory = read(&[("hosts", HOSTS)]).unwrap();
    let names: Vec<&str> = inventory.hosts.keys().map(String::as_str).collect();
    let nodes = ["patroni1", "patroni2", "patroni3", "patroni4", "node01.lan", "node03.lan"];
    assert_eq!(names, [&["lonely"], nodes.as_slice(), &["lb2", "lb1"]].concat());
    assert_eq!(inventory.groups["promoters"], nodes);
    assert_eq!(inventory.groups["west"], [nodes.as_slice(), &["lb2", "lb1"]].concat());
    assert_eq!(inventory.groups["ungrouped"], ["lonely"]);
    assert_eq!(inventory.groups["all"].len(), 9);
    assert!(inventory.groups["empty"].is_empty());
    assert_eq!(inventory.sources.len(), 1);
    assert_eq!(
        vars(&inventory, "patroni1"),
        json!({
            "ansible_host": "198.18.0.11", "prio": 1, "flag": true, "s": "a b", "t": 5, "u": "5",
            "l": [1, "x", {"k": null}], "yesno": "yes", "scope": "demo", "ver": 15, "quoted": "q u",
            "comment": 5, "text": "foo # bar", "empty": "", "eq": "a=b", "shared": "from_promoters",
            "shared2": "from_west", "onlyall": 1,
        })
    );
    let third = vars(&inventory, "patroni3");
    assert_eq!(
        (&third["f"], &third["oct"], &third["hex"], &third["tup"]),
        (&json!(1.5), &json!("010"), &json!(31), &json!([1, 2]))
    );
    assert_eq!(vars(&inventory, "node03.lan")["ansible_port"], 2222);
    assert_eq!(inventory.host("patroni2").unwrap().address(), "198.18.0.12");
    assert_eq!(inventory.host("lb1").unwrap().address(), "lb1");
}

#[test]
fn the_deeper_group_wins_then_the_priority_then_the_name() {
    let inventory = read(&[("hosts", HOSTS)]).unwrap();
    let lb1 = vars(&inventory, "lb1");
    assert_eq!(lb1["tie"], "lbs", "lbs is below west");
    let text = "[a]\nh\n[a:vars]\nx=a\n[b]\nh\n[b:vars]\nx=b\n";
    assert_eq!(vars(&read(&[("hosts", text)]).unwrap(), "h")["x"], "b");
    let priority = format!("{text}[a:vars]\nansible_group_priority=2\n");
    let inventory = read(&[("hosts", &priority)]).unwrap();
    assert_eq!(vars(&inventory, "h"), json!({"x": "a"}));
}

#[test]
fn files_beside_the_inventory_win_over_it_and_the_more_special_over_the_general() {
    let inventory = read(&[
        ("hosts", HOSTS),
        ("group_vars/all/10.yml", "shared: gv_all\nfromall: yes\nlist: [1, two]\nwhen: 2024-01-31\n"),
        ("group_vars/all/20.yaml", "fromall2: 1:30\nfromall: off\n"),
        ("group_vars/all/.hidden.yml", "no: [\n"),
        ("group_vars/all/old.yml~", "no: [\n"),
        ("group_vars/all/notes.txt", "no: [\n"),
        ("group_vars/promoters.yml", "shared: gv_promoters\nonlyall: gv\nprio: 99\nmap: {a: 1}\noct: 0755\n"),
        ("group_vars/nobody.yml", "no: [\n"),
        ("host_vars/patroni1.yml", "---\nprio: 7\nmap:\n  c: 3\n"),
    ])
    .unwrap();
    let first = vars(&inventory, "patroni1");
    for (name, value) in [
        ("shared", json!("gv_promoters")),
        ("onlyall", json!("gv")),
        ("prio", json!(7)),
        ("map", json!({"c": 3})),
        ("fromall", json!(false)),
        ("fromall2", json!(90)),
        ("list", json!([1, "two"])),
        ("when", json!("2024-01-31")),
        ("oct", json!(493)),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    assert_eq!(vars(&inventory, "lb1")["shared"], "gv_all", "also over the file's [west:vars]");
    assert_eq!(inventory.sources.len(), 5);
}

#[test]
fn a_yaml_inventory_is_read_like_an_ini_one() {
    let text = "
all:
  hosts:
    mail.example.com:
    web[1:3]:
      port: 80
  vars:
    x: on
  children:
    db:
      hosts:
        db1: {ansible_host: 1.2.3.4, n: 0x10, f: 1e3}
        db2:
      vars: {x: db}
      children:
        replicas:
          hosts: db2
          vars: {x: rep}
    web:
      hosts:
        web1: {weight: 3}
";
    for name in ["hosts.yml", "hosts"] {
        let inventory = read(&[(name, text), ("group_vars/db.yml", "x: gv_db\n")]).unwrap();
        assert_eq!(inventory.groups["db"], ["db1", "db2"]);
        assert_eq!(inventory.groups["replicas"], ["db2"]);
        assert_eq!(inventory.groups["ungrouped"], ["mail.example.com", "web2", "web3"]);
        assert_eq!(vars(&inventory, "web1"), json!({"x": true, "port": 80, "weight": 3}));
        assert_eq!(
            vars(&inventory, "db1"),
            json!({"x": "gv_db", "ansible_host": "1.2.3.4", "n": 16, "f": "1e3"})
        );
        assert_eq!(
            vars(&inventory, "db2"),
            json!({"x": "gv_db"}),
            "files win over the inventory's child groups"
        );
    }
}

#[test]
fn all_errors_of_all_files_come_at_once() {
    let errors = read(&[
        ("hosts.ini", "[g]\nh1 x\nh2[\n[g:what]\n"),
        ("group_vars/all.yml", "a: [\n"),
        ("host_vars/h1.yml", "- a\n"),
    ])
    .unwrap_err();
    assert_eq!(errors.0.len(), 5, "{errors}");
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused_and_no_file_is_read_for_them() {
    let errors = read(&[("hosts.ini", "../secret\n"), ("secret", "["), ("host_vars/x.yml", "")]).unwrap_err();
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(errors.to_string().contains("can't be the name of a host"), "{errors}");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let errors = load(Path::new("no/such/hosts.ini")).unwrap_err();
    assert_eq!(errors.to_string(), "`no/such/hosts.ini` can't be read: there is no such file");
}

proptest! {
    #[test]
    fn any_ini_text_is_read_or_refused_within_the_text(text in "[a-c\\[\\]:=#;\"' \n0-9.ä]{0,120}") {
        if let Err(errors) = read(&[("hosts.ini", &text)]) {
            for error in errors.0 {
                for (span, _) in error.labels {
                    prop_assert!(text.get(span).is_some());
                }
            }
        }
    }

    #[test]
    fn every_host_is_in_all_and_either_grouped_or_ungrouped(
        members in proptest::collection::vec((0..4_usize, 0..6_usize), 0..20),
    ) {
        let mut text = String::new();
        for (group, host) in &members {
            let head = if *group == 0 { "[ungrouped]".to_owned() } else { format!("[g{group}]") };
            text.push_str(&format!("{head}\nh{host}\n"));
        }
        let inventory = read(&[("hosts.ini", &text)]).unwrap();
        prop_assert_eq!(inventory.groups["all"].len(), inventory.hosts.len());
        for host in inventory.hosts.keys() {
            let grouped = inventory.groups.iter().any(|(name, hosts)| name.starts_with('g') && hosts.contains(host));
            prop_assert_eq!(inventory.groups["ungrouped"].contains(host), !grouped);
        }
    }
}
