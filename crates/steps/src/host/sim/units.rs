//! systemd: units and their processes, boots. What a unit's start and stop mean to etcd and Patroni
//! is told by their own modules.

use super::files::NodeKind;
use super::state::{HostState, SimProcess, UnitState, WorldState};
use super::{etcd, etcd_members, patroni};
use crate::host::{Ownership, Unit, UnitVerb};

/// The full name: `patroni` is `patroni.service`.
pub(super) fn full_name(unit: &str) -> String {
    let suffixes = [".service", ".socket", ".target", ".timer", ".mount", ".path", ".slice", ".scope"];
    if suffixes.iter().any(|suffix| unit.ends_with(suffix)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

/// What `systemctl show` says.
pub(super) fn show(host: &HostState, unit: &str) -> Unit {
    let name = full_name(unit);
    let state = host.units.get(&name).cloned().unwrap_or_default();
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let (load, file_state) = match (&state, unit_file(host, &name)) {
        (UnitState { masked: true, .. }, _) => ("masked", "masked"),
        (UnitState { loaded: false, .. }, false) => ("not-found", ""),
        (UnitState { enabled: true, .. }, _) => ("loaded", "enabled"),
        _ => ("loaded", "disabled"),
    };
    let in_group = |process: &SimProcess| process.unit.as_deref() == Some(name.as_str());
    Unit {
        load: load.to_owned(),
        active: or(&state.active, "inactive"),
        sub: or(&state.sub, "dead"),
        file_state: file_state.to_owned(),
        main_pid: state.main_pid,
        invocation: state.invocation.clone(),
        processes: host.processes.iter().filter(|(_, p)| in_group(p)).map(|(pid, _)| *pid).collect(),
    }
}

/// The files that were written since a unit was started or reloaded.
pub(super) fn written_since(host: &HostState, unit: &str, files: &[String]) -> Vec<String> {
    let has_read = host.units.get(&full_name(unit)).map_or(0, |unit| unit.has_read);
    let newer = |path: &&String| host.files.node(path).is_some_and(|node| node.inode >= has_read);
    files.iter().filter(newer).cloned().collect()
}

/// Carries out a verb. False: all was as asked already. An error is systemctl's.
pub(super) fn verb(world: &mut WorldState, host: &str, unit: &str, verb: UnitVerb) -> Result<bool, String> {
    let name = full_name(unit);
    let before = world.host(host)?.units.get(&name).cloned().unwrap_or_default();
    let known = before.loaded || unit_file(world.host(host)?, &name);
    let needs_file = !matches!(verb, UnitVerb::Mask | UnitVerb::Unmask | UnitVerb::DaemonReload);
    if needs_file && !known && !before.masked {
        return Err(match verb {
            UnitVerb::Stop | UnitVerb::ResetFailed => format!("Unit {name} not loaded."),
            UnitVerb::Enable | UnitVerb::Disable => format!("Unit file {name} does not exist."),
            _ => format!("Unit {name} not found."),
        });
    }
    match verb {
        UnitVerb::Start if before.running() => Ok(false),
        UnitVerb::Start | UnitVerb::Restart | UnitVerb::Reload if before.masked => {
            Err(format!("Unit {name} is masked."))
        }
        UnitVerb::Start => start(world, host, &name).map(|()| true),
        UnitVerb::Stop if !before.wanted() => {
            let failed = before.active == "failed";
            settle_inactive(world, host, &name)?;
            Ok(failed)
        }
        UnitVerb::Stop => stop(world, host, &name).map(|()| true),
        UnitVerb::Reload if before.running() => {
            let host = world.host_mut(host)?;
            let now = host.files.next_inode();
            if let Some(unit) = host.units.get_mut(&name) {
                unit.has_read = now;
            }
            Ok(true)
        }
        UnitVerb::Restart | UnitVerb::Reload => {
            if before.wanted() {
                stop(world, host, &name)?;
            }
            start(world, host, &name).map(|()| true)
        }
        UnitVerb::Enable if before.masked => Err(format!("Unit file {name} is masked.")),
        UnitVerb::Enable | UnitVerb::Disable | UnitVerb::Mask | UnitVerb::Unmask => {
            set_file_state(world.host_mut(host)?, &name, verb)
        }
        UnitVerb::ResetFailed => {
            if before.active == "failed" {
                settle_inactive(world, host, &name)?;
            }
            Ok(before.active == "failed")
        }
        UnitVerb::DaemonReload => Ok(false),
    }
}

/// Adds a unit, as a package does that brings its file.
pub(super) fn add(host: &mut HostState, name: &str, enabled: bool) {
    let unit = host.units.entry(full_name(name)).or_default();
    unit.loaded = true;
    unit.enabled = enabled;
}

/// Puts a new process on the host.
pub(super) fn spawn(world: &mut WorldState, host: &str, process: SimProcess) -> Result<u32, String> {
    let pid = 1000 + world.counters.pid;
    world.counters.pid += 1;
    world.host_mut(host)?.processes.insert(pid, process);
    Ok(pid)
}

/// Marks a unit as started, with a main process of its own.
pub(super) fn set_running(world: &mut WorldState, host: &str, name: &str) -> Result<(), String> {
    let comm: String =
        name.trim_end_matches(".service").split('@').next().unwrap_or(name).chars().take(15).collect();
    let (user, command) = match comm.as_str() {
        "patroni" => ("postgres", format!("/usr/bin/python3 /usr/bin/patroni {}", patroni::CONFIG_PATH)),
        "etcd" => ("etcd", "/usr/bin/etcd".to_owned()),
        other => ("root", format!("/usr/sbin/{other}")),
    };
    let main = SimProcess {
        user: user.to_owned(),
        comm,
        command,
        directory: "/".to_owned(),
        unit: Some(name.to_owned()),
    };
    let main_pid = spawn(world, host, main)?;
    world.counters.invocation += 1;
    let invocation = format!("{:032x}", world.counters.invocation);
    let host = world.host_mut(host)?;
    let now = host.files.next_inode();
    let unit = host.units.entry(name.to_owned()).or_default();
    unit.has_read = now;
    unit.active = "active".to_owned();
    unit.sub = "running".to_owned();
    unit.main_pid = main_pid;
    unit.invocation = invocation;
    Ok(())
}

/// Marks a unit whose main process has exited with an error and which systemd will start again.
pub(super) fn set_auto_restart(host: &mut HostState, name: &str) {
    end_main(host, name);
    let unit = host.units.entry(name.to_owned()).or_default();
    unit.active = "activating".to_owned();
    unit.sub = "auto-restart".to_owned();
}

/// Everything on the host ends at once.
pub(super) fn power_off(host: &mut HostState) {
    host.powered = false;
    host.processes.clear();
    host.postgres = None;
    for unit in host.units.values_mut() {
        unit.active.clear();
        unit.sub.clear();
        unit.main_pid = 0;
        unit.invocation.clear();
    }
}

/// The host starts, with a new boot id, and what is enabled and not masked with it.
pub(super) fn boot(world: &mut WorldState, name: &str) {
    world.counters.boot += 1;
    let boot_id = format!("b007b007-0000-4000-8000-{:012x}", world.counters.boot);
    let Ok(host) = world.host_mut(name) else { return };
    power_off(host);
    host.powered = true;
    host.boot_id = boot_id;
    let units: Vec<String> =
        host.units.iter().filter(|(_, u)| u.enabled && !u.masked).map(|(name, _)| name.clone()).collect();
    for unit in units {
        // A unit that doesn't come up doesn't keep the host from booting.
        let _ = start(world, name, &unit);
    }
}

fn start(world: &mut WorldState, host: &str, name: &str) -> Result<(), String> {
    if name == patroni::UNIT && !world.host(host)?.files.exists(patroni::CONFIG_PATH) {
        // Debian's unit has ConditionPathExists: the start succeeds, and nothing runs.
        return Ok(());
    }
    set_running(world, host, name)?;
    if name == etcd::UNIT {
        etcd_members::started(world, host)?;
    }
    Ok(())
}

fn stop(world: &mut WorldState, host: &str, name: &str) -> Result<(), String> {
    if name == patroni::UNIT {
        patroni::stopping(world, host)?;
    }
    settle_inactive(world, host, name)
}

/// The unit's main process has ended by itself, and nothing starts it again.
pub(super) fn end(world: &mut WorldState, host: &str, name: &str) -> Result<(), String> {
    settle_inactive(world, host, name)
}

fn settle_inactive(world: &mut WorldState, host: &str, name: &str) -> Result<(), String> {
    let host = world.host_mut(host)?;
    end_main(host, name);
    if let Some(unit) = host.units.get_mut(name) {
        unit.active.clear();
        unit.sub.clear();
    }
    Ok(())
}

/// Ends the main process; Debian's Patroni unit has `KillMode=process`, and other units here have
/// no more than the main one.
fn end_main(host: &mut HostState, name: &str) {
    if let Some(unit) = host.units.get_mut(name) {
        host.processes.remove(&unit.main_pid);
        unit.main_pid = 0;
    }
}

fn set_file_state(host: &mut HostState, name: &str, verb: UnitVerb) -> Result<bool, String> {
    let link = format!("/etc/systemd/system/{name}");
    let unit = host.units.entry(name.to_owned()).or_default();
    let before = unit.clone();
    match verb {
        UnitVerb::Enable => unit.enabled = true,
        UnitVerb::Disable => unit.enabled = false,
        UnitVerb::Mask => unit.masked = true,
        _ => unit.masked = false,
    }
    let changed = *unit != before;
    match (changed, verb) {
        (true, UnitVerb::Mask) => {
            if host.files.node(&link).is_some_and(|node| matches!(node.kind, NodeKind::File(_))) {
                return Err(format!("Failed to mask unit: File {link} already exists."));
            }
            host.files.make_directory("/etc/systemd/system", &Ownership::default())?;
            host.files.symlink(&link, "/dev/null")?;
        }
        (true, UnitVerb::Unmask) => {
            host.files.remove_file(&link)?;
        }
        _ => {}
    }
    Ok(changed)
}

/// Whether a unit file was written by hand.
fn unit_file(host: &HostState, name: &str) -> bool {
    ["/etc/systemd/system", "/lib/systemd/system"].iter().any(|directory| {
        let node = host.files.node(&format!("{directory}/{name}"));
        node.is_some_and(|node| matches!(node.kind, NodeKind::File(_)))
    })
}
