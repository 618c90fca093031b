//! HAProxy and keepalived: on which ports a balancer listens, and who has the virtual address. What they do
//! beyond that isn't simulated.

use super::state::{HostState, PostgresRole, WorldState};

const HAPROXY: &str = "haproxy.service";
const KEEPALIVED: &str = "keepalived.service";
const HAPROXY_CONFIG: &str = "/etc/haproxy/haproxy.cfg";
const KEEPALIVED_CONFIG: &str = "/etc/keepalived/keepalived.conf";

fn runs(host: &HostState, unit: &str) -> bool {
    host.units.get(unit).is_some_and(|unit| unit.running())
}

/// Whether HAProxy runs there and listens on the port.
pub(super) fn listens(host: &HostState, port: u16) -> bool {
    let binds = |line: &str| {
        let bind = line.trim().strip_prefix("bind ")?;
        bind.split_whitespace().next()?.rsplit(':').next()?.parse().ok()
    };
    let config = host.files.text(HAPROXY_CONFIG).unwrap_or_default();
    runs(host, HAPROXY) && config.lines().filter_map(binds).any(|bound: u16| bound == port)
}

/// The host to which a balancer leads who connects to a port of it: the leader, or the first replica.
pub(super) fn backend<'a>(world: &'a WorldState, host: &HostState, port: u16) -> Option<&'a str> {
    if !listens(host, port) {
        return None;
    }
    let config = host.files.text(HAPROXY_CONFIG)?;
    let bind = format!(":{port}");
    let section = config.split("\nlisten ").find(|section| {
        section.lines().any(|line| line.trim().starts_with("bind ") && line.trim().ends_with(&bind))
    })?;
    let wanted = match section.contains("GET /replica") {
        true => PostgresRole::Replica,
        false => PostgresRole::Primary,
    };
    let serves = |host: &HostState| host.postgres.as_ref().is_some_and(|postgres| postgres.role == wanted);
    world.hosts.iter().find(|(_, host)| host.connected() && serves(host)).map(|(name, _)| name.as_str())
}

/// The host that has a virtual address: the first whose keepalived knows it and whose HAProxy runs.
pub(super) fn holder<'a>(world: &'a WorldState, address: &str) -> Option<&'a str> {
    let knows = |host: &HostState| {
        let config = host.files.text(KEEPALIVED_CONFIG).unwrap_or_default();
        let has = |word: &str| word.split('/').next() == Some(address);
        config.split_once("virtual_ipaddress").is_some_and(|(_, rest)| rest.split_whitespace().any(has))
    };
    let holds =
        |host: &HostState| host.connected() && runs(host, KEEPALIVED) && runs(host, HAPROXY) && knows(host);
    world.hosts.iter().find(|(_, host)| holds(host)).map(|(name, _)| name.as_str())
}
