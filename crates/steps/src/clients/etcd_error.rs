//! Why etcd gave no answer, by kind: what is decided by it must not hang on the words of a message.

use std::fmt;

use flow_core::step::StepError;
use serde::{Deserialize, Serialize};

use crate::host::HostError;

/// Of what kind it is. In the order in which they tell more where several members are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoEtcd {
    /// Nobody answers there, or the answer was lost.
    Silent,
    /// It answers and says no: rights, TLS, no room.
    Refused,
    /// It answers, and isn't etcd version 3.
    NotEtcd3,
    /// It answers and can't act: most of its members are away, or it elects a leader just now.
    NoQuorum,
}

/// A failed call.
#[derive(Debug)]
pub struct EtcdError {
    /// Its kind.
    pub kind: NoEtcd,
    /// What happened.
    pub error: HostError,
}

impl EtcdError {
    /// Of that kind.
    pub fn new(kind: NoEtcd, error: HostError) -> Self {
        Self { kind, error }
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for EtcdError {}

/// Before etcd itself was asked: the host by which it is reached says no, or isn't there.
impl From<HostError> for EtcdError {
    fn from(error: HostError) -> Self {
        let kind = match error {
            HostError::Failed { .. } => NoEtcd::Refused,
            _ => NoEtcd::Silent,
        };
        Self { kind, error }
    }
}

impl From<EtcdError> for HostError {
    fn from(error: EtcdError) -> Self {
        error.error
    }
}

impl From<EtcdError> for StepError {
    fn from(error: EtcdError) -> Self {
        error.error.into()
    }
}
