//! The host lock, fencing, and attempts: what makes changes of one run exclude another's, and what
//! tells a resumed run whether its former commands still run.

use super::error::failed;
use super::shell;
use super::state::{AttemptRecord, CannedReply, HostState, WorldState};
use crate::host::{AttemptState, HostError, LockClaim, Ownership, Reply};
use flow_core::step::Attempt;

/// Takes or renews the lock.
pub(super) fn lock(world: &mut WorldState, host: &str, claim: &LockClaim) -> Result<(), HostError> {
    let state = known(world, host)?;
    let mut claim = claim.clone();
    match &state.lock {
        Some(held) if held.run != claim.run => {
            return Err(HostError::Locked { host: host.to_owned(), holder: Box::new(held.clone()) });
        }
        Some(held)
            if held.epoch > claim.epoch || (held.epoch == claim.epoch && held.owner != claim.owner) =>
        {
            return Err(fenced(host));
        }
        Some(held) => claim.since = held.since,
        None => {}
    }
    state.lock = Some(claim);
    Ok(())
}

/// The attempts of a run that are alive.
pub(super) fn alive(state: &HostState, run: &str) -> Vec<String> {
    let alive = |record: &AttemptRecord| record.run == run && record.alive(&state.boot_id);
    state.attempts.iter().filter(|(_, record)| alive(record)).map(|(name, _)| name.clone()).collect()
}

/// Gives the lock back; with `force` in the place of whichever process of the run holds it.
pub(super) fn unlock(
    world: &mut WorldState,
    host: &str,
    claim: &LockClaim,
    force: bool,
) -> Result<(), HostError> {
    let state = known(world, host)?;
    let Some(held) = state.lock.clone() else { return Ok(()) };
    if held.run != claim.run {
        let locked = HostError::Locked { host: host.to_owned(), holder: Box::new(held) };
        return if force { Err(locked) } else { Ok(()) };
    }
    if force {
        if let Some(name) = alive(state, &held.run).first() {
            return Err(failed(host, format!("a command of run {} is still running: {name}", held.run)));
        }
    } else if held.epoch > claim.epoch {
        return Err(fenced(host));
    }
    state.lock = None;
    Ok(())
}

/// Proves that the attempt's lock still holds.
pub(super) fn fence(world: &WorldState, host: &str, by: &Attempt) -> Result<(), HostError> {
    let held = world.hosts.get(host).and_then(|state| state.lock.as_ref());
    let holds = held.is_some_and(|held| held.run == by.run.as_str() && held.epoch == by.epoch);
    if holds { Ok(()) } else { Err(fenced(host)) }
}

/// Notes that an attempt was at work; what an earlier command of it left is kept.
pub(super) fn note(world: &mut WorldState, host: &str, by: &Attempt) -> Result<(), HostError> {
    let state = known(world, host)?;
    let boot_id = state.boot_id.clone();
    let run = by.run.as_str().to_owned();
    let record = state.attempts.entry(by.name()).or_insert_with(|| AttemptRecord {
        run,
        boot_id: boot_id.clone(),
        running: None,
        reply: None,
    });
    if record.boot_id != boot_id {
        *record = AttemptRecord { boot_id, running: None, reply: None, run: record.run.clone() };
    }
    Ok(())
}

/// Starts a script as an attempt's transient unit, unless that attempt has one already.
pub(super) fn start_detached(
    world: &mut WorldState,
    host: &str,
    by: &Attempt,
    script: &str,
) -> Result<(), HostError> {
    note(world, host, by)?;
    let polls = canned(world, host, script).and_then(|canned| canned.polls);
    let state = known(world, host)?;
    let polls = polls.unwrap_or(state.detached_polls);
    if let Some(record) = state.attempts.get_mut(&by.name())
        && record.running.is_none()
        && record.reply.is_none()
    {
        record.running = Some((script.to_owned(), polls));
    }
    poll(world, host, by, true)
}

/// Looks at an attempt. A detached command comes nearer to its end each time it is looked at.
pub(super) fn look(world: &mut WorldState, host: &str, by: &Attempt) -> Result<AttemptState, HostError> {
    poll(world, host, by, false)?;
    let state = known(world, host)?;
    Ok(match state.attempts.get(&by.name()) {
        None => AttemptState::Absent,
        Some(record) if record.boot_id != state.boot_id => AttemptState::Absent,
        Some(AttemptRecord { running: Some(_), .. }) => AttemptState::Running,
        Some(record) => AttemptState::Ended(record.reply.as_ref().map(to_reply)),
    })
}

/// Whether there is an answer to a script.
pub(super) fn understood(world: &WorldState, host: &str, script: &str) -> bool {
    canned(world, host, script).is_some()
        || shell::run(&mut world.clone(), host, script).is_some()
        || !shell::installs(script).is_empty()
}

/// Runs a script, in this order: canned answers, forms that are understood, package installs;
/// anything else answers 0 and counts as an effect.
pub(super) fn execute(
    world: &mut WorldState,
    host: &str,
    by: &Attempt,
    script: &str,
) -> Result<Reply, HostError> {
    let mut changed = true;
    let reply = if let Some(canned) = canned(world, host, script) {
        changed = !canned.only_looks;
        leave(known(world, host)?, &canned).map_err(|message| failed(host, message))?;
        canned.reply()
    } else if let Some(ran) = shell::run(world, host, script) {
        changed = ran.changed;
        ran.reply
    } else {
        install(world, host, script)
    };
    if changed {
        world.count(host, "run", script, Some(by.name()));
    }
    Ok(reply)
}

/// What a canned answer says that its script makes and removes.
fn leave(host: &mut HostState, canned: &CannedReply) -> Result<(), String> {
    let default = Ownership::default();
    if canned.code != 0 {
        return Ok(());
    }
    for path in &canned.creates {
        if host.files.exists(path) {
            continue;
        }
        if let Some((above, _)) = path.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
            host.files.make_directory(above, &default)?;
        }
        host.files.write(path, "", &default)?;
    }
    for path in &canned.removes {
        host.files.remove_tree(path);
    }
    Ok(())
}

/// Installs the packages that a script names which isn't understood as a whole.
fn install(world: &mut WorldState, host: &str, script: &str) -> Reply {
    let packages = shell::installs(script);
    match super::apt::install(world, host, &packages) {
        Ok(()) => Reply::default(),
        Err(message) => Reply { code: 100, stdout: Vec::new(), stderr: message.into_bytes() },
    }
}

/// The canned answer to a script.
pub(super) fn canned(world: &WorldState, host: &str, script: &str) -> Option<CannedReply> {
    let state = world.hosts.get(host)?;
    world.replies.iter().find(|canned| canned.fits(host, state, script)).cloned()
}

fn poll(world: &mut WorldState, host: &str, by: &Attempt, started: bool) -> Result<(), HostError> {
    let state = known(world, host)?;
    let boot_id = state.boot_id.clone();
    let Some(record) = state.attempts.get_mut(&by.name()).filter(|record| record.boot_id == boot_id) else {
        return Ok(());
    };
    let Some((script, left)) = record.running.clone() else { return Ok(()) };
    if left > 0 {
        record.running = Some((script, if started { left } else { left - 1 }));
        return Ok(());
    }
    let reply = execute(world, host, by, &script)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(record) = known(world, host)?.attempts.get_mut(&by.name()) {
        record.running = None;
        record.reply = Some((reply.code, text(&reply.stdout), text(&reply.stderr)));
    }
    Ok(())
}

fn to_reply((code, stdout, stderr): &(i32, String, String)) -> Reply {
    Reply { code: *code, stdout: stdout.clone().into_bytes(), stderr: stderr.clone().into_bytes() }
}

fn known<'w>(world: &'w mut WorldState, host: &str) -> Result<&'w mut HostState, HostError> {
    world.host_mut(host).map_err(|error| failed(host, error))
}

fn fenced(host: &str) -> HostError {
    HostError::Fenced { host: host.to_owned() }
}

impl AttemptRecord {
    fn alive(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id && self.running.is_some()
    }
}
