//! A simulated host: each call is one turn of the world.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use flow_core::step::Attempt;

use super::error::failed;
use super::etcd::{self, SimEtcd};
use super::sql::{self, SimSql};
use super::state::{HostState, Release, SimProcess, Unknown, UnknownKind, WorldState};
use super::world::SimWorld;
use super::{attempts, balancers, patroni, rest, shell, units};
use crate::clients::{Etcd, EtcdEndpoint, HttpReply, HttpRequest, Sql, SqlTarget};
use crate::host::{
    AttemptState, BoxStream, Command, Facts, Host, HostChange, HostError, LockClaim, Ownership, Packages,
    Process, ProcessQuery, Reply, Stat, Unit,
};

/// One machine of a [`SimWorld`].
pub struct SimHost {
    world: SimWorld,
    name: String,
    address: String,
}

impl SimHost {
    pub(super) fn new(world: SimWorld, name: &str) -> Self {
        let state = world.state().ok();
        let address = state.and_then(|state| state.hosts.get(name).map(|host| host.address.clone()));
        Self { world, name: name.to_owned(), address: address.unwrap_or_else(|| name.to_owned()) }
    }

    async fn look<T: Send>(
        &self,
        text: &str,
        action: impl FnOnce(&HostState) -> Result<T, String> + Send,
    ) -> Result<T, HostError> {
        let look = |world: &WorldState| {
            world.host(&self.name).and_then(action).map_err(|message| failed(&self.name, message))
        };
        self.world.look(&self.name, text, look).await
    }

    /// Where the world is strict, a script that it has no answer to is noted and refused.
    fn known_script(&self, kind: UnknownKind, script: &str) -> Result<(), HostError> {
        let unknown = self.world.state().is_ok_and(|world| {
            world.settings.strict
                && world.hosts.contains_key(&self.name)
                && !attempts::understood(&world, &self.name, script)
        });
        if unknown {
            self.world.note_unknown(Unknown { kind, text: script.to_owned(), host: self.name.clone() });
            let first = script.trim().lines().next().unwrap_or_default();
            return Err(failed(&self.name, format!("the simulation has no answer to `{first}`")));
        }
        Ok(())
    }

    async fn act<T: Send>(
        &self,
        text: &str,
        action: impl FnOnce(&mut WorldState) -> Result<T, HostError> + Send,
    ) -> Result<T, HostError> {
        self.world.act(&self.name, text, action).await
    }
}

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimHost({})", self.name)
    }
}

#[async_trait]
impl Host for SimHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> &str {
        &self.address
    }

    async fn facts(&self) -> Result<Arc<Facts>, HostError> {
        let look = |world: &WorldState| {
            let host = world.host(&self.name).map_err(|message| failed(&self.name, message))?;
            Ok(Arc::new(Facts {
                machine_id: host.machine_id.clone(),
                boot_id: host.boot_id.clone(),
                key_fingerprint: host.key_fingerprint.clone(),
                os_id: "debian".to_owned(),
                os_codename: match world.settings.release {
                    Release::Bookworm => "bookworm",
                    Release::Trixie => "trixie",
                }
                .to_owned(),
                hostname: self.name.clone(),
            }))
        };
        self.world.look(&self.name, "facts", look).await
    }

    async fn probe(&self, script: &str) -> Result<Reply, HostError> {
        self.known_script(UnknownKind::Probe, script)?;
        let look = |world: &WorldState| {
            if let Some(canned) = attempts::canned(world, &self.name, script) {
                return Ok(canned.reply());
            }
            // On a copy: a probe that would change something is not understood.
            let ran = shell::run(&mut world.clone(), &self.name, script).filter(|ran| !ran.changed);
            let unknown = || Reply {
                code: 127,
                stdout: Vec::new(),
                stderr: b"not understood by a simulated host\n".to_vec(),
            };
            Ok(ran.map_or_else(unknown, |ran| ran.reply))
        };
        self.world.look(&self.name, &format!("probe {script}"), look).await
    }

    async fn stat(&self, path: &str) -> Result<Option<Stat>, HostError> {
        self.look(&format!("stat {path}"), |host| Ok(host.files.stat(path))).await
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, HostError> {
        let read = |host: &HostState| match host.files.read(path)? {
            Some(bytes) if bytes.len() as u64 > limit => Err(format!("{path} is longer than {limit} bytes")),
            bytes => Ok(bytes.map(<[u8]>::to_vec)),
        };
        self.look(&format!("read {path}"), read).await
    }

    async fn list(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        self.look(&format!("list {path}"), |host| Ok(host.files.list(path))).await
    }

    async fn unit(&self, unit: &str) -> Result<Unit, HostError> {
        self.look(&format!("unit {unit}"), |host| Ok(units::show(host, unit))).await
    }

    async fn written_since(&self, unit: &str, files: &[String]) -> Result<Vec<String>, HostError> {
        let newer = |host: &HostState| Ok(units::written_since(host, unit, files));
        self.look(&format!("written since {unit}"), newer).await
    }

    async fn processes(&self, query: &ProcessQuery) -> Result<Vec<Process>, HostError> {
        let list = |host: &HostState| {
            let found = host.processes.iter().filter(|(_, process)| matches(query, process));
            let process = |(pid, process): (&u32, &SimProcess)| Process {
                pid: *pid,
                user: process.user.clone(),
                command: process.command.clone(),
            };
            Ok(found.map(process).collect())
        };
        self.look("processes", list).await
    }

    async fn packages(&self, names: &[String]) -> Result<Packages, HostError> {
        let list = |host: &HostState| {
            let installed = host.packages.iter().filter(|(name, _)| names.contains(name));
            Ok(installed.map(|(name, version)| (name.clone(), version.clone())).collect())
        };
        self.look(&format!("packages {}", names.join(" ")), list).await
    }

    async fn change(&self, by: &Attempt, change: &HostChange) -> Result<(), HostError> {
        let text = describe(change);
        let act = |world: &mut WorldState| {
            attempts::fence(world, &self.name, by)?;
            attempts::note(world, &self.name, by)?;
            let changed = apply(world, &self.name, change).map_err(|message| failed(&self.name, message))?;
            if changed {
                world.count(&self.name, "change", &text, Some(by.name()));
            }
            Ok(())
        };
        self.act(&format!("change {text} by {}", by.name()), act).await
    }

    async fn run(&self, by: &Attempt, command: &Command) -> Result<Reply, HostError> {
        self.known_script(UnknownKind::Run, &command.script)?;
        let text = format!("run {} by {}", command.script, by.name());
        if !command.detached {
            let act = |world: &mut WorldState| {
                attempts::fence(world, &self.name, by)?;
                attempts::note(world, &self.name, by)?;
                attempts::execute(world, &self.name, by, &command.script)
            };
            return self.act(&text, act).await.map(|reply| heard(command, reply));
        }
        if command.stdin.is_some() {
            return Err(failed(&self.name, "a detached command takes no standard input"));
        }
        let start = |world: &mut WorldState| {
            attempts::fence(world, &self.name, by)?;
            attempts::start_detached(world, &self.name, by, &command.script)
        };
        self.act(&text, start).await?;
        loop {
            match self.attempt(by).await? {
                AttemptState::Ended(Some(reply)) => return Ok(heard(command, reply)),
                AttemptState::Running => tokio::task::yield_now().await,
                AttemptState::Absent | AttemptState::Ended(None) => {
                    return Err(super::error::lost(&self.name, "the host was rebooted"));
                }
            }
        }
    }

    async fn attempt(&self, by: &Attempt) -> Result<AttemptState, HostError> {
        self.act(&format!("attempt {}", by.name()), |world| attempts::look(world, &self.name, by)).await
    }

    async fn lock(&self, claim: &LockClaim) -> Result<(), HostError> {
        self.act(&format!("lock {}", claim.run), |world| attempts::lock(world, &self.name, claim)).await
    }

    async fn lock_holder(&self) -> Result<Option<LockClaim>, HostError> {
        self.look("lock-holder", |host| Ok(host.lock.clone())).await
    }

    async fn alive(&self, run: &str) -> Result<Vec<String>, HostError> {
        self.look("alive", |host| Ok(attempts::alive(host, run))).await
    }

    async fn unlock(&self, claim: &LockClaim, force: bool) -> Result<(), HostError> {
        let text = format!("unlock {}", claim.run);
        self.act(&text, |world| attempts::unlock(world, &self.name, claim, force)).await
    }

    async fn dial(&self, address: &str, port: u16) -> Result<BoxStream, HostError> {
        let look = |world: &WorldState| match world.reach(&self.name, address) {
            Some(host) if listens(world, host, port) => Ok(()),
            _ => Err(failed(&self.name, format!("{address}:{port}: connection refused"))),
        };
        self.world.look(&self.name, &format!("dial {address}:{port}"), look).await?;
        // Somebody answers, and says nothing.
        Ok(Box::new(tokio::io::duplex(64).0))
    }

    async fn fence(&self, by: &Attempt) -> Result<(), HostError> {
        self.world.look(&self.name, "fence", |world| attempts::fence(world, &self.name, by)).await
    }

    async fn http(&self, request: &HttpRequest) -> Result<HttpReply, HostError> {
        let text = format!("{} {}:{}{}", request.method, request.address, request.port, request.path);
        let call =
            format!("http {} {} at {}:{}", request.method, request.path, request.address, request.port);
        if request.method == "GET" {
            return self.world.look(&self.name, &call, |world| rest::get(world, &self.name, request)).await;
        }
        let act = |world: &mut WorldState| {
            let (reply, changed) = rest::act(world, &self.name, request)?;
            if changed {
                world.count(&self.name, "http", &text, None);
            }
            Ok(reply)
        };
        self.act(&call, act).await
    }

    async fn etcd(&self, endpoint: &EtcdEndpoint) -> Result<Box<dyn Etcd>, HostError> {
        let (world, from, endpoint) = (self.world.clone(), self.name.clone(), endpoint.clone());
        Ok(Box::new(SimEtcd { world, from, endpoint }))
    }

    async fn sql(&self, target: &SqlTarget) -> Result<Box<dyn Sql>, HostError> {
        let connect = |world: &WorldState| sql::server(world, &self.name, target).map(|_| ());
        self.world
            .look(&self.name, &format!("sql-connect {}:{}", target.address, target.port), connect)
            .await?;
        Ok(Box::new(SimSql { world: self.world.clone(), from: self.name.clone(), target: target.clone() }))
    }

    async fn close(&self) {}
}

/// Whether a service that the world knows listens there.
/// What comes back of a command's reply.
fn heard(command: &Command, reply: Reply) -> Reply {
    if command.silent { Reply { code: reply.code, ..Reply::default() } } else { reply }
}

fn listens(world: &WorldState, host: &str, port: u16) -> bool {
    let Ok(state) = world.host(host) else { return false };
    let runs = |unit: &str| state.units.get(unit).is_some_and(|unit| unit.running());
    let api = || patroni::config(world, host).is_ok_and(|config| config.api_port == port);
    port == 22
        || (runs(etcd::UNIT) && matches!(port, 2379 | 2380))
        || (runs(patroni::UNIT) && api())
        || state.postgres.as_ref().is_some_and(|postgres| postgres.port == port)
        || balancers::listens(state, port)
}

/// A change in a line, as the effect log and the faults know it.
fn describe(change: &HostChange) -> String {
    match change {
        HostChange::WriteFile { path, .. } => format!("write-file {path}"),
        HostChange::MakeDirectory { path, .. } => format!("make-directory {path}"),
        HostChange::SetOwnership { path, .. } => format!("set-ownership {path}"),
        HostChange::Rename { from, to } => format!("rename {from} -> {to}"),
        HostChange::Replace { path, from } => format!("replace {path} by {from}"),
        HostChange::RemoveFile { path } => format!("remove-file {path}"),
        HostChange::RemoveDirectory { path } => format!("remove-directory {path}"),
        HostChange::Symlink { path, target } => format!("symlink {path} -> {target}"),
        HostChange::Unit { unit, verb } => {
            let verb = serde_json::to_value(verb).unwrap_or_default();
            format!("unit {} {}", verb.as_str().unwrap_or_default().replace('_', "-"), units::full_name(unit))
        }
    }
}

/// Makes a change. False: all was as asked already.
fn apply(world: &mut WorldState, name: &str, change: &HostChange) -> Result<bool, String> {
    let host = world.host_mut(name)?;
    match change {
        HostChange::WriteFile { path, content, ownership } => {
            known_users(host, ownership)?;
            host.files.write(path, content.0.clone(), ownership).map(|()| true)
        }
        HostChange::MakeDirectory { path, ownership } => {
            known_users(host, ownership)?;
            host.files.make_directory(path, ownership)
        }
        HostChange::SetOwnership { path, ownership } => {
            known_users(host, ownership)?;
            host.files.set_ownership(path, ownership)
        }
        HostChange::Rename { from, to } => host.files.rename(from, to).map(|()| true),
        HostChange::Replace { path, from } => host.files.replace(path, from).map(|()| true),
        HostChange::RemoveFile { path } => host.files.remove_file(path),
        HostChange::RemoveDirectory { path } => host.files.remove_directory(path),
        HostChange::Symlink { path, target } => host.files.symlink(path, target),
        HostChange::Unit { unit, verb } => units::verb(world, name, unit, *verb),
    }
}

fn known_users(host: &HostState, ownership: &Ownership) -> Result<(), String> {
    let named = ownership.owner.iter().chain(&ownership.group);
    let unknown = |name: &&String| name.parse::<u32>().is_err() && !host.users.contains(*name);
    match named.into_iter().find(unknown) {
        Some(name) => Err(format!("invalid user: '{name}'")),
        None => Ok(()),
    }
}

fn matches(query: &ProcessQuery, process: &SimProcess) -> bool {
    query.name.as_ref().is_none_or(|name| *name == process.comm)
        && query.command_contains.as_ref().is_none_or(|text| process.command.contains(text.as_str()))
        && query.directory.as_ref().is_none_or(|directory| {
            process.directory == *directory || process.command.split(' ').any(|word| word == directory)
        })
}
