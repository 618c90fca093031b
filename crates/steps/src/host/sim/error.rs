//! Errors of the world's file, and the making of host errors.

use std::path::PathBuf;

use crate::host::HostError;

/// Why the world can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The file system said no.
    #[error("the simulated world {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The file isn't a world.
    #[error("the simulated world {} can't be read: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// No host of that name is in it.
    #[error("the simulated world has no host {name}")]
    NoHost {
        /// The name that was asked for.
        name: String,
    },
    /// It can't be done by hand either.
    #[error("{message}")]
    Refused {
        /// Why, as the file system words it.
        message: String,
    },
}

/// "It was carried out and failed."
pub(super) fn failed(host: &str, message: impl Into<String>) -> HostError {
    HostError::Failed { host: host.to_owned(), message: message.into(), detail: None }
}

/// "No answer came."
pub(super) fn lost(host: &str, message: impl Into<String>) -> HostError {
    HostError::Lost { host: host.to_owned(), message: message.into() }
}
