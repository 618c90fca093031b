//! `postgres.query`: SQL, asked or carried out once.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::clients::{Rows, Sql, SqlTarget, TlsFiles};
use crate::host::HostContext;

/// Asks PostgreSQL, or changes something in it until a condition holds.
///
/// Without `satisfied_if` it only asks: the connection is set to read-only, and `sql` runs in every run.
/// With it, `sql` is carried out where `satisfied_if` doesn't give true, and looked at again afterwards.
/// Output: `rows` (of the last statement, every value as text), `count`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresQuery {
    /// One or more statements.
    pub sql: String,
    /// A query whose first column of its first row is true once nothing is left to do.
    #[serde(default)]
    pub satisfied_if: Option<String>,
    /// The rows that must come; anything else is a failure. Only without `satisfied_if`.
    #[serde(default)]
    pub expect: Option<Vec<serde_json::Map<String, Value>>>,
    /// An address as seen from the host, or the directory of a Unix socket.
    #[serde(default = "socket")]
    pub address: String,
    /// TCP port. 5432 by default.
    #[serde(default = "port")]
    pub port: u16,
    /// Role. `postgres` by default.
    #[serde(default = "postgres")]
    pub user: String,
    /// Password; none for trust or peer.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Database. `postgres` by default.
    #[serde(default = "postgres")]
    pub database: String,
    /// TLS, and by which files of the host: `{ ca = "/etc/postgresql/certs/root.crt" }`. The server's certificate must
    /// be made out to `address`. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
}

fn socket() -> String {
    "127.0.0.1".to_owned()
}

fn port() -> u16 {
    5432
}

fn postgres() -> String {
    "postgres".to_owned()
}

impl StepType for PostgresQuery {
    const NAME: &'static str = "postgres.query";

    fn validate(&self) -> Result<(), String> {
        if let Some(tls) = &self.tls {
            tls.validate()?;
            if self.address.starts_with('/') {
                return Err("PostgreSQL speaks no TLS over a Unix socket: leave out `tls`".to_owned());
            }
        }
        if self.satisfied_if.is_some() && self.expect.is_some() {
            return Err("`expect` is for a query that only asks: leave out `satisfied_if`".to_owned());
        }
        Ok(())
    }
}

impl PostgresQuery {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Sql>, StepError> {
        let target = SqlTarget {
            address: self.address.clone(),
            port: self.port,
            user: self.user.clone(),
            password: self.password.clone(),
            database: self.database.clone(),
            tls: self.tls.clone(),
        };
        Ok(cx.host().await?.sql(&target).await?)
    }

    async fn ask(&self, sql: &dyn Sql) -> Result<Check, StepError> {
        sql.query("SET default_transaction_read_only = on").await?;
        let rows = sql.query(&self.sql).await?;
        match &self.expect {
            Some(expected) if !same(expected, &rows) => {
                Err(StepError::failed("the rows are not the expected ones").with_detail(format!(
                    "expected {}\ngot      {}",
                    Value::from_iter(expected.clone()),
                    Value::from_iter(rows)
                )))
            }
            _ => Ok(Check::Satisfied(output(rows))),
        }
    }

    async fn holds(sql: &dyn Sql, condition: &str) -> Result<bool, StepError> {
        let rows = sql.query(condition).await?;
        let first = rows.first().and_then(|row| row.values().next());
        Ok(first.is_some_and(|value| {
            matches!(value.as_str(), Some("t" | "true" | "on")) || value == &Value::Bool(true)
        }))
    }
}

/// Compared as text, since that is how values come.
fn same(expected: &[serde_json::Map<String, Value>], rows: &Rows) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain = |rows: &[serde_json::Map<String, Value>]| -> Vec<Vec<(String, String)>> {
        rows.iter().map(|row| row.iter().map(|(name, value)| (name.clone(), text(value))).collect()).collect()
    };
    plain(expected) == plain(rows)
}

fn output(rows: Rows) -> Output {
    Output::empty().with("count", rows.len()).with("rows", rows)
}

#[async_trait]
impl Step for PostgresQuery {
    fn early(&self) -> bool {
        self.expect.is_some() || self.satisfied_if.is_some()
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let sql = self.connect(cx).await?;
        let Some(condition) = &self.satisfied_if else { return self.ask(&*sql).await };
        if Self::holds(&*sql, condition).await? {
            return Ok(Check::Satisfied(output(Rows::new())));
        }
        let first = self.sql.trim().lines().next().unwrap_or_default();
        let change = Change::new(format!("run: {first}"));
        Ok(Check::Pending(if self.sql.trim().lines().count() > 1 {
            change.with_diff(self.sql.trim())
        } else {
            change
        }))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        // What is changed is not on the host's disk by way of flow, so its lock is proven by itself.
        cx.host().await?.fence(cx.attempt()).await?;
        Ok(output(self.connect(cx).await?.query(&self.sql).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::{CannedSql, ScriptMatch};
    use crate::testing::{Lab, pending, satisfied};
    use serde_json::json;

    fn query(with: Value) -> PostgresQuery {
        serde_json::from_value(with).unwrap()
    }

    fn answers(lab: &Lab, query: &str, value: &str) {
        let Value::Object(row) = json!({ "v": value }) else { unreachable!() };
        let query = ScriptMatch::Exact(query.into());
        lab.world.rows(CannedSql { host: None, query, result: Ok(vec![row]) }).unwrap();
    }

    #[tokio::test]
    async fn a_query_that_only_asks_gives_rows_and_compares_them() {
        let lab = Lab::deployed().await;
        answers(&lab, "SET default_transaction_read_only = on", "");
        answers(&lab, "select 1", "1");
        let cx = lab.on("patroni1");
        let output =
            satisfied(query(json!({ "sql": "select 1", "expect": [{ "v": 1 }] })).check(&cx).await.unwrap());
        assert_eq!(output.0["rows"][0]["v"], "1");
        let error = query(json!({ "sql": "select 1", "expect": [{ "v": 2 }] })).check(&cx).await.unwrap_err();
        assert_eq!(error.message, "the rows are not the expected ones");
    }

    #[tokio::test]
    async fn a_condition_decides_whether_something_is_done() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni1");
        let step = query(json!({ "sql": "create role x", "satisfied_if": "select exists" }));
        answers(&lab, "select exists", "f");
        assert_eq!(pending(step.check(&cx).await.unwrap()).summary, "run: create role x");
        answers(&lab, "select exists", "t");
        satisfied(step.check(&cx).await.unwrap());
    }
}
