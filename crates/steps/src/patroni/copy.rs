//! `patroni.copy`: a copy that was set aside, looked at before it is put back.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::evidence::data;
use super::rest::{Api, Report, report};
use super::settings::Settings;
use super::verdict::Data;
use crate::host::HostContext;
use crate::postgres::{can_be_put_back, processes_on};

/// What is in a copy of this member's data directory that was set aside, and that it could be put back. Changes nothing.
///
/// Refused: what is no copy that was set aside, something of its WAL or tablespaces that is gone, or whose place is taken by others
/// than the present data directory, a copy on which a PostgreSQL runs, one that no `pg_controldata` can read. Output: `path`, `since`, `system_identifier`, `timeline`, `also`
/// (its WAL and tablespaces elsewhere), `leads` (this member leads now), and `data`, for `patroni.has_all_of`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniCopy {
    /// The copy: `/var/lib/postgresql/15/main.set-aside-20260102T030405Z-0123456789ab`.
    pub copy: String,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

impl StepType for PatroniCopy {
    const NAME: &'static str = "patroni.copy";
    const READ_ONLY: bool = true;
}

#[async_trait]
impl Step for PatroniCopy {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let Some(settings) = Settings::of(&*host, &self.config_file).await? else {
            return Ok(Check::Refused(format!("there is no {}", self.config_file)));
        };
        let copy = match can_be_put_back(&*host, &self.copy, &settings.data_dir).await? {
            Ok(copy) => copy,
            Err(why) => return Ok(Check::Refused(why)),
        };
        let path = copy.name.path;
        if let Some(process) = processes_on(&*host, &path).await?.first() {
            return Ok(Check::Refused(format!("{path} is in use: process {} runs on it", process.pid)));
        }
        let leads = report(&*host, &Api::of(&settings)?).await?.is_ok_and(|report| Report::leads(&report));
        let settings = Settings { data_dir: path.clone(), ..settings };
        let found = data(&*host, &settings).await?;
        let Data::Cluster(cluster) = &found else {
            let why = match &found {
                Data::Unreadable(why) | Data::Unknown(why) => why.as_str(),
                _ => "it is empty",
            };
            return Ok(Check::Refused(format!("{path} is no data directory that could be started: {why}")));
        };
        let output = Output::empty()
            .with("path", &path)
            .with("since", &copy.name.since)
            .with("system_identifier", &cluster.identifier)
            .with("timeline", cluster.timeline)
            .with("also", &copy.also)
            .with("leads", leads)
            .with("data", cluster);
        Ok(Check::Satisfied(output))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
