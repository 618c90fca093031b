//! `postgres.stopped`: no PostgreSQL on a data directory.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{Command, Host, HostContext, Process, ProcessQuery, quote};
use crate::support::exit_error;

/// No process of PostgreSQL runs on a data directory. One that does is stopped by `pg_ctl` (fast).
///
/// For what lives on after its supervisor has stopped, such as under Patroni in pause. Stop the supervisor
/// first, else it starts PostgreSQL again. Output: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresStopped {
    /// The data directory.
    pub data_dir: String,
    /// Where `pg_ctl` is: `/usr/lib/postgresql/15/bin`.
    pub bin_dir: String,
    /// The user who owns the data directory.
    #[serde(default = "postgres")]
    pub user: String,
    /// Seconds that the shutdown may take. 300 by default.
    #[serde(default = "five_minutes")]
    pub timeout: u64,
}

fn postgres() -> String {
    "postgres".to_owned()
}

fn five_minutes() -> u64 {
    300
}

impl StepType for PostgresStopped {
    const NAME: &'static str = "postgres.stopped";
    const NOT_UNDOABLE: &'static str = "PostgreSQL is started again by what supervises it, such as Patroni";
}

/// What runs on a data directory.
pub(crate) async fn processes_on(host: &dyn Host, data_dir: &str) -> Result<Vec<Process>, StepError> {
    let query = ProcessQuery {
        directory: Some(data_dir.trim_end_matches('/').to_owned()),
        ..ProcessQuery::default()
    };
    Ok(host.processes(&query).await?)
}

/// `1234 (postgres: /usr/lib/postgresql/15/bin/postgres -D ...)` and how many more.
pub(super) fn describe(processes: &[Process]) -> String {
    let first = processes.iter().min_by_key(|process| process.pid);
    let Some(Process { pid, user, command }) = first else { return "none".to_owned() };
    let command: String = command.chars().take(120).collect();
    match processes.len() {
        1 => format!("{pid} ({user}: {command})"),
        count => format!("{pid} ({user}: {command}) and {} more", count - 1),
    }
}

#[async_trait]
impl Step for PostgresStopped {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let running = processes_on(&*cx.host().await?, &self.data_dir).await?;
        Ok(if running.is_empty() {
            Check::Satisfied(Output::empty())
        } else if cx.planning() {
            // Its supervisor, which an earlier step stops, usually takes it along.
            Check::Deferred(format!("PostgreSQL runs on {}: {}", self.data_dir, describe(&running)))
        } else {
            Check::Pending(Change::new(format!(
                "stop PostgreSQL on {}: {}",
                self.data_dir,
                describe(&running)
            )))
        })
    }

    /// Whatever runs there: process numbers are other ones after each restart.
    fn invariant(&self, _change: &Change) -> serde_json::Value {
        serde_json::json!({ "stop": self.data_dir })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let script = format!(
            "{}/pg_ctl stop -D {} -m fast -w -t {}",
            quote(self.bin_dir.trim_end_matches('/')),
            quote(&self.data_dir),
            self.timeout
        );
        let command =
            Command { user: Some(self.user.clone()), directory: Some("/".into()), ..Command::new(script) };
        let reply = cx.host().await?.run(cx.attempt(), &command).await?;
        // Where it is no running cluster, pg_ctl fails; the check that follows sees what is left.
        if reply.success() { Ok(Output::empty()) } else { Err(exit_error(&reply)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BIN, DATA, Lab, pending, satisfied};

    #[tokio::test]
    async fn a_running_postgresql_is_pending_and_none_is_satisfied() {
        let lab = Lab::deployed().await;
        let step: PostgresStopped =
            serde_json::from_value(serde_json::json!({ "data_dir": DATA, "bin_dir": BIN })).unwrap();
        let change = pending(step.check(&lab.on("patroni2")).await.unwrap());
        assert!(change.summary.starts_with(&format!("stop PostgreSQL on {DATA}: ")), "{}", change.summary);
        satisfied(step.check(&Lab::bare().await.on("patroni1")).await.unwrap());
    }
}
