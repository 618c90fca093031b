//! `patroni.node_can_join`: a host that isn't of the cluster yet has nothing in the way.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::data_matches::not_mounted;
use super::mounts::unmounted;
use crate::host::{Host, HostContext};
use crate::postgres::control;

/// Proves that a host can become a member of a cluster, before anything is installed there. Changes nothing.
///
/// It answers, its clock is that of the operator, and at the place of its data directory is nothing, or data of this very
/// cluster, as after a run that was cut short. Anything else is refused, and so is a place whose file system isn't mounted. Output: `system_identifier` (of the data that is there, or null),
/// `clock` (seconds that it is ahead of the operator's; negative: behind).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniNodeCanJoin {
    /// Where its data directory will be: `/var/lib/postgresql/15/main`.
    pub data_dir: String,
    /// Where `pg_controldata` is, if it is installed: `/usr/lib/postgresql/15/bin`.
    pub bin_dir: String,
    /// The cluster's system identifier, decimal: `"{{ steps.cluster_healthy.hosts[...].system_identifier }}"`.
    pub system_identifier: String,
    /// How many seconds its clock may differ from the operator's. 5 by default.
    #[serde(default = "five")]
    pub clock: u64,
}

fn five() -> u64 {
    5
}

impl StepType for PatroniNodeCanJoin {
    const NAME: &'static str = "patroni.node_can_join";
    const READ_ONLY: bool = true;
}

/// Seconds that the host is ahead; what the way there and back took is no difference.
async fn ahead(host: &dyn Host) -> Result<i64, StepError> {
    let before = Timestamp::now().as_second();
    let reply = host.probe("date +%s").await?;
    let after = Timestamp::now().as_second();
    let there: i64 = reply
        .text()
        .trim()
        .parse()
        .map_err(|_| StepError::failed(format!("`date` said no time: {}", reply.text())))?;
    Ok(match there {
        there if there < before => there - before,
        there if there > after => there - after,
        _ => 0,
    })
}

impl PatroniNodeCanJoin {
    /// The identifier of the data that is there, or what is in the way.
    async fn data(&self, host: &dyn Host) -> Result<Result<Option<String>, String>, StepError> {
        let directory = self.data_dir.trim_end_matches('/');
        let (names, control, hidden) = tokio::try_join!(
            async { Ok(host.list(directory).await?) },
            control(host, &self.bin_dir, directory),
            unmounted(host, directory)
        )?;
        if names.unwrap_or_default().is_empty() {
            return hidden.map_or(Ok(Ok(None)), |why| Err(not_mounted(directory, &why)));
        }
        Ok(match control {
            Some(control) if control.system_identifier == self.system_identifier => {
                Ok(Some(control.system_identifier))
            }
            Some(control) => Err(format!(
                "{directory} holds data of another cluster: its system identifier is {}, this cluster's {}",
                control.system_identifier, self.system_identifier
            )),
            None => Err(format!("{directory} isn't empty, and pg_controldata can't tell whose data it is")),
        })
    }
}

#[async_trait]
impl Step for PatroniNodeCanJoin {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let (data, ahead) = tokio::try_join!(self.data(&*host), ahead(&*host))?;
        let found = match data {
            Ok(found) => found,
            Err(why) => {
                return Err(StepError::permanent(why).with_hint(
                    "move it out of the way by hand: a new member clones the leader; nothing was changed",
                ));
            }
        };
        if ahead.unsigned_abs() > self.clock {
            let way = if ahead > 0 { "ahead of" } else { "behind" };
            return Err(StepError::permanent(format!(
                "the clock of {} is {} s {way} the operator's",
                host.name(),
                ahead.unsigned_abs()
            ))
            .with_hint("`timedatectl` on both; leases and certificates go by the clock"));
        }
        Ok(Check::Satisfied(Output::empty().with("system_identifier", found).with("clock", ahead)))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::{CannedReply, ScriptMatch};
    use crate::testing::{BIN, DATA, Lab, satisfied};
    use serde_json::json;

    fn step(identifier: &str) -> PatroniNodeCanJoin {
        PatroniNodeCanJoin {
            data_dir: DATA.into(),
            bin_dir: BIN.into(),
            system_identifier: identifier.into(),
            clock: 5,
        }
    }

    #[tokio::test]
    async fn nothing_or_data_of_the_same_cluster_may_be_there() {
        let bare = Lab::bare().await;
        let output = satisfied(step("7").check(&bare.on("patroni1")).await.unwrap());
        assert_eq!(output.0["system_identifier"], serde_json::Value::Null);
        let lab = Lab::deployed().await;
        let error = step("7").check(&lab.on("patroni1")).await.unwrap_err();
        assert!(error.message.contains("data of another cluster"), "{}", error.message);
        let own = lab.world.state().unwrap().etcd.get("/service/demo/initialize").unwrap().to_owned();
        satisfied(step(&own).check(&lab.on("patroni1")).await.unwrap());
    }

    #[tokio::test]
    async fn a_place_whose_file_system_is_not_mounted_is_refused() {
        let lab = Lab::bare().await;
        let fstab = "/dev/sdb1 /var/lib/postgresql ext4 nofail 0 0\n";
        lab.make("patroni1", "file", json!({ "path": "/etc/fstab", "content": fstab })).await;
        let error = step("7").check(&lab.on("patroni1")).await.unwrap_err();
        assert!(
            error.message.ends_with("has /var/lib/postgresql, and nothing is mounted there"),
            "{}",
            error.message
        );
    }

    #[tokio::test]
    async fn a_clock_that_differs_is_told() {
        let lab = Lab::bare().await;
        let later = (Timestamp::now().as_second() + 90).to_string();
        lab.world.reply(CannedReply::new(ScriptMatch::Exact("date +%s".into()), later)).unwrap();
        let error = step("7").check(&lab.on("patroni2")).await.unwrap_err();
        assert!(error.message.ends_with("s ahead of the operator's"), "{}", error.message);
    }
}
