//! Steps that touch no host: they decide whether a run may go on.

mod assert;

pub use assert::Assert;

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry.add::<Assert>();
}
