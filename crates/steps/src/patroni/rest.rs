//! Patroni's REST API (Patroni 3.0.2 and 4.0.7, `api.py`).
//!
//! An unknown path answers 503 just as an unhealthy member does, so only known paths are asked, and
//! bodies are believed rather than statuses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flow_core::step::StepError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::settings::Settings;
use crate::clients::{HttpReply, HttpRequest, TlsFiles};
use crate::host::{Host, HostError};
use crate::support::{address_and_port, answered};

const TIMEOUT: Duration = Duration::from_secs(5);

/// What a member says of itself in `GET /patroni`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `running`, `streaming`, `starting`, `creating replica`, `stopped`.
    pub(crate) state: String,
    /// `leader`, `replica`, `standby_leader`, or what Patroni says; `master` and `primary` are `leader`.
    pub(crate) role: String,
    /// Null on replicas of Patroni 3.0.2.
    pub(crate) timeline: Option<u64>,
    /// The system identifier of the running PostgreSQL.
    pub(crate) system_identifier: Option<String>,
    /// The cluster is in pause.
    pub(crate) paused: bool,
    /// PostgreSQL must be restarted for some settings to count.
    pub(crate) pending_restart: bool,
    /// Patroni's version.
    pub(crate) version: Option<String>,
    /// WAL position in bytes: written by a leader, received by a replica.
    pub(crate) position: Option<u64>,
    /// Who streams from it, by name.
    pub(crate) streaming: Vec<String>,
}

impl Report {
    /// It serves as the primary.
    pub(crate) fn leads(&self) -> bool {
        self.role == "leader" && self.state == "running"
    }

    /// It serves as a replica. 3.0.2 says `running`, 4 says `streaming` too.
    pub(crate) fn follows(&self) -> bool {
        self.role == "replica" && matches!(self.state.as_str(), "running" | "streaming")
    }

    fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let number = |path: &str| body.pointer(path).and_then(Value::as_u64);
        let role = match text("/role")?.as_str() {
            "master" | "primary" => "leader".to_owned(),
            other => other.to_owned(),
        };
        let streams = |standby: &Value| {
            let name = standby.get("application_name")?.as_str()?;
            (standby.get("state")?.as_str()? == "streaming").then(|| name.to_owned())
        };
        let standbys = body.get("replication").and_then(Value::as_array);
        Some(Self {
            state: text("/state")?,
            role,
            timeline: number("/timeline"),
            system_identifier: text("/database_system_identifier"),
            paused: body.get("pause").and_then(Value::as_bool).unwrap_or(false),
            pending_restart: body.get("pending_restart").and_then(Value::as_bool).unwrap_or(false),
            version: text("/patroni/version"),
            position: number("/xlog/location").or_else(|| number("/xlog/received_location")),
            streaming: standbys.into_iter().flatten().filter_map(streams).collect(),
        })
    }
}

/// Patroni's port for REST.
pub(crate) const PORT: u16 = 8008;

/// Where a member's REST API answers, and how it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    address: String,
    port: u16,
    tls: Option<TlsFiles>,
}

impl Api {
    /// `rest` is `address:port`.
    ///
    /// # Errors
    /// It isn't.
    pub(crate) fn new(rest: &str, tls: Option<&TlsFiles>) -> Result<Self, StepError> {
        let (address, port) = address_and_port(rest, PORT).map_err(StepError::permanent)?;
        Ok(Self { address, port, tls: tls.cloned() })
    }

    /// The API of the host's own member.
    ///
    /// # Errors
    /// Its address isn't one.
    pub(crate) fn of(settings: &Settings) -> Result<Self, StepError> {
        Self::new(&settings.rest, settings.rest_tls.as_ref())
    }

    fn request(&self, method: &'static str, path: &str) -> HttpRequest {
        HttpRequest {
            method,
            address: self.address.clone(),
            port: self.port,
            path: path.to_owned(),
            body: None,
            basic_auth: None,
            tls: self.tls.clone(),
            timeout: TIMEOUT,
        }
    }
}

/// Asks a member about itself. The inner error says why it doesn't answer.
pub(crate) async fn report(host: &dyn Host, api: &Api) -> Result<Result<Report, String>, StepError> {
    read_report(host.http(&api.request("GET", "/patroni")).await)
}

/// As [`report`], asked again where the answer was lost on its way: what is decided by it must not hang on one
/// packet. A member that never replies at all counts as silent in the end; with `patience`, after that time.
pub(crate) async fn report_for_certain(
    host: &dyn Host,
    api: &Api,
    patience: Option<Duration>,
) -> Result<Result<Report, String>, StepError> {
    const TRIES: usize = 3;
    let timeout = patience.unwrap_or(TIMEOUT);
    let request = HttpRequest { timeout, ..api.request("GET", "/patroni") };
    let began = Instant::now();
    for _ in 1..TRIES {
        match host.http(&request).await {
            Err(HostError::Lost { .. }) if patience.is_none_or(|limit| began.elapsed() < limit) => {}
            other => return read_report(other),
        }
    }
    read_report(host.http(&request).await)
}

fn read_report(reply: Result<HttpReply, HostError>) -> Result<Result<Report, String>, StepError> {
    let reply = match answered(reply)? {
        Ok(reply) => reply,
        Err(why) => return Ok(Err(why)),
    };
    Ok(Report::read(&reply.body).ok_or_else(|| format!("GET /patroni gave {} and no status", reply.status)))
}

/// The names of those to which WAL comes from the first, by one after another (tag `replicatefrom`); theirs too. Each member is
/// given by its name.
pub(crate) fn fed<'a>(
    all: &[(&'a str, &'a Report)],
    first: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<&'a str> {
    let mut fed: BTreeSet<&str> = first.into_iter().collect();
    loop {
        let senders = all.iter().filter(|(name, _)| fed.contains(name));
        let sent: BTreeSet<&str> =
            senders.flat_map(|(_, report)| &report.streaming).map(String::as_str).collect();
        let before = fed.len();
        fed.extend(all.iter().map(|(name, _)| *name).filter(|name| sent.contains(name)));
        if fed.len() == before {
            return fed;
        }
    }
}

/// Whether a member holds the leader's key: it serves as the primary a moment before.
pub(crate) async fn holds_the_key(host: &dyn Host, api: &Api) -> Result<bool, StepError> {
    let reply = answered(host.http(&api.request("GET", "/leader")).await)?;
    Ok(reply.is_ok_and(|reply| reply.status == 200))
}

/// The members as the cluster's keys name them: `name`, `role`, `state`, `api_url`, `lag`, `tags`.
///
/// # Errors
/// The member doesn't answer.
pub(crate) async fn cluster(host: &dyn Host, api: &Api) -> Result<Vec<Value>, StepError> {
    let reply = host.http(&api.request("GET", "/cluster")).await?;
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    match body["members"].as_array() {
        Some(members) => Ok(members.clone()),
        None => Err(StepError::failed(format!("GET /cluster gave {} and no members", reply.status))),
    }
}

/// A member as the cluster's keys name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its name, by which a sender of WAL knows it too.
    pub(crate) name: String,
    /// Its REST address, as [`address_and_port`] reads it.
    pub(crate) rest: (String, u16),
    /// `leader`, `replica`, `sync_standby`, `standby_leader` ...
    pub(crate) role: String,
    /// It holds the leader's key.
    pub(crate) leads: bool,
    /// The tag `nostream` (Patroni 4): it restores from the archive and never streams.
    pub(crate) nostream: bool,
    /// The tag `replicatefrom`: from whom it streams, where that one is there.
    pub(crate) replicates_from: Option<String>,
}

impl Named {
    fn read(member: &Value) -> Option<Self> {
        let url = member["api_url"].as_str()?.trim_end_matches("/patroni");
        Some(Self {
            name: member["name"].as_str()?.to_owned(),
            rest: address_and_port(url, PORT).ok()?,
            role: member["role"].as_str().unwrap_or("replica").to_owned(),
            leads: member["role"] == "leader",
            nostream: member["tags"]["nostream"] == json!(true),
            replicates_from: member["tags"]["replicatefrom"].as_str().map(str::to_owned),
        })
    }

    /// Its REST address, `address:port`.
    pub(crate) fn address(&self) -> String {
        let (address, port) = &self.rest;
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }
}

/// As [`cluster`], what is needed of it. The inner error says why the member doesn't answer.
pub(crate) async fn named(host: &dyn Host, api: &Api) -> Result<Result<Vec<Named>, String>, StepError> {
    let reply = match answered(host.http(&api.request("GET", "/cluster")).await)? {
        Ok(reply) => reply,
        Err(why) => return Ok(Err(why)),
    };
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let members = body["members"].as_array().map(|members| members.iter().filter_map(Named::read).collect());
    Ok(members.ok_or_else(|| format!("GET /cluster gave {} and no members", reply.status)))
}

/// Asks the host's member to do something that may take until `timeout`. The inner error says that nobody knows
/// what became of it.
pub(crate) async fn post(
    host: &dyn Host,
    settings: &Settings,
    path: &str,
    body: Value,
    timeout: Duration,
) -> Result<Result<HttpReply, String>, StepError> {
    let request = HttpRequest { timeout, ..with_password(settings, "POST", path, body)? };
    answered(host.http(&request).await)
}

fn with_password(
    settings: &Settings,
    method: &'static str,
    path: &str,
    body: Value,
) -> Result<HttpRequest, StepError> {
    let auth = settings.rest_auth.as_ref();
    Ok(HttpRequest {
        body: Some(body),
        basic_auth: auth.map(|auth| (auth.username.clone(), auth.password.clone())),
        ..Api::of(settings)?.request(method, path)
    })
}

/// Makes a member look at the cluster at once instead of at its next turn. That it fails is no matter: it does so by
/// itself too.
pub(crate) async fn wake(host: &dyn Host, settings: &Settings) {
    // A key that isn't there is taken away: nothing changes.
    let _ = patch_config(host, settings, json!({ "flow_wakes_the_leader": null })).await;
}

/// Changes the dynamic configuration: what is null in the patch is removed.
///
/// Also makes the member look at the cluster at once instead of at its next turn.
pub(crate) async fn patch_config(
    host: &dyn Host,
    settings: &Settings,
    patch: Value,
) -> Result<HttpReply, StepError> {
    Ok(host.http(&with_password(settings, "PATCH", "/config", patch)?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_with_its_tags() {
        let read = |tags: Value| {
            let url = "https://198.18.0.12:8008/patroni";
            Named::read(&json!({ "name": "patroni2", "role": "replica", "api_url": url, "tags": tags }))
                .unwrap()
        };
        let plain = read(Value::Null);
        assert_eq!(plain.rest, ("198.18.0.12".to_owned(), 8008));
        assert_eq!(
            (plain.leads, plain.nostream, plain.address()),
            (false, false, "198.18.0.12:8008".to_owned())
        );
        assert!(read(json!({ "nostream": true })).nostream);
        assert_eq!(read(json!({ "replicatefrom": "patroni3" })).replicates_from.as_deref(), Some("patroni3"));
    }

    #[test]
    fn a_leader_is_one_whatever_its_patroni_calls_it() {
        let read = |role: &str| {
            let body = format!(
                r#"{{"state":"running","role":"{role}","timeline":2,"database_system_identifier":"77","xlog":{{"location":5}},
                "replication":[{{"application_name":"patroni2","state":"streaming"}},{{"application_name":"b","state":"backup"}}],
                "patroni":{{"version":"3.0.2","scope":"demo"}}}}"#
            );
            Report::read(body.as_bytes()).unwrap()
        };
        for role in ["master", "primary"] {
            let report = read(role);
            assert!(report.leads());
            assert_eq!(report.streaming, ["patroni2"]);
            assert_eq!((report.timeline, report.position), (Some(2), Some(5)));
        }
        assert!(read("replica").follows());
        assert_eq!(Report::read(b"no json"), None);
    }
}
