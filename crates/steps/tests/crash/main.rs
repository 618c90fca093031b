//! What must hold when flow is killed: killed at any moment and resumed, a run comes to the same end.
//!
//! Each case is a process of its own (this very binary, see `child`) that runs a shipped workflow on
//! simulated hosts and ends itself by SIGKILL at a given point; a second process resumes the run. The
//! hosts' end state and the count of effects are then read from the simulated hosts, and compared with
//! those of a run that nobody disturbed.

#![expect(clippy::unwrap_used, reason = "clippy takes a test's helpers for no part of it")]

mod answers;
mod case;
mod child;
mod deploy;
mod guards;
mod killing_store;
mod planned;
mod recovery;
mod repair;
mod rivals;
mod undo;
