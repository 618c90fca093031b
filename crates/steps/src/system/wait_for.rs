//! `wait_for`: a port, an HTTP service or a script that must answer before a run goes on.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::clients::HttpRequest;
use crate::host::{Host, HostContext};
use crate::support::{Seen, address_and_port, answered, wait_until};

/// Waits until a port is open, an HTTP service gives a status, or a script exits 0.
///
/// Seen from the host. Changes nothing. Give one of `port`, `http` and `script`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitFor {
    /// `address:port` of a TCP service: `127.0.0.1:5432`.
    #[serde(default)]
    pub port: Option<String>,
    /// An address of HTTP without TLS: `http://198.18.0.11:8008/readiness`.
    #[serde(default)]
    pub http: Option<String>,
    /// The status that `http` must give. 200 by default.
    #[serde(default = "ok")]
    pub status: u16,
    /// A script that changes nothing, run as root.
    #[serde(default)]
    pub script: Option<String>,
    /// Seconds to wait. 60 by default.
    #[serde(default = "minute")]
    pub timeout: u64,
}

fn ok() -> u16 {
    200
}

fn minute() -> u64 {
    60
}

impl StepType for WaitFor {
    const NAME: &'static str = "wait_for";
    const WAITS: bool = true;

    fn validate(&self) -> Result<(), String> {
        let given = [self.port.is_some(), self.http.is_some(), self.script.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err("give one of `port`, `http` and `script`".to_owned());
        }
        if let Some(url) = &self.http {
            request(url)?;
        }
        if let Some(port) = &self.port
            && address_and_port(port, 0)?.1 == 0
        {
            return Err(format!("`{port}` has no port: write address:port"));
        }
        Ok(())
    }
}

fn request(url: &str) -> Result<HttpRequest, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("`{url}` doesn't begin with http://"))?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (address, port) = address_and_port(authority, 80)?;
    Ok(HttpRequest {
        method: "GET",
        address,
        port,
        path: path.to_owned(),
        body: None,
        basic_auth: None,
        tls: None,
        timeout: Duration::from_secs(5),
    })
}

impl WaitFor {
    async fn look(&self, host: &dyn Host) -> Result<Seen, StepError> {
        let yes = Seen::Yes(Output::empty());
        if let Some(port) = &self.port {
            let (address, number) = address_and_port(port, 0).map_err(StepError::permanent)?;
            return Ok(match answered(host.dial(&address, number).await)? {
                Ok(_) => yes,
                Err(why) => Seen::NotYet(format!("{port} doesn't answer: {why}")),
            });
        }
        if let Some(url) = &self.http {
            let request = request(url).map_err(StepError::permanent)?;
            return Ok(match answered(host.http(&request).await)? {
                Ok(reply) if reply.status == self.status => yes,
                Ok(reply) => Seen::NotYet(format!("{url} answers {}, not {}", reply.status, self.status)),
                Err(why) => Seen::NotYet(format!("{url} doesn't answer: {why}")),
            });
        }
        let reply = host.probe(self.script.as_deref().unwrap_or("true")).await?;
        Ok(if reply.success() { yes } else { Seen::NotYet(format!("the script exits {}", reply.code)) })
    }
}

#[async_trait]
impl Step for WaitFor {
    fn early(&self) -> bool {
        self.script.is_none()
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        Ok(match self.look(&*cx.host().await?).await? {
            Seen::Yes(output) => Check::Satisfied(output),
            Seen::NotYet(missing) => Check::Pending(Change::new(format!("wait: {missing}"))),
        })
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
    use serde_json::json;

    fn wait(with: serde_json::Value) -> WaitFor {
        serde_json::from_value(with).unwrap()
    }

    #[tokio::test]
    async fn what_answers_is_satisfied_and_what_does_not_fails_with_what_is_missing() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni1");
        satisfied(wait(json!({ "http": "http://198.18.0.11:8008/leader" })).check(&cx).await.unwrap());
        satisfied(wait(json!({ "script": "test -e /etc/patroni/config.yml" })).check(&cx).await.unwrap());
        let never = wait(json!({ "http": "http://198.18.0.11:8008/replica", "timeout": 0 }));
        let change = pending(never.check(&cx).await.unwrap());
        let error = never.apply(&cx, &change).await.unwrap_err();
        assert_eq!(error.message, "not so after 0 s: http://198.18.0.11:8008/replica answers 503, not 200");
    }

    #[test]
    fn exactly_one_thing_is_waited_for() {
        assert!(wait(json!({})).validate().is_err());
        assert!(wait(json!({ "port": "a:1", "script": "x" })).validate().is_err());
        assert!(wait(json!({ "port": "localhost" })).validate().is_err());
        assert!(wait(json!({ "http": "https://x/" })).validate().is_err());
        assert!(wait(json!({ "port": "127.0.0.1:5432" })).validate().is_ok());
    }
}
