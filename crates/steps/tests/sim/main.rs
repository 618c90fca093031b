//! What the simulated hosts promise to tests that stand on them.

#![expect(clippy::unwrap_used, reason = "clippy takes a test's helpers for no part of it")]

mod cluster;
mod crash;
mod hosts;
mod laws;
mod support;
