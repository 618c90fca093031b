//! `network.ports`: nobody else listens where a service is to.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{Host, HostContext};
use crate::support::exit_error;

/// Proves that nobody but a unit itself listens on its TCP ports. Changes nothing.
///
/// On any address of the host, as `ss` (package iproute2) tells. Who listens is named: process and unit.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkPorts {
    /// The ports.
    pub ports: Vec<u16>,
    /// The unit that may listen there: `patroni.service`.
    pub unit: String,
}

impl StepType for NetworkPorts {
    const NAME: &'static str = "network.ports";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        if self.ports.is_empty() { Err("`ports` is empty".to_owned()) } else { Ok(()) }
    }
}

/// Someone who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listener {
    port: u16,
    /// Its name, and its process; none where `ss` doesn't tell, as of one in another namespace.
    process: Option<(String, u32)>,
}

/// A line of `ss -Hltnp`: `LISTEN 0 244 127.0.0.1:5432 0.0.0.0:* users:(("postgres",pid=7,fd=5))`.
fn read(line: &str) -> Option<Listener> {
    let mut words = line.split_whitespace();
    let port = words.nth(3)?.rsplit_once(':')?.1.parse().ok()?;
    let process = words.nth(1).and_then(|users| {
        let name = users.split('"').nth(1)?;
        let id = users.split("pid=").nth(1)?.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), id))
    });
    Some(Listener { port, process })
}

/// The innermost unit in the lines of a `/proc/PID/cgroup`.
fn unit(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.rsplit('/').find(|part| is_unit(part)))
}

fn is_unit(part: &str) -> bool {
    part.ends_with(".service") || part.ends_with(".scope")
}

impl NetworkPorts {
    async fn others(&self, host: &dyn Host) -> Result<Vec<String>, StepError> {
        let reply = host.probe("ss -Hltnp").await?;
        if !reply.success() {
            return Err(exit_error(&reply));
        }
        let text = reply.text();
        let mut listeners: Vec<Listener> =
            text.lines().filter_map(read).filter(|listener| self.ports.contains(&listener.port)).collect();
        listeners.dedup();
        let units = units(host, &listeners).await?;
        let others = listeners.iter().filter_map(|listener| {
            let Some((name, id)) = &listener.process else {
                return Some(format!("somebody listens on port {}", listener.port));
            };
            match units.get(id) {
                Some(unit) if *unit == self.unit => None,
                Some(unit) => {
                    Some(format!("{name} ({unit}, process {id}) listens on port {}", listener.port))
                }
                None => Some(format!("{name} (process {id}) listens on port {}", listener.port)),
            }
        });
        let mut others: Vec<String> = others.collect();
        others.sort();
        others.dedup();
        Ok(others)
    }
}

/// To which units these processes belong.
async fn units(host: &dyn Host, listeners: &[Listener]) -> Result<BTreeMap<u32, String>, StepError> {
    let ids: Vec<u32> = listeners.iter().filter_map(|listener| Some(listener.process.as_ref()?.1)).collect();
    let mut units = BTreeMap::new();
    for id in ids {
        if units.contains_key(&id) {
            continue;
        }
        // One that has ended meanwhile listens no more.
        let reply = host.probe(&format!("cat /proc/{id}/cgroup")).await?;
        if let Some(unit) = unit(&reply.text()) {
            units.insert(id, unit.to_owned());
        }
    }
    Ok(units)
}

#[async_trait]
impl Step for NetworkPorts {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let others = self.others(&*cx.host().await?).await?;
        if others.is_empty() {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let why = format!("{}, where {} is to listen", others.join("; "), self.unit);
        Err(StepError::permanent(why)
            .with_hint("stop it, or give it another port; `ss -ltnp` on the host shows it"))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss_names_port_and_process() {
        let line =
            "LISTEN 0      244        127.0.0.1:5432      0.0.0.0:*    users:((\"postgres\",pid=71,fd=5))";
        assert_eq!(read(line), Some(Listener { port: 5432, process: Some(("postgres".to_owned(), 71)) }));
        let six = "LISTEN 0 128 [::]:22 [::]:*";
        assert_eq!(read(six), Some(Listener { port: 22, process: None }));
        assert_eq!(read(""), None);
    }

    #[test]
    fn the_unit_is_the_innermost_of_either_kind_of_cgroup() {
        assert_eq!(unit("0::/system.slice/patroni.service\n"), Some("patroni.service"));
        let old =
            "12:pids:/\n1:name=systemd:/system.slice/system-postgresql.slice/postgresql@15-main.service\n";
        assert_eq!(unit(old), Some("postgresql@15-main.service"));
        assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope"), Some("session-1.scope"));
        assert_eq!(unit("0::/"), None);
    }
}
