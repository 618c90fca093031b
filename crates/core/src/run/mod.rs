//! A run as a state machine over events. Pure: no I/O, no clock, no tokio.

mod names;

pub use names::{RunId, TaskName};
