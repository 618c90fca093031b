//! What Patroni's members do together: bootstrap, clone, follow, promote, refuse.
//!
//! Real ones loop each ten seconds; here all of them loop, in the hosts' order, after each change of
//! the world until nothing moves any more. So a caller sees the end of what a real one would wait for.

use serde_json::{Value, json};

use super::patroni::{self, Control, Data};
use super::patroni_config::Config;
use super::state::{HostState, PostgresRole, WorldState};
use super::{etcd, units};

/// A world that hasn't come to rest after so many turns is a fault of the model.
const MAX_TURNS: usize = 50;
/// `maximum_lag_on_failover`'s default, in bytes.
const MAX_LAG: u64 = 1 << 20;

/// Lets etcd and all members loop until nothing changes.
pub(super) fn settle(world: &mut WorldState) {
    let names = world.host_names();
    for _ in 0..MAX_TURNS {
        let mut changed = etcd::settle(world);
        for name in &names {
            // An error is the model's way to say that the member can't go on; it is tried again.
            changed |= turn(world, name).unwrap_or(false);
        }
        if !changed {
            return;
        }
    }
    debug_assert!(false, "the simulated Patroni members don't come to rest");
}

/// One turn of one member. True: something changed.
fn turn(world: &mut WorldState, host: &str) -> Result<bool, String> {
    let state = world.host(host)?;
    if !state.powered || !state.units.get(patroni::UNIT).is_some_and(|unit| unit.wanted()) {
        return Ok(false);
    }
    let config = match patroni::config(world, host) {
        Ok(config) => config,
        Err(why) => return exit(world, host, &format!("CRITICAL: {why}")),
    };
    if lost_its_directory(world.host(host)?) {
        patroni::stop_postgres(world.host_mut(host)?);
        return Ok(true);
    }
    if !patroni::reaches_etcd(world, host, &config) {
        return Ok(demote(world.host_mut(host)?));
    }
    let member = Member { host: host.to_owned(), config };
    let mut changed = member.choose(world)?;
    if patroni::running(world, host) {
        changed |= member.announce(world)?;
    }
    Ok(changed)
}

/// PostgreSQL runs, but its data directory was moved away.
fn lost_its_directory(host: &HostState) -> bool {
    host.postgres.as_ref().is_some_and(|postgres| {
        host.files.stat(&postgres.data_dir).map(|stat| stat.inode) != Some(postgres.inode)
    })
}

fn demote(host: &mut HostState) -> bool {
    let primary = host.postgres.as_ref().is_some_and(|postgres| postgres.role == PostgresRole::Primary);
    if primary {
        patroni::set_role(host, PostgresRole::Replica);
    }
    primary
}

/// Patroni exits with an error; PostgreSQL stops with it, and systemd will start it again.
fn exit(world: &mut WorldState, host: &str, line: &str) -> Result<bool, String> {
    let state = world.host_mut(host)?;
    state.log(patroni::UNIT, line);
    if !state.units.get(patroni::UNIT).is_some_and(|unit| unit.running()) {
        return Ok(false);
    }
    patroni::stop_postgres(state);
    units::set_auto_restart(state, patroni::UNIT);
    Ok(true)
}

struct Member {
    host: String,
    config: Config,
}

impl Member {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.config.prefix)
    }

    /// What this member does next, by its data directory and the keys.
    fn choose(&self, world: &mut WorldState) -> Result<bool, String> {
        let data = patroni::data(world.host(&self.host)?, &self.config.data_dir);
        let initialize =
            world.etcd.get(&self.key("initialize")).filter(|id| !id.is_empty()).map(str::to_owned);
        let paused = patroni::paused(world, &self.config.prefix);
        if let (Data::Cluster(control), Some(id)) = (&data, &initialize)
            && *id != control.system_identifier
        {
            return self.mismatch(world, id, &control.system_identifier, paused);
        }
        let restarted = self.come_back(world)?;
        let changed = match data {
            Data::Empty if paused => false,
            Data::Empty => self.fill(world, initialize.is_some())?,
            Data::Cluster(control) => self.serve(world, control, paused)?,
            Data::Foreign => {
                world.host_mut(&self.host)?.log(patroni::UNIT, "ERROR: data directory is not empty");
                false
            }
        };
        Ok(restarted || changed)
    }

    fn mismatch(&self, world: &mut WorldState, key: &str, own: &str, paused: bool) -> Result<bool, String> {
        let what = format!("node {} belongs to a different cluster: {key} != {own}", self.config.name);
        if !paused {
            return exit(world, &self.host, &format!("CRITICAL: system ID mismatch, {what}"));
        }
        let restarted = self.come_back(world)?;
        world
            .host_mut(&self.host)?
            .log(patroni::UNIT, format!("WARNING: system ID has changed while in paused mode, {what}"));
        Ok(restarted)
    }

    /// Started again by systemd after an exit: this time it stays.
    fn come_back(&self, world: &mut WorldState) -> Result<bool, String> {
        if patroni::running(world, &self.host) {
            return Ok(false);
        }
        units::set_running(world, &self.host, patroni::UNIT).map(|()| true)
    }

    /// The data directory is empty: clone from the leader, or bootstrap, or wait.
    fn fill(&self, world: &mut WorldState, initialized: bool) -> Result<bool, String> {
        if !self.has_parent(world)? {
            return Ok(false);
        }
        if let Some(leader) = self.leader(world) {
            return self.clone_from(world, &leader);
        }
        if initialized || self.leader_key(world).is_some() || self.config.nofailover {
            world.host_mut(&self.host)?.log(patroni::UNIT, "INFO: waiting for leader to bootstrap");
            return Ok(false);
        }
        self.bootstrap(world).map(|()| true)
    }

    /// The directory above the data directory is a package's or a person's to make, not Patroni's.
    fn has_parent(&self, world: &mut WorldState) -> Result<bool, String> {
        let data_dir = &self.config.data_dir;
        let parent = data_dir.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let host = world.host_mut(&self.host)?;
        let there = host.files.is_directory(parent);
        if !there {
            host.log(
                patroni::UNIT,
                format!("ERROR: could not create directory \"{parent}\": Permission denied"),
            );
        }
        Ok(there)
    }

    fn bootstrap(&self, world: &mut WorldState) -> Result<(), String> {
        let identifier = patroni::next_identifier(world);
        self.initdb(world, &identifier)?;
        world.etcd.put(&self.key("initialize"), &identifier, 0);
        let dynamic = match &self.config.dcs {
            Value::Null => "{}".to_owned(),
            dcs => dcs.to_string(),
        };
        world.etcd.put(&self.key("config"), &dynamic, 0);
        patroni::start_postgres(world, &self.host, &self.config)?;
        patroni::set_role(world.host_mut(&self.host)?, PostgresRole::Primary);
        self.take_lead(world);
        world.host_mut(&self.host)?.log(patroni::UNIT, "INFO: initialized a new cluster");
        Ok(())
    }

    fn clone_from(&self, world: &mut WorldState, leader: &str) -> Result<bool, String> {
        let Some(control) = control_of(world, leader) else { return Ok(false) };
        self.initdb(world, &control.system_identifier)?;
        patroni::set_control(world.host_mut(&self.host)?, &self.config.data_dir, &control);
        patroni::start_postgres(world, &self.host, &self.config)?;
        let name = &self.config.name;
        world
            .host_mut(&self.host)?
            .log(patroni::UNIT, format!("INFO: {name} was bootstrapped from the leader"));
        Ok(true)
    }

    fn initdb(&self, world: &mut WorldState, identifier: &str) -> Result<(), String> {
        let major =
            self.config.major.as_deref().unwrap_or(patroni::default_major(world.settings.release)).to_owned();
        let host = world.host_mut(&self.host)?;
        patroni::write_data_directory(host, &self.config.data_dir, &major, identifier.to_owned())
    }

    /// There is data that may be served: run PostgreSQL, lead or follow.
    fn serve(&self, world: &mut WorldState, control: Control, paused: bool) -> Result<bool, String> {
        if world.host(&self.host)?.postgres.is_none() {
            if paused {
                return Ok(false);
            }
            patroni::start_postgres(world, &self.host, &self.config)?;
            return Ok(true);
        }
        match self.leader_key(world) {
            Some(name) if name == self.config.name => self.lead(world, control),
            Some(_) => self.follow(world, control),
            None => self.compete(world, &control, paused),
        }
    }

    /// What the holder of the leader key keeps true: the role, and the keys that were lost.
    fn lead(&self, world: &mut WorldState, mut control: Control) -> Result<bool, String> {
        let mut changed = false;
        if !is_primary(world.host(&self.host)?) {
            control.timeline += 1;
            control.lsn += patroni::RECORD;
            let host = world.host_mut(&self.host)?;
            patroni::leave_timeline(host, &self.config.data_dir, &control)?;
            patroni::set_control(host, &self.config.data_dir, &control);
            patroni::set_role(host, PostgresRole::Primary);
            changed = true;
        }
        if world.etcd.get(&self.key("initialize")).unwrap_or_default().is_empty() {
            world.etcd.put(&self.key("initialize"), &control.system_identifier, 0);
            changed = true;
        }
        if world.etcd.get(&self.key("config")).is_none() {
            let saved = patroni::saved_dynamic(world.host(&self.host)?, &self.config.data_dir);
            world.etcd.put(&self.key("config"), &saved.unwrap_or_else(|| json!({})).to_string(), 0);
            changed = true;
        }
        let status = json!({ "optime": control.lsn }).to_string();
        if world.etcd.get(&self.key("status")) != Some(&status) {
            world.etcd.put(&self.key("status"), &status, 0);
            changed = true;
        }
        Ok(changed)
    }

    /// A replica takes over what the leader has; a former primary is rewound to it.
    fn follow(&self, world: &mut WorldState, control: Control) -> Result<bool, String> {
        let demoted = demote(world.host_mut(&self.host)?);
        if demoted {
            // Patroni starts it anew for that.
            patroni::restart_postgres(world, &self.host, &self.config)?;
        }
        let leads = self.leader(world);
        let Some(leader) = leads.as_ref().and_then(|leader| control_of(world, leader)) else {
            return Ok(demoted);
        };
        let followed = Control { timeline: leader.timeline, lsn: leader.lsn, ..control };
        let history = leads.and_then(|leads| history_of(world, &leads, leader.timeline));
        let host = world.host_mut(&self.host)?;
        if let Some(history) = history.filter(|_| followed.timeline != control.timeline) {
            patroni::write_history(host, &self.config.data_dir, leader.timeline, history)?;
        }
        let followed = Control { state: "in archive recovery".to_owned(), ..followed };
        Ok(patroni::set_control(host, &self.config.data_dir, &followed) || demoted)
    }

    /// The leader key is free: the member with the most WAL takes it, if it isn't too far behind.
    fn compete(&self, world: &mut WorldState, control: &Control, paused: bool) -> Result<bool, String> {
        let primary = is_primary(world.host(&self.host)?);
        if self.config.nofailover || (paused && !primary) {
            return Ok(false);
        }
        let named =
            world.etcd.get(&self.key("failover")).and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(candidate) = named.as_ref().and_then(|failover| failover["candidate"].as_str()) {
            if candidate != self.config.name {
                return Ok(false);
            }
            world.etcd.delete(&self.key("failover"));
        } else {
            if self.rivals(world).iter().any(|rival| rival.lsn > control.lsn) {
                return Ok(false);
            }
            let status =
                world.etcd.get(&self.key("status")).and_then(|text| serde_json::from_str::<Value>(text).ok());
            let optime = status.and_then(|status| status["optime"].as_u64()).unwrap_or(0);
            if !primary && control.lsn + MAX_LAG < optime {
                let line = "INFO: My wal position exceeds maximum replication lag";
                world.host_mut(&self.host)?.log(patroni::UNIT, line);
                return Ok(false);
            }
        }
        self.take_lead(world);
        Ok(true)
    }

    fn take_lead(&self, world: &mut WorldState) {
        let lease = world.etcd.lease(&self.host);
        world.etcd.put(&self.key("leader"), &self.config.name, lease);
    }

    /// Keeps this member's key and its copy of the dynamic configuration as they should be.
    fn announce(&self, world: &mut WorldState) -> Result<bool, String> {
        let value = self.describe(world)?.to_string();
        let key = self.key(&format!("members/{}", self.config.name));
        let mut changed = false;
        if world.etcd.get(&key) != Some(&value) {
            let lease = world.etcd.lease(&self.host);
            world.etcd.put(&key, &value, lease);
            changed = true;
        }
        if let Some(dynamic) = world.etcd.get(&self.key("config")).map(str::to_owned) {
            let host = world.host_mut(&self.host)?;
            if host.postgres.is_some() {
                changed |= patroni::save_dynamic(host, &self.config.data_dir, &dynamic);
            }
        }
        Ok(changed)
    }

    /// The member key, as Patroni 3.0.2 and 4.0.7 write it.
    fn describe(&self, world: &WorldState) -> Result<Value, String> {
        let host = world.host(&self.host)?;
        let (address, release) = (&host.address, world.settings.release);
        let (role, state) = match &host.postgres {
            Some(postgres) if postgres.role == PostgresRole::Primary => {
                (patroni::primary_word(release), "running")
            }
            Some(_) => ("replica", "running"),
            None => ("uninitialized", "stopped"),
        };
        let mut value = json!({
            "conn_url": format!("postgres://{address}:{}/postgres", self.config.port),
            "api_url": format!("http://{address}:{}/patroni", self.config.api_port),
            "state": state, "role": role, "version": patroni::version(release),
        });
        if let (Some(control), Some(_)) = (patroni::control(host, &self.config.data_dir), &host.postgres) {
            value["xlog_location"] = control.lsn.into();
            value["timeline"] = control.timeline.into();
        }
        Ok(value)
    }

    fn leader_key<'w>(&self, world: &'w WorldState) -> Option<&'w str> {
        world.etcd.get(&self.key("leader"))
    }

    /// The host whose member holds the leader key and serves as primary.
    fn leader(&self, world: &WorldState) -> Option<String> {
        let name = self.leader_key(world)?;
        let host = self.members(world).find(|(_, config)| config.name == name)?.0;
        world.host(&host).is_ok_and(is_primary).then_some(host)
    }

    /// The positions of the other running members.
    fn rivals(&self, world: &WorldState) -> Vec<Control> {
        let eligible = |(host, config): &(String, Config)| {
            *host != self.host && !config.nofailover && world.host(host).is_ok_and(|h| h.postgres.is_some())
        };
        self.members(world).filter(eligible).filter_map(|(host, _)| control_of(world, &host)).collect()
    }

    fn members<'w>(&self, world: &'w WorldState) -> impl Iterator<Item = (String, Config)> + use<'w> {
        let prefix = self.config.prefix.clone();
        let member = |name: &'w String| {
            let config = patroni::config(world, name).ok().filter(|_| patroni::alive(world, name))?;
            Some((name.clone(), config))
        };
        world.hosts.keys().filter_map(member).filter(move |(_, config)| config.prefix == prefix)
    }
}

fn is_primary(host: &HostState) -> bool {
    host.postgres.as_ref().is_some_and(|postgres| postgres.role == PostgresRole::Primary)
}

/// The history file of a timeline on which a member is.
fn history_of(world: &WorldState, host: &str, timeline: u32) -> Option<String> {
    let host = world.host(host).ok()?;
    patroni::history(host, &host.postgres.as_ref()?.data_dir, timeline)
}

fn control_of(world: &WorldState, host: &str) -> Option<Control> {
    let host = world.host(host).ok()?;
    patroni::control(host, &host.postgres.as_ref()?.data_dir)
}
