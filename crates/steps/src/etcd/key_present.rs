//! `etcd.key_present`: a key that somebody else is about to write.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::connect::{connect, validate_endpoints};
use crate::clients::TlsFiles;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// A key is there. Waits for that; changes nothing.
///
/// With `value`, it must say that: an empty key, or one of another cluster, is waited for, not taken.
/// Patroni writes `initialize` before it makes a new cluster: from then on no other member makes one.
/// Output: `value` (may be empty).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdKeyPresent {
    /// `address:port` of the members; the first that answers is asked.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The whole key: `/service/demo/initialize`.
    pub key: String,
    /// What it must say. By default anything, also nothing.
    #[serde(default)]
    pub value: Option<String>,
    /// Seconds to wait. 60 by default.
    #[serde(default = "minute")]
    pub timeout: u64,
}

fn minute() -> u64 {
    60
}

impl StepType for EtcdKeyPresent {
    const NAME: &'static str = "etcd.key_present";
    const WAITS: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        if self.key.is_empty() { Err("`key` is empty".to_owned()) } else { Ok(()) }
    }
}

impl EtcdKeyPresent {
    async fn look(&self, host: &dyn Host) -> Result<Seen, StepError> {
        let keys = connect(host, &self.endpoints, self.tls.as_ref()).await?.keys(&self.key).await?;
        Ok(match keys.into_iter().find(|found| found.key == self.key) {
            Some(found) if self.value.as_ref().is_some_and(|value| *value != found.value) => {
                Seen::NotYet(format!("{} says `{}`", self.key, found.value))
            }
            Some(found) => Seen::Yes(Output::empty().with("value", found.value)),
            None => Seen::NotYet(format!("there is no key {}", self.key)),
        })
    }
}

#[async_trait]
impl Step for EtcdKeyPresent {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        Ok(self.look(&*cx.host().await?).await?.checked(cx))
    }

    fn invariant(&self, _change: &Change) -> serde_json::Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        wait_until(cx, Duration::from_secs(self.timeout), || self.look(&*host)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, pending, satisfied};

    fn step(key: &str) -> EtcdKeyPresent {
        EtcdKeyPresent {
            endpoints: vec!["198.18.0.12:2379".into()],
            tls: None,
            key: key.into(),
            value: None,
            timeout: 0,
        }
    }

    #[tokio::test]
    async fn a_key_is_there_or_is_waited_for() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni1");
        let output = satisfied(step("/service/demo/leader").check(&cx).await.unwrap());
        assert_eq!(output.0["value"], "patroni1");
        // The beginning of a key is no key.
        let change = pending(step("/service/demo/lea").check(&cx).await.unwrap());
        let error = step("/service/demo/lea").apply(&cx, &change).await.unwrap_err();
        assert_eq!(error.message, "not so after 0 s: there is no key /service/demo/lea");
    }

    #[tokio::test]
    async fn a_key_that_says_something_else_is_not_the_one_that_is_waited_for() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni1");
        let key = "/service/demo/initialize";
        let there = satisfied(step(key).check(&cx).await.unwrap()).0["value"].as_str().unwrap().to_owned();
        let right = EtcdKeyPresent { value: Some(there.clone()), ..step(key) };
        satisfied(right.check(&cx).await.unwrap());
        let other = EtcdKeyPresent { value: Some(String::new()), ..step(key) };
        let change = pending(other.check(&cx).await.unwrap());
        assert_eq!(change.summary, format!("wait: {key} says `{there}`"));
    }
}
