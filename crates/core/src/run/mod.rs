//! A run as a state machine over events. Pure: no I/O, no clock, no tokio.

mod asked;
mod backward;
mod choice;
mod event;
mod names;
mod shape;
mod state;

pub use asked::Asked;
pub use choice::{Choice, ChoicePart, Order};
pub(crate) use event::WORDS;
pub use event::{Event, Identity, Outcome, Record, Settler};
pub use names::{RunId, TaskName};
pub use shape::{NodeId, Shape, Successors};
pub use state::{Illegal, RunState, RunStatus, TaskState};
