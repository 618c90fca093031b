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
/// Where the key has the value already, and none of `forget` is there, nothing is done. Where somebody has written it since, it is refused. Output: `value`.
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
    /// Keys below the prefix, by name, that are deleted in the same transaction. By default none.
    #[serde(default)]
    pub forget: Vec<String>,
}

impl StepType for EtcdKeySet {
    const NAME: &'static str = "etcd.key_set";
    const NOT_UNDOABLE: &'static str = "what Patroni has done by the new value isn't taken back with it";

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        validate_prefix(&self.prefix)?;
        if self.name.is_empty() || self.forget.iter().any(String::is_empty) {
            return Err("a key's name is empty".to_owned());
        }
        if self.forget.contains(&self.name) {
            return Err(format!("`{}` can't be written and forgotten", self.name));
        }
        Ok(())
    }
}

/// What is there.
struct Found {
    value: Option<String>,
    revision: i64,
    /// Those of `forget` that are there.
    forgettable: Vec<String>,
}

impl EtcdKeySet {
    fn key(&self) -> String {
        format!("{}{}", self.prefix, self.name)
    }

    fn forgotten(&self) -> Vec<String> {
        self.forget.iter().map(|name| format!("{}{name}", self.prefix)).collect()
    }

    fn is_so(&self, found: &Found) -> bool {
        found.value.as_ref() == Some(&self.value) && found.forgettable.is_empty()
    }

    async fn look(&self, host: &dyn Host) -> Result<Found, StepError> {
        let (key, forgotten) = (self.key(), self.forgotten());
        let there = connect(host, &self.endpoints, self.tls.as_ref()).await?.keys(&self.prefix).await?;
        let own: Option<&EtcdKey> = there.iter().find(|found| found.key == key);
        Ok(Found {
            value: own.map(|own| own.value.clone()),
            revision: own.map_or(0, |own| own.mod_revision),
            forgettable: there
                .into_iter()
                .map(|found| found.key)
                .filter(|key| forgotten.contains(key))
                .collect(),
        })
    }
}

#[async_trait]
impl Step for EtcdKeySet {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let key = self.key();
        let found = self.look(&*cx.host().await?).await?;
        let was = found.value.as_deref().unwrap_or("absent");
        Ok(if self.is_so(&found) {
            Check::Satisfied(Output::empty().with("value", &self.value))
        } else if found.revision != self.revision {
            Check::Refused(format!("{key} was written since it was looked at: it is {was} now"))
        } else {
            let mut words = format!("{key}: {was} -> {}", self.value);
            for gone in &found.forgettable {
                words.push_str(&format!("; {gone} is deleted"));
            }
            Check::Pending(Change::new(words))
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        // etcd knows no host's lock, so it is proven by itself.
        host.fence(cx.attempt()).await?;
        let client = connect(&*host, &self.endpoints, self.tls.as_ref()).await?;
        match client.put_if(&self.key(), &self.value, self.revision, &self.forgotten()).await? {
            Condition::Held(_) => Ok(Output::empty().with("value", &self.value)),
            Condition::Broken => Err(StepError::permanent(format!(
                "{} was written meanwhile; nothing was changed",
                self.key()
            ))),
        }
    }

    /// Where the value isn't there, whoever else wrote is for `check` to see: written on another revision it never is.
    async fn resolve(&self, cx: &Context, _change: &Change) -> Result<Resolved, StepError> {
        let found = self.look(&*cx.host().await?).await?;
        Ok(if self.is_so(&found) {
            Resolved::Done(Output::empty().with("value", &self.value))
        } else {
            Resolved::NotDone
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
            forget: Vec::new(),
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

    #[tokio::test]
    async fn keys_are_forgotten_with_it_and_a_neighbour_s_are_not() {
        let lab = Lab::deployed().await;
        for (host, _) in crate::testing::HOSTS.into_iter().rev() {
            lab.make(
                host,
                "systemd.unit",
                serde_json::json!({ "unit": "patroni.service", "state": "stopped" }),
            )
            .await;
        }
        lab.world.edit(|state| state.etcd.put("/service/demo-other/status", "theirs", 0)).unwrap();
        let cx = lab.on("patroni1");
        let seen = revision(&lab);
        let step = EtcdKeySet { forget: vec!["status".into()], ..step("5", seen) };
        let change = pending(step.check(&cx).await.unwrap());
        assert!(change.summary.ends_with("-> 5; /service/demo/status is deleted"), "{}", change.summary);
        step.apply(&cx, &change).await.unwrap();
        satisfied(step.check(&cx).await.unwrap());
        let keys = lab.world.state().unwrap().etcd.keys;
        assert!(
            !keys.contains_key("/service/demo/status") && keys.contains_key("/service/demo-other/status")
        );
        assert!(keys.contains_key("/service/demo/config"));
    }
}
