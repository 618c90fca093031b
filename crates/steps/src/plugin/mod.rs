//! Step types in any language: executables on the plugin path that speak JSON, a line a message, on
//! their standard input and output. docs/plugins.md is the reference.
//!
//! A plugin runs at the operator's place, one process for each call. What it does on the task's host it
//! asks flow for, in the same dialogue: so the host's lock is verified, and attempts are named, as for
//! any step. Nothing that a plugin does can harm more than its own task: it is given a time and a
//! volume, and is ended with its process group when it is over them.

mod calls;
mod discover;
mod executable;
mod process;
mod step;
pub mod wire;

#[cfg(test)]
mod tests;

pub use discover::{plugin_path, register};
