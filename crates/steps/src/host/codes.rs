//! The kinds of errors that a host gives. Each has a page in docs/errors.

use flow_core::workflow::Code;

use super::HostError;

/// It can't be reached: the address, the login or sudo.
pub const UNREACHABLE: Code = Code("flow::unreachable");
/// No known_hosts file has its key.
pub const HOST_KEY_UNKNOWN: Code = Code("flow::host-key-unknown");
/// Its key is another than the known one, or is revoked.
pub const HOST_KEY_CHANGED: Code = Code("flow::host-key-changed");
/// It is locked by another run.
pub const LOCKED: Code = Code("flow::locked");
/// This process no longer holds its lock.
pub const FENCED: Code = Code("flow::fenced");
/// Its answer was lost.
pub const LOST: Code = Code("flow::lost");

impl HostError {
    /// Of what kind it is; none for what was tried on the host and failed.
    pub fn code(&self) -> Option<Code> {
        Some(match self {
            // As `ssh::known_hosts` words it, also behind the name of a jump host.
            Self::Unreachable { message, .. } if message.contains("the host key is unknown: ") => {
                HOST_KEY_UNKNOWN
            }
            Self::Unreachable { message, .. }
                if message.contains("the host key has changed: ")
                    || message.contains("the host key ") && message.contains(" is revoked (") =>
            {
                HOST_KEY_CHANGED
            }
            Self::Unreachable { .. } => UNREACHABLE,
            Self::Lost { .. } => LOST,
            Self::Locked { .. } => LOCKED,
            Self::Fenced { .. } => FENCED,
            Self::Failed { .. } => return None,
        })
    }
}
