//! HAProxy and keepalived: where clients come in.

mod condition;
mod opened;

pub use condition::BalancerCondition;
#[cfg(test)]
pub(crate) use condition::Told;
pub(crate) use condition::{Balancer, Servers, Service, closed_by};
pub use opened::BalancerOpened;

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry.add::<BalancerCondition>().add::<BalancerOpened>();
}
