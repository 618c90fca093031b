//! A made-up inventory for a workflow that is tested without one: three hosts in every group that it
//! names, and the variables that shipped workflows ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use flow_core::inventory::{Host, Inventory};
use flow_core::workflow::Bundle;
use serde_json::{Map, Value, json};

use crate::host::sim::Release;

/// The hosts' names.
const HOSTS: [&str; 3] = ["db1", "db2", "db3"];

/// An inventory that fits the groups and group variables which these workflows name.
///
/// `groups` and `vars` (by group, then name) are the test file's; they go before what is made up. A
/// variable that nobody knows a value for is left out; the plan says then that its param is needed.
pub fn invent<'b>(
    bundles: impl IntoIterator<Item = &'b Bundle>,
    release: Release,
    groups: &BTreeMap<String, Vec<String>>,
    vars: &BTreeMap<String, Map<String, Value>>,
) -> Inventory {
    let mut named: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for bundle in bundles {
        for file in bundle.files.values() {
            for group in groups_of(&file.text) {
                named.entry(group).or_default();
            }
            for (group, name) in group_vars_of(&file.text) {
                let vars = named.entry(group).or_default();
                if let Some(value) = made_up(&name, release) {
                    vars.insert(name, value);
                }
            }
        }
    }
    for (group, given) in vars {
        named.entry(group.clone()).or_default().extend(given.clone());
    }
    let default: Vec<String> = HOSTS.map(str::to_owned).to_vec();
    let members = |group: &String| groups.get(group).unwrap_or(&default).clone();
    let mut inventory = Inventory::default();
    let mut names: Vec<String> = groups.values().flatten().cloned().collect();
    names.extend(named.keys().flat_map(members));
    if names.is_empty() {
        names.clone_from(&default);
    }
    names.sort();
    names.dedup();
    for (number, name) in names.iter().enumerate() {
        let mut vars = Map::new();
        for (group, of_group) in &named {
            if group == "all" || members(group).contains(name) {
                vars.extend(of_group.clone());
            }
        }
        vars.entry("ansible_host").or_insert_with(|| json!(format!("198.18.0.{}", 11 + number)));
        inventory.hosts.insert(name.clone(), Arc::new(Host { name: name.clone(), vars, ..Host::default() }));
    }
    inventory.groups.insert("all".to_owned(), names);
    for group in named.keys().chain(groups.keys()).filter(|group| *group != "all") {
        inventory.groups.insert(group.clone(), members(group));
    }
    inventory
}

fn made_up(name: &str, release: Release) -> Option<Value> {
    let secret = ["password", "secret", "token", "passphrase"].iter().any(|word| name.ends_with(word));
    Some(match name {
        "patroni_scope" => json!("demo"),
        "postgresql_version" => json!(if release == Release::Trixie { 17 } else { 15 }),
        _ if secret => json!(format!("made-up {name} of flow test")),
        _ => return None,
    })
}

/// The groups that a workflow names: in `hosts`, and as `groups.NAME`.
fn groups_of(text: &str) -> Vec<String> {
    let mut groups = Vec::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        let steps = table.get("steps").and_then(toml::Value::as_table);
        for step in steps.into_iter().flat_map(toml::Table::values) {
            let hosts = step.get("hosts");
            let pattern = hosts.and_then(|hosts| hosts.as_str().or_else(|| hosts.get("within")?.as_str()));
            groups.extend(pattern.into_iter().filter(|text| !text.contains("{{")).flat_map(of_pattern));
        }
    }
    groups.extend(after(text, "groups.").map(|rest| word(rest).to_owned()));
    for quote in ['\'', '"'] {
        groups.extend(after(text, &format!("groups[{quote}")).map(|rest| word(rest).to_owned()));
    }
    groups.retain(|group| !group.is_empty() && group != "all");
    groups
}

/// The names in a host pattern, without globs and subscripts.
fn of_pattern(pattern: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut depth = 0usize;
    for character in pattern.chars() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            other if depth == 0 => plain.push(other),
            _ => {}
        }
    }
    let names = plain.split([':', ',']).map(|name| name.trim_start_matches(['!', '&']));
    // What is taken out by name is a host of the made-up ones, or nobody.
    names.filter(|name| !name.is_empty() && !name.contains(['*', '?', '~'])).map(str::to_owned).collect()
}

/// `group_var('GROUP', 'NAME')`.
fn group_vars_of(text: &str) -> Vec<(String, String)> {
    let of = |rest: &str| {
        let (inside, _) = rest.split_once(')')?;
        let (group, name) = inside.split_once(',')?;
        let bare = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
        Some((bare(group), bare(name)))
    };
    after(text, "group_var(").filter_map(of).collect()
}

/// What follows each place of a text.
fn after<'t>(text: &'t str, place: &str) -> impl Iterator<Item = &'t str> {
    let length = place.len();
    let places: Vec<usize> = text.match_indices(place).map(|(at, _)| at + length).collect();
    places.into_iter().map(move |at| &text[at..])
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_that_a_workflow_names_has_hosts_and_known_variables_have_values() {
        let text = "name = \"x\"\n[params.scope]\ndefault = \"{{ group_var('promoters', 'patroni_scope') }}\"\n\
            [steps.a]\nuses = \"command\"\nhosts = \"etcd[0]:&promoters\"\n\
            with = { script = \"echo {{ groups['web'] }} {{ groups.balancers | length }}\" }\n\
            [steps.b]\nuses = \"command\"\nhosts = { from = \"{{ x }}\", within = \"backup\" }\n";
        let bundle = Bundle::single("x.toml", text);
        let inventory = invent([&bundle], Release::Trixie, &BTreeMap::new(), &BTreeMap::new());
        for group in ["promoters", "etcd", "web", "balancers", "backup", "all"] {
            assert_eq!(inventory.groups[group], HOSTS, "{group}");
        }
        assert_eq!(inventory.hosts["db1"].vars["patroni_scope"], "demo");
        assert_eq!(inventory.hosts["db2"].vars["ansible_host"], "198.18.0.12");
    }

    #[test]
    fn what_the_test_file_says_goes_before_what_is_made_up() {
        let bundle = Bundle::single("x.toml", "[steps.a]\nhosts = \"web:app\"\n");
        let groups = BTreeMap::from([("web".to_owned(), vec!["w1".to_owned(), "w2".to_owned()])]);
        let Value::Object(of_web) = json!({ "color": "red" }) else { unreachable!() };
        let vars = BTreeMap::from([("web".to_owned(), of_web)]);
        let inventory = invent([&bundle], Release::Bookworm, &groups, &vars);
        assert_eq!(inventory.groups["web"], ["w1", "w2"]);
        assert_eq!(inventory.groups["app"], HOSTS);
        assert_eq!(inventory.hosts["w1"].vars["color"], "red");
        assert!(!inventory.hosts["db1"].vars.contains_key("color"));
    }
}
