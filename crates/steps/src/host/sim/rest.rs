//! Patroni's REST API, as 3.0.2 and 4.0.7 answer it.
//!
//! Statuses are those of Patroni's `api.py`: health endpoints are 200 or 503, and a GET of a path that
//! it doesn't know is 503 too.

use serde_json::{Value, json};

use super::error::failed;
use super::patroni::{self, Control};
use super::patroni_config::Config;
use super::settings;
use super::state::{PostgresRole, Release, WorldState};
use crate::clients::{HttpReply, HttpRequest};
use crate::host::HostError;

/// Answers a request that changes nothing.
pub(super) fn get(world: &WorldState, from: &str, request: &HttpRequest) -> Result<HttpReply, HostError> {
    let api = Api::at(world, from, request)?;
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    Ok(match path.trim_end_matches('/') {
        "/patroni" => reply(200, &api.status()),
        "/cluster" => reply(200, &api.cluster()),
        "/history" => reply(200, &json!([])),
        "/config" => match patroni::dynamic(world, &api.config.prefix) {
            Value::Null => text(502, ""),
            config => reply(200, &config),
        },
        "/metrics" => text(200, &api.metrics()),
        path => reply(if api.healthy(path, query) { 200 } else { 503 }, &api.status()),
    })
}

/// Answers a request that may change something. True: it did.
pub(super) fn act(
    world: &mut WorldState,
    from: &str,
    request: &HttpRequest,
) -> Result<(HttpReply, bool), HostError> {
    let api = Api::at(world, from, request)?;
    let given = request.basic_auth.as_ref().map(|(user, secret)| (user.as_str(), secret.reveal()));
    if let Some((user, password)) = &api.config.auth
        && given != Some((user, password))
    {
        let why = if given.is_some() { "not authenticated" } else { "no auth header received" };
        return Ok((text(401, why), false));
    }
    let (host, config) = (api.host.to_owned(), api.config.clone());
    let role = api.role();
    let body = request.body.clone().unwrap_or_default();
    Ok(match (request.method, request.path.trim_end_matches('/')) {
        ("PATCH", "/config") => patch_config(world, &config, &body),
        ("POST", "/reload") => (text(202, "reload scheduled"), true),
        ("POST", "/restart") if role.is_none() => (text(503, "postgres is not running"), false),
        ("POST", "/restart") => restart(world, &host, &config, &body)?,
        ("POST", "/reinitialize") => reinitialize(world, &host, &config, role),
        ("POST", "/switchover") => switchover(world, &config, &body),
        _ => (text(501, "Unsupported method"), false),
    })
}

struct Api<'w> {
    world: &'w WorldState,
    host: &'w str,
    config: Config,
}

impl<'w> Api<'w> {
    /// The Patroni that listens there.
    fn at(world: &'w WorldState, from: &str, request: &HttpRequest) -> Result<Self, HostError> {
        let host = world.reach(from, &request.address).filter(|host| patroni::running(world, host));
        let config = host.and_then(|host| patroni::config(world, host).ok());
        match (host, config) {
            (Some(host), Some(config)) if config.api_port == request.port => Ok(Self { world, host, config }),
            _ => Err(failed(from, format!("{}:{}: connection refused", request.address, request.port))),
        }
    }

    fn role(&self) -> Option<PostgresRole> {
        self.world.host(self.host).ok()?.postgres.as_ref().map(|postgres| postgres.role)
    }

    fn control(&self) -> Option<Control> {
        patroni::control(self.world.host(self.host).ok()?, &self.config.data_dir)
    }

    fn leads(&self) -> bool {
        let leader = self.world.etcd.get(&format!("{}leader", self.config.prefix));
        leader == Some(&self.config.name) && self.role() == Some(PostgresRole::Primary)
    }

    /// Whether the leader serves, so that a replica has something to stream from.
    fn streams(&self) -> bool {
        self.role() == Some(PostgresRole::Replica)
            && self.members().iter().any(|member| member["role"] == "leader")
    }

    fn healthy(&self, path: &str, query: &str) -> bool {
        let replica = self.role() == Some(PostgresRole::Replica);
        let streaming = !query.contains("replication_state=streaming") || self.streams();
        match path {
            "" | "/primary" | "/master" | "/leader" | "/read-write" => self.leads(),
            "/replica" | "/async" | "/asynchronous" => replica && streaming,
            "/read-only" => self.leads() || replica,
            "/health" => self.role().is_some(),
            "/readiness" => self.leads() || replica,
            "/liveness" => true,
            _ => false,
        }
    }

    /// The body of `/patroni` and of the health endpoints.
    fn status(&self) -> Value {
        let release = self.world.settings.release;
        let mut about = json!({ "version": patroni::version(release), "scope": self.config.scope });
        if release == Release::Trixie {
            about["name"] = self.config.name.clone().into();
        }
        let mut status = json!({ "state": "stopped", "role": "uninitialized" });
        if let (Some(role), Some(control)) = (self.role(), self.control()) {
            let major = self.config.major.as_deref().unwrap_or(patroni::default_major(release));
            status = json!({
                "state": "running",
                "postmaster_start_time": "2024-01-01 00:00:00.000000+00:00",
                "role": match role {
                    PostgresRole::Primary => patroni::primary_word(release),
                    PostgresRole::Replica => "replica",
                },
                "server_version": major.parse::<u32>().unwrap_or(0) * 10_000,
                "timeline": control.timeline,
            });
            if release == Release::Bookworm && role == PostgresRole::Replica {
                status["timeline"] = Value::Null;
            }
            status["xlog"] = match role {
                PostgresRole::Primary => json!({ "location": control.lsn }),
                PostgresRole::Replica => json!({
                    "received_location": control.lsn, "replayed_location": control.lsn,
                    "replayed_timestamp": null, "paused": false,
                }),
            };
            if role == PostgresRole::Primary {
                status["replication"] = self.replication().into();
            } else if release == Release::Trixie && self.streams() {
                status["replication_state"] = "streaming".into();
            }
            status["database_system_identifier"] = control.system_identifier.into();
        }
        if self.world.host(self.host).is_ok_and(settings::wait_for_a_restart) {
            status["pending_restart"] = true.into();
        }
        if patroni::paused(self.world, &self.config.prefix) {
            status["pause"] = true.into();
        }
        if patroni::reaches_etcd(self.world, self.host, &self.config) {
            status["dcs_last_seen"] = 1_700_000_000.into();
        }
        status["patroni"] = about;
        status
    }

    fn replication(&self) -> Vec<Value> {
        let replicas = self.members().into_iter().filter(|member| member["role"] == "replica");
        let running = replicas.filter(|member| member["state"] != "stopped");
        let row = |member: Value| {
            json!({
                "usename": "replicator", "application_name": member["name"], "client_addr": member["host"],
                "state": "streaming", "sync_state": "async", "sync_priority": 0,
            })
        };
        running.map(row).collect()
    }

    /// The body of `/cluster`: what the keys say.
    fn cluster(&self) -> Value {
        let mut cluster = json!({ "members": self.members() });
        if patroni::paused(self.world, &self.config.prefix) {
            cluster["pause"] = true.into();
        }
        if self.world.settings.release == Release::Trixie {
            cluster["scope"] = self.config.scope.clone().into();
        }
        cluster
    }

    fn members(&self) -> Vec<Value> {
        let etcd = &self.world.etcd;
        let prefix = format!("{}members/", self.config.prefix);
        let leader = etcd.get(&format!("{}leader", self.config.prefix)).unwrap_or_default();
        let keys = etcd.keys.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let member = |(key, stored): (&String, &super::state::StoredKey)| {
            let name = &key[prefix.len()..];
            let value: Value = serde_json::from_str(&stored.value).unwrap_or_default();
            let address = value["conn_url"].as_str()?.strip_prefix("postgres://")?.split('/').next()?;
            let (host, port) = address.rsplit_once(':')?;
            let leads = name == leader;
            let streams =
                self.world.settings.release == Release::Trixie && !leads && value["state"] == "running";
            let mut member = json!({
                "name": name,
                "role": if leads { "leader" } else { "replica" },
                "state": if streams { json!("streaming") } else { value["state"].clone() },
                "api_url": value["api_url"],
                "host": host,
                "port": port.parse::<u16>().ok()?,
            });
            if !value["timeline"].is_null() {
                member["timeline"] = value["timeline"].clone();
            }
            if !leads {
                member["lag"] = if value["xlog_location"].is_null() { json!("unknown") } else { json!(0) };
            }
            Some(member)
        };
        keys.filter_map(member).collect()
    }

    fn metrics(&self) -> String {
        let labels = format!("{{scope=\"{}\"}}", self.config.scope);
        let number = |yes: bool| u8::from(yes);
        format!(
            "patroni_postgres_running{labels} {}\npatroni_primary{labels} {}\npatroni_replica{labels} {}\n",
            number(self.role().is_some()),
            number(self.leads()),
            number(self.role() == Some(PostgresRole::Replica)),
        )
    }
}

fn patch_config(world: &mut WorldState, config: &Config, body: &Value) -> (HttpReply, bool) {
    let before = patroni::dynamic(world, &config.prefix);
    if before.is_null() {
        return (text(503, ""), false);
    }
    let mut after = before.clone();
    merge(&mut after, body);
    if after != before {
        world.etcd.put(&format!("{}config", config.prefix), &after.to_string(), 0);
    }
    (reply(200, &after), after != before)
}

/// Merges a patch into each cluster's dynamic configuration.
pub(super) fn edit_configs(world: &mut WorldState, patch: &Value) {
    let is_one = |key: &&String| key.starts_with("/service/") && key.ends_with("/config");
    let keys: Vec<String> = world.etcd.keys.keys().filter(is_one).cloned().collect();
    for key in keys {
        let text = world.etcd.get(&key).unwrap_or_default();
        let mut config: Value = serde_json::from_str(text).unwrap_or_default();
        merge(&mut config, patch);
        world.etcd.put(&key, &config.to_string(), 0);
    }
}

/// Patroni's patch: `null` removes, objects are merged, everything else replaces.
fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(into), Value::Object(patch)) = (into, patch) else { return };
    for (name, value) in patch {
        match (into.get_mut(name), value) {
            (_, Value::Null) => {
                into.remove(name);
            }
            (Some(old @ Value::Object(_)), Value::Object(_)) => merge(old, value),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

fn restart(
    world: &mut WorldState,
    host: &str,
    config: &Config,
    body: &Value,
) -> Result<(HttpReply, bool), HostError> {
    let waits = world.host(host).is_ok_and(settings::wait_for_a_restart);
    if body.get("restart_pending").is_some() && !waits {
        return Ok((text(503, "restart conditions are not satisfied"), false));
    }
    patroni::restart_postgres(world, host, config).map_err(|why| failed(host, why))?;
    Ok((text(200, "restarted successfully"), true))
}

fn reinitialize(
    world: &mut WorldState,
    host: &str,
    config: &Config,
    role: Option<PostgresRole>,
) -> (HttpReply, bool) {
    if role == Some(PostgresRole::Primary) {
        return (text(503, "I am the leader, can not reinitialize"), false);
    }
    if world.etcd.get(&format!("{}leader", config.prefix)).is_none() {
        return (text(503, "Cluster has no leader, can not reinitialize"), false);
    }
    if let Ok(host) = world.host_mut(host) {
        patroni::stop_postgres(host);
        host.files.remove_tree(&config.data_dir);
    }
    (text(200, "reinitialize started"), true)
}

fn switchover(world: &mut WorldState, config: &Config, body: &Value) -> (HttpReply, bool) {
    let key = |name: &str| format!("{}{name}", config.prefix);
    let (Some(leader), candidate) = (body["leader"].as_str(), body["candidate"].as_str()) else {
        return (text(400, "Switchover could be performed only from a specific leader"), false);
    };
    if world.etcd.get(&key("leader")) != Some(leader) {
        return (text(412, "leader name does not match"), false);
    }
    let members = key("members/");
    let known = world.etcd.keys.keys().filter_map(|key| key.strip_prefix(members.as_str()));
    let chosen =
        known.filter(|name| *name != leader).find(|name| candidate.is_none_or(|wanted| wanted == *name));
    let Some(chosen) = chosen.map(str::to_owned) else {
        return (text(412, "no good candidates have been found"), false);
    };
    world.etcd.put(&key("failover"), &json!({ "leader": leader, "candidate": chosen }).to_string(), 0);
    world.etcd.delete(&key("leader"));
    (text(200, &format!("Successfully switched over to \"{chosen}\"")), true)
}

fn reply(status: u16, body: &Value) -> HttpReply {
    text(status, &body.to_string())
}

fn text(status: u16, body: &str) -> HttpReply {
    HttpReply { status, body: body.as_bytes().to_vec() }
}
