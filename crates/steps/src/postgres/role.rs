//! `postgres.role`: a role that may log in with a password, and call certain functions.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use postgres_protocol::password::scram_sha_256;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::clients::{Sql, SqlTarget, TlsFiles};
use crate::host::HostContext;

/// A role that may log in with a password, and execute certain functions.
///
/// The password isn't sent: flow makes its SCRAM-SHA-256 verifier, and sends that, so that PostgreSQL can log no password. A role
/// that is there keeps the password that it has. Whether that is the right one is for `postgres.password` to say.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresRole {
    /// Its name.
    pub name: String,
    /// Its password, where it is made.
    pub password: Secret,
    /// The functions that it may execute, with their arguments' types: `pg_catalog.pg_ls_dir(text, boolean, boolean)`.
    #[serde(default)]
    pub functions: Vec<String>,
    /// The server's address as seen from the host.
    pub address: String,
    /// TCP port. 5432 by default.
    #[serde(default = "port")]
    pub port: u16,
    /// The password of the superuser `postgres`, by whom it is made.
    pub superuser_password: Secret,
    /// TLS, and by which files of the host, as with `postgres.query`. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
}

fn port() -> u16 {
    5432
}

impl StepType for PostgresRole {
    const NAME: &'static str = "postgres.role";
    const NOT_UNDOABLE: &'static str = "a role may own something by now";

    fn validate(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(format!("`{}`: a role's name is of lower case letters, digits and `_`", self.name));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.(), ".contains(c);
        if let Some(wrong) = self.functions.iter().find(|text| !text.chars().all(plain)) {
            return Err(format!("`{wrong}` is no function with its arguments' types"));
        }
        self.tls.as_ref().map_or(Ok(()), TlsFiles::validate)
    }
}

impl PostgresRole {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Sql>, StepError> {
        let target = SqlTarget {
            address: self.address.clone(),
            port: self.port,
            user: "postgres".to_owned(),
            password: Some(self.superuser_password.clone()),
            database: "postgres".to_owned(),
            tls: self.tls.clone(),
        };
        Ok(cx.host().await?.sql(&target).await?)
    }

    fn asks(&self) -> String {
        let may = |function: &String| format!(" and has_function_privilege(oid, '{function}', 'execute')");
        let may: String = self.functions.iter().map(may).collect();
        format!("select rolcanlogin{may} as ready from pg_roles where rolname = '{}'", self.name)
    }

    /// Made in one transaction. A verifier has nothing in it that SQL would have to quote.
    fn makes(&self) -> String {
        let Self { name, .. } = self;
        let verifier = scram_sha_256(self.password.reveal().as_bytes());
        let grant = |function: &String| format!("grant execute on function {function} to {name};");
        let grants: String = self.functions.iter().map(grant).collect();
        format!(
            "do $do$ begin if not exists (select from pg_roles where rolname = '{name}') then \
             create role {name} login password '{verifier}'; else alter role {name} login; end if; {grants} end $do$"
        )
    }
}

#[async_trait]
impl Step for PostgresRole {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let rows = self.connect(cx).await?.query(&self.asks()).await?;
        let ready = rows.first().and_then(|row| row.get("ready"));
        if ready.is_some_and(|ready| ready == "t") {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let verb = if rows.is_empty() { "create" } else { "complete" };
        Ok(Check::Pending(Change::new(format!("{verb} role {}", self.name))))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        // What is changed is not on the host's disk by way of flow, so its lock is proven by itself.
        cx.host().await?.fence(cx.attempt()).await?;
        self.connect(cx).await?.query(&self.makes()).await?;
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    fn role(with: &serde_json::Value) -> PostgresRole {
        let mut all = json!({
            "name": "rewind_user", "password": "it's $$ s3cret", "address": "198.18.0.11", "superuser_password": "x",
            "functions": ["pg_catalog.pg_ls_dir(text, boolean, boolean)"],
        });
        all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn not_the_password_is_sent_but_its_verifier() {
        let sql = role(&json!({})).makes();
        assert!(!sql.contains("s3cret"), "{sql}");
        let verifier = sql.split("login password '").nth(1).unwrap().split('\'').next().unwrap();
        assert!(
            verifier.starts_with("SCRAM-SHA-256$4096:") && verifier.matches('$').count() == 2,
            "{verifier}"
        );
        assert!(sql.contains(
            "grant execute on function pg_catalog.pg_ls_dir(text, boolean, boolean) to rewind_user;"
        ));
    }

    #[test]
    fn what_would_be_more_than_a_name_is_refused() {
        assert_eq!(role(&json!({})).validate(), Ok(()));
        assert!(role(&json!({ "name": "x; drop" })).validate().is_err());
        assert!(role(&json!({ "functions": ["f(text); --"] })).validate().is_err());
    }

    #[tokio::test]
    async fn a_role_that_patroni_has_made_is_left_alone() {
        let lab = Lab::deployed().await;
        satisfied(role(&json!({})).check(&lab.on("patroni1")).await.unwrap());
    }
}
