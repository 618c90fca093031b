//! What the engine itself needs of hosts: to know who they are, to lock them, and to learn whether an
//! attempt is still alive there. How that is done is not its business.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::inventory::Host;
use crate::run::{Identity, RunId};
use crate::step::{Attempt, StepError};

/// Who holds a host's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// `user@machine (pid N)`
    pub owner: String,
    /// Grows with each process that works on the run.
    pub epoch: u64,
    /// When the run began.
    pub since: Timestamp,
}

/// The hosts of a program.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Connects, and says who the host is.
    async fn meet(&self, host: &Arc<Host>) -> Result<Identity, StepError>;

    /// Takes the host's lock. Held by another run: a permanent error that names it.
    async fn lock(&self, host: &Arc<Host>, holder: &Holder) -> Result<(), StepError>;

    /// Gives the host's lock back.
    async fn unlock(&self, host: &Arc<Host>, holder: &Holder) -> Result<(), StepError>;

    /// Whether a process of an attempt is alive on the host.
    async fn alive(&self, host: &Arc<Host>, attempt: &Attempt) -> Result<bool, StepError>;

    /// Ends all connections.
    async fn close(&self);
}
