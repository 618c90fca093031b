//! `etcd.member`: a member that serves.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::connect::endpoint;
use crate::clients::TlsFiles;
use crate::host::{Host, HostContext};
use crate::support::{Seen, answered, wait_until};

/// An etcd member serves: it knows a leader, has no alarm, and a read through it reaches a majority.
///
/// Waits for that; changes nothing. Output: `version`, `member` (id, hexadecimal as etcdctl shows it),
/// `leader` (the same), `members` (their names).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdMember {
    /// `address:port` of the member as seen from the host. `127.0.0.1:2379` by default.
    #[serde(default = "own")]
    pub endpoint: String,
    /// TLS to etcd, and by which files of the host: `{ ca = "/etc/etcd/ca.crt", cert = "/etc/etcd/client.crt",
    /// key = "/etc/etcd/client.key" }`. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// How many members the cluster must have. Any number by default.
    #[serde(default)]
    pub members: Option<usize>,
    /// Seconds to wait. 60 by default.
    #[serde(default = "minute")]
    pub timeout: u64,
}

fn own() -> String {
    "127.0.0.1:2379".to_owned()
}

fn minute() -> u64 {
    60
}

impl StepType for EtcdMember {
    const NAME: &'static str = "etcd.member";
    const WAITS: bool = true;

    fn validate(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), TlsFiles::validate)?;
        endpoint(&self.endpoint, self.tls.as_ref()).map(|_| ())
    }
}

impl EtcdMember {
    async fn look(&self, host: &dyn Host) -> Result<Seen, StepError> {
        let endpoint = endpoint(&self.endpoint, self.tls.as_ref()).map_err(StepError::permanent)?;
        let silent =
            |why: String| Ok(Seen::NotYet(format!("etcd at {} doesn't answer: {why}", self.endpoint)));
        let client = match answered(host.etcd(&endpoint).await)? {
            Ok(client) => client,
            Err(why) => return silent(why),
        };
        // A linearizable read of a key that isn't there proves the majority.
        let (status, members, read) =
            tokio::join!(client.status(), client.members(), client.keys("/flow/no-such-key"));
        let status = match answered(status)? {
            Ok(status) => status,
            Err(why) => return silent(why),
        };
        if status.leader == 0 {
            return Ok(Seen::NotYet(format!("etcd at {} knows no leader", self.endpoint)));
        }
        if !status.errors.is_empty() {
            let errors = status.errors.join(", ");
            return Ok(Seen::NotYet(format!("etcd at {} has trouble: {errors}", self.endpoint)));
        }
        let (members, read) = (answered(members)?, answered(read)?);
        let (members, _) = match (members, read) {
            (Ok(members), Ok(read)) => (members, read),
            (Err(why), _) | (_, Err(why)) => {
                return Ok(Seen::NotYet(format!("etcd at {} has no majority: {why}", self.endpoint)));
            }
        };
        if let Some(wanted) = self.members
            && wanted != members.len()
        {
            return Ok(Seen::NotYet(format!("etcd has {} members, not {wanted}", members.len())));
        }
        let names: Vec<String> = members.into_iter().map(|member| member.name).collect();
        let output = Output::empty()
            .with("version", status.version)
            .with("member", format!("{:x}", status.member))
            .with("leader", format!("{:x}", status.leader))
            .with("members", names);
        Ok(Seen::Yes(output))
    }
}

#[async_trait]
impl Step for EtcdMember {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        Ok(self.look(&*cx.host().await?).await?.checked(cx))
    }

    fn invariant(&self, _change: &Change) -> serde_json::Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        wait_until(cx, Duration::from_secs(self.timeout), || self.look(&*host))
            .await
            .map_err(|error| error.with_hint("`systemctl status etcd` and `journalctl -u etcd` on the host"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};

    fn member(timeout: u64) -> EtcdMember {
        serde_json::from_value(serde_json::json!({ "members": 3, "timeout": timeout })).unwrap()
    }

    #[tokio::test]
    async fn a_member_with_a_majority_serves() {
        let lab = Lab::deployed().await;
        let output = satisfied(member(0).check(&lab.on("patroni1")).await.unwrap());
        assert_eq!(output.0["members"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn without_a_majority_it_does_not() {
        let lab = Lab::deployed().await;
        for host in ["patroni2", "patroni3"] {
            lab.world.kill(host).unwrap();
        }
        let cx = lab.on("patroni1");
        let error = member(0).apply(&cx, &Change::default()).await.unwrap_err();
        assert!(error.message.contains("etcd at 127.0.0.1:2379"), "{}", error.message);
    }

    #[tokio::test]
    async fn in_a_plan_of_bare_hosts_it_is_told_later() {
        let lab = Lab::bare().await;
        assert!(matches!(member(0).check(&lab.planning("patroni1")).await.unwrap(), Check::Deferred(_)));
    }
}
