//! `patroni.canary`: a row that the leader writes has come to this member.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::settings::Settings;
use super::socket::{Socket, literal};
use crate::clients::SqlTarget;
use crate::host::{Command, Host, HostContext};
use crate::support::{Seen, wait_until};

/// A row with this run's id is in this member's PostgreSQL: written where the member leads, waited for where it follows.
///
/// It is the row of the table `flow_canary` that `verify.toml` writes too: one for each cluster, in the database `postgres`. The server is asked by
/// its Unix socket, as the owner of the data directory, or else with the superuser's password of Patroni's configuration, which stays on
/// the host and in flow's memory. Where it lets nobody in so, or replays late on purpose (`recovery_min_apply_delay`, paused), nothing
/// can be seen, and that is no failure: output `seen` is false, and `why` tells it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniCanary {
    /// The run's id: `"{{ run.id }}"`.
    pub run: String,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Seconds to wait for it. 60 by default.
    #[serde(default = "a_minute")]
    pub timeout: u64,
}

fn a_minute() -> u64 {
    60
}

/// Longer configurations are none, in bytes.
const LIMIT: u64 = 1 << 20;

impl StepType for PatroniCanary {
    const NAME: &'static str = "patroni.canary";
    const NOT_UNDOABLE: &'static str = "the row stays, and says when it was written";
}

/// A way into the member's own server.
struct Door {
    socket: Socket,
    scope: String,
    superuser: SqlTarget,
}

/// What a member says of the row.
#[derive(Debug, PartialEq, Eq)]
enum Row {
    There,
    /// Not there; this member leads.
    ToWrite,
    /// Not there yet; this member follows.
    ToCome,
    /// It can't be seen; the reason.
    Unseen(String),
}

/// `follows`, `there`, `late`, each `t`, `f` or nothing.
fn read(values: &[String]) -> Row {
    let yes = |index: usize| values.get(index).is_some_and(|value| value == "t");
    match (yes(0), yes(1), yes(2)) {
        (_, true, _) => Row::There,
        (false, false, _) => Row::ToWrite,
        (true, false, true) => Row::Unseen("it replays late on purpose, or its replay is paused".to_owned()),
        (true, false, false) => Row::ToCome,
    }
}

fn superuser(file: &str, socket: &Socket) -> SqlTarget {
    // Never the parser's own words: they may quote a line with a password.
    let file: Value = serde_saphyr::from_str(file).unwrap_or_default();
    let text = |name: &str| {
        let path = format!("/postgresql/authentication/superuser/{name}");
        file.pointer(&path).and_then(Value::as_str).map(str::to_owned)
    };
    SqlTarget {
        address: socket.directory.clone(),
        port: socket.port.parse().unwrap_or(5432),
        user: text("username").unwrap_or_else(|| "postgres".to_owned()),
        password: text("password").map(Secret::new),
        database: "postgres".to_owned(),
        tls: None,
    }
}

impl Door {
    /// The inner error says why there is none.
    async fn of(host: &dyn Host, config_file: &str) -> Result<Result<Self, String>, StepError> {
        let settings = Settings::required(host, config_file).await?;
        let (socket, file) = tokio::join!(Socket::of(host, &settings), host.read(config_file, LIMIT));
        let file = file?.unwrap_or_default();
        Ok(socket?.map(|socket| {
            let superuser = superuser(&String::from_utf8_lossy(&file), &socket);
            Self { socket, scope: settings.scope, superuser }
        }))
    }

    fn look_sql(&self, run: &str) -> String {
        let row = format!("select run from flow_canary where scope = {}", literal(&self.scope));
        // Asked so, it is no error where there is no such table yet.
        format!(
            "select pg_is_in_recovery() as a, \
             (select query_to_xml({}, true, true, '')::text like {} from (select to_regclass('flow_canary') as there) t where there is not null) as b, \
             case when pg_is_in_recovery() then current_setting('recovery_min_apply_delay') <> '0' or pg_is_wal_replay_paused() end as c",
            literal(&row),
            literal(&format!("%{run}%"))
        )
    }

    /// It waits for no standby, and not for the leave of a cluster whose transactions only read by default.
    fn write_sql(&self, run: &str) -> String {
        format!(
            "begin read write; set local synchronous_commit = local; \
             create table if not exists flow_canary (scope text primary key, run text not null, at timestamptz not null default now()); \
             insert into flow_canary (scope, run) values ({}, {}) on conflict (scope) do update set run = excluded.run, at = now(); commit",
            literal(&self.scope),
            literal(run)
        )
    }

    async fn look(&self, host: &dyn Host, run: &str) -> Result<Row, StepError> {
        let sql = self.look_sql(run);
        let reply = host.probe(&self.socket.psql(&sql)).await?;
        if reply.success() {
            return Ok(read(
                &reply.text().trim_end_matches('\n').split('\t').map(str::to_owned).collect::<Vec<_>>(),
            ));
        }
        let Ok(client) = host.sql(&self.superuser).await else {
            return Ok(Row::Unseen("its PostgreSQL lets nobody in by its Unix socket".to_owned()));
        };
        let rows = client.query(&sql).await?;
        let value = |name: &str| {
            rows.first().and_then(|row| row.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Ok(read(&["a", "b", "c"].map(value)))
    }

    async fn write(&self, cx: &Context, host: &dyn Host, run: &str) -> Result<(), StepError> {
        let sql = self.write_sql(run);
        if host.run(cx.attempt(), &Command::new(self.socket.psql(&sql))).await?.success() {
            return Ok(());
        }
        host.fence(cx.attempt()).await?;
        host.sql(&self.superuser).await?.query(&sql).await?;
        Ok(())
    }
}

fn seen() -> Output {
    Output::empty().with("seen", true).with("why", None::<String>)
}

fn unseen(why: String) -> Output {
    Output::empty().with("seen", false).with("why", why)
}

#[async_trait]
impl Step for PatroniCanary {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let door = match Door::of(&*host, &self.config_file).await? {
            Ok(door) => door,
            Err(why) => return Ok(Check::Satisfied(unseen(why))),
        };
        Ok(match door.look(&*host, &self.run).await? {
            Row::There => Check::Satisfied(seen()),
            Row::Unseen(why) => Check::Satisfied(unseen(why)),
            Row::ToWrite => Check::Pending(Change::new("write the row of this run")),
            Row::ToCome => Seen::NotYet("the row of this run hasn't come yet".to_owned()).checked(cx),
        })
    }

    /// The lead may have changed when it is looked at again.
    fn invariant(&self, _change: &Change) -> Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let look = || async {
            let door = match Door::of(&*host, &self.config_file).await? {
                Ok(door) => door,
                Err(why) => return Ok(Seen::NotYet(why)),
            };
            Ok(match door.look(&*host, &self.run).await? {
                Row::There => Seen::Yes(seen()),
                Row::Unseen(why) => Seen::Yes(unseen(why)),
                Row::ToCome => Seen::NotYet("the row of this run hasn't come yet".to_owned()),
                Row::ToWrite => {
                    door.write(cx, &*host, &self.run).await?;
                    Seen::NotYet("the row of this run was written just now".to_owned())
                }
            })
        };
        let waited = wait_until(cx, Duration::from_secs(self.timeout), look).await;
        waited.map_err(|error| error.with_hint("`flow diagnose` tells whether the member streams"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    #[test]
    fn what_a_member_says_of_the_row_decides() {
        let of = |text: &str| read(&text.split('\t').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("t\tt\tf"), Row::There);
        assert_eq!(of("f\t\t"), Row::ToWrite, "no table yet");
        assert_eq!(of("f\tf\t"), Row::ToWrite, "another run's row");
        assert_eq!(of("t\t\tf"), Row::ToCome);
        assert!(matches!(of("t\tf\tt"), Row::Unseen(_)));
    }

    #[test]
    fn the_superusers_password_is_taken_from_patronis_configuration() {
        let socket = Socket {
            owner: "postgres".into(),
            psql: "psql".into(),
            directory: "/run/postgresql".into(),
            port: "5433".into(),
        };
        let file = "postgresql: {authentication: {superuser: {username: admin, password: s3cret}}}";
        let target = superuser(file, &socket);
        assert_eq!((target.user.as_str(), target.port), ("admin", 5433));
        assert_eq!(target.password.as_ref().map(Secret::reveal), Some("s3cret"));
        let none = superuser("postgresql: {}", &socket);
        assert_eq!((none.user.as_str(), none.password), ("postgres", None));
    }

    #[tokio::test]
    async fn where_nobody_is_let_in_it_is_said_that_nothing_can_be_seen() {
        let lab = Lab::deployed().await;
        let step: PatroniCanary = serde_json::from_value(json!({ "run": "20260102-x" })).unwrap();
        let output = satisfied(step.check(&lab.on("patroni1")).await.unwrap()).0;
        assert_eq!(
            (&output["seen"], &output["why"]),
            (&false.into(), &"its PostgreSQL has no Unix socket".into())
        );
    }
}
