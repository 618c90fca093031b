//! `postgres.password`: a password is the one that a running server knows.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::clients::{SqlTarget, TlsFiles};
use crate::host::{HostContext, HostError};

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

#[async_trait]
impl Step for PostgresPassword {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let target = SqlTarget {
            address: self.address.clone(),
            port: self.port,
            user: self.user.clone(),
            password: Some(self.password.clone()),
            database: "postgres".to_owned(),
            tls: self.tls.clone(),
        };
        let known = match cx.host().await?.sql(&target).await {
            Ok(_) => true,
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
