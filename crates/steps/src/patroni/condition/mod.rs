//! `patroni.condition`: how well a member is, where whose data it has is no question.

mod etcd;
mod place;
mod seen;

use std::time::Duration;

use async_trait::async_trait;
use flow_core::run::RunId;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use seen::{
    Archiver, Condition, Etcd, Limits, Lock, Member, MemberSays, Place, Says, Server, Slot,
};
#[cfg(test)]
pub(super) use seen::{Aside, Disk};

use super::settings::Settings;
use crate::host::{Host, HostContext};
use crate::support::Patience;

/// Gathers what `patroni.findings` tells beyond whose data is the right one. Changes nothing.
///
/// The data directory's disks and what lies beside it; what PostgreSQL says of replication, slots, its archiver and settings
/// that wait for a restart; etcd's members with their versions and alarms; whether another run of flow has locked the host. What
/// can't be seen is told as unknown and is no failure. Each part has a time limit of some seconds. The limits are given on with what was seen.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniCondition {
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// From how many bytes of WAL on a replica is called behind. 16 MiB by default.
    #[serde(default = "segment")]
    pub lag: u64,
    /// From how many bytes of WAL on a replication slot that nobody reads is told. 1 GiB by default.
    #[serde(default = "gibibyte")]
    pub slot_wal: u64,
    /// Below how many percent of free room a disk is called full. 10 by default.
    #[serde(default = "tenth")]
    pub disk_free: u64,
    /// For a look that is to end within seconds: what can't be seen, or not soon, is told instead of failing, also where the
    /// host can't be reached (output `unreachable`, the reason). False by default.
    #[serde(default)]
    pub tell_unseen: bool,
}

fn segment() -> u64 {
    16 << 20
}

fn gibibyte() -> u64 {
    1 << 30
}

fn tenth() -> u64 {
    10
}

impl StepType for PatroniCondition {
    const NAME: &'static str = "patroni.condition";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        if self.disk_free > 100 { Err("`disk_free` is at most 100".to_owned()) } else { Ok(()) }
    }
}

impl PatroniCondition {
    async fn look(
        &self,
        host: &dyn Host,
        run: &RunId,
        patience: Option<Duration>,
    ) -> Result<Condition, StepError> {
        let (settings, holder) = tokio::join!(Settings::read(host, &self.config_file), host.lock_holder());
        let of_another = holder.ok().flatten().filter(|claim| claim.run != run.as_str());
        let locked_by =
            of_another.map(|claim| Lock { run: claim.run, workflow: claim.workflow, owner: claim.owner });
        let config_file = self.config_file.clone();
        let limits = Limits { lag: self.lag, slot_wal: self.slot_wal, disk_free: self.disk_free };
        // Why a configuration can't be used is the evidence's to tell.
        let settings = match settings {
            Ok(Some(Ok(settings))) => settings,
            Err(error) if !error.permanent => return Err(error),
            _ => {
                let server = Server::Unknown("Patroni's configuration can't be used".to_owned());
                return Ok(Condition {
                    limits,
                    config_file,
                    locked_by,
                    place: None,
                    server,
                    etcd: Etcd::default(),
                });
            }
        };
        let script = place::script(&settings.data_dir, &settings.bin_dir);
        // A host answers probes one after another: those are first that are quick for certain.
        let members = etcd::members(host, &settings).await;
        let (reply, etcd) = tokio::join!(host.probe(&script), etcd::look(host, members, patience));
        let reply = reply?;
        let (place, server) = match place::read(&settings.data_dir, &reply.text()) {
            Some((place, server)) => (Some(place), server),
            None => (None, Server::Unknown(reply.error_text())),
        };
        Ok(Condition { limits, config_file, locked_by, place, server, etcd })
    }
}

#[async_trait]
impl Step for PatroniCondition {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let (host, run) = (cx.host().await?, &cx.attempt().run);
        let condition = if self.tell_unseen {
            let patience = Patience::with(&*host).await?;
            patience.keep(&*host, self.look(&*host, run, Some(patience.answer))).await?
        } else {
            self.look(&*host, run, None).await?
        };
        Ok(Check::Satisfied(crate::support::output(&condition)?))
    }

    fn unseen(&self, why: &StepError) -> Option<Output> {
        self.tell_unseen.then(|| crate::support::unseen(why))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
