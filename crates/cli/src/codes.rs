//! The kinds of errors of the command line, the engine and the store. Those of documents are
//! `flow_core`'s, those of hosts `flow_steps`'s. Each has a page in docs/errors.

use flow_core::engine::EngineError;
use flow_core::step::StepError;
use flow_core::store::StoreError;
use flow_core::workflow::Code;

/// Something was refused before anything was changed.
pub const REFUSED: Code = Code("flow::refused");
/// Destructive steps, and no name given.
pub const UNCONFIRMED: Code = Code("flow::unconfirmed");
/// What a plan file showed isn't so any more.
pub const MOVED_ON: Code = Code("flow::moved-on");
/// No such run.
pub const NO_RUN: Code = Code("flow::no-run");
/// Another process works on the run.
pub const RUN_BUSY: Code = Code("flow::run-busy");
/// The run has ended well.
pub const RUN_ENDED: Code = Code("flow::run-ended");
/// A verdict on a task of which it isn't asked.
pub const NOT_ASKED: Code = Code("flow::not-asked");
/// The store's file can't be used.
pub const STORE: Code = Code("flow::store");
/// The store is of a newer format.
pub const STORE_NEWER: Code = Code("flow::store-newer");
/// The store makes no sense.
pub const STORE_DAMAGED: Code = Code("flow::store-damaged");
/// A run's events or definition can't be followed.
pub const HISTORY: Code = Code("flow::history");
/// A task failed.
pub const FAILED: Code = Code("flow::failed");
/// Nobody can tell what became of a task.
pub const UNDECIDED: Code = Code("flow::undecided");
/// A defect.
pub const BROKEN: Code = Code("flow::broken");

/// Of what kind an error of the engine is.
pub fn of(error: &EngineError) -> &str {
    let code = match error {
        EngineError::Store(StoreError::Newer { .. }) => STORE_NEWER,
        EngineError::Store(
            StoreError::Damaged { .. } | StoreError::NoStore { .. } | StoreError::CutShort { .. },
        ) => STORE_DAMAGED,
        EngineError::Store(StoreError::NoRun(_)) => NO_RUN,
        EngineError::Store(StoreError::Busy { .. }) => RUN_BUSY,
        EngineError::Store(StoreError::Io { .. }) => STORE,
        EngineError::History { .. } | EngineError::Definition { .. } => HISTORY,
        EngineError::Unconfirmed { .. } => UNCONFIRMED,
        EngineError::Ended { .. } => RUN_ENDED,
        EngineError::NotAsked { .. } | EngineError::NotSettled { .. } => NOT_ASKED,
        EngineError::Host { error, .. } => return error.code.as_deref().unwrap_or(REFUSED.0),
        EngineError::Broken(_) => BROKEN,
        // What a store refuses for a reason of its own, such as a run that is there already.
        EngineError::Store(_)
        | EngineError::Refused(_)
        | EngineError::TurnedBack { .. }
        | EngineError::NothingToUndo { .. }
        | EngineError::Pivoted { .. }
        | EngineError::NotUndoable { .. }
        | EngineError::NoTask { .. }
        | EngineError::NoHost { .. } => REFUSED,
    };
    code.0
}

/// Of what kind the failure of a task is, or its unknown end.
pub fn of_task(error: &StepError, unknown: bool) -> &str {
    match &error.code {
        Some(code) => code,
        None if unknown => UNDECIDED.0,
        None => FAILED.0,
    }
}
