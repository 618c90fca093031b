//! `patroni.pending_restart`: which settings wait for a restart of a member's PostgreSQL.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::dynamic::{merged, patch};
use super::rest::{Api, Report, report, wake};
use super::settings::Settings;
use crate::clients::{Rows, SqlTarget, TlsFiles};
use crate::etcd::connect;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// How long a member may take to read the dynamic configuration: it does so every `loop_wait`, 10 s, and is woken.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is woken.
const WAKE_EVERY: Duration = Duration::from_secs(1);
/// A replica can't have less of these than its leader (PostgreSQL's manual, "Hot Standby"; Patroni starts it with the leader's value).
const LEADER_FIRST: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// Tells which settings wait for a restart of the host's PostgreSQL, once its Patroni has read the dynamic configuration.
///
/// A member reads it at its next turn only; it is woken, and waited for. Changes nothing. While a plan is made, what `parameters`
/// will change counts as if it were set already. Output: `pending`, `leads`, `settings` (such as `max_connections 100 -> 150`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniPendingRestart {
    /// PostgreSQL's parameters that are to be merged into the dynamic configuration, for a plan.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// They are to be restarted, replicas first: refused where the leader has to come first. False by default.
    #[serde(default)]
    pub to_be_restarted: bool,
    /// PostgreSQL's address as seen from the host.
    pub address: String,
    /// TCP port. 5432 by default.
    #[serde(default = "port")]
    pub port: u16,
    /// A superuser. `postgres` by default.
    #[serde(default = "postgres")]
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// TLS, and by which files of the host, as with `postgres.query`. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

fn port() -> u16 {
    5432
}

fn postgres() -> String {
    "postgres".to_owned()
}

impl StepType for PatroniPendingRestart {
    const NAME: &'static str = "patroni.pending_restart";
    const WAITS: bool = true;

    fn validate(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), TlsFiles::validate)
    }
}

/// A setting that a restart would change.
struct Waiting {
    name: String,
    now: String,
    wanted: Option<String>,
}

impl Waiting {
    fn of_row(row: &Map<String, Value>) -> Option<(Self, bool)> {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let pending = matches!(text("pending").as_deref(), Some("t" | "true"));
        Some((Self { name: text("name")?, now: text("now")?, wanted: text("wanted") }, pending))
    }

    fn words(&self) -> String {
        let wanted = self.wanted.as_deref().unwrap_or("its default");
        format!("{} {} -> {wanted}", self.name, self.now)
    }

    /// It becomes less, and a replica can't have less than its leader.
    fn shrinks(&self) -> bool {
        let number = |text: &str| text.trim().parse::<i64>().ok();
        let smaller = self.wanted.as_deref().and_then(number) < number(&self.now);
        LEADER_FIRST.contains(&self.name.as_str()) && smaller
    }
}

impl PatroniPendingRestart {
    async fn sql(&self, host: &dyn Host, changing: &[(String, String)]) -> Result<Vec<Waiting>, StepError> {
        let target = SqlTarget {
            address: self.address.clone(),
            port: self.port,
            user: self.user.clone(),
            password: Some(self.password.clone()),
            database: "postgres".to_owned(),
            tls: self.tls.clone(),
        };
        let rows = host.sql(&target).await?.query(&question(changing)).await?;
        Ok(waiting(&rows, changing))
    }

    /// The parameters that the dynamic configuration will have and has not: those of a plan.
    fn changing(&self, now: &Value) -> Vec<(String, String)> {
        let wanted = serde_json::json!({ "postgresql": { "parameters": self.parameters } });
        let patch = patch(now, &merged(now, &wanted)).unwrap_or_default();
        let changed = patch.pointer("/postgresql/parameters").and_then(Value::as_object);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let of = |(name, value): (&String, &Value)| (name.to_lowercase(), text(value));
        changed.into_iter().flatten().filter(|(name, _)| plain(name)).map(of).collect()
    }

    async fn look(&self, cx: &Context, host: &dyn Host, settings: &Settings) -> Result<Seen, StepError> {
        let key = format!("{}config", settings.prefix);
        let kept = format!("{}/patroni.dynamic.json", settings.data_dir);
        let (api, tls) = (Api::of(settings)?, settings.etcd_tls.as_ref());
        let keys = async {
            connect(host, &settings.endpoints, tls).await?.keys(&key).await.map_err(StepError::from)
        };
        let kept = async { host.read(&kept, 1 << 20).await.map_err(StepError::from) };
        let (keys, kept, report) = tokio::try_join!(keys, kept, report(host, &api))?;
        let json = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap_or_default();
        let now = keys.iter().find(|found| found.key == key).map(|found| json(found.value.as_bytes()));
        let now = now.unwrap_or_default();
        // It keeps a copy of what it has read and made its own (`save_cache` in Patroni's config.py).
        if !cx.planning() && kept.map(|kept| json(&kept)).unwrap_or_default() != now {
            let name = &settings.name;
            return Ok(Seen::NotYet(format!("{name} hasn't read the dynamic configuration yet")));
        }
        let report = match report {
            Ok(report) if report.leads() || report.follows() => report,
            Ok(Report { role, state, .. }) => {
                return Ok(Seen::NotYet(format!("{} is {role}, {state}", settings.name)));
            }
            Err(why) => {
                return Ok(Seen::NotYet(format!("Patroni at {} doesn't answer: {why}", settings.rest)));
            }
        };
        let changing = if cx.planning() { self.changing(&now) } else { Vec::new() };
        let waiting = match report.pending_restart || !changing.is_empty() {
            true => self.sql(host, &changing).await?,
            false => Vec::new(),
        };
        let smaller: Vec<&str> =
            waiting.iter().filter(|one| one.shrinks()).map(|one| one.name.as_str()).collect();
        if self.to_be_restarted && report.leads() && !smaller.is_empty() {
            let (names, Settings { scope, name, .. }) = (smaller.join(", "), settings);
            return Err(StepError::permanent(format!(
                "{names} becomes smaller: no replica can have less than its leader, so the leader would come first, where it is, with \
                 clients cut off meanwhile"
            ))
            .with_hint(format!(
                "at a good hour `patronictl -c {} restart {scope} {name}` on a host, then go on for the replicas",
                self.config_file
            )));
        }
        let output = Output::empty()
            .with("pending", report.pending_restart || !waiting.is_empty())
            .with("leads", report.leads())
            .with("settings", waiting.iter().map(Waiting::words).collect::<Vec<_>>());
        Ok(Seen::Yes(output))
    }
}

/// A parameter's name, with nothing in it that SQL would read in another way.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

fn question(changing: &[(String, String)]) -> String {
    let names: Vec<String> = changing.iter().map(|(name, _)| format!("'{name}'")).collect();
    let among = match names.join(", ") {
        names if names.is_empty() => String::new(),
        names => format!(" or (s.context = 'postmaster' and s.name in ({names}))"),
    };
    format!(
        "select s.name, current_setting(s.name) as now, s.pending_restart as pending, \
         (select f.setting from pg_file_settings f where f.name = s.name order by f.seqno desc limit 1) as wanted \
         from pg_settings s where s.pending_restart{among} order by s.name"
    )
}

/// What a restart would change: what PostgreSQL says, and what the plan will set.
fn waiting(rows: &Rows, changing: &[(String, String)]) -> Vec<Waiting> {
    let mut seen = BTreeSet::new();
    let each = rows.iter().filter_map(Waiting::of_row).filter_map(|(one, pending)| {
        match changing.iter().find(|(name, _)| *name == one.name) {
            Some((_, wanted)) if wanted == "null" => Some(Waiting { wanted: None, ..one }),
            Some((_, wanted)) if *wanted == one.now => None,
            Some((_, wanted)) => Some(Waiting { wanted: Some(wanted.clone()), ..one }),
            None => pending.then_some(one),
        }
    });
    each.filter(|one| seen.insert(one.name.clone())).collect()
}

#[async_trait]
impl Step for PatroniPendingRestart {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let seen = match Settings::of(&*host, &self.config_file).await? {
            Some(settings) => self.look(cx, &*host, &settings).await?,
            None if cx.planning() => Seen::NotYet(format!("there is no {} yet", self.config_file)),
            None => return Ok(Check::Refused(format!("there is no {}", self.config_file))),
        };
        Ok(seen.checked(cx))
    }

    fn invariant(&self, _change: &Change) -> Value {
        crate::support::WAITS.into()
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let woken: Mutex<Option<Instant>> = Mutex::default();
        let look = || async {
            let seen = self.look(cx, &*host, &settings).await?;
            let mut woken = woken.lock().await;
            if matches!(seen, Seen::NotYet(_)) && woken.is_none_or(|at| at.elapsed() >= WAKE_EVERY) {
                wake(&*host, &settings).await;
                *woken = Some(Instant::now());
            }
            Ok(seen)
        };
        wait_until(cx, PATIENCE, look)
            .await
            .map_err(|error| error.with_hint("`journalctl -u patroni` on the host says what it waits for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    fn step(parameters: &Value) -> PatroniPendingRestart {
        let with = json!({ "address": "198.18.0.12", "password": "a secret", "parameters": parameters });
        serde_json::from_value(with).unwrap()
    }

    fn row(name: &str, now: &str, pending: &str, wanted: &Value) -> Map<String, Value> {
        let row = json!({ "name": name, "now": now, "pending": pending, "wanted": wanted });
        let Value::Object(row) = row else { unreachable!() };
        row
    }

    #[test]
    fn what_waits_is_told_with_what_it_is_and_will_be() {
        let rows = vec![
            row("max_connections", "150", "t", &json!("100")),
            row("shared_buffers", "128MB", "t", &Value::Null),
        ];
        let all = waiting(&rows, &[]);
        let words: Vec<_> = all.iter().map(Waiting::words).collect();
        assert_eq!(words, ["max_connections 150 -> 100", "shared_buffers 128MB -> its default"]);
        let shrinks: Vec<_> = all.iter().map(Waiting::shrinks).collect();
        assert_eq!(shrinks, [true, false]);
    }

    #[test]
    fn what_a_plan_will_set_counts_as_set() {
        let rows = vec![
            row("max_connections", "100", "f", &json!("100")),
            row("shared_buffers", "128MB", "f", &Value::Null),
        ];
        let changing = [("max_connections", "150"), ("shared_buffers", "128MB")];
        let changing = changing.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert!(question(&changing).contains("s.name in ('max_connections', 'shared_buffers')"));
        let words: Vec<_> = waiting(&rows, &changing).iter().map(Waiting::words).collect();
        assert_eq!(words, ["max_connections 100 -> 150"]);
    }

    #[tokio::test]
    async fn nothing_waits_until_the_dynamic_configuration_changes_and_a_plan_tells_before() {
        let lab = Lab::deployed().await;
        let seen = satisfied(step(&json!({})).check(&lab.on("patroni2")).await.unwrap());
        assert_eq!((&seen.0["pending"], &seen.0["leads"]), (&json!(false), &json!(false)));
        let wanted = json!({ "max_connections": 150, "work_mem": "8MB" });
        let planned = satisfied(step(&wanted).check(&lab.planning("patroni2")).await.unwrap());
        assert_eq!(planned.0["settings"], json!(["max_connections 100 -> 150"]));
        let seen = satisfied(step(&wanted).check(&lab.on("patroni2")).await.unwrap());
        assert_eq!(seen.0["pending"], false, "what isn't set yet waits for nothing");

        let config = json!({ "postgresql": { "parameters": wanted } });
        lab.make("patroni1", "patroni.dynamic_config", json!({ "config": config, "merge": true })).await;
        let seen = satisfied(step(&json!({})).check(&lab.on("patroni2")).await.unwrap());
        assert_eq!(seen.0["pending"], true);
        assert_eq!(seen.0["settings"], json!(["max_connections 100 -> 150"]));
    }

    #[tokio::test]
    async fn what_the_leader_must_have_first_is_refused_there_before_anything_is_restarted() {
        let lab = Lab::deployed().await;
        let config = json!({ "postgresql": { "parameters": { "max_connections": 50 } } });
        lab.make("patroni1", "patroni.dynamic_config", json!({ "config": config, "merge": true })).await;
        let step = |to_be_restarted| PatroniPendingRestart { to_be_restarted, ..step(&json!({})) };
        satisfied(step(true).check(&lab.on("patroni2")).await.unwrap());
        let leader = |to_be_restarted| PatroniPendingRestart {
            address: "198.18.0.11".to_owned(),
            ..step(to_be_restarted)
        };
        satisfied(leader(false).check(&lab.on("patroni1")).await.unwrap());
        let error = leader(true).check(&lab.on("patroni1")).await.unwrap_err();
        assert!(error.message.starts_with("max_connections becomes smaller"), "{}", error.message);
        assert!(error.hint.unwrap().contains("patronictl -c /etc/patroni/config.yml restart demo patroni1"));
    }
}
