//! What a POSIX host needs of the way to it: to start a command with its three streams apart, and to
//! dial. SSH and local processes are such ways; neither knows what is sent over it.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{BoxStream, HostError};

/// A way to a machine.
#[async_trait]
pub(crate) trait Transport: Send + Sync + Debug + 'static {
    /// The inventory's name.
    fn name(&self) -> &str;

    /// Where it is reached, for messages.
    fn address(&self) -> &str;

    /// Starts a command line under the login user's shell.
    ///
    /// Connects first where there is no live connection. Once this has returned, what is lost is lost:
    /// nothing is started again here.
    async fn start(&self, command: &str) -> Result<Process, Failure>;

    /// A byte stream to an address as seen from the machine; a Unix socket where it begins with `/`.
    async fn dial(&self, address: &str, port: u16) -> Result<BoxStream, Failure>;

    /// Whom the live connection leads to. Connects where there is none.
    async fn peer(&self) -> Result<Peer, Failure>;

    /// Ends the connection.
    async fn close(&self);
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Which connection of this process it is; what was read over an older one may be outdated.
    pub(crate) generation: u64,
    /// SHA-256 of the host key; empty for a local one.
    pub(crate) fingerprint: String,
}

/// A started command.
pub(crate) struct Process {
    /// Its standard input; shutting it down is end of file.
    pub(crate) input: Box<dyn AsyncWrite + Send + Unpin>,
    /// What comes from it. Dropping it gives the command up without ending it.
    pub(crate) output: Box<dyn Output>,
}

/// What comes from a command.
#[async_trait]
pub(crate) trait Output: Send {
    /// The next piece; `None` once nothing more can come. Cancel safe.
    async fn next(&mut self) -> Option<Event>;
}

/// A piece of what comes from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Standard output.
    Out(Bytes),
    /// Standard error.
    Err(Bytes),
    /// Both outputs have ended.
    Eof,
    /// Its exit status; 128 + N for signal N. Output may still follow.
    Exit(i32),
}

/// Why a way to a machine did not carry something. Becomes a [`HostError`] with the host's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Unreachable { message: String, hint: Option<String> },
    /// The connection was lost before the answer.
    Lost(String),
    /// It was answered, and the answer is no.
    Refused(String),
}

impl Failure {
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::Unreachable { message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Unreachable { message, .. } => Self::Unreachable { message, hint: Some(hint.into()) },
            other => other,
        }
    }

    /// The same, with the name of what was spoken to before its words.
    pub(crate) fn of(self, place: &str) -> Self {
        match self {
            Self::Unreachable { .. } => self,
            Self::Lost(message) => Self::Lost(format!("{place}: {message}")),
            Self::Refused(message) => Self::Refused(format!("{place}: {message}")),
        }
    }

    /// The error that steps see.
    pub(crate) fn into_error(self, host: &str, address: &str) -> HostError {
        let host = host.to_owned();
        match self {
            Self::Unreachable { message, hint } => {
                HostError::Unreachable { host, address: address.to_owned(), message, hint }
            }
            Self::Lost(message) => HostError::Lost { host, message },
            Self::Refused(message) => HostError::Failed { host, message, detail: None },
        }
    }
}
