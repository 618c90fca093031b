//! PostgreSQL's settings that count from its next start on, and which of them wait for one.

use serde_json::{Map, Value, json};

use super::patroni;
use super::state::HostState;
use crate::clients::Rows;

/// Some of those whose context is `postmaster`, with their defaults.
const AT_START: [(&str, &str); 8] = [
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("shared_buffers", "128MB"),
    ("shared_preload_libraries", ""),
    ("wal_buffers", "4MB"),
];

/// Of a dynamic configuration, what PostgreSQL takes at its start only.
pub(super) fn at_start(dynamic: &Value) -> Map<String, Value> {
    let parameters = &dynamic["postgresql"]["parameters"];
    let given = |(name, _): &(&str, &str)| Some(((*name).to_owned(), parameters.get(*name)?.clone()));
    AT_START.iter().filter_map(given).collect()
}

/// Whether what Patroni has read differs from what PostgreSQL was started with.
pub(super) fn wait_for_a_restart(host: &HostState) -> bool {
    host.postgres.as_ref().is_some_and(|postgres| {
        patroni::saved_dynamic(host, &postgres.data_dir)
            .is_some_and(|dynamic| at_start(&dynamic) != postgres.started_with)
    })
}

/// The rows of `pg_settings` that a question is about: those that wait, and those that it names.
pub(super) fn rows(host: &HostState, sql: &str) -> Option<Rows> {
    let postgres = host.postgres.as_ref()?;
    let wanted = at_start(&patroni::saved_dynamic(host, &postgres.data_dir).unwrap_or_default());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |(name, default): &(&str, &str)| {
        let now = postgres.started_with.get(*name).map_or_else(|| (*default).to_owned(), text);
        let later = wanted.get(*name).map(text);
        let pending = later.as_deref().unwrap_or(default) != now;
        let Value::Object(row) = json!({
            "name": name, "now": now, "pending": if pending { "t" } else { "f" }, "wanted": later,
        }) else {
            return None;
        };
        (pending || sql.contains(&format!("'{name}'"))).then_some(row)
    };
    Some(AT_START.iter().filter_map(row).collect())
}
