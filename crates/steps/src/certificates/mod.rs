//! Certificates: an authority whose files are on the operator's machine, and what it signs for hosts.
//!
//! Private keys are made in this process. They go to a file at the operator or on a host, and nowhere else.

mod authority;
mod compare;
mod desk;
mod issue;
mod leaf;
mod read;

#[cfg(test)]
mod leaf_tests;

pub use authority::Authority;
pub use leaf::{Leaf, Usage};

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry.add::<Authority>().add::<Leaf>();
}
