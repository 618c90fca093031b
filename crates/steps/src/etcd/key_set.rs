//! `etcd.key_set`: one key gets a value, if nobody has written it since it was looked at.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::connect::{connect, validate_endpoints, validate_prefix};
use crate::clients::{Condition, EtcdKey, TlsFiles};
use crate::host::{Host, HostContext};

/// A key has a value. Written in one transaction, on the revision that it was seen at.
///
/// Where the key has the value already, nothing is done. Where somebody has written it since, it is refused. Output: `value`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdKeySet {
    /// `address:port` of the members; the first that answers is asked.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The cluster's prefix: `/service/demo/`.
    pub prefix: String,
    /// The key's name below it: `initialize`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The revision of its last change, as it was seen; 0: it was absent.
    pub revision: i64,
}

impl StepType for EtcdKeySet {
    const NAME: &'static str = "etcd.key_set";
    const NOT_UNDOABLE: &'static str = "what Patroni has done by the new value isn't taken back with it";

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        validate_prefix(&self.prefix)?;
        if self.name.is_empty() { Err("`name` is empty".to_owned()) } else { Ok(()) }
    }
}

impl EtcdKeySet {
    fn key(&self) -> String {
        format!("{}{}", self.prefix, self.name)
    }

    async fn look(&self, host: &dyn Host) -> Result<Option<EtcdKey>, StepError> {
        let key = self.key();
        let found = connect(host, &self.endpoints, self.tls.as_ref()).await?.keys(&key).await?;
        Ok(found.into_iter().find(|found| found.key == key))
    }
}

#[async_trait]
impl Step for EtcdKeySet {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let key = self.key();
        let there = self.look(&*cx.host().await?).await?;
        let (now, revision) = there.map_or((None, 0), |found| (Some(found.value), found.mod_revision));
        Ok(match now {
            Some(now) if now == self.value => Check::Satisfied(Output::empty().with("value", now)),
            now if revision != self.revision => Check::Refused(format!(
                "{key} was written since it was looked at: it is {} now",
                now.as_deref().unwrap_or("absent")
            )),
            now => {
                let was = now.as_deref().unwrap_or("absent");
                Check::Pending(Change::new(format!("{key}: {was} -> {}", self.value)))
            }
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        // etcd knows no host's lock, so it is proven by itself.
        host.fence(cx.attempt()).await?;
        let client = connect(&*host, &self.endpoints, self.tls.as_ref()).await?;
        match client.put_if(&self.key(), &self.value, self.revision).await? {
            Condition::Held(_) => Ok(Output::empty().with("value", &self.value)),
            Condition::Broken => Err(StepError::permanent(format!(
                "{} was written meanwhile; nothing was changed",
                self.key()
            ))),
        }
    }

    /// Where the value isn't there, whoever else wrote is for `check` to see: written on another revision it never is.
    async fn resolve(&self, cx: &Context, _change: &Change) -> Result<Resolved, StepError> {
        let there = self.look(&*cx.host().await?).await?;
        Ok(match there {
            Some(found) if found.value == self.value => {
                Resolved::Done(Output::empty().with("value", found.value))
            }
            _ => Resolved::NotDone,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, pending, refused, satisfied};

    fn step(value: &str, revision: i64) -> EtcdKeySet {
        EtcdKeySet {
            tls: None,
            endpoints: vec!["198.18.0.12:2379".into()],
            prefix: "/service/demo/".into(),
            name: "initialize".into(),
            value: value.into(),
            revision,
        }
    }

    fn revision(lab: &Lab) -> i64 {
        lab.world.state().unwrap().etcd.keys["/service/demo/initialize"].mod_revision
    }

    #[tokio::test]
    async fn a_key_is_written_on_the_revision_that_was_seen_and_on_no_other() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni1");
        let seen = revision(&lab);
        assert!(refused(step("5", seen - 1).check(&cx).await.unwrap()).contains("was written since"));
        let change = pending(step("5", seen).check(&cx).await.unwrap());
        step("5", seen).apply(&cx, &change).await.unwrap();
        satisfied(step("5", seen).check(&cx).await.unwrap());
        let error = step("6", seen).apply(&cx, &change).await.unwrap_err();
        assert_eq!(error.message, "/service/demo/initialize was written meanwhile; nothing was changed");
    }
}
