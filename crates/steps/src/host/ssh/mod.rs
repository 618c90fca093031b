//! A host over SSH: one connection, made when first needed, kept, and made anew when it was lost.
//!
//! Carries commands and streams; what they do is said in `posix`.

mod auth;
mod channel;
mod config;
mod connect;
mod known_hosts;
mod settings;

pub(crate) use known_hosts::Known;
pub use settings::{Patience, SshEnvironment};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use flow_core::inventory;
use russh::ChannelOpenFailure;
use tokio::sync::{Mutex, Semaphore};

use super::BoxStream;
use super::transport::{Failure, Peer, Process, Transport};
use channel::ChannelOutput;
use connect::Connection;
use settings::Target;

/// Sessions at a time on one connection. sshd's `MaxSessions` is 10 by default; one is the shell's, and
/// one is left for a session that sshd has not put away yet.
const SESSIONS: usize = 8;

/// Decides how a host is reached, and those on the way to it.
///
/// # Errors
/// Why it can't be told.
pub(crate) fn way_to(environment: &SshEnvironment, host: &inventory::Host) -> Result<(), String> {
    let target = settings::of_host(environment, host)?;
    connect::way_to(environment, &target).map(drop).map_err(|failure| format!("{failure:?}"))
}

/// A way to a machine over SSH.
#[derive(Debug)]
pub(crate) struct SshTransport {
    name: String,
    address: String,
    environment: SshEnvironment,
    target: Target,
    /// Held while connecting, so that one connection is made for all who wait.
    live: Mutex<Option<Arc<Live>>>,
    generation: AtomicU64,
}

/// A connection in use.
struct Live {
    connection: Connection,
    generation: u64,
    sessions: Arc<Semaphore>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Live({})", self.generation)
    }
}

impl SshTransport {
    /// Decides how the host is reached; connects to nothing yet.
    ///
    /// # Errors
    /// A variable or an `ssh_config` that can't be followed.
    pub(crate) fn new(environment: &SshEnvironment, host: &inventory::Host) -> Result<Self, String> {
        let target = settings::of_host(environment, host)?;
        Ok(Self {
            name: host.name.clone(),
            address: target.address(),
            environment: environment.clone(),
            target,
            live: Mutex::new(None),
            generation: AtomicU64::new(0),
        })
    }

    async fn live(&self) -> Result<Arc<Live>, Failure> {
        let mut live = self.live.lock().await;
        if let Some(live) = live.as_ref().filter(|live| !live.connection.handle.is_closed()) {
            return Ok(live.clone());
        }
        *live = None;
        let connection = connect::connect(&self.environment, &self.target).await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let made =
            Arc::new(Live { connection, generation, sessions: Arc::new(Semaphore::new(SESSIONS + 1)) });
        *live = Some(made.clone());
        Ok(made)
    }

    /// Does something on a live connection; once more on a new one where the first was dead.
    ///
    /// Only for what changes nothing until it has succeeded: opening channels.
    async fn with_live<T, F>(&self, work: impl Fn(Arc<Live>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, russh::Error>>,
    {
        let mut again = true;
        loop {
            let live = self.live().await?;
            match work(live.clone()).await {
                Ok(done) => return Ok(done),
                Err(russh::Error::ChannelOpenFailure(why)) => return Err(open_failure(&why)),
                Err(_) if again && live.connection.handle.is_closed() => again = false,
                Err(error) => return Err(Failure::Lost(reason(&error))),
            }
        }
    }
}

fn open_failure(why: &ChannelOpenFailure) -> Failure {
    Failure::Refused(match why {
        ChannelOpenFailure::ConnectFailed => "nothing answers there".into(),
        ChannelOpenFailure::AdministrativelyProhibited => {
            "sshd forbids it (AllowTcpForwarding, PermitOpen or MaxSessions in sshd_config)".into()
        }
        ChannelOpenFailure::ResourceShortage => "sshd has no room for it".into(),
        other => format!("sshd refuses it ({other:?})"),
    })
}

/// A russh error as a fragment for people.
fn reason(error: &russh::Error) -> String {
    match error {
        russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError | russh::Error::RecvError => {
            "the connection was closed".into()
        }
        russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout => {
            "no sign of life from the other side".into()
        }
        russh::Error::ChannelOpenFailure(why) => match open_failure(why) {
            Failure::Refused(message) => message,
            _ => "the channel was refused".into(),
        },
        russh::Error::IO(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[async_trait]
impl Transport for SshTransport {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> &str {
        &self.address
    }

    async fn start(&self, command: &str) -> Result<Process, Failure> {
        self.with_live(|live| async move {
            // Closed only with the connection, which is then seen as such.
            let permit = live.sessions.clone().acquire_owned().await.map_err(|_| russh::Error::Disconnect)?;
            let channel = live.connection.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            let (read, write) = channel.split();
            let input = Box::new(write.make_writer());
            Ok(Process { input, output: Box::new(ChannelOutput::new(read, write, permit)) })
        })
        .await
    }

    async fn dial(&self, address: &str, port: u16) -> Result<BoxStream, Failure> {
        let dialled = self.with_live(|live| async move {
            let handle = &live.connection.handle;
            let channel = if address.starts_with('/') {
                handle.channel_open_direct_streamlocal(address).await?
            } else {
                handle.channel_open_direct_tcpip(address, port.into(), "127.0.0.1", 0).await?
            };
            Ok(Box::new(channel.into_stream()) as BoxStream)
        });
        let place = if address.starts_with('/') { address.to_owned() } else { format!("{address}:{port}") };
        dialled.await.map_err(|failure| match failure {
            Failure::Refused(message) => Failure::Refused(format!("can't connect to {place}: {message}")),
            other => other,
        })
    }

    async fn peer(&self) -> Result<Peer, Failure> {
        let live = self.live().await?;
        Ok(Peer { generation: live.generation, fingerprint: live.connection.fingerprint.clone() })
    }

    async fn close(&self) {
        if let Some(live) = self.live.lock().await.take() {
            live.connection.end().await;
        }
    }
}
