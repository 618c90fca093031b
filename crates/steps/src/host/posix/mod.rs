//! A host that is a POSIX system with systemd: every verb as a script, over any [`Transport`].
//!
//! Looks go down the kept-open shell, and so does the lock, once; changes run in processes of their own, behind the
//! guard of lock and attempt. The scripts are pure functions in the files beside this one, and so is the reading of
//! their answers; here they only meet.

mod change;
mod exec;
mod guard;
mod login;
mod look;
mod run;
mod shared;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use flow_core::step::Attempt;

pub(crate) use guard::Paths;
pub(crate) use login::{Become, Login};

use self::shared::Shared;
use super::shell::{PROBE_LIMIT, Shell};
use super::transport::{Failure, Transport};
use super::{
    AttemptState, BoxStream, Command, Facts, Host, HostChange, HostError, LockClaim, Packages, Process,
    ProcessQuery, Reply, Stat, Unit,
};
use crate::clients::tls::Tls;
use crate::clients::{self, Etcd, EtcdEndpoint, HttpReply, HttpRequest, Sql, SqlTarget, TlsFiles};

/// A POSIX host over a transport.
#[derive(Debug)]
pub(crate) struct PosixHost {
    transport: Arc<dyn Transport>,
    login: Login,
    shell: Shell,
    paths: Paths,
    /// What was read over which connection.
    facts: Mutex<Option<(u64, Arc<Facts>)>>,
    probes: Shared<Reply>,
    pages: Shared<HttpReply>,
    etcds: Shared<clients::etcd::Client>,
}

impl PosixHost {
    pub(crate) fn new(transport: Arc<dyn Transport>, login: Login, paths: Paths) -> Self {
        let shell = Shell::new(transport.clone(), login.clone());
        Self {
            transport,
            login,
            shell,
            paths,
            facts: Mutex::new(None),
            probes: Shared::default(),
            pages: Shared::default(),
            etcds: Shared::default(),
        }
    }

    /// Reads by which files TLS is to be spoken; none where it isn't.
    async fn tls(&self, files: Option<&TlsFiles>, protocol: &[u8]) -> Result<Option<Tls>, HostError> {
        match files {
            Some(files) => Tls::load(self, files, protocol).await.map(Some),
            None => Ok(None),
        }
    }

    fn error(&self, failure: Failure) -> HostError {
        failure.into_error(self.name(), self.address())
    }

    fn failed(&self, message: String) -> HostError {
        self.error(Failure::Refused(message))
    }

    /// A look: a script that may be wrong, and the reading of its answer.
    async fn look<T>(
        &self,
        script: Result<String, String>,
        read: impl FnOnce(Reply) -> Result<T, String>,
    ) -> Result<T, HostError> {
        let script = script.map_err(|message| self.failed(message))?;
        let reply = self.probe(&script).await?;
        read(reply).map_err(|message| self.failed(message))
    }

    async fn execute(&self, script: &str, input: &[u8]) -> Result<Reply, HostError> {
        let executed = exec::execute(&*self.transport, &self.login, script, input).await;
        executed.map_err(|failure| self.error(failure))
    }

    /// A script that begins with a verdict; the rest of its reply.
    async fn guarded(&self, by: &str, script: &str, input: &[u8]) -> Result<Reply, HostError> {
        let reply = self.execute(script, input).await?;
        guard::verdict(self.name(), by, reply)
    }

    /// The same for a script of the lock itself, whose failure is the host's. Hosts are locked one after another, so it
    /// goes down the shell that is open already.
    fn lock_by(&self, what: &str, by: &str, reply: Result<Reply, Failure>) -> Result<(), HostError> {
        let reply = guard::verdict(self.name(), by, reply.map_err(|failure| self.error(failure))?)?;
        if reply.success() { Ok(()) } else { Err(self.failure(what, &reply)) }
    }

    fn failure(&self, what: &str, reply: &Reply) -> HostError {
        let reason = guard::reason(reply);
        let text = reply.error_text();
        HostError::Failed {
            host: self.name().to_owned(),
            message: format!("{what}: {reason}"),
            // One line is in the message already.
            detail: (text.lines().count() > 1).then_some(text),
        }
    }

    fn known_facts(&self, generation: u64) -> Option<Arc<Facts>> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.as_ref().filter(|(read, _)| *read == generation).map(|(_, facts)| facts.clone())
    }
}

#[async_trait]
impl Host for PosixHost {
    fn name(&self) -> &str {
        self.transport.name()
    }

    fn address(&self) -> &str {
        self.transport.address()
    }

    async fn facts(&self) -> Result<Arc<Facts>, HostError> {
        let peer = self.transport.peer().await.map_err(|failure| self.error(failure))?;
        if let Some(facts) = self.known_facts(peer.generation) {
            return Ok(facts);
        }
        let read = |reply| look::read_facts(peer.fingerprint, &reply);
        let (uid, facts) = self.look(Ok(look::facts().to_owned()), read).await?;
        if uid != 0 {
            let failure = Failure::unreachable(format!("the login is user {uid}, not root"))
                .with_hint("set ansible_become=true, or ansible_user=root");
            return Err(self.error(failure));
        }
        let facts = Arc::new(facts);
        let mut known = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((peer.generation, facts.clone()));
        Ok(facts)
    }

    async fn probe(&self, script: &str) -> Result<Reply, HostError> {
        let asked = self.probes.get(|| script.to_owned(), || self.shell.run(script, PROBE_LIMIT)).await;
        asked.map_err(|failure| self.error(failure))
    }

    async fn stat(&self, path: &str) -> Result<Option<Stat>, HostError> {
        self.look(look::stat(path), |reply| look::read_stat(path, reply)).await
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, HostError> {
        self.look(look::read(path, limit), |reply| look::read_bytes(path, limit, reply)).await
    }

    async fn list(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        self.look(look::list(path), |reply| look::read_list(path, reply)).await
    }

    async fn unit(&self, unit: &str) -> Result<Unit, HostError> {
        self.look(look::unit(unit), |reply| look::read_unit(unit, &reply)).await
    }

    async fn written_since(&self, unit: &str, files: &[String]) -> Result<Vec<String>, HostError> {
        self.look(look::written_since(unit, files), |reply| look::read_written_since(unit, &reply)).await
    }

    async fn processes(&self, query: &ProcessQuery) -> Result<Vec<Process>, HostError> {
        self.look(Ok(look::processes(query)), |reply| look::read_processes(query, &reply)).await
    }

    async fn packages(&self, names: &[String]) -> Result<Packages, HostError> {
        if names.is_empty() {
            return Ok(Packages::new());
        }
        self.look(look::packages(names), |reply| look::read_packages(&reply)).await
    }

    async fn change(&self, by: &Attempt, change: &HostChange) -> Result<(), HostError> {
        let plan = change::plan(change).map_err(|message| self.failed(message))?;
        let script = format!("{}{}", self.paths.guard(by), plan.script);
        let reply = self.guarded(&by.name(), &script, &plan.input).await?;
        if reply.success() { Ok(()) } else { Err(self.failure(&plan.what, &reply)) }
    }

    async fn run(&self, by: &Attempt, command: &Command) -> Result<Reply, HostError> {
        let name = by.name();
        let (guard, script) = if command.detached {
            (self.paths.guard_or_join(by), run::detached(by, command))
        } else {
            (self.paths.guard(by), run::attached(command))
        };
        let (script, input) = script.map_err(|message| self.failed(message))?;
        let reply = self.guarded(&name, &format!("{guard}{script}"), &input).await?;
        if !command.detached {
            return Ok(reply);
        }
        run::read_detached(&name, reply).map_err(|message| self.failed(message))
    }

    async fn attempt(&self, by: &Attempt) -> Result<AttemptState, HostError> {
        self.look(Ok(look::attempt(&self.paths.run, &by.name())), look::read_attempt).await
    }

    async fn lock(&self, claim: &LockClaim) -> Result<(), HostError> {
        let script = self.paths.lock(claim).map_err(|error| self.failed(error.to_string()))?;
        let reply = self.shell.run_once(&script, PROBE_LIMIT).await;
        self.lock_by("can't take the host's lock", &claim.run, reply)
    }

    async fn lock_holder(&self) -> Result<Option<LockClaim>, HostError> {
        let read = |reply: Reply| match reply.text().as_str() {
            "" if reply.success() => Ok(None),
            text => {
                serde_json::from_str(text).map(Some).map_err(|_| "the host's lock can't be read".to_owned())
            }
        };
        self.look(Ok(self.paths.holder()), read).await
    }

    async fn alive(&self, run: &str) -> Result<Vec<String>, HostError> {
        let read = |reply: Reply| {
            if reply.success() {
                Ok(reply.text().lines().map(str::to_owned).collect())
            } else {
                Err(format!("what is alive can't be told: {}", guard::reason(&reply)))
            }
        };
        self.look(Ok(self.paths.alive(run)), read).await
    }

    async fn unlock(&self, claim: &LockClaim, force: bool) -> Result<(), HostError> {
        let script = self.paths.unlock(claim, force);
        // Once given back it is given back, however often that is asked for.
        let reply = self.shell.run(&script, PROBE_LIMIT).await;
        self.lock_by("can't give the host's lock back", &claim.run, reply)
    }

    async fn dial(&self, address: &str, port: u16) -> Result<BoxStream, HostError> {
        self.transport.dial(address, port).await.map_err(|failure| self.error(failure))
    }

    async fn fence(&self, by: &Attempt) -> Result<(), HostError> {
        let reply = self.probe(&self.paths.fence(by)).await?;
        guard::verdict(self.name(), &by.name(), reply).map(drop)
    }

    async fn http(&self, request: &HttpRequest) -> Result<HttpReply, HostError> {
        let exchange = async || {
            let tls = self.tls(request.tls.as_ref(), b"").await?;
            let reply = clients::http::exchange(&*self.transport, request, tls.as_ref()).await;
            reply.map_err(|failure| self.error(failure))
        };
        match (request.method, &request.body, &request.basic_auth) {
            ("GET", None, None) => self.pages.get(|| format!("{request:?}"), exchange).await,
            _ => exchange().await,
        }
    }

    async fn etcd(&self, endpoint: &EtcdEndpoint) -> Result<Box<dyn Etcd>, HostError> {
        let client = async || {
            let tls = self.tls(endpoint.tls.as_ref(), b"h2").await?;
            clients::etcd::Client::new(self.transport.clone(), endpoint, tls).await
        };
        Ok(Box::new(self.etcds.get(|| format!("{endpoint:?}"), client).await?))
    }

    async fn sql(&self, target: &SqlTarget) -> Result<Box<dyn Sql>, HostError> {
        let tls = self.tls(target.tls.as_ref(), b"").await?;
        let connected = clients::postgres::connect(&*self.transport, target, tls).await;
        connected.map(|client| Box::new(client) as Box<dyn Sql>).map_err(|failure| self.error(failure))
    }

    async fn close(&self) {
        self.transport.close().await;
    }
}

#[cfg(test)]
mod tests;
