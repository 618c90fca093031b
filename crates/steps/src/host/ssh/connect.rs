//! Making one SSH connection: TCP or through jump hosts, the host's key checked, logged in.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{self, Handle};
use russh::keys::{Algorithm, HashAlg, PublicKeyOrCertificate};
use russh::{Disconnect, Preferred};
use tokio::net::TcpStream;

use super::known_hosts::{Known, Refusal};
use super::settings::{self, SshEnvironment, Target};
use super::{auth, reason};
use crate::host::transport::Failure;

/// So many times the time that the TCP connection took handshake and login may take at least.
const LOGIN_ROUND_TRIPS: u32 = 20;

/// How many machines may be passed through.
const MAX_JUMPS: usize = 8;

/// A live connection, and those it goes through.
pub(super) struct Connection {
    pub(super) handle: Handle<Client>,
    /// `SHA256:...` of the host's key.
    pub(super) fingerprint: String,
    /// Kept, since dropping one ends what goes through it.
    _jumps: Vec<Handle<Client>>,
}

impl Connection {
    /// Tells the other side, which else would notice later.
    pub(super) async fn end(&self) {
        // Nothing depends on its arrival.
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }
}

/// Connects to a target, through its jump hosts.
pub(super) async fn connect(environment: &SshEnvironment, target: &Target) -> Result<Connection, Failure> {
    let mut way = way_to(environment, target)?;
    way.push(target.clone());
    let mut handles: Vec<Handle<Client>> = Vec::new();
    let mut fingerprint = String::new();
    for (hop, next) in way.iter().enumerate() {
        let last = hop + 1 == way.len();
        let made = match handles.last() {
            None => over_tcp(next).await,
            Some(before) => through(before, next).await,
        };
        let (handle, print) = made.map_err(|failure| if last { failure } else { at_jump(next, failure) })?;
        handles.push(handle);
        fingerprint = print;
    }
    let Some(handle) = handles.pop() else {
        return Err(Failure::unreachable("there is no way to it"));
    };
    Ok(Connection { handle, fingerprint, _jumps: handles })
}

/// The machines to pass through, first hop first. The first one's own jumps come before it.
pub(super) fn way_to(environment: &SshEnvironment, target: &Target) -> Result<Vec<Target>, Failure> {
    let mut way: Vec<Target> = Vec::new();
    let mut jumps = target.jumps.clone();
    while !jumps.is_empty() {
        if way.len() + jumps.len() > MAX_JUMPS {
            return Err(Failure::unreachable(format!(
                "more than {MAX_JUMPS} jump hosts; does one jump to itself?"
            )));
        }
        let mut hops = Vec::new();
        for jump in &jumps {
            hops.push(settings::of_jump(environment, jump).map_err(Failure::unreachable)?);
        }
        jumps = hops[0].jumps.clone();
        hops.append(&mut way);
        way = hops;
    }
    Ok(way)
}

fn at_jump(jump: &Target, failure: Failure) -> Failure {
    match failure {
        Failure::Unreachable { message, hint } => {
            Failure::Unreachable { message: format!("jump host {}: {message}", jump.address()), hint }
        }
        other => other,
    }
}

async fn over_tcp(target: &Target) -> Result<(Handle<Client>, String), Failure> {
    let began = Instant::now();
    let connecting = TcpStream::connect((target.host.as_str(), target.port));
    let stream = match tokio::time::timeout(target.connect_timeout, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::unreachable(tcp_text(&error))),
        Err(_) => {
            let seconds = target.connect_timeout.as_secs();
            return Err(Failure::unreachable(format!("no answer within {seconds} s")));
        }
    };
    // Small messages must not wait for more; where it can't be set, they are only slower.
    let _ = stream.set_nodelay(true);
    handshake(stream, target, began.elapsed()).await
}

fn tcp_text(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::HostUnreachable => "no route to the host".into(),
        ErrorKind::NetworkUnreachable => "the network is unreachable".into(),
        ErrorKind::TimedOut => "no answer".into(),
        _ => error.to_string(),
    }
}

async fn through(before: &Handle<Client>, target: &Target) -> Result<(Handle<Client>, String), Failure> {
    let began = Instant::now();
    let opening = before.channel_open_direct_tcpip(&target.host, target.port.into(), "127.0.0.1", 0);
    let channel = match tokio::time::timeout(target.connect_timeout, opening).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => {
            return Err(Failure::unreachable(format!("the jump host can't reach it: {}", reason(&error))));
        }
        Err(_) => return Err(Failure::unreachable("the jump host's way to it gives no answer")),
    };
    handshake(channel.into_stream(), target, began.elapsed()).await
}

/// Over a stream that took so long to open: a measure of how far away the host is.
async fn handshake<S>(stream: S, target: &Target, took: Duration) -> Result<(Handle<Client>, String), Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let known = Known::read(&target.known_hosts, &target.host, target.port, target.key_alias.as_deref());
    let config = client::Config {
        keepalive_interval: Some(target.alive_interval),
        keepalive_max: target.alive_count,
        // Also ends a write that a dead connection blocks, during which no signs of life are sent.
        inactivity_timeout: Some(target.alive_interval * (target.alive_count as u32 + 2)),
        preferred: Preferred { key: Cow::Owned(known_first(&known)), ..Preferred::DEFAULT },
        nodelay: true,
        ..client::Config::default()
    };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let client = Client { known, seen: seen.clone() };
    let work = async {
        let mut handle = match client::connect_stream(Arc::new(config), stream, client).await {
            Ok(handle) => handle,
            Err(error) => return Err(handshake_failure(&error, &seen, target)),
        };
        auth::login(&mut handle, target).await?;
        Ok(handle)
    };
    let limit = target.login_timeout.max(took * LOGIN_ROUND_TRIPS);
    let handle = tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Failure::unreachable(format!("no SSH login within {} s", limit.as_secs())))
    })?;
    let fingerprint = seen.lock().unwrap_or_else(PoisonError::into_inner).fingerprint.clone();
    Ok((handle, fingerprint))
}

fn handshake_failure(error: &russh::Error, seen: &Mutex<Seen>, target: &Target) -> Failure {
    let refusal = seen.lock().unwrap_or_else(PoisonError::into_inner).refusal.take();
    match refusal {
        Some(Refusal { message, hint }) => {
            let lax = if target.lax {
                "; StrictHostKeyChecking is turned off for it, which flow does not follow"
            } else {
                ""
            };
            Failure::unreachable(format!("{message}{lax}")).with_hint(hint)
        }
        None => Failure::unreachable(format!("the SSH handshake failed: {}", reason(error))),
    }
}

/// Asks for the kinds of key first of which one is known, as OpenSSH does: else a host that has several
/// would show one that isn't.
fn known_first(known: &Known) -> Vec<Algorithm> {
    let kinds = known.algorithms();
    let is_known = |algorithm: &Algorithm| {
        let rsa = matches!(algorithm, Algorithm::Rsa { .. });
        kinds.iter().any(|kind| kind == algorithm || (rsa && matches!(kind, Algorithm::Rsa { .. })))
    };
    // SHA-1 signatures are not asked for, as in OpenSSH since 8.8.
    let offered = Preferred::DEFAULT.key.iter().filter(|a| **a != Algorithm::Rsa { hash: None }).cloned();
    let (mut first, rest): (Vec<_>, Vec<_>) = offered.partition(is_known);
    first.extend(rest);
    first
}

/// What the handshake saw of the host's key.
#[derive(Debug, Default)]
struct Seen {
    fingerprint: String,
    refusal: Option<Refusal>,
}

/// The client's part in a session: to check the host's key.
pub(super) struct Client {
    known: Known,
    seen: Arc<Mutex<Seen>>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            seen.refusal = Some(Refusal {
                message: "the host shows a certificate, which isn't supported".into(),
                hint: "add the host's own key to known_hosts".into(),
            });
            return Ok(false);
        };
        seen.fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        match self.known.check(key) {
            Ok(()) => Ok(true),
            Err(refusal) => {
                seen.refusal = Some(refusal);
                Ok(false)
            }
        }
    }
}
