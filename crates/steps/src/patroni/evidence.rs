//! `patroni.evidence`: all of a host that a judgement can rest on, also where nothing runs any more.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::archive::Archive;
use super::journal::complaints;
use super::mounts::{mounted_on, unmounted};
use super::rest::{Api, report_for_certain};
use super::settings::{Settings, Unusable};
use super::verdict::{Cluster, Configuration, Data, Key, Keys, Node, PatroniUnit, Store, Written};
use crate::clients::{EtcdKey, NoEtcd};
use crate::etcd::reach;
use crate::host::{Host, HostContext};
use crate::postgres::{control, links, processes_on, size, user_data, wal};
use crate::support::{Patience, address_and_port, within};

/// Gathers what `patroni.verdict` judges by. Changes nothing.
///
/// Of the host: Patroni's configuration, unit and REST API; the data directory's control file, timelines with their fork points, last
/// WAL records, and whether anything of a user is in it; copies that were set aside; what archives its WAL, whether that fails, and what
/// pgBackRest says of its stanza, within 10 s. Of the cluster: its keys in etcd with
/// their revisions, as this host sees them. What can't be seen is told as unknown and is no failure. Output: for
/// `patroni.verdict` and `patroni.findings`; other steps read `patroni.status`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniEvidence {
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Patroni's unit. `patroni.service` by default.
    #[serde(default = "super::unit")]
    pub unit: String,
    /// For a look that is to end within seconds: what can't be seen, or not soon, is told instead of failing, also where the
    /// host can't be reached (output `unreachable`, the reason). False by default.
    #[serde(default)]
    pub tell_unseen: bool,
}

impl StepType for PatroniEvidence {
    const NAME: &'static str = "patroni.evidence";
    const READ_ONLY: bool = true;
}

impl PatroniEvidence {
    pub(super) fn new(config_file: &str) -> Self {
        Self { config_file: config_file.to_owned(), unit: super::unit(), tell_unseen: false }
    }

    pub(super) async fn look(&self, host: &dyn Host) -> Result<Node, StepError> {
        self.look_within(host, None).await
    }

    /// With `patience`, no answer is waited for longer than that, and the data isn't measured.
    async fn look_within(&self, host: &dyn Host, patience: Option<Duration>) -> Result<Node, StepError> {
        let (configuration, unit) =
            tokio::join!(Settings::read(host, &self.config_file), host.unit(&self.unit));
        let unit = unit?;
        let patroni = PatroniUnit { masked: unit.masked(), active: unit.active, sub: unit.sub };
        let nowhere = |configuration, why: &str| Node {
            unreachable: None,
            configuration,
            patroni: Some(patroni.clone()),
            report: None,
            data: Data::Unknown(why.to_owned()),
            store: Store::Unknown(why.to_owned()),
            set_aside: Vec::new(),
            complaints: Vec::new(),
            archive: Archive::default(),
        };
        let settings = match configuration {
            Ok(Some(Ok(settings))) if settings.unsupported.is_empty() => settings,
            Ok(Some(Ok(settings))) => {
                let why = settings.unsupported.join("; ");
                return Ok(nowhere(Configuration::Unsupported(why), "flow doesn't speak to its store"));
            }
            Ok(Some(Err(Unusable::OtherStore(why)))) => {
                let why = format!("{}: {why}", self.config_file);
                return Ok(nowhere(Configuration::Unsupported(why), "where it lies isn't known"));
            }
            Ok(Some(Err(Unusable::Broken(why)))) => {
                let why = format!("{} can't be used: {why}", self.config_file);
                return Ok(nowhere(Configuration::Unknown(why), "where it lies isn't known"));
            }
            Ok(None) => {
                let why = format!("there is no {}", self.config_file);
                return Ok(nowhere(Configuration::Unknown(why), "where it lies isn't known"));
            }
            Err(error) if !error.permanent => return Err(error),
            Err(error) => {
                return Ok(nowhere(Configuration::Unknown(error.message), "where it lies isn't known"));
            }
        };
        let api = Api::of(&settings)?;
        let (report, data, store, copies) = tokio::join!(
            report_for_certain(host, &api, patience),
            data_within(host, &settings, patience),
            store(host, &settings, patience),
            set_aside(host, &settings.data_dir),
        );
        let mut data = data?;
        if let Data::Cluster(own) = &mut data {
            let dynamic = match &store {
                Store::Keys(keys) => keys.use_pg_rewind,
                Store::Unknown(_) | Store::Silent(..) => None,
            };
            own.rewindable &= settings.use_pg_rewind.or(dynamic).unwrap_or(false);
        }
        Ok(Node {
            unreachable: None,
            configuration: Configuration::Of(Box::new(settings)),
            patroni: Some(patroni),
            report: report?.ok(),
            data,
            store,
            set_aside: copies?,
            complaints: Vec::new(),
            archive: Archive::default(),
        })
    }
}

pub(super) async fn data(host: &dyn Host, settings: &Settings) -> Result<Data, StepError> {
    data_within(host, settings, None).await
}

async fn data_within(
    host: &dyn Host,
    settings: &Settings,
    patience: Option<Duration>,
) -> Result<Data, StepError> {
    let directory = settings.data_dir.as_str();
    let bin_dir = if settings.bin_dir.is_empty() { "/usr/bin" } else { &settings.bin_dir };
    let (names, hidden, control) = tokio::join!(
        async { host.list(directory).await.map_err(StepError::from) },
        unmounted(host, directory),
        control(host, bin_dir, directory),
    );
    let (names, hidden, control) = (names?.unwrap_or_default(), hidden?, control?);
    if let Some(why) = hidden {
        return Ok(Data::Unknown(why));
    }
    let has = |name: &str| names.iter().any(|one| one == name);
    let Some(control) = control else {
        return Ok(match names.len() {
            0 => Data::Nothing,
            count => Data::Unreadable(format!("{count} entries, and pg_controldata can't read it")),
        });
    };
    if has("backup_label") {
        return Ok(Data::Unreadable("a base backup that was never recovered (backup_label)".to_owned()));
    }
    let bytes = async { if patience.is_some() { Ok(None) } else { size(host, directory).await } };
    let major = async { host.read(&format!("{directory}/PG_VERSION"), 64).await.map_err(StepError::from) };
    let links = async { links(host, directory).await.map_err(StepError::from) };
    let (wal, user_data, processes, major, bytes, links, mount) = tokio::try_join!(
        wal(host, bin_dir, directory, &control, patience),
        user_data(host, directory),
        processes_on(host, directory),
        major,
        bytes,
        links,
        mounted_on(host, directory),
    )?;
    let link = |(path, target): (String, String)| {
        format!("{} -> {target}", path.strip_prefix(&format!("{directory}/")).unwrap_or(&path))
    };
    Ok(Data::Cluster(Box::new(Cluster {
        identifier: control.system_identifier,
        state: control.state,
        running: Some(!processes.is_empty()),
        major: major.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()),
        timeline: wal.timeline.max(control.timeline),
        redo: control.redo.parse().ok(),
        minimum_recovery: control.minimum_recovery.parse().ok(),
        history: wal.history.filter(|_| wal.timeline >= control.timeline),
        last_commit: wal.last_commit,
        records: wal.records,
        looked_up: Vec::new(),
        links: links.into_iter().map(link).collect(),
        mount,
        bytes,
        rewindable: control.rewindable,
        user_data,
    })))
}

/// Copies beside the data directory: `main.set-aside-...`, `main.failed` and the like.
async fn set_aside(host: &dyn Host, directory: &str) -> Result<Vec<String>, StepError> {
    let Some((parent, name)) = directory.rsplit_once('/') else { return Ok(Vec::new()) };
    let names = host.list(parent).await?.unwrap_or_default();
    let beside = format!("{name}.");
    let is_copy = |one: &&String| one.starts_with(&beside) && !one.ends_with(".json");
    Ok(names.iter().filter(is_copy).map(|one| format!("{parent}/{one}")).collect())
}

async fn store(host: &dyn Host, settings: &Settings, patience: Option<Duration>) -> Store {
    let client = match reach(host, &settings.endpoints, settings.etcd_tls.as_ref(), patience).await {
        Ok(Ok(client)) => client,
        Ok(Err(nobody)) => return Store::Silent(nobody.kind, nobody.said.join("; ")),
        Err(error) => return Store::Unknown(error.message),
    };
    match within(patience, client.keys(&settings.prefix)).await {
        Some(Ok(found)) => Store::Keys(Box::new(keys(&settings.prefix, found))),
        Some(Err(error)) => Store::Silent(error.kind, error.to_string()),
        None => {
            Store::Silent(NoEtcd::Silent, "a member answers, and doesn't give the keys in time".to_owned())
        }
    }
}

/// Patroni's keys (3.0.2 and 4.0.7, `dcs/__init__.py`).
fn keys(prefix: &str, found: Vec<EtcdKey>) -> Keys {
    let mut keys = Keys { members: BTreeMap::new(), ..Keys::default() };
    let mut failsafe_mode = false;
    for EtcdKey { key, value, mod_revision, lease } in found {
        let json = || serde_json::from_str::<Value>(&value).unwrap_or_default();
        let name = key.strip_prefix(prefix).unwrap_or(&key).to_owned();
        match name.as_str() {
            "initialize" => keys.initialize = Some(Key { value, revision: mod_revision, lease }),
            "leader" => keys.leader = Some(Key { value, revision: mod_revision, lease }),
            "config" => {
                let config = json();
                keys.paused = Some(config["pause"].as_bool().unwrap_or(false));
                keys.maximum_lag = config["maximum_lag_on_failover"].as_u64();
                keys.use_pg_rewind = config["postgresql"]["use_pg_rewind"].as_bool();
                keys.standby_of = standby_of(&config["standby_cluster"]);
                failsafe_mode = config["failsafe_mode"].as_bool().unwrap_or(false);
            }
            "sync" => keys.sync = promotable(&json()),
            "failsafe" => keys.failsafe = names(&json()),
            "failover" => keys.failover = candidate(&json()),
            "status" | "optime/leader" => keys.written = written(&name, &value).or(keys.written),
            _ => {
                if let Some(member) = name.strip_prefix("members/") {
                    keys.members.insert(member.to_owned(), rest_of(&json()));
                }
            }
        }
    }
    if !failsafe_mode {
        keys.failsafe.clear();
    }
    keys
}

/// Whom a standby cluster follows: its host, or what brings it the WAL.
fn standby_of(standby: &Value) -> Option<String> {
    let whom = ["host", "restore_command"].iter().find_map(|name| standby[*name].as_str());
    standby.is_object().then(|| whom.unwrap_or("another one").to_owned())
}

/// The members that the key `failsafe` names.
fn names(failsafe: &Value) -> Vec<String> {
    failsafe.as_object().into_iter().flat_map(|members| members.keys().cloned()).collect()
}

/// Whom the key `failover` names to take over.
fn candidate(failover: &Value) -> Option<String> {
    let named = failover["candidate"].as_str().or_else(|| failover["member"].as_str());
    named.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// `status` is an object since Patroni 2.1, `optime/leader` a number.
fn written(key: &str, value: &str) -> Option<Written> {
    let value: Value = serde_json::from_str(value).ok()?;
    let position = value["optime"].as_u64().or_else(|| value.as_u64())?;
    Some(Written { key: key.to_owned(), position })
}

/// The leader and the synchronous standbys; nobody where replication isn't synchronous.
fn promotable(sync: &Value) -> Vec<String> {
    let names = |field: &str| sync[field].as_str().unwrap_or_default().split(',');
    let both = names("leader").chain(names("sync_standby"));
    both.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Where a member says that its REST API is: `address:port`.
fn rest_of(member: &Value) -> Option<String> {
    let (address, port) =
        address_and_port(member["api_url"].as_str()?.trim_end_matches("/patroni"), 8008).ok()?;
    Some(format!("{address}:{port}"))
}

#[async_trait]
impl Step for PatroniEvidence {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        // All that asks this host goes down one shell, one after another: what archives may hang, so it is asked last.
        let archive =
            |seconds| super::archive::look_within(&*host, &self.config_file, Duration::from_secs(seconds));
        let (node, archive) = if self.tell_unseen {
            let patience = Patience::with(&*host).await?;
            let node = patience.keep(&*host, self.look_within(&*host, Some(patience.answer))).await?;
            (node, within(Some(patience.whole), archive(2)).await.unwrap_or_else(|| Ok(Archive::default()))?)
        } else {
            (self.look(&*host).await?, archive(10).await?)
        };
        let well = node.report.as_ref().is_some_and(|report| report.leads() || report.follows());
        let complaints = if well { Vec::new() } else { complaints(&*host, &self.unit).await };
        let node = Node { complaints, archive, ..node };
        Ok(Check::Satisfied(crate::support::output(&node)?))
    }

    fn unseen(&self, why: &StepError) -> Option<Output> {
        let node = Node::unreachable(&why.message);
        crate::support::output(&node).ok().filter(|_| self.tell_unseen)
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
