//! `patroni.roles`: a data directory has the roles by which Patroni works, where that can be seen.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::settings::Settings;
use super::socket::{Socket, literal};
use crate::host::HostContext;

/// The PostgreSQL of this host has Patroni's superuser and its replication role, as the configuration names them. Changes nothing.
///
/// Data that was made without Patroni lacks them often, and its member could never lead or be cloned. They are asked of the server itself, by its
/// Unix socket, as the owner of the data directory. Where no server runs, or it lets nobody in so, nothing can be seen, and that is no
/// refusal: output `seen` is false, and `why` tells it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniRoles {
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

/// Longer configurations are none, in bytes.
const LIMIT: u64 = 1 << 20;

impl StepType for PatroniRoles {
    const NAME: &'static str = "patroni.roles";
    const READ_ONLY: bool = true;
}

/// The names of the superuser and of the replication role; Patroni's own defaults where the file has none.
fn names(file: &Value) -> (String, String) {
    let name = |role: &str| {
        file.pointer(&format!("/postgresql/authentication/{role}/username")).and_then(Value::as_str)
    };
    (
        name("superuser").unwrap_or("postgres").to_owned(),
        name("replication").unwrap_or("replicator").to_owned(),
    )
}

/// What is missing. `rows`: `NAME SUPERUSER REPLICATION` of those that may log in, `t` or `f`.
fn missing(rows: &str, superuser: &str, replication: &str) -> Vec<String> {
    let may = |name: &str, which: usize| {
        rows.lines().any(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            fields.first() == Some(&name) && fields.get(which) == Some(&"t")
        })
    };
    let mut found = Vec::new();
    if !may(superuser, 1) {
        found.push(format!("no superuser `{superuser}` that may log in"));
    }
    if !may(replication, 2) && !may(replication, 1) {
        found.push(format!("no role `{replication}` that may log in for replication"));
    }
    found
}

#[async_trait]
impl Step for PatroniRoles {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let file = host.read(&self.config_file, LIMIT).await?.unwrap_or_default();
        let file: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&file)).unwrap_or_default();
        let (superuser, replication) = names(&file);
        let sql = format!(
            "select rolname, rolsuper, rolreplication from pg_roles where rolcanlogin and rolname in ({}, {})",
            literal(&superuser),
            literal(&replication)
        );
        let unseen = |why: String| Check::Satisfied(Output::empty().with("seen", false).with("why", why));
        let socket = match Socket::of(&*host, &settings).await? {
            Ok(socket) => socket,
            Err(why) => return Ok(unseen(why)),
        };
        let reply = host.probe(&socket.psql(&sql)).await?;
        if !reply.success() {
            return Ok(unseen("its PostgreSQL lets nobody in by its Unix socket".to_owned()));
        }
        let seen = reply.text();
        let missing = missing(&seen, &superuser, &replication);
        Ok(if missing.is_empty() {
            Check::Satisfied(Output::empty().with("seen", true).with("why", None::<String>))
        } else {
            Check::Refused(format!(
                "{} couldn't lead: the data in {} has {}. Make them there first, with the passwords of {}",
                host.name(),
                settings.data_dir,
                missing.join(" and "),
                self.config_file
            ))
        })
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    #[test]
    fn a_role_that_is_not_there_or_may_too_little_is_named() {
        assert_eq!(
            missing("postgres\tt\tt\nreplicator\tf\tt\n", "postgres", "replicator"),
            Vec::<String>::new()
        );
        assert_eq!(missing("postgres\tt\tt\n", "postgres", "postgres"), Vec::<String>::new());
        assert_eq!(missing("postgres\tt\tt\n", "postgres", "replicator").len(), 1);
        assert_eq!(missing("postgres\tf\tt\nreplicator\tf\tf\n", "postgres", "replicator").len(), 2);
        assert_eq!(names(&json!({})), ("postgres".to_owned(), "replicator".to_owned()));
    }

    #[tokio::test]
    async fn of_a_stopped_server_it_is_said_that_nothing_can_be_seen() {
        let lab = Lab::deployed().await;
        lab.make("patroni3", "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        let step: PatroniRoles = serde_json::from_value(json!({})).unwrap();
        let output = satisfied(step.check(&lab.on("patroni3")).await.unwrap()).0;
        assert_eq!((&output["seen"], &output["why"]), (&false.into(), &"no PostgreSQL runs on it".into()));
    }
}
