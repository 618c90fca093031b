//! What the simulated hosts promise to tests that stand on them.

mod cluster;
mod crash;
mod hosts;
mod support;
