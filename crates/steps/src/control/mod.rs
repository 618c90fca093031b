//! Steps that touch no host: they decide whether a run may go on.

mod approval;
mod assert;

pub use approval::Approval;
pub use assert::Assert;

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry.add::<Approval>().add::<Assert>();
}
