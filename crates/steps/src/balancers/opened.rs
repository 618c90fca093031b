//! `balancer.opened`: a balancer that a run has closed lets clients in again.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::condition::{NOTE, closed_by};
use crate::host::{HostChange, HostContext};
use crate::system::{SystemdUnit, UnitTarget};

/// HAProxy that a run has closed on this host (`/etc/haproxy/closed-by-flow` says so) is unmasked and started, and the note removed.
///
/// Where no note is, nothing is done, however HAProxy is. What clients write from then on can't be taken back, so this wants a name typed.
/// Output: `closed_by` (the run, or null where it wasn't closed).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalancerOpened {}

impl StepType for BalancerOpened {
    const NAME: &'static str = "balancer.opened";
    const DESTRUCTIVE: bool = true;
    const NOT_UNDOABLE: &'static str = "clients have come in, and written";
}

fn haproxy() -> SystemdUnit {
    SystemdUnit::of("haproxy.service", UnitTarget::Running, false)
}

#[async_trait]
impl Step for BalancerOpened {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let run = closed_by(&*cx.host().await?).await?;
        let output = Output::empty().with("closed_by", &run);
        let Some(run) = run else { return Ok(Check::Satisfied(output)) };
        let unit = match haproxy().check(cx).await? {
            Check::Pending(change) => change.summary,
            Check::Satisfied(_) => "haproxy.service runs".to_owned(),
            refused => return Ok(refused),
        };
        Ok(Check::Pending(Change::new(format!("{unit}; it is no longer closed by run {run}")).with_data(run)))
    }

    fn invariant(&self, change: &Change) -> serde_json::Value {
        change.data::<String>().unwrap_or_default().into()
    }

    /// The note goes last: cut short before, HAProxy counts as closed, and is opened again.
    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        haproxy().apply(cx, change).await?;
        let remove = HostChange::RemoveFile { path: NOTE.to_owned() };
        cx.host().await?.change(cx.attempt(), &remove).await?;
        Ok(Output::empty().with("closed_by", change.data::<String>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn only_what_a_run_has_closed_is_opened() {
        let lab = Lab::bare().await;
        let (cx, step) = (lab.on("patroni1"), BalancerOpened {});
        lab.make("patroni1", "package", json!({ "names": ["haproxy"] })).await;
        let closed = json!({ "unit": "haproxy.service", "state": "stopped", "masked": true });
        lab.make("patroni1", "systemd.unit", closed).await;
        let output = satisfied(step.check(&cx).await.unwrap());
        assert_eq!(output.0["closed_by"], Value::Null, "somebody else has masked it");
        lab.make("patroni1", "file", json!({ "path": NOTE, "content": "Closed by flow: run abc (x)\n" }))
            .await;
        let (change, output) = lab.establish(&step, &cx).await;
        assert_eq!(output.0["closed_by"], "abc");
        assert!(
            change.summary.contains("masked -> unmasked") && change.summary.contains("by run abc"),
            "{}",
            change.summary
        );
        assert!(lab.text("patroni1", NOTE).is_none());
    }
}
