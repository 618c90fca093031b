//! Patroni and PostgreSQL on one host: configuration, data directory, processes.
//! What the members do together is in `patroni_loop`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::patroni_config::{self, Config};
use super::state::{HostState, Postgres, PostgresRole, Release, SimProcess, WorldState};
use super::{etcd, settings, units};
use crate::host::Ownership;

/// Patroni's unit.
pub(super) const UNIT: &str = "patroni.service";
/// Where Debian's unit reads its configuration.
pub(super) const CONFIG_PATH: &str = "/etc/patroni/config.yml";
const DYNAMIC: &str = "patroni.dynamic.json";

/// What `global/pg_control` holds, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Control {
    pub(super) system_identifier: String,
    pub(super) timeline: u32,
    /// Position in the WAL, in bytes.
    pub(super) lsn: u64,
    /// As `pg_controldata` words it.
    pub(super) state: String,
}

/// What is at the place of a data directory.
pub(super) enum Data {
    /// Nothing, or an empty directory.
    Empty,
    /// A cluster.
    Cluster(Control),
    /// Files, but no cluster.
    Foreign,
}

/// Patroni's configuration on a host. The error says why it would exit.
pub(super) fn config(world: &WorldState, host: &str) -> Result<Config, String> {
    let text = world.host(host)?.files.text(CONFIG_PATH).ok_or("no configuration")?;
    patroni_config::read(text)
}

/// Whether Patroni runs there (and isn't waiting to be started again).
pub(super) fn running(world: &WorldState, host: &str) -> bool {
    world.host(host).is_ok_and(|h| h.powered && h.units.get(UNIT).is_some_and(|unit| unit.running()))
}

/// Whether Patroni runs there and reaches etcd.
pub(super) fn alive(world: &WorldState, host: &str) -> bool {
    running(world, host) && config(world, host).is_ok_and(|config| reaches_etcd(world, host, &config))
}

/// Whether one of the configured members serves the keyspace.
pub(super) fn reaches_etcd(world: &WorldState, host: &str, config: &Config) -> bool {
    config.etcd.iter().any(|address| etcd::serves(world, host, address))
}

/// Patroni's version in that release.
pub(super) fn version(release: Release) -> &'static str {
    match release {
        Release::Bookworm => "3.0.2",
        Release::Trixie => "4.0.7",
    }
}

/// The word for a primary in keys, REST and callbacks.
pub(super) fn primary_word(release: Release) -> &'static str {
    match release {
        Release::Bookworm => "master",
        Release::Trixie => "primary",
    }
}

/// The identifier of the next initdb: later ones are greater, as real ones are.
pub(super) fn next_identifier(world: &mut WorldState) -> String {
    world.counters.identifier += 1;
    (7_700_000_000_000_000_000_u64 + world.counters.identifier * (61 << 32)).to_string()
}

/// What is at the place of a data directory.
pub(super) fn data(host: &HostState, directory: &str) -> Data {
    if let Some(control) = control(host, directory) {
        return Data::Cluster(control);
    }
    match host.files.list(directory) {
        Some(names) if !names.is_empty() => Data::Foreign,
        _ => Data::Empty,
    }
}

/// The control file of a data directory.
pub(super) fn control(host: &HostState, directory: &str) -> Option<Control> {
    host.files.text(&format!("{directory}/PG_VERSION"))?;
    serde_json::from_str(host.files.text(&format!("{directory}/global/pg_control"))?).ok()
}

/// Writes the control file, where it differs. True: it did.
pub(super) fn set_control(host: &mut HostState, directory: &str, control: &Control) -> bool {
    if self::control(host, directory).as_ref() == Some(control) {
        return false;
    }
    let text = serde_json::to_string(control).unwrap_or_default();
    host.files.write(&format!("{directory}/global/pg_control"), text, &postgres_owned(0o600)).is_ok()
}

fn history_file(directory: &str, timeline: u32) -> String {
    format!("{directory}/pg_wal/{timeline:08X}.history")
}

/// A timeline's history file; none of the first one.
pub(super) fn history(host: &HostState, directory: &str, timeline: u32) -> Option<String> {
    host.files.text(&history_file(directory, timeline)).map(str::to_owned)
}

/// Writes a timeline's history file.
pub(super) fn write_history(
    host: &mut HostState,
    directory: &str,
    timeline: u32,
    history: String,
) -> Result<(), String> {
    host.files.write(&history_file(directory, timeline), history, &postgres_owned(0o600))
}

/// The length of a record of the WAL: a timeline is left where the last one ends.
pub(super) const RECORD: u64 = 0x78;

/// A promotion to this timeline: its history is that of the one before, and where that one was left.
pub(super) fn leave_timeline(host: &mut HostState, directory: &str, to: &Control) -> Result<(), String> {
    let left = to.timeline - 1;
    let before = history(host, directory, left).unwrap_or_default();
    let line =
        format!("{left}\t{:X}/{:X}\tno recovery target specified\n", to.lsn >> 32, to.lsn & 0xffff_ffff);
    write_history(host, directory, to.timeline, before + &line)
}

/// initdb: a new data directory with that identifier.
pub(super) fn write_data_directory(
    host: &mut HostState,
    directory: &str,
    major: &str,
    system_identifier: String,
) -> Result<(), String> {
    host.files.make_directory(directory, &postgres_owned(0o700))?;
    for name in ["base", "global", "pg_wal", "pg_tblspc"] {
        host.files.make_directory(&format!("{directory}/{name}"), &postgres_owned(0o700))?;
    }
    host.files.write(&format!("{directory}/PG_VERSION"), format!("{major}\n"), &postgres_owned(0o600))?;
    host.files.write(&format!("{directory}/postgresql.conf"), "# simulated\n", &postgres_owned(0o600))?;
    let control = Control { system_identifier, timeline: 1, lsn: 0x0200_0000, state: "shut down".to_owned() };
    set_control(host, directory, &control);
    Ok(())
}

/// The dynamic configuration that Patroni keeps in the data directory.
pub(super) fn saved_dynamic(host: &HostState, directory: &str) -> Option<Value> {
    serde_json::from_str(host.files.text(&format!("{directory}/{DYNAMIC}"))?).ok()
}

/// Keeps the dynamic configuration in the data directory. True: it differed.
pub(super) fn save_dynamic(host: &mut HostState, directory: &str, config: &str) -> bool {
    let path = format!("{directory}/{DYNAMIC}");
    host.files.text(&path) != Some(config) && host.files.write(&path, config, &postgres_owned(0o600)).is_ok()
}

/// Starts PostgreSQL, in recovery.
pub(super) fn start_postgres(world: &mut WorldState, host: &str, config: &Config) -> Result<(), String> {
    let major = config.major.clone().unwrap_or_else(|| default_major(world.settings.release).to_owned());
    let data_dir = &config.data_dir;
    let process = |comm: &str, command: String| SimProcess {
        user: "postgres".to_owned(),
        comm: comm.to_owned(),
        command,
        directory: data_dir.clone(),
        unit: Some(UNIT.to_owned()),
    };
    let main = format!("/usr/lib/postgresql/{major}/bin/postgres -D {data_dir}");
    let pid = units::spawn(world, host, process("postgres", main))?;
    let child = format!("postgres: {}: checkpointer", config.scope);
    units::spawn(world, host, process("postgres", child))?;
    let started_with = settings::at_start(&dynamic(world, &config.prefix));
    let state = world.host_mut(host)?;
    let lock = format!("{pid}\n{data_dir}\n");
    state.files.write(&format!("{data_dir}/postmaster.pid"), lock, &postgres_owned(0o600))?;
    let inode = state.files.stat(data_dir).map_or(0, |stat| stat.inode);
    let role = PostgresRole::Replica;
    state.postgres =
        Some(Postgres { data_dir: data_dir.clone(), inode, pid, port: config.port, role, started_with });
    set_control_state(state, data_dir, "in archive recovery");
    Ok(())
}

/// Stops PostgreSQL, cleanly.
pub(super) fn stop_postgres(host: &mut HostState) {
    let Some(postgres) = host.postgres.take() else { return };
    host.processes.retain(|_, process| process.comm != "postgres" || process.directory != postgres.data_dir);
    let same = host.files.stat(&postgres.data_dir).is_some_and(|stat| stat.inode == postgres.inode);
    if same {
        let word = match postgres.role {
            PostgresRole::Primary => "shut down",
            PostgresRole::Replica => "shut down in recovery",
        };
        set_control_state(host, &postgres.data_dir, word);
        // Its lock file is there, or was taken away by hand; both are fine.
        let _ = host.files.remove_file(&format!("{}/postmaster.pid", postgres.data_dir));
    }
}

/// Starts a running PostgreSQL anew as what it is: all settings count then. True: it ran.
pub(super) fn restart_postgres(world: &mut WorldState, host: &str, config: &Config) -> Result<bool, String> {
    let Some(role) = world.host(host)?.postgres.as_ref().map(|postgres| postgres.role) else {
        return Ok(false);
    };
    stop_postgres(world.host_mut(host)?);
    start_postgres(world, host, config)?;
    set_role(world.host_mut(host)?, role);
    Ok(true)
}

/// Makes a running PostgreSQL a primary or a replica.
pub(super) fn set_role(host: &mut HostState, role: PostgresRole) {
    let Some(postgres) = host.postgres.as_mut() else { return };
    postgres.role = role;
    let directory = postgres.data_dir.clone();
    let word = match role {
        PostgresRole::Primary => "in production",
        PostgresRole::Replica => "in archive recovery",
    };
    set_control_state(host, &directory, word);
}

fn set_control_state(host: &mut HostState, directory: &str, word: &str) {
    if let Some(mut control) = control(host, directory) {
        control.state = word.to_owned();
        set_control(host, directory, &control);
    }
}

/// Patroni is about to be stopped: PostgreSQL stops with it, except in pause, and its keys go.
pub(super) fn stopping(world: &mut WorldState, host: &str) -> Result<(), String> {
    let config = config(world, host).ok();
    let paused = config.as_ref().is_some_and(|config| paused(world, &config.prefix));
    if !paused {
        stop_postgres(world.host_mut(host)?);
    }
    Ok(())
}

/// Whether the cluster is in pause.
pub(super) fn paused(world: &WorldState, prefix: &str) -> bool {
    dynamic(world, prefix)["pause"] == json!(true)
}

/// The dynamic configuration in etcd; `null` where there is none.
pub(super) fn dynamic(world: &WorldState, prefix: &str) -> Value {
    let text = world.etcd.get(&format!("{prefix}config"));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// PostgreSQL's major version in that release.
pub(super) fn default_major(release: Release) -> &'static str {
    match release {
        Release::Bookworm => "15",
        Release::Trixie => "17",
    }
}

fn postgres_owned(mode: u32) -> Ownership {
    Ownership { owner: Some("postgres".into()), group: Some("postgres".into()), mode: Some(mode) }
}
