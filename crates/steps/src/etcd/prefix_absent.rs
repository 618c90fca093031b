//! `etcd.prefix_absent`: no key below a prefix.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::connect::{connect, validate_endpoints, validate_prefix};
use crate::clients::{Condition, Etcd, EtcdKey, TlsFiles};
use crate::host::{Host, HostContext};
use crate::support::LOOK_EVERY;

/// Deletes all keys below a prefix, and nothing else.
///
/// The keys that were seen by the check are deleted in one transaction, only if none of them was
/// changed and none was added since. Afterwards the prefix is read again. Undo writes them back in one
/// transaction, if there is still no key below the prefix: nothing is put over what somebody made since.
/// A key with a lease isn't written back: whoever holds it writes it anew. Output: `deleted`, the names of
/// the keys, and `kept`, those without a lease with their values.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdPrefixAbsent {
    /// `address:port` of the members; the first that answers is asked.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Begins and ends with `/` and has two levels at least: `/service/demo/`.
    pub prefix: String,
    /// Keys below the prefix whose presence means that somebody still works there. While one is there,
    /// nothing is deleted. `["leader"]` by default.
    #[serde(default = "leader")]
    pub while_absent: Vec<String>,
    /// Seconds to wait for those keys to expire. 60 by default (Patroni's leases last `ttl`, 30 s).
    #[serde(default = "minute")]
    pub timeout: u64,
}

fn leader() -> Vec<String> {
    vec!["leader".to_owned()]
}

fn minute() -> u64 {
    60
}

impl StepType for EtcdPrefixAbsent {
    const NAME: &'static str = "etcd.prefix_absent";
    const UNDOABLE: bool = true;
    const UNDO_LEAVES: Option<&'static str> =
        Some("keys with a lease are not written back, such as who leads: their holders write them anew");
    const DESTRUCTIVE: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        validate_prefix(&self.prefix)
    }
}

impl EtcdPrefixAbsent {
    /// Waits until none of the keys that forbid it is there, and gives what is.
    async fn quiet_keys(&self, cx: &Context, client: &dyn Etcd) -> Result<Vec<EtcdKey>, StepError> {
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        loop {
            let keys = client.keys(&self.prefix).await?;
            let in_the_way = keys.iter().find(|key| {
                key.key
                    .strip_prefix(&self.prefix)
                    .is_some_and(|name| self.while_absent.iter().any(|n| n == name))
            });
            let Some(key) = in_the_way else { return Ok(keys) };
            let holds = format!(
                "{} is held by {}: a Patroni of this cluster still runs somewhere",
                key.key, key.value
            );
            if Instant::now() >= deadline {
                return Err(StepError::failed(holds).with_hint(
                    "stop that Patroni, or wait until its lease has expired; a host outside the inventory may share this scope",
                ));
            }
            cx.progress(&holds);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Keys that were not seen by the check as they are now.
    fn strange(seen: &[EtcdKey], now: &[EtcdKey]) -> Vec<String> {
        let seen: BTreeMap<&str, i64> = seen.iter().map(|key| (key.key.as_str(), key.mod_revision)).collect();
        now.iter()
            .filter(|key| seen.get(key.key.as_str()) != Some(&key.mod_revision))
            .map(|key| key.key.clone())
            .collect()
    }

    async fn delete(
        &self,
        host: &dyn Host,
        cx: &Context,
        client: &dyn Etcd,
        keys: &[EtcdKey],
    ) -> Result<(), StepError> {
        // What is changed is not on the host, so its lock is proven by itself.
        host.fence(cx.attempt()).await?;
        if client.delete_prefix(&self.prefix, keys).await? == Condition::Broken {
            return Err(StepError::failed(format!(
                "keys below {} are being changed; nothing was deleted",
                self.prefix
            )));
        }
        match client.keys(&self.prefix).await?.first() {
            None => Ok(()),
            Some(key) => {
                Err(StepError::failed(format!("{} is there again: somebody still writes there", key.key)))
            }
        }
    }

    fn output(deleted: &[EtcdKey]) -> Output {
        Output::empty()
            .with("deleted", deleted.iter().map(|key| key.key.as_str()).collect::<Vec<_>>())
            .with("kept", without_lease(deleted))
    }

    /// Writes the keys, if there is still none.
    async fn put_back(
        &self,
        cx: &Context,
        host: &dyn Host,
        client: &dyn Etcd,
        kept: BTreeMap<String, String>,
    ) -> Result<(), StepError> {
        host.fence(cx.attempt()).await?;
        let keys: Vec<(String, String)> = kept.into_iter().collect();
        if client.put_all_if_absent(&self.prefix, &keys).await? == Condition::Broken {
            return Err(self.taken(None));
        }
        Ok(())
    }

    /// Somebody has written there since.
    fn taken(&self, key: Option<&EtcdKey>) -> StepError {
        let such = key.map(|key| format!(", such as {}", key.key)).unwrap_or_default();
        StepError::permanent(format!(
            "there are keys below {} again{such}: nothing is put over them",
            self.prefix
        ))
        .with_hint(
            "a cluster may have been made there since; `--keep TASK` leaves it so and takes back the rest",
        )
    }
}

/// The keys that don't go by themselves, with their values.
fn without_lease(keys: &[EtcdKey]) -> BTreeMap<String, String> {
    let lasting = keys.iter().filter(|key| key.lease == 0);
    lasting.map(|key| (key.key.clone(), key.value.clone())).collect()
}

/// What is to be written back: what was deleted, or, where no result tells, what was seen before.
///
/// # Errors
/// There is nothing, or a value isn't what it was.
fn to_put_back(seen: &[EtcdKey], output: Option<&Output>) -> Result<BTreeMap<String, String>, StepError> {
    let kept = output.and_then(|output| serde_json::from_value(output.0.get("kept")?.clone()).ok());
    let kept: BTreeMap<String, String> = kept.unwrap_or_else(|| without_lease(seen));
    let refused = |why: String| {
        Err(StepError::permanent(why).with_hint("`--keep TASK` leaves it so and takes back the rest"))
    };
    if kept.is_empty() {
        return refused("all keys that were deleted had a lease: none can be written back".to_owned());
    }
    if let Some((key, _)) = kept.iter().find(|(_, value)| value.contains(char::REPLACEMENT_CHARACTER)) {
        return refused(format!("the value of {key} was no text: it can't be written back"));
    }
    if Change::default().with_data(&kept).is_masked() {
        return refused("a value that was deleted held a secret, which isn't stored".to_owned());
    }
    Ok(kept)
}

#[async_trait]
impl Step for EtcdPrefixAbsent {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let client = connect(&*cx.host().await?, &self.endpoints, self.tls.as_ref()).await?;
        let keys = client.keys(&self.prefix).await?;
        if keys.is_empty() {
            return Ok(Check::Satisfied(Self::output(&[])));
        }
        let lines: String = keys.iter().map(|key| format!("-{}\n", key.key)).collect();
        let change = Change::new(format!("delete {} keys below {}", keys.len(), self.prefix));
        Ok(Check::Pending(change.with_diff(lines).with_data(keys)))
    }

    /// The keys that stay: those with a lease go by themselves once what holds them is stopped.
    fn invariant(&self, change: &Change) -> serde_json::Value {
        let keys: Vec<EtcdKey> = change.data().unwrap_or_default();
        let kept: Vec<String> = keys.into_iter().filter(|key| key.lease == 0).map(|key| key.key).collect();
        serde_json::json!({ "prefix": self.prefix, "keys": kept })
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let seen: Vec<EtcdKey> = change.data()?;
        let host = cx.host().await?;
        let client = connect(&*host, &self.endpoints, self.tls.as_ref()).await?;
        // Keys with a lease may be gone by now; what is new or changed means that somebody is at work.
        let now = self.quiet_keys(cx, &*client).await?;
        let strange = Self::strange(&seen, &now);
        if !strange.is_empty() {
            return Err(StepError::failed(format!("keys were written meanwhile: {}", strange.join(", ")))
                .with_hint("a Patroni of this cluster still runs somewhere; stop it, then resume"));
        }
        if !now.is_empty() {
            self.delete(&*host, cx, &*client, &now).await?;
        }
        Ok(Self::output(&now))
    }

    /// Told apart from keys that were never there, so that what was deleted is known.
    async fn resolve(&self, cx: &Context, change: &Change) -> Result<Resolved, StepError> {
        let client = connect(&*cx.host().await?, &self.endpoints, self.tls.as_ref()).await?;
        Ok(match client.keys(&self.prefix).await?.is_empty() {
            true => Resolved::Done(Self::output(&change.data::<Vec<EtcdKey>>()?)),
            false => Resolved::NotDone,
        })
    }

    async fn undo(&self, cx: &Context, change: &Change, output: Option<&Output>) -> Result<(), UndoError> {
        let seen: Vec<EtcdKey> = change.data()?;
        let host = cx.host().await?;
        let client = connect(&*host, &self.endpoints, self.tls.as_ref()).await?;
        let now = client.keys(&self.prefix).await.map_err(StepError::from)?;
        // All are deleted at once, so where one is as it was seen, none was deleted.
        if now.iter().any(|key| seen.contains(key)) {
            return Ok(());
        }
        let kept = to_put_back(&seen, output)?;
        if now.is_empty() {
            return Ok(self.put_back(cx, &*host, &*client, kept).await?);
        }
        let back: BTreeMap<&str, &str> =
            now.iter().map(|key| (key.key.as_str(), key.value.as_str())).collect();
        if kept.iter().all(|(key, value)| back.get(key.as_str()) == Some(&value.as_str())) {
            return Ok(());
        }
        Err(self.taken(now.first()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdPrefixSaved;
    use crate::host::sim::{Fault, FaultKind, StoredKey};
    use crate::testing::{HOSTS, Lab, done, pending, satisfied};
    use serde_json::{Value, json};

    fn arguments() -> Value {
        json!({ "endpoints": ["198.18.0.11:2379", "198.18.0.12:2379"], "prefix": "/service/demo/", "timeout": 0 })
    }

    fn absent() -> EtcdPrefixAbsent {
        serde_json::from_value(arguments()).unwrap()
    }

    async fn stopped() -> Lab {
        let lab = Lab::deployed().await;
        for (host, _) in HOSTS.into_iter().rev() {
            lab.make(
                host,
                "systemd.unit",
                json!({ "unit": "patroni.service", "state": "stopped", "masked": true }),
            )
            .await;
        }
        let other = StoredKey { value: "7".into(), mod_revision: 1, lease: 0 };
        lab.world
            .edit(|state| state.etcd.keys.insert("/service/demo-other/initialize".into(), other))
            .unwrap();
        lab
    }

    #[tokio::test]
    async fn the_keys_of_the_scope_are_deleted_and_no_others() {
        let lab = stopped().await;
        let (change, output) = lab.establish(&absent(), &lab.on("patroni1")).await;
        assert!(change.diff.unwrap().contains("-/service/demo/initialize\n"));
        assert!(output.0["deleted"].as_array().unwrap().contains(&json!("/service/demo/config")));
        let left: Vec<_> = lab.world.state().unwrap().etcd.keys.into_keys().collect();
        assert_eq!(left, ["/service/demo-other/initialize"]);
    }

    #[tokio::test]
    async fn while_a_leader_holds_its_key_nothing_is_deleted() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni2");
        let change = pending(absent().check(&cx).await.unwrap());
        let error = absent().apply(&cx, &change).await.unwrap_err();
        assert!(error.message.contains("/service/demo/leader is held by patroni1"), "{}", error.message);
        assert!(lab.world.state().unwrap().etcd.get("/service/demo/initialize").is_some());
    }

    #[tokio::test]
    async fn a_key_that_was_written_meanwhile_stops_it() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let change = pending(absent().check(&cx).await.unwrap());
        let new = StoredKey { value: "x".into(), mod_revision: 999, lease: 0 };
        lab.world.edit(|state| state.etcd.keys.insert("/service/demo/failover".into(), new)).unwrap();
        let error = absent().apply(&cx, &change).await.unwrap_err();
        assert_eq!(error.message, "keys were written meanwhile: /service/demo/failover");
        assert!(lab.world.state().unwrap().etcd.get("/service/demo/config").is_some());
    }

    #[tokio::test]
    async fn a_deletion_whose_answer_was_lost_is_found_done() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let change = pending(absent().check(&cx).await.unwrap());
        lab.world.inject(Fault::at("patroni1", "etcd delete-prefix", FaultKind::LoseAnswer)).unwrap();
        absent().apply(&cx, &change).await.unwrap_err();
        done(absent().resolve(&cx, &change).await.unwrap());
    }

    /// The keys below the prefix that have no lease, with their values.
    fn lasting(lab: &Lab) -> BTreeMap<String, String> {
        let keys = lab.world.state().unwrap().etcd.keys;
        let lasting =
            keys.into_iter().filter(|(key, kept)| key.starts_with("/service/demo/") && kept.lease == 0);
        lasting.map(|(key, kept)| (key, kept.value)).collect()
    }

    #[tokio::test]
    async fn the_keys_are_written_back_in_one_go_and_once_is_enough() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let before = lasting(&lab);
        assert!(before.len() > 1, "{before:?}");
        let (change, output) = lab.establish(&absent(), &cx).await;
        assert_eq!(lasting(&lab), BTreeMap::new());
        lab.world.inject(Fault::at("patroni1", "etcd put-all", FaultKind::LoseAnswer)).unwrap();
        absent().undo(&cx, &change, Some(&output)).await.unwrap_err();
        assert_eq!(lasting(&lab), before);
        let effects = lab.effects().len();
        absent().undo(&cx, &change, Some(&output)).await.unwrap();
        assert_eq!(lab.effects().len(), effects, "they are back already");
        pending(absent().check(&cx).await.unwrap());
    }

    #[tokio::test]
    async fn what_was_deleted_is_known_also_where_the_answer_was_lost() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let before = lasting(&lab);
        let change = pending(absent().check(&cx).await.unwrap());
        lab.world.inject(Fault::at("patroni1", "etcd delete-prefix", FaultKind::LoseAnswer)).unwrap();
        absent().apply(&cx, &change).await.unwrap_err();
        let output = done(absent().resolve(&cx, &change).await.unwrap());
        absent().undo(&cx, &change, Some(&output)).await.unwrap();
        assert_eq!(lasting(&lab), before);
    }

    #[tokio::test]
    async fn nothing_is_put_over_what_somebody_wrote_since() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let (change, output) = lab.establish(&absent(), &cx).await;
        let new = StoredKey { value: "another".into(), mod_revision: 999, lease: 0 };
        lab.world.edit(|state| state.etcd.keys.insert("/service/demo/initialize".into(), new)).unwrap();
        let error = absent().undo(&cx, &change, Some(&output)).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "there are keys below /service/demo/ again, such as /service/demo/initialize: nothing is put over them"
        );
        assert_eq!(lasting(&lab).len(), 1);
    }

    #[tokio::test]
    async fn where_nothing_was_deleted_nothing_is_written_back() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let change = pending(absent().check(&cx).await.unwrap());
        let new = StoredKey { value: "x".into(), mod_revision: 999, lease: 0 };
        lab.world.edit(|state| state.etcd.keys.insert("/service/demo/failover".into(), new)).unwrap();
        absent().apply(&cx, &change).await.unwrap_err();
        let (before, effects) = (lasting(&lab), lab.effects().len());
        absent().undo(&cx, &change, None).await.unwrap();
        assert_eq!((lasting(&lab), lab.effects().len()), (before, effects));
    }

    #[test]
    fn what_cannot_be_written_as_it_was_is_refused() {
        let key = |value: &str, lease| EtcdKey {
            key: "/service/demo/x".into(),
            value: value.into(),
            mod_revision: 1,
            lease,
        };
        for (key, why) in [
            (key("a", 7), "all keys that were deleted had a lease: none can be written back"),
            (key("\u{fffd}", 0), "the value of /service/demo/x was no text: it can't be written back"),
        ] {
            assert_eq!(to_put_back(&[key], None).unwrap_err().message, why);
        }
        assert_eq!(to_put_back(&[key("a", 0)], None).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn keys_are_saved_without_the_prefix_and_with_the_dynamic_configuration() {
        let lab = Lab::deployed().await;
        let saved: EtcdPrefixSaved =
            serde_json::from_value(json!({ "endpoints": ["198.18.0.13:2379"], "prefix": "/service/demo/" }))
                .unwrap();
        let output = satisfied(saved.check(&lab.on("patroni1")).await.unwrap()).0;
        assert_eq!(output["config"]["ttl"], 30);
        assert_eq!(output["keys"]["leader"], "patroni1");
    }

    #[test]
    fn a_prefix_that_reaches_too_far_is_refused() {
        let with = |prefix: &str| {
            let mut arguments = arguments();
            arguments["prefix"] = prefix.into();
            serde_json::from_value::<EtcdPrefixAbsent>(arguments).unwrap().validate()
        };
        assert!(with("/service/demo").is_err() && with("/service/").is_err() && with("/").is_err());
    }
}
