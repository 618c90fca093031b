//! `host.clock`: a host's clock is right.

use std::time::Instant;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::HostContext;
use crate::support::exit_error;

/// Proves that the host's clock agrees with the operator's. Changes nothing.
///
/// Certificates begin and end by it, leases and logs are read by it. How long the question takes is allowed for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostClock {
    /// How far apart they may be, in seconds. 10 by default.
    #[serde(default = "ten")]
    pub max_offset: f64,
}

fn ten() -> f64 {
    10.0
}

impl StepType for HostClock {
    const NAME: &'static str = "host.clock";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        if self.max_offset > 0.0 { Ok(()) } else { Err("`max_offset` is more than 0".to_owned()) }
    }
}

/// How far ahead the host's clock is at least, in seconds; below 0: behind. What the way there and back took is in
/// its favour.
fn offset(before: f64, host: f64, took: f64) -> f64 {
    let after = before + took;
    if host < before {
        host - before
    } else if host > after {
        host - after
    } else {
        0.0
    }
}

#[async_trait]
impl Step for HostClock {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let before = Timestamp::now().as_nanosecond() as f64 / 1e9;
        let began = Instant::now();
        let reply = host.probe("date +%s.%N").await?;
        let took = began.elapsed().as_secs_f64();
        let text = reply.text();
        let Ok(time) = text.trim().parse::<f64>() else { return Err(exit_error(&reply)) };
        let offset = offset(before, time, took);
        if offset.abs() <= self.max_offset {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let direction = if offset > 0.0 { "ahead of" } else { "behind" };
        let why = format!("the host's clock is {:.0} s {direction} the operator's", offset.abs());
        Err(StepError::permanent(why).with_hint("`timedatectl` on both: one of them isn't synchronised"))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_question_took_is_allowed_for() {
        assert_eq!(offset(100.0, 103.0, 5.0), 0.0);
        assert_eq!(offset(100.0, 98.0, 5.0), -2.0);
        assert_eq!(offset(100.0, 125.0, 5.0), 20.0);
    }
}
