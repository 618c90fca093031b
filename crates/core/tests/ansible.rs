//! Inventories as Ansible reads them: `fixtures/inventories`, each with what the real Ansible says of it.
//!
//! `fixtures/inventories/record` asks Ansible anew. Here nothing needs it.

#![expect(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flow_core::inventory::{self, Given, Loaded, Sources, VaultPassword, VaultPasswords};
use flow_core::step::Secret;
use serde_json::{Map, Value};

/// The passwords that a case names.
struct Passwords(Vec<VaultPassword>);

impl VaultPasswords for Passwords {
    fn passwords(&self, _: &str) -> Result<Vec<VaultPassword>, (String, String)> {
        Ok(self.0.clone())
    }
}

struct Case {
    name: String,
    answers: Value,
    loaded: Loaded,
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn passwords(case: &Value) -> Passwords {
    let one = |id: Option<&str>, path: &str| VaultPassword {
        id: id.map(str::to_owned),
        password: Secret::new(std::fs::read_to_string(path).unwrap().trim()),
        source: path.to_owned(),
    };
    let ids = strings(&case["vault_ids"]);
    let ids = ids.iter().map(|text| text.split_once('@').unwrap()).map(|(id, path)| one(Some(id), path));
    let files = strings(&case["vault_password_files"]);
    Passwords(ids.chain(files.iter().map(|path| one(None, path))).collect())
}

/// All cases, read from their own folder as Ansible was asked there. A test program's one test at a time does so.
fn cases() -> Vec<Case> {
    let root =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/inventories")).canonicalize().unwrap();
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("case.json").exists());
    folders.sort();
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let case = |folder: &PathBuf| {
        std::env::set_current_dir(folder).unwrap();
        let case = read(folder.join("case.json"));
        let given = Given {
            inventories: strings(&case["inventories"]).iter().map(PathBuf::from).collect(),
            playbook_dir: case["playbook_dir"].as_str().map(PathBuf::from),
        };
        let loaded = inventory::read_all(&Sources { given, vault: &passwords(&case) });
        let loaded = loaded.unwrap_or_else(|errors| panic!("{}: {errors}", folder.display()));
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        Case { name, answers: read(folder.join("answers.json")), loaded }
    };
    folders.iter().map(case).collect()
}

#[test]
fn flow_reads_inventories_as_ansible_does() {
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 4, "the fixtures are found");
    for case in &cases {
        groups(case, &mut wrong);
        raw(case, &mut wrong);
        evaluated(case, &mut wrong);
    }
    // Patterns may name files of the case's folder.
    for case in &cases {
        let folder = format!("{}/../../fixtures/inventories/{}", env!("CARGO_MANIFEST_DIR"), case.name);
        std::env::set_current_dir(folder).unwrap();
        limits(case, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// Each group's own hosts and children.
fn groups(case: &Case, wrong: &mut Vec<String>) {
    let list = case.answers["list"].as_object().unwrap();
    let ours: Map<String, Value> = case
        .loaded
        .groups()
        .iter()
        .map(|(name, group)| {
            (name.clone(), serde_json::json!({ "hosts": group.hosts, "children": group.children }))
        })
        .collect();
    let names: BTreeSet<&String> = list.keys().chain(ours.keys()).filter(|name| *name != "_meta").collect();
    for name in names {
        for key in ["hosts", "children"] {
            let of = |groups: &Map<String, Value>| {
                strings(groups.get(name).map_or(&Value::Null, |group| &group[key]))
            };
            let (theirs, own) = (of(list), of(&ours));
            // `all` lists hosts that are in no group under `ungrouped` only.
            let same = if key == "children" {
                theirs.iter().collect::<BTreeSet<_>>()
                    == own
                        .iter()
                        .filter(|child| list.contains_key(*child) || theirs.contains(child))
                        .collect()
            } else {
                theirs == own || name == "all"
            };
            if !same {
                wrong.push(format!("{}: {key} of {name}: Ansible {theirs:?}, flow {own:?}", case.name));
            }
        }
    }
}

/// Values as the files hold them. Ansible shows a vault's value as the vault, which `evaluated` looks into.
fn raw(case: &Case, wrong: &mut Vec<String>) {
    let hosts = case.answers["list"]["_meta"]["hostvars"].as_object().unwrap();
    for (host, theirs) in hosts {
        let Some(ours) = case.loaded.raw(host) else {
            wrong.push(format!("{}: no host {host}", case.name));
            continue;
        };
        let theirs = theirs.as_object().unwrap();
        let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
        for name in names {
            let (theirs, ours) = (theirs.get(name), ours.get(name));
            if !theirs.zip(ours).is_some_and(|(theirs, ours)| same(theirs, ours)) {
                wrong.push(format!("{}: {host} {name}: Ansible {theirs:?}, flow {ours:?}", case.name));
            }
        }
    }
    if hosts.len() != case.loaded.inventory.hosts.len() {
        wrong.push(format!("{}: not the same hosts", case.name));
    }
}

fn same(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::Object(theirs), _) if theirs.contains_key("__ansible_vault") => ours.is_string(),
        (Value::Object(theirs), _) if theirs.len() == 1 && theirs.contains_key("__ansible_unsafe") => {
            theirs["__ansible_unsafe"] == *ours
        }
        (Value::Object(theirs), Value::Object(ours)) => {
            theirs.len() == ours.len()
                && theirs.iter().all(|(name, value)| ours.get(name).is_some_and(|own| same(value, own)))
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(theirs, ours)| same(theirs, ours))
        }
        (Value::Number(theirs), Value::Number(ours)) => theirs.as_f64() == ours.as_f64(),
        _ => theirs == ours,
    }
}

/// What flow refuses and Ansible evaluates: a lookup that runs a program, look-around, filters that are rare in inventories.
const REFUSED: [&str; 9] = [
    "autobase from_pipe",
    "edges t_to_yaml",
    "expressions count_words",
    "expressions human",
    "expressions look_ahead",
    "expressions random",
    "expressions truncated",
    "expressions uuid",
    "expressions wrapped",
];

/// Values of templates and vaults.
fn evaluated(case: &Case, wrong: &mut Vec<String>) {
    for (host, vars) in case.answers["evaluated"].as_object().unwrap() {
        for (name, answer) in vars.as_object().unwrap() {
            let entry = case.loaded.inventory.host(host).unwrap();
            let (ours, fault) = (entry.vars.get(name), entry.faults.get(name));
            let right = match answer.get("value") {
                Some(_) if REFUSED.contains(&format!("{} {name}", case.name).as_str()) => fault.is_some(),
                Some(theirs) => ours.is_some_and(|ours| same(theirs, ours)),
                None => fault.is_some(),
            };
            if !right {
                let ours = fault.map_or_else(|| format!("{ours:?}"), |why| format!("fault: {why}"));
                wrong.push(format!("{}: {host} {name}: Ansible {answer}, flow {ours}", case.name));
            }
        }
    }
}

fn limits(case: &Case, wrong: &mut Vec<String>) {
    for (limit, theirs) in case.answers["limits"].as_object().unwrap() {
        let all = case.loaded.inventory.select("all").unwrap();
        let ours = inventory::with_files(limit).and_then(|limit| case.loaded.inventory.select(&limit));
        // `--limit` filters; the order is that of `all`.
        let ours = ours.map(|ours| all.into_iter().filter(|host| ours.contains(host)).collect::<Vec<_>>());
        if ours.as_deref().ok() != Some(&strings(theirs)) {
            wrong.push(format!("{}: --limit {limit}: Ansible {theirs}, flow {ours:?}", case.name));
        }
    }
}
