//! The laws of a run's state, whatever events come: those that are not allowed change nothing, those
//! that were taken in give the same state when they are read back, and a task is ready exactly when
//! what it needs has passed. What is allowed is told by a second, plain account of the rules.

#![expect(clippy::unwrap_used, reason = "a test that can't go on may stop")]

mod chosen;
mod events;
mod gates;
mod reference;
mod shape;
mod state;
mod undo;
