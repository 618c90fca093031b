//! The step library of flow: a folder for each system it operates.

pub mod balancers;
pub mod certificates;
pub mod clients;
pub mod control;
pub mod etcd;
pub mod fleet;
pub mod host;
pub mod patroni;
pub mod plugin;
pub mod postgres;
pub mod rehearsal;
pub mod system;

mod support;
#[cfg(test)]
mod testing;

use flow_core::step::Registry;

/// Adds every step type of this library.
pub fn register(registry: &mut Registry) {
    control::register(registry);
    system::register(registry);
    certificates::register(registry);
    etcd::register(registry);
    postgres::register(registry);
    patroni::register(registry);
    balancers::register(registry);
}
