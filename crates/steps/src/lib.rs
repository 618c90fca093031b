//! The step library of flow: a folder for each system it operates.

pub mod clients;
pub mod fleet;
pub mod host;

use flow_core::step::Registry;

/// Adds every step type of this library.
pub fn register(_registry: &mut Registry) {}
