//! `balancer.condition`: to whom HAProxy leads, and whether the virtual address is here.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clients::HttpRequest;
use crate::host::{Host, HostContext, Unit, quote};
use crate::support::{Patience, answered};

/// How long HAProxy may take for its statistics.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What a balancer does just now. Changes nothing.
///
/// HAProxy's unit, and by its statistics the servers to which it leads clients who want the leader; keepalived's unit, and whether
/// this host has the virtual address; whether a run of flow has closed HAProxy until the cluster is opened. What can't be seen is told as
/// unknown and is no failure. Output: for `patroni.findings`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalancerCondition {
    /// HAProxy is to run here. True by default.
    #[serde(default = "crate::support::yes")]
    pub haproxy: bool,
    /// keepalived is to run here. False by default.
    #[serde(default)]
    pub keepalived: bool,
    /// The virtual address that one of several hosts has. Empty, as by default: there is none.
    #[serde(default)]
    pub vip: String,
    /// Where HAProxy shows its statistics, over HTTP on this host. 7000 by default.
    #[serde(default = "stats_port")]
    pub stats_port: u16,
    /// HAProxy's section for clients who want the leader. `primary` by default.
    #[serde(default = "primary")]
    pub section: String,
    /// For a look that is to end within seconds: what can't be seen, or not soon, is told instead of failing, also where the
    /// host can't be reached (output `unreachable`, the reason). False by default.
    #[serde(default)]
    pub tell_unseen: bool,
}

fn stats_port() -> u16 {
    7000
}

fn primary() -> String {
    "primary".to_owned()
}

impl StepType for BalancerCondition {
    const NAME: &'static str = "balancer.condition";
    const READ_ONLY: bool = true;
}

/// What was seen of a balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Balancer {
    /// HAProxy's unit; none where it isn't to run here.
    pub(crate) haproxy: Option<Service>,
    /// The run that has closed it until the cluster is opened.
    #[serde(default)]
    pub(crate) closed_by: Option<String>,
    /// To whom it leads those who want the leader.
    pub(crate) primary: Servers,
    /// keepalived's unit; none where it isn't to run here.
    pub(crate) keepalived: Option<Service>,
    /// The virtual address that is looked for; empty where there is none.
    pub(crate) vip: String,
    /// This host has it; none where that can't be told.
    pub(crate) has_vip: Option<bool>,
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// It runs.
    pub(crate) running: bool,
    /// It can't be started.
    pub(crate) masked: bool,
    /// `failed (failed)`: its state in systemd's words.
    pub(crate) state: String,
}

impl From<Unit> for Service {
    fn from(unit: Unit) -> Self {
        Self {
            running: matches!(unit.active.as_str(), "active" | "reloading"),
            masked: unit.masked(),
            state: match unit.load.as_str() {
                "not-found" => "not installed".to_owned(),
                _ => format!("{} ({})", unit.active, unit.sub),
            },
        }
    }
}

/// The servers of a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Servers {
    /// They can't be told; the reason.
    Unknown(String),
    /// What HAProxy says of each.
    Of(Vec<Told>),
}

/// What HAProxy says of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Its name in HAProxy's configuration.
    pub(crate) name: String,
    /// Clients are led to it.
    pub(crate) up: bool,
    /// HAProxy's word, such as `DOWN 1/2`.
    pub(crate) word: String,
}

impl BalancerCondition {
    async fn look(&self, host: &dyn Host) -> Result<Balancer, StepError> {
        let unit = |wanted: bool, name: &'static str| async move {
            Ok::<_, StepError>(if wanted { Some(Service::from(host.unit(name).await?)) } else { None })
        };
        let (haproxy, closed_by, keepalived, primary, has_vip) = tokio::try_join!(
            unit(self.haproxy, "haproxy.service"),
            closed_by(host),
            unit(self.keepalived, "keepalived.service"),
            self.servers(host),
            self.has_vip(host),
        )?;
        Ok(Balancer { haproxy, closed_by, keepalived, primary, vip: self.vip.clone(), has_vip })
    }

    async fn servers(&self, host: &dyn Host) -> Result<Servers, StepError> {
        if !self.haproxy {
            return Ok(Servers::Unknown("it isn't asked for".to_owned()));
        }
        let request = HttpRequest {
            method: "GET",
            address: "127.0.0.1".to_owned(),
            port: self.stats_port,
            path: "/;csv".to_owned(),
            body: None,
            basic_auth: None,
            tls: None,
            timeout: TIMEOUT,
        };
        Ok(match answered(host.http(&request).await)? {
            Err(why) => Servers::Unknown(why),
            Ok(reply) if reply.status != 200 => Servers::Unknown(format!(
                "its statistics on port {} answer {}",
                self.stats_port, reply.status
            )),
            Ok(reply) => read(&String::from_utf8_lossy(&reply.body), &self.section),
        })
    }

    async fn has_vip(&self, host: &dyn Host) -> Result<Option<bool>, StepError> {
        if self.vip.is_empty() {
            return Ok(None);
        }
        let reply = host.probe(&format!("ip -o addr show to {}", quote(&self.vip))).await?;
        Ok(reply.success().then(|| !reply.text().is_empty()))
    }
}

/// The note of a run that has closed HAProxy on a host; `system-id-recovery.toml` writes it, `open.toml` removes it.
pub(super) const NOTE: &str = "/etc/haproxy/closed-by-flow";
/// Longer notes are none, in bytes.
const NOTE_LIMIT: u64 = 64 << 10;

/// The run that has closed HAProxy on a host until the cluster is opened, by its note: `run ID`.
///
/// # Errors
/// The host doesn't answer.
pub(crate) async fn closed_by(host: &dyn Host) -> Result<Option<String>, StepError> {
    let note = host.read(NOTE, NOTE_LIMIT).await?;
    Ok(note.map(|note| {
        let text = String::from_utf8_lossy(&note).into_owned();
        let mut words = text.split_whitespace().skip_while(|word| *word != "run").skip(1);
        words.next().unwrap_or("unknown").to_owned()
    }))
}

/// HAProxy's CSV (2.6, management.txt 9.1): columns by the names in its first line.
fn read(csv: &str, section: &str) -> Servers {
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let column = |name: &str| header.iter().position(|one| *one == name);
    let (Some(proxy), Some(server), Some(status)) = (column("pxname"), column("svname"), column("status"))
    else {
        return Servers::Unknown("what answers on its statistics' port isn't HAProxy's CSV".to_owned());
    };
    let told = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let (name, word) = (*fields.get(server)?, *fields.get(status)?);
        let is_server = fields.get(proxy) == Some(&section) && !matches!(name, "FRONTEND" | "BACKEND");
        let up = word.starts_with("UP") || word == "no check";
        is_server.then(|| Told { name: name.to_owned(), up, word: word.to_owned() })
    };
    let servers: Vec<Told> = lines.filter_map(told).collect();
    if servers.is_empty() {
        return Servers::Unknown(format!("its configuration has no section `{section}` with servers"));
    }
    Servers::Of(servers)
}

#[async_trait]
impl Step for BalancerCondition {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let seen = if self.tell_unseen {
            Patience::with(&*host).await?.keep(&*host, self.look(&*host)).await?
        } else {
            self.look(&*host).await?
        };
        Ok(Check::Satisfied(crate::support::output(&seen)?))
    }

    fn unseen(&self, why: &StepError) -> Option<Output> {
        self.tell_unseen.then(|| crate::support::unseen(why))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "# pxname,svname,qcur,status,weight\nstats,FRONTEND,,OPEN,\nprimary,FRONTEND,,OPEN,\n\
        primary,patroni1,0,UP 1/3,1\nprimary,patroni2,0,DOWN 1/2,1\nprimary,patroni3,0,MAINT,1\nprimary,BACKEND,0,UP,1\n\
        replicas,patroni2,0,UP,1\n";

    #[test]
    fn the_servers_of_a_section_are_read_by_the_names_of_the_columns() {
        let Servers::Of(servers) = read(CSV, "primary") else { panic!() };
        let up: Vec<_> = servers.iter().map(|told| (told.name.as_str(), told.up)).collect();
        assert_eq!(up, [("patroni1", true), ("patroni2", false), ("patroni3", false)]);
        assert!(matches!(read(CSV, "other"), Servers::Unknown(why) if why.contains("no section `other`")));
        assert!(matches!(read("<html>", "primary"), Servers::Unknown(why) if why.contains("CSV")));
    }
}
