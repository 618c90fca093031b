//! Exit codes, and the errors that lead to them. Documented in `flow --help`.

use std::process::ExitCode;

use flow_core::engine::EngineError;
use flow_core::plan::Moved;
use flow_core::run::Outcome;
use flow_core::store::StoreError;
use flow_core::workflow::{Code, Diagnostics};
use jiff::Timestamp;

/// What a shell gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success = 0,
    Failed = 1,
    Changes = 2,
    Refused = 3,
    Undecided = 4,
    Store = 5,
    Usage = 64,
    Broken = 70,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded | Outcome::Undone => Self::Success,
            Outcome::Failed => Self::Failed,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::Undecided => Self::Undecided,
            Outcome::Refused => Self::Refused,
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// The workflow, the inventory or the params are wrong.
    Diagnostics(Diagnostics),
    /// The engine or the store.
    Engine(EngineError),
    /// What a plan file showed isn't so any more.
    MovedOn { file: String, made: Timestamp, moved: Vec<Moved> },
    /// Something else that was refused, with the next action.
    Refused { message: String, hint: Option<String> },
    /// The same, of a kind that has a page of its own.
    Coded { code: Code, message: String, hint: String },
    /// The same, with more lines.
    Detailed { message: String, detail: Option<String>, hint: Option<String> },
}

impl Error {
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: Some(hint.into()) }
    }

    pub fn coded(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Coded { code, message: message.into(), hint: hint.into() }
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Diagnostics(_)
            | Self::MovedOn { .. }
            | Self::Refused { .. }
            | Self::Detailed { .. }
            | Self::Coded { .. } => Exit::Refused,
            Self::Engine(error) => match error {
                EngineError::Store(
                    StoreError::NoRun(_)
                    | StoreError::Busy { .. }
                    | StoreError::Exists { .. }
                    | StoreError::Imported { .. },
                ) => Exit::Refused,
                EngineError::Store(_) | EngineError::History { .. } | EngineError::Definition { .. } => {
                    Exit::Store
                }
                EngineError::Broken(_) => Exit::Broken,
                EngineError::Refused(_)
                | EngineError::Unconfirmed { .. }
                | EngineError::Ended { .. }
                | EngineError::TurnedBack { .. }
                | EngineError::NothingToUndo { .. }
                | EngineError::Pivoted { .. }
                | EngineError::NotUndoable { .. }
                | EngineError::NoTask { .. }
                | EngineError::NoHost { .. }
                | EngineError::NotAsked { .. }
                | EngineError::NotSettled { .. }
                | EngineError::Host { .. } => Exit::Refused,
            },
        }
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Diagnostics(diagnostics)
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused(diagnostics) => Self::Diagnostics(diagnostics),
            error => Self::Engine(error),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}
