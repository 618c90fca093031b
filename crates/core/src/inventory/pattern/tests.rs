use std::sync::Arc;

use indexmap::IndexMap;
use proptest::prelude::*;

use super::super::{Host, Inventory};
use super::PatternError;

fn inventory(groups: &[(&str, &[&str])]) -> Inventory {
    let mut inventory = Inventory::default();
    let mut all = Vec::new();
    for (name, hosts) in groups {
        for host in *hosts {
            let entry = Arc::new(Host { name: (*host).to_owned(), ..Host::default() });
            if inventory.hosts.insert((*host).to_owned(), entry).is_none() {
                all.push((*host).to_owned());
            }
        }
        inventory.groups.insert((*name).to_owned(), hosts.iter().map(|&host| host.to_owned()).collect());
    }
    let mut with_all = IndexMap::from([("all".to_owned(), all), ("ungrouped".to_owned(), Vec::new())]);
    with_all.extend(std::mem::take(&mut inventory.groups));
    inventory.groups = with_all;
    inventory
}

fn lab() -> Inventory {
    inventory(&[
        ("promoters", &["patroni1", "patroni2", "patroni3"]),
        ("balancers", &["lb1", "lb2"]),
        ("odd", &["patroni3", "lb1", "patroni1"]),
    ])
}

fn select(pattern: &str) -> Vec<String> {
    lab().select(pattern).unwrap()
}

#[test]
fn names_groups_and_globs_select() {
    assert_eq!(select("all"), ["patroni1", "patroni2", "patroni3", "lb1", "lb2"]);
    assert_eq!(select("*"), select("all"));
    assert_eq!(select("lb2"), ["lb2"]);
    assert_eq!(select("balancers"), ["lb1", "lb2"]);
    assert_eq!(select("patroni[12]*"), ["patroni1", "patroni2"]);
    assert_eq!(select("*1"), ["patroni1", "lb1"]);
}

#[test]
fn unions_exclusions_and_intersections_combine() {
    assert_eq!(select("balancers:patroni2"), ["lb1", "lb2", "patroni2"]);
    assert_eq!(select("balancers,patroni2"), ["lb1", "lb2", "patroni2"]);
    assert_eq!(select("all:!promoters"), ["lb1", "lb2"]);
    assert_eq!(select("promoters:&odd"), ["patroni1", "patroni3"]);
    assert_eq!(select("promoters:&odd:!patroni3"), ["patroni1"]);
    assert_eq!(select("!promoters"), ["lb1", "lb2"]);
    assert_eq!(select("!patroni1:promoters"), ["patroni2", "patroni3"]);
    assert_eq!(select("promoters:!promoters"), [""; 0]);
}

#[test]
fn subscripts_count_in_the_groups_own_order() {
    assert_eq!(select("odd[0]"), ["patroni3"]);
    assert_eq!(select("odd[-1]"), ["patroni1"]);
    assert_eq!(select("odd[0:1]"), ["patroni3", "lb1"]);
    assert_eq!(select("odd[1:]"), ["lb1", "patroni1"]);
    assert_eq!(select("promoters[1:9]"), ["patroni2", "patroni3"]);
    assert_eq!(select("all:!promoters[0]"), ["patroni2", "patroni3", "lb1", "lb2"]);
}

#[test]
fn what_is_not_there_is_an_error_with_the_nearest_name() {
    let error = lab().select("all:!promotors").unwrap_err();
    assert_eq!(error.to_string(), "there is no host or group `promotors`");
    assert_eq!(error.help().unwrap(), "did you mean `promoters`?");
    assert_eq!(
        lab().select("odd[3]"),
        Err(PatternError::Subscript { pattern: "odd[3]".to_owned(), count: 3 })
    );
    assert_eq!(lab().select(" , "), Err(PatternError::Empty));
    assert_eq!(lab().select("all:!"), Err(PatternError::Empty));
    assert!(matches!(lab().select("~lb("), Err(PatternError::Regex(_))));
    assert!(matches!(lab().select("lb[1"), Err(PatternError::Brackets(_))));
    assert_eq!(select("nothing*"), [""; 0]);
}

#[test]
fn a_name_of_a_host_and_of_other_hosts_group_is_refused_where_it_is_used() {
    let both = inventory(&[("web", &["a", "b"]), ("x", &["web"]), ("b", &["b"])]);
    assert_eq!(both.select("web"), Err(PatternError::Ambiguous("web".to_owned())));
    assert_eq!(both.select("b").unwrap(), ["b"]);
}

#[test]
fn an_ipv6_address_is_one_name() {
    let six = inventory(&[("g", &["fe80::1", "fe80::2"])]);
    assert_eq!(six.select("fe80::1").unwrap(), ["fe80::1"]);
    assert_eq!(six.select("all,!fe80::1").unwrap(), ["fe80::2"]);
}

/// Names of the lab and globs over them.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("all".to_owned()),
        Just("promoters".to_owned()),
        Just("balancers".to_owned()),
        Just("odd".to_owned()),
        Just("patroni1".to_owned()),
        Just("lb2".to_owned()),
        Just("*1".to_owned()),
        Just("odd[0:1]".to_owned()),
    ]
}

fn set(pattern: &str) -> std::collections::BTreeSet<String> {
    select(pattern).into_iter().collect()
}

proptest! {
    #[test]
    fn set_laws_hold(a in part(), b in part()) {
        let (left, right) = (set(&a), set(&b));
        prop_assert_eq!(set(&format!("{a}:{b}")), &left | &right);
        prop_assert_eq!(set(&format!("{a}:&{b}")), &left & &right);
        prop_assert_eq!(set(&format!("{a}:!{b}")), &left - &right);
        prop_assert_eq!(select(&format!("{a}:{b}")), select(&format!("{a},{b}")));
    }

    #[test]
    fn no_host_is_selected_twice_and_the_order_of_modifiers_is_free(parts in proptest::collection::vec(part(), 1..5)) {
        let pattern = parts.join(":");
        prop_assert_eq!(select(&pattern).len(), set(&pattern).len());
        prop_assert_eq!(select(&format!("!lb1:{pattern}")), select(&format!("{pattern}:!lb1")));
    }

    #[test]
    fn any_text_selects_or_is_refused(pattern in "[a-z0-9*?:,!&\\[\\]~ -]{0,30}") {
        let _ = lab().select(&pattern);
    }
}
