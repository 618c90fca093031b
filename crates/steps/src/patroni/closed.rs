//! `patroni.closed`: what a run has closed on a host until the cluster is opened.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::off::{ARCHIVING, LIMIT};
use crate::balancers::closed_by;
use crate::host::HostContext;

/// What a run has closed on this host until an operator opens the cluster (`open.toml`). Changes nothing.
///
/// Output: `balancer` (the run that has closed HAProxy here, by its note `/etc/haproxy/closed-by-flow`) and `archiving` (the run that has
/// turned `archive_command` off in Patroni's configuration file); null where it isn't so.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniClosed {
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

impl StepType for PatroniClosed {
    const NAME: &'static str = "patroni.closed";
    const READ_ONLY: bool = true;
}

#[async_trait]
impl Step for PatroniClosed {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let file = async { host.read(&self.config_file, LIMIT).await.map_err(StepError::from) };
        let (balancer, file) = tokio::try_join!(closed_by(&*host), file)?;
        let text = String::from_utf8_lossy(&file.unwrap_or_default()).into_owned();
        Ok(Check::Satisfied(
            Output::empty().with("balancer", balancer).with("archiving", ARCHIVING.run(&text)),
        ))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, RUN, satisfied};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn the_runs_that_have_closed_something_are_told_also_on_a_bare_host() {
        let step: PatroniClosed = serde_json::from_value(json!({})).unwrap();
        let bare = Lab::bare().await;
        let output = satisfied(step.check(&bare.on("patroni1")).await.unwrap()).0;
        assert_eq!((&output["balancer"], &output["archiving"]), (&Value::Null, &Value::Null));
        let lab = Lab::deployed().await;
        let parameters = json!({ "archive_mode": "on", "archive_command": "cp" });
        let on = json!({ "dynamic": { "postgresql": { "parameters": parameters } } });
        lab.make("patroni1", "patroni.archiving_off", on).await;
        let note = json!({ "path": "/etc/haproxy/closed-by-flow", "parents": true, "content": "Closed by flow: run abc (x)\n" });
        lab.make("patroni1", "file", note).await;
        let output = satisfied(step.check(&lab.on("patroni1")).await.unwrap()).0;
        assert_eq!((&output["balancer"], &output["archiving"]), (&json!("abc"), &json!(RUN)));
    }
}
