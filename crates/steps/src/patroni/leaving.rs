//! `patroni.member_can_leave` and `patroni.member_absent`: a member that is taken out of its cluster for good.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::rest::patch_config;
use super::settings::Settings;
use crate::clients::EtcdKey;
use crate::etcd::connect;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// How often the host's own member is woken while something is missing.
const WAKE_EVERY: Duration = Duration::from_secs(1);

/// Proves that a member can be taken out of the cluster, before anything is stopped. Changes nothing.
///
/// Asked of etcd by way of another member's host, whose own configuration says where. Refused: the member that leads, a
/// cluster that nobody leads, the last member, and what would leave no synchronous standby where `synchronous_mode_strict`
/// holds writes up until there is one. A member that isn't there is no matter. Output: `present`, `leader` (its name),
/// `left` (the names of the others), `version` (of the leader's Patroni), `config` (the dynamic configuration), `slot` (this
/// host's PostgreSQL keeps a replication slot for it).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniMemberCanLeave {
    /// The member's name: `"{{ steps.configuration.hosts[params.node].name }}"`.
    pub member: String,
    /// Its host is said to be gone for good: refused while etcd has its key, which its Patroni renews. False by default.
    #[serde(default)]
    pub gone: bool,
    /// Patroni's configuration file on this host. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

/// A member that was stopped is gone: etcd has no key of it, and this host's PostgreSQL keeps no replication slot for it.
///
/// Waits for both; changes nothing, but wakes this host's Patroni, which else looks only every `loop_wait`. The key
/// expires up to `ttl` (30 s) after the member was stopped; then Patroni drops the slot. Patroni 4 keeps it for
/// `member_slots_ttl` (30 min) unless that is 0. Runs on each of the others.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniMemberAbsent {
    /// The member's name.
    pub member: String,
    /// Patroni's configuration file on this host. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Seconds to wait. 120 by default.
    #[serde(default = "two_minutes")]
    pub timeout: u64,
}

fn two_minutes() -> u64 {
    120
}

impl StepType for PatroniMemberCanLeave {
    const NAME: &'static str = "patroni.member_can_leave";
    const READ_ONLY: bool = true;
}

impl StepType for PatroniMemberAbsent {
    const NAME: &'static str = "patroni.member_absent";
    const WAITS: bool = true;
}

/// Whether it serves and may be a synchronous standby.
fn may_stand_by(value: &Value) -> bool {
    let state = value["state"].as_str().unwrap_or_default();
    matches!(state, "running" | "streaming") && value["tags"]["nosync"] != json!(true)
}

/// The keys below the cluster's prefix, by name without it.
struct Keys<'a> {
    prefix: &'a str,
    keys: &'a [EtcdKey],
}

impl Keys<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.keys.iter().find(|key| key.key.strip_prefix(self.prefix) == Some(name));
        found.map(|key| key.value.as_str())
    }

    fn json(&self, name: &str) -> Value {
        self.get(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Name and description of each member.
    fn members(&self) -> Vec<(&str, Value)> {
        let member = |key: &EtcdKey| -> Option<(usize, Value)> {
            let name = key.key.strip_prefix(self.prefix)?.strip_prefix("members/")?;
            Some((key.key.len() - name.len(), serde_json::from_str(&key.value).unwrap_or_default()))
        };
        let named = |key| member(key).map(|(at, value)| (key, at, value));
        self.keys.iter().filter_map(named).map(|(key, at, value)| (&key.key[at..], value)).collect()
    }
}

/// What keeps a member from leaving, with what to do about it; else the output.
fn judge(settings: &Settings, keys: &Keys<'_>, member: &str) -> Result<Output, StepError> {
    let members = keys.members();
    let config = keys.json("config");
    let others: Vec<&(&str, Value)> = members.iter().filter(|(name, _)| *name != member).collect();
    let scope = &settings.scope;
    let Some(leader) = keys.get("leader") else {
        return Err(StepError::permanent(format!("nobody leads {scope}: no member is taken out of it now"))
            .with_hint("`flow diagnose` tells what is wrong"));
    };
    let standing_by: Vec<&str> = others
        .iter()
        .filter(|(name, of)| *name != leader && may_stand_by(of))
        .map(|(name, _)| *name)
        .collect();
    if leader == member {
        if others.is_empty() {
            return Err(StepError::permanent(format!("{member} is the last member of {scope}"))
                .with_hint("`flow run remove-cluster.toml` takes the whole cluster away"));
        }
        let hint = match standing_by.first().or(others.first().map(|(name, _)| name)) {
            Some(next) => format!(
                "on a host of the cluster: `patronictl -c /etc/patroni/config.yml switchover {scope} --leader {member} \
                 --candidate {next}`, then run this again"
            ),
            None => "switch over to another member first".to_owned(),
        };
        return Err(StepError::permanent(format!("{member} leads {scope}")).with_hint(hint));
    }
    if !others.iter().any(|(name, _)| *name == leader) {
        return Err(StepError::permanent(format!("{leader} leads {scope}, and etcd knows no such member"))
            .with_hint("`flow diagnose` tells what is wrong"));
    }
    let strict = config["synchronous_mode_strict"] == json!(true);
    let synchronous = config["synchronous_mode"] != json!(false) && !config["synchronous_mode"].is_null();
    let present = members.iter().any(|(name, _)| *name == member);
    if present && synchronous && strict && standing_by.is_empty() {
        return Err(StepError::permanent(format!(
            "without {member} {scope} has no synchronous standby, and `synchronous_mode_strict` then holds up every write"
        ))
        .with_hint("add another member first, or set `synchronous_mode_strict: false` (patronictl edit-config)"));
    }
    let version = others.iter().find(|(name, _)| *name == leader).map(|(_, of)| of["version"].clone());
    Ok(Output::empty()
        .with("present", present)
        .with("leader", leader)
        .with("left", others.iter().map(|(name, _)| *name).collect::<Vec<_>>())
        .with("version", version)
        .with("config", config))
}

#[async_trait]
impl Step for PatroniMemberCanLeave {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let client = connect(&*host, &settings.endpoints, settings.etcd_tls.as_ref()).await?;
        let (keys, slot) =
            tokio::join!(client.keys(&settings.prefix), slot_kept(&*host, &settings, &self.member));
        let keys = keys?;
        let keys = Keys { prefix: &settings.prefix, keys: &keys };
        if self.gone && keys.members().iter().any(|(name, _)| *name == self.member) {
            return Err(StepError::permanent(format!("etcd has a key of {}: its Patroni runs, or ran until now", self.member))
                .with_hint("nothing was changed; the key of a host that died expires after `ttl` (30 s): run this again then"));
        }
        let output = judge(&settings, &keys, &self.member)?;
        Ok(Check::Satisfied(output.with("slot", slot?)))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

/// The slot that Patroni makes for a member (`slot_name_from_member_name` of Patroni's `dcs`).
fn slot_name(member: &str) -> String {
    let mut slot = String::new();
    for character in member.to_lowercase().chars() {
        match character {
            'a'..='z' | '0'..='9' | '_' => slot.push(character),
            '-' | '.' => slot.push('_'),
            other => slot.push_str(&format!("u{:04}", u32::from(other))),
        }
    }
    slot.chars().take(63).collect()
}

/// Whether the host's PostgreSQL keeps a replication slot for a member.
async fn slot_kept(host: &dyn Host, settings: &Settings, member: &str) -> Result<bool, StepError> {
    let slots = host.list(&format!("{}/pg_replslot", settings.data_dir)).await?;
    Ok(slots.unwrap_or_default().contains(&slot_name(member)))
}

impl PatroniMemberAbsent {
    async fn look(&self, host: &dyn Host, settings: &Settings) -> Result<Seen, StepError> {
        let key = format!("{}members/{}", settings.prefix, self.member);
        let client = connect(host, &settings.endpoints, settings.etcd_tls.as_ref()).await?;
        let (keys, slot) = tokio::join!(client.keys(&key), slot_kept(host, settings, &self.member));
        if keys?.iter().any(|found| found.key == key) {
            return Ok(Seen::NotYet(format!("the key {key} hasn't expired")));
        }
        if slot? {
            let slot = slot_name(&self.member);
            return Ok(Seen::NotYet(format!("{} keeps a replication slot {slot}", settings.name)));
        }
        Ok(Seen::Yes(Output::empty()))
    }
}

#[async_trait]
impl Step for PatroniMemberAbsent {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        Ok(self.look(&*host, &settings).await?.checked(cx))
    }

    fn invariant(&self, _change: &Change) -> Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let woken = Mutex::new(Instant::now());
        let look = || async {
            let seen = self.look(&*host, &settings).await?;
            let mut woken = woken.lock().await;
            if matches!(seen, Seen::NotYet(_)) && woken.elapsed() >= WAKE_EVERY {
                // A key that isn't there is taken away: nothing changes. That it fails is no matter.
                let _ = patch_config(&*host, &settings, json!({ "flow_wakes_the_leader": null })).await;
                *woken = Instant::now();
            }
            Ok(seen)
        };
        wait_until(cx, Duration::from_secs(self.timeout), look).await.map_err(|error| {
            error.with_hint(
                "does its Patroni still run, perhaps on a host that isn't in the inventory? `patronictl list` tells",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, pending, satisfied};

    fn can_leave(member: &str) -> PatroniMemberCanLeave {
        serde_json::from_value(json!({ "member": member })).unwrap()
    }

    fn absent(member: &str) -> PatroniMemberAbsent {
        serde_json::from_value(json!({ "member": member, "timeout": 0 })).unwrap()
    }

    async fn refused(lab: &Lab, member: &str) -> (String, String) {
        let error = can_leave(member).check(&lab.on("patroni2")).await.unwrap_err();
        (error.message, error.hint.unwrap_or_default())
    }

    fn set(lab: &Lab, config: &Value) {
        lab.world.edit(|state| state.etcd.put("/service/demo/config", &config.to_string(), 0)).unwrap();
    }

    #[tokio::test]
    async fn a_replica_may_leave_and_the_leader_must_hand_over_first() {
        let lab = Lab::deployed().await;
        let output = satisfied(can_leave("patroni3").check(&lab.on("patroni2")).await.unwrap()).0;
        assert_eq!((&output["leader"], &output["present"]), (&json!("patroni1"), &json!(true)));
        assert_eq!(output["left"], json!(["patroni1", "patroni2"]));
        let (message, hint) = refused(&lab, "patroni1").await;
        assert_eq!(message, "patroni1 leads demo");
        assert!(hint.contains("switchover demo --leader patroni1 --candidate patroni2"), "{hint}");
    }

    #[tokio::test]
    async fn one_that_is_said_to_be_gone_has_no_key() {
        let lab = Lab::deployed().await;
        let gone = PatroniMemberCanLeave { gone: true, ..can_leave("patroni3") };
        let error = gone.check(&lab.on("patroni2")).await.unwrap_err();
        assert!(error.message.starts_with("etcd has a key of patroni3"), "{}", error.message);
        lab.world.kill("patroni3").unwrap();
        let slot = format!("{}/pg_replslot/patroni3", crate::testing::DATA);
        lab.make("patroni2", "directory", json!({ "path": slot })).await;
        let output = satisfied(gone.check(&lab.on("patroni2")).await.unwrap()).0;
        assert_eq!((&output["present"], &output["slot"]), (&json!(false), &json!(true)));
    }

    #[tokio::test]
    async fn the_last_synchronous_standby_stays_where_writes_would_be_held_up() {
        let lab = Lab::deployed().await;
        set(&lab, &json!({ "ttl": 30, "synchronous_mode": true, "synchronous_mode_strict": true }));
        satisfied(can_leave("patroni3").check(&lab.on("patroni2")).await.unwrap());
        lab.world.kill("patroni3").unwrap();
        let (message, _) = refused(&lab, "patroni2").await;
        assert!(message.contains("without patroni2 demo has no synchronous standby"), "{message}");
        set(&lab, &json!({ "ttl": 30, "synchronous_mode": true }));
        satisfied(can_leave("patroni2").check(&lab.on("patroni2")).await.unwrap());
    }

    #[tokio::test]
    async fn the_last_member_and_one_of_a_cluster_without_a_leader_stay() {
        let lab = Lab::deployed().await;
        for host in ["patroni3", "patroni2"] {
            lab.make(host, "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        }
        assert!(refused(&lab, "patroni1").await.0.contains("last member"));
        lab.make("patroni1", "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        assert!(refused(&lab, "patroni3").await.0.contains("nobody leads demo"));
    }

    #[tokio::test]
    async fn a_member_is_absent_once_key_and_slot_are_gone() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni1");
        let change = pending(absent("patroni3").check(&cx).await.unwrap());
        let error = absent("patroni3").apply(&cx, &change).await.unwrap_err();
        assert_eq!(error.message, "not so after 0 s: the key /service/demo/members/patroni3 hasn't expired");
        lab.make("patroni3", "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        let slot = format!("{}/pg_replslot/patroni3", crate::testing::DATA);
        lab.make("patroni1", "directory", json!({ "path": slot })).await;
        assert!(
            pending(absent("patroni3").check(&cx).await.unwrap())
                .summary
                .contains("replication slot patroni3")
        );
        satisfied(absent("patroni3").check(&lab.on("patroni2")).await.unwrap());
    }

    #[test]
    fn slots_are_named_as_patroni_names_them() {
        assert_eq!(slot_name("PG-1.example"), "pg_1_example");
        assert_eq!(slot_name("a b"), "au0032b");
    }
}
