//! `postgres.password`: a password is the one that a running server knows.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::clients::{SqlTarget, TlsFiles};
use crate::host::{Host, HostContext, HostError};

/// Proves that a password isn't another one than that of a PostgreSQL which runs. Changes nothing.
///
/// A configuration with a wrong password would take a running member out of its cluster. Where nothing answers, or
/// something else is wrong with the connection, nothing is known, and that is no error. Output: `known` (whether a
/// server took it).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresPassword {
    /// An address as seen from the host.
    pub address: String,
    /// TCP port. 5432 by default.
    #[serde(default = "port")]
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// TLS, and by which files of the host, as with `postgres.query`. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The password of the superuser `postgres`, who is asked whether the role is there at all: one that isn't has no other password.
    #[serde(default)]
    pub superuser_password: Option<Secret>,
}

fn port() -> u16 {
    5432
}

impl StepType for PostgresPassword {
    const NAME: &'static str = "postgres.password";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), TlsFiles::validate)
    }
}

impl PostgresPassword {
    fn login(&self, user: &str, password: &Secret) -> SqlTarget {
        SqlTarget {
            address: self.address.clone(),
            port: self.port,
            user: user.to_owned(),
            password: Some(password.clone()),
            database: "postgres".to_owned(),
            tls: self.tls.clone(),
        }
    }

    /// PostgreSQL refuses a role that isn't there with the same words as a wrong password.
    async fn is_absent(&self, host: &dyn Host) -> Result<bool, StepError> {
        let Some(password) = &self.superuser_password else { return Ok(false) };
        let sql = host.sql(&self.login("postgres", password)).await?;
        let name = self.user.replace('\'', "''");
        Ok(sql.query(&format!("select 1 from pg_roles where rolname = '{name}'")).await?.is_empty())
    }
}

#[async_trait]
impl Step for PostgresPassword {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let known = match host.sql(&self.login(&self.user, &self.password)).await {
            Ok(_) => true,
            Err(HostError::Failed { message, .. })
                if message.contains("(28P01)") && self.is_absent(&*host).await? =>
            {
                false
            }
            // invalid_password
            Err(HostError::Failed { message, .. }) if message.contains("(28P01)") => {
                let (user, place) = (&self.user, format!("{}:{}", self.address, self.port));
                let why = format!("the password of `{user}` isn't the one that PostgreSQL at {place} knows");
                return Err(StepError::permanent(why).with_hint(
                    "give the one that it was deployed with; to change it, ALTER ROLE on the leader comes first",
                ));
            }
            Err(HostError::Failed { .. } | HostError::Lost { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Check::Satisfied(Output::empty().with("known", known)))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
