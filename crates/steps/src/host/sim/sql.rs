//! PostgreSQL connections: a few questions about the server, and canned answers for all others.

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::error::failed;
use super::state::{HostState, PostgresRole, Unknown, UnknownKind, WorldState};
use super::world::SimWorld;
use super::{balancers, patroni, settings};
use crate::clients::{Rows, Sql, SqlTarget};
use crate::host::HostError;

/// A connection.
pub(super) struct SimSql {
    pub(super) world: SimWorld,
    pub(super) from: String,
    pub(super) target: SqlTarget,
}

/// The host whose PostgreSQL listens there.
pub(super) fn server<'w>(
    world: &'w WorldState,
    from: &str,
    target: &SqlTarget,
) -> Result<&'w str, HostError> {
    let listens = |host: &&str| {
        let postgres = world.hosts.get(*host).and_then(|host| host.postgres.as_ref());
        postgres.is_some_and(|postgres| postgres.port == target.port)
    };
    let reached = world.reach(from, &target.address);
    let behind = || balancers::backend(world, world.hosts.get(reached?)?, target.port);
    reached.filter(listens).or_else(behind).ok_or_else(|| {
        failed(from, format!("PostgreSQL at {}:{}: connection refused", target.address, target.port))
    })
}

#[async_trait]
impl Sql for SimSql {
    async fn query(&self, sql: &str) -> Result<Rows, HostError> {
        let plain = normalised(sql);
        let look = |world: &WorldState| {
            let name = server(world, &self.from, &self.target)?;
            let canned = world.sql.iter().find(|canned| {
                canned.host.as_deref().is_none_or(|host| host == name)
                    && (canned.query.matches(sql) || canned.query.matches(&plain))
            });
            if let Some(canned) = canned {
                return canned.result.clone().map_err(|message| failed(&self.from, message));
            }
            world.host(name).ok().and_then(|host| known(world, host, &plain)).ok_or_else(|| {
                if world.settings.strict {
                    let (text, host) = (sql.to_owned(), name.to_owned());
                    self.world.note_unknown(Unknown { kind: UnknownKind::Query, text, host });
                }
                failed(&self.from, format!("the simulated PostgreSQL has no answer to: {sql}"))
            })
        };
        self.world.look(&self.from, &format!("sql {sql}"), look).await
    }
}

/// Lower case, single blanks, no semicolon at the end.
fn normalised(sql: &str) -> String {
    let words: Vec<&str> = sql.split_whitespace().collect();
    words.join(" ").trim_end_matches([';', ' ']).to_lowercase()
}

/// The rows of `select ITEM [as NAME], ... [from ...]` of known items; `None` where one is unknown.
fn known(world: &WorldState, host: &HostState, sql: &str) -> Option<Rows> {
    if sql.starts_with("set ") {
        return Some(Rows::new());
    }
    if sql.contains(" from pg_settings s where s.pending_restart") {
        return settings::rows(host, sql);
    }
    // Patroni makes the role with the cluster.
    if sql.starts_with("select rolcanlogin") && sql.ends_with("where rolname = 'rewind_user'") {
        return Some(vec![Map::from_iter([("ready".to_owned(), Value::from("t"))])]);
    }
    let list = sql.strip_prefix("select ")?;
    let list = list.split_once(" from ").map_or(list, |(list, _)| list);
    let mut row = Map::new();
    for item in list.split(", ") {
        let (item, name) = item.split_once(" as ").unwrap_or((item, ""));
        let item = item.trim_end_matches("::text");
        let (default, value) = value(world, host, item, sql)?;
        row.insert(if name.is_empty() { default } else { name }.to_owned(), Value::from(value));
    }
    Some(vec![row])
}

fn value(world: &WorldState, host: &HostState, item: &str, sql: &str) -> Option<(&'static str, String)> {
    let postgres = host.postgres.as_ref()?;
    let control = patroni::control(host, &postgres.data_dir)?;
    Some(match item {
        "1" => ("?column?", "1".to_owned()),
        "pg_is_in_recovery()" => {
            let recovery = postgres.role == PostgresRole::Replica;
            ("pg_is_in_recovery", if recovery { "t" } else { "f" }.to_owned())
        }
        "system_identifier" | "(pg_control_system()).system_identifier" => {
            ("system_identifier", control.system_identifier)
        }
        "timeline_id" => ("timeline_id", control.timeline.to_string()),
        "count(*)" if sql.contains("from pg_stat_replication") => {
            ("count", replicas(world, &control.system_identifier, postgres.role).to_string())
        }
        _ => return None,
    })
}

/// How many replicas stream from this server.
fn replicas(world: &WorldState, identifier: &str, role: PostgresRole) -> usize {
    let streams = |host: &&HostState| {
        let postgres = host.postgres.as_ref();
        let same =
            |dir: &String| patroni::control(host, dir).is_some_and(|c| c.system_identifier == identifier);
        host.connected() && postgres.is_some_and(|p| p.role == PostgresRole::Replica && same(&p.data_dir))
    };
    if role == PostgresRole::Primary { world.hosts.values().filter(streams).count() } else { 0 }
}
