//! Comparing two dynamic configurations, and the patch that makes one the other.

use serde_json::{Map, Value};

/// What `PATCH /config` needs to make `now` into `wanted`; null takes a key away. `None`: they are the same.
///
/// Patroni merges a patch into tables and replaces everything else (`patch_config` in Patroni's utils.py).
pub(super) fn patch(now: &Value, wanted: &Value) -> Option<Value> {
    match (now, wanted) {
        (Value::Object(now), Value::Object(wanted)) => {
            let mut patch = Map::new();
            for (name, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
                match now.get(name) {
                    None => drop(patch.insert(name.clone(), value.clone())),
                    Some(old) => {
                        if let Some(change) = self::patch(old, value) {
                            patch.insert(name.clone(), change);
                        }
                    }
                }
            }
            let gone = now.keys().filter(|name| wanted.get(*name).is_none_or(Value::is_null));
            patch.extend(gone.map(|name| (name.clone(), Value::Null)));
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (now, wanted) if now == wanted => None,
        (_, wanted) => Some(wanted.clone()),
    }
}

/// `now` with what is in `over`, as Patroni merges: tables into tables, null takes a key away, everything else replaces.
pub(super) fn merged(now: &Value, over: &Value) -> Value {
    let (Value::Object(now), Value::Object(over)) = (now, over) else { return over.clone() };
    let mut all = now.clone();
    for (name, value) in over {
        if value.is_null() {
            all.shift_remove(name);
        } else {
            let value = merged(now.get(name).unwrap_or(&Value::Null), value);
            all.insert(name.clone(), value);
        }
    }
    Value::Object(all)
}

/// Text to be compared by lines.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// As Patroni does it.
    fn merge(config: &mut Value, patch: &Value) {
        let (Value::Object(config), Value::Object(patch)) = (config, patch) else { return };
        for (name, value) in patch {
            match (config.get_mut(name), value) {
                (_, Value::Null) => drop(config.shift_remove(name)),
                (Some(old @ Value::Object(_)), Value::Object(_)) => merge(old, value),
                _ => drop(config.insert(name.clone(), value.clone())),
            }
        }
    }

    #[test]
    fn only_what_differs_is_in_the_patch() {
        let now = json!({ "ttl": 30, "postgresql": { "use_slots": true, "parameters": { "a": 1, "b": 2 } }, "extra": 1 });
        let wanted =
            json!({ "ttl": 30, "postgresql": { "use_slots": true, "parameters": { "a": 1, "b": 3 } } });
        assert_eq!(
            patch(&now, &wanted),
            Some(json!({ "postgresql": { "parameters": { "b": 3 } }, "extra": null }))
        );
        assert_eq!(patch(&wanted, &wanted), None);
    }

    #[test]
    fn what_is_merged_in_leaves_the_rest_and_null_takes_away() {
        let now = json!({ "ttl": 30, "postgresql": { "use_slots": true, "parameters": { "a": 1, "b": 2 } } });
        let over = json!({ "postgresql": { "parameters": { "b": null, "c": "on" } } });
        let after =
            json!({ "ttl": 30, "postgresql": { "use_slots": true, "parameters": { "a": 1, "c": "on" } } });
        assert_eq!(merged(&now, &over), after);
        assert_eq!(merged(&after, &over), after);
        assert_eq!(merged(&Value::Null, &over)["postgresql"]["parameters"]["c"], "on");
    }

    fn config() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            Just(json!([1, "x"]))
        ];
        let tables = leaf.prop_recursive(3, 20, 4, |inner| {
            prop::collection::hash_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        prop::collection::hash_map("[a-d]", tables, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_patched_configuration_is_the_wanted_one(mut now in config(), wanted in config()) {
            if let Some(patch) = patch(&now, &wanted) {
                merge(&mut now, &patch);
            }
            prop_assert_eq!(patch(&now, &wanted), None);
            prop_assert_eq!(now, wanted);
        }
    }
}
