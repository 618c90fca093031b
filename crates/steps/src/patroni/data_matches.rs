//! `patroni.data_matches`: starting Patroni here adopts no data directory by accident.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::mounts::unmounted;
use super::settings::Settings;
use crate::etcd::connect;
use crate::host::{Host, HostContext, Unit};
use crate::postgres::control;

/// Proves that a data directory belongs to the cluster whose key is in etcd, or that both are absent.
///
/// Where the cluster has no `initialize` key, the first Patroni that starts makes *its* data the cluster's, and
/// the others are cloned from it. Where the key names another cluster, Patroni ends with
/// `system ID mismatch`. Both are refused here, before Patroni is started; so is an empty place on which a file system should be mounted
/// and isn't (`/etc/fstab`, mount units of systemd). Changes nothing.
/// Output: `initialized`, `system_identifier` (of the data directory, or null), `starts` (Patroni is down, and would be started on
/// that data).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniDataMatches {
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Patroni's unit. `patroni.service` by default.
    #[serde(default = "super::unit")]
    pub unit: String,
}

impl StepType for PatroniDataMatches {
    const NAME: &'static str = "patroni.data_matches";
    const READ_ONLY: bool = true;
}

/// The key's value and the identifier of the data directory.
pub(super) async fn look(host: &dyn Host, settings: &Settings) -> Result<(Option<String>, Data), StepError> {
    let initialize = async {
        let key = format!("{}initialize", settings.prefix);
        let keys = connect(host, &settings.endpoints, settings.etcd_tls.as_ref()).await?.keys(&key).await?;
        Ok::<_, StepError>(keys.into_iter().find(|found| found.key == key).map(|found| found.value))
    };
    let data = async {
        let control = control(host, &settings.bin_dir, &settings.data_dir);
        let names = async { host.list(&settings.data_dir).await.map_err(StepError::from) };
        let (control, names, hidden) = tokio::try_join!(control, names, unmounted(host, &settings.data_dir))?;
        Ok(match (control, names.unwrap_or_default().is_empty()) {
            (Some(control), _) => Data::Of(control.system_identifier),
            (None, true) => match hidden {
                None => Data::Absent,
                Some(why) => return Err(not_mounted(&settings.data_dir, &why)),
            },
            (None, false) => Data::Foreign,
        })
    };
    tokio::try_join!(initialize, data)
}

/// Nobody runs it, and nobody starts it again.
pub(super) fn is_down(unit: &Unit) -> bool {
    matches!(unit.active.as_str(), "inactive" | "failed")
}

/// What is in the data directory.
pub(super) enum Data {
    Absent,
    Of(String),
    Foreign,
}

/// The host's settings; or, where a plan is ahead of what writes them, that there are none yet.
pub(super) async fn settings_or_later(
    cx: &Context,
    host: &dyn Host,
    file: &str,
) -> Result<Result<Settings, String>, StepError> {
    match Settings::of(host, file).await? {
        Some(settings) => Ok(Ok(settings)),
        None if cx.planning() => Ok(Err(format!("there is no {file} yet"))),
        None => Err(StepError::permanent(format!("there is no {file}"))),
    }
}

/// A judgement as a check. What may pass, such as an etcd that doesn't run yet, a plan leaves to the run.
pub(super) fn judged(cx: &Context, judgement: Result<Output, StepError>) -> Result<Check, StepError> {
    match judgement {
        Ok(output) => Ok(Check::Satisfied(output)),
        Err(error) if cx.planning() && !error.permanent => Ok(Check::Deferred(error.message)),
        Err(error) => Err(error),
    }
}

/// Something that nobody but a person can judge.
pub(super) fn foreign(data_dir: &str) -> StepError {
    StepError::permanent(format!(
        "{data_dir} isn't empty and is no data directory that pg_controldata can read"
    ))
    .with_hint("move it out of the way by hand; nothing was changed")
}

/// Patroni would clone the data, or make new, beside the file system that it belongs on.
pub(super) fn not_mounted(data_dir: &str, why: &str) -> StepError {
    StepError::permanent(format!("{data_dir} isn't where its data belongs: {why}"))
        .with_hint("mount it, or take it out of there, first; nothing was changed")
}

fn judge(settings: &Settings, key: Option<&str>, data: Data, down: bool) -> Result<Output, StepError> {
    let Settings { data_dir, prefix, .. } = settings;
    let output = |identifier: Option<String>| {
        let output = Output::empty().with("initialized", key.is_some());
        Ok(output.with("starts", down && identifier.is_some()).with("system_identifier", identifier))
    };
    match (data, key) {
        (Data::Absent, _) => output(None),
        (Data::Of(own), Some(key)) if own == key => output(Some(own)),
        // Its own Patroni is at work on it.
        (Data::Of(own), Some("")) if !down => output(Some(own)),
        (Data::Of(own), Some("")) => Err(StepError::permanent(format!(
            "{data_dir} holds data (system identifier {own}), but {prefix}initialize is empty: a member began to make a cluster and didn't end it, and the first Patroni to start would make its data the cluster's"
        ))
        .with_hint("where a Patroni of the cluster is still at work on it, look again; else `flow diagnose` says what mends it; nothing was changed")),
        (Data::Of(own), Some(key)) => Err(StepError::permanent(format!(
            "{data_dir} belongs to another cluster: its system identifier is {own}, {prefix}initialize says {key}"
        ))
        .with_hint("`flow diagnose` says what mends it; nothing was changed")),
        (Data::Of(own), None) => Err(StepError::permanent(format!(
            "{data_dir} holds data (system identifier {own}), but etcd has no cluster at {prefix}: the first Patroni to start would make it the cluster's"
        ))
        .with_hint("`flow diagnose` says who has all rows; `flow run system-id-recovery.toml` makes its data the cluster's and has the others clone it; or set the directory aside. Nothing was changed")),
        (Data::Foreign, _) => Err(foreign(data_dir)),
    }
}

#[async_trait]
impl Step for PatroniDataMatches {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = match settings_or_later(cx, &*host, &self.config_file).await? {
            Ok(settings) => settings,
            Err(why) => return Ok(Check::Deferred(why)),
        };
        let unit = async { Ok(host.unit(&self.unit).await?) };
        let seen = tokio::try_join!(look(&*host, &settings), unit);
        let judge = |((key, data), unit): ((Option<String>, Data), Unit)| {
            judge(&settings, key.as_deref(), data, is_down(&unit))
        };
        judged(cx, seen.and_then(judge))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{HOSTS, Lab, satisfied};
    use serde_json::json;
    use std::time::Duration;

    fn step() -> PatroniDataMatches {
        serde_json::from_value(json!({})).unwrap()
    }

    #[tokio::test]
    async fn a_member_of_the_cluster_matches_and_one_of_another_does_not() {
        let lab = Lab::deployed().await;
        satisfied(step().check(&lab.on("patroni3")).await.unwrap());
        lab.break_system_id("patroni3").await;
        let error = step().check(&lab.on("patroni3")).await.unwrap_err();
        assert!(error.message.contains("belongs to another cluster"), "{}", error.message);
    }

    #[tokio::test]
    async fn data_without_a_cluster_in_etcd_is_not_adopted() {
        let lab = Lab::deployed().await;
        for (host, _) in HOSTS.into_iter().rev() {
            lab.make(host, "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        }
        lab.world.edit(|state| state.etcd.keys.clear()).unwrap();
        let error = step().check(&lab.on("patroni1")).await.unwrap_err();
        assert!(
            error.message.contains("the first Patroni to start would make it the cluster's"),
            "{}",
            error.message
        );
        lab.make("patroni1", "postgres.data_set_aside", json!({ "data_dir": crate::testing::DATA })).await;
        satisfied(step().check(&lab.on("patroni1")).await.unwrap());
    }

    #[tokio::test]
    async fn a_key_that_is_empty_matches_no_data() {
        let lab = Lab::deployed().await;
        let seen = satisfied(step().check(&lab.on("patroni3")).await.unwrap());
        assert_eq!(seen.0["starts"], false);
        for (host, _) in HOSTS.into_iter().rev() {
            lab.make(host, "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        }
        let seen = satisfied(step().check(&lab.on("patroni3")).await.unwrap());
        assert_eq!(seen.0["starts"], true);
        lab.world.edit(|state| state.etcd.put("/service/demo/initialize", "", 0)).unwrap();
        let error = step().check(&lab.on("patroni3")).await.unwrap_err();
        assert!(error.message.contains("initialize is empty"), "{}", error.message);
    }

    #[tokio::test]
    async fn nothing_is_cloned_beside_a_file_system_that_is_not_mounted() {
        let lab = Lab::deployed().await;
        lab.make("patroni3", "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped" })).await;
        let fstab = "/dev/sdb1 /var/lib/postgresql ext4 nofail 0 0\n";
        lab.make("patroni3", "file", json!({ "path": "/etc/fstab", "content": fstab })).await;
        satisfied(step().check(&lab.on("patroni3")).await.unwrap());
        lab.make("patroni3", "postgres.data_set_aside", json!({ "data_dir": crate::testing::DATA })).await;
        let error = step().check(&lab.on("patroni3")).await.unwrap_err();
        let why = "/var/lib/postgresql/15/main isn't where its data belongs: /etc/fstab has /var/lib/postgresql, and nothing is mounted there";
        assert_eq!(error.message, why);
        assert!(error.permanent);
    }

    #[tokio::test]
    async fn a_look_outlasts_the_election_after_a_member_was_back() {
        let lab = Lab::deployed().await;
        for host in ["patroni1", "patroni2"] {
            lab.make(host, "systemd.unit", json!({ "unit": "etcd.service", "state": "stopped" })).await;
        }
        let cx = lab.on("patroni3");
        let back = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            lab.make("patroni1", "systemd.unit", json!({ "unit": "etcd.service", "state": "running" })).await;
        };
        let step = step();
        let (found, ()) = tokio::join!(step.check(&cx), back);
        satisfied(found.unwrap());
    }
}
