//! The engine's laws, on a world in memory and a real SQLite store.

#![expect(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod ahead;
mod approvals;
mod chosen;
mod doubles;
mod foreach;
mod limits;
mod per_host;
mod plans;
mod preview;
mod resolve;
mod runs;
mod undo;
mod waits;
mod world;
