//! PostgreSQL: its data directory, its processes, queries.

mod control;
mod data_can_be_set_aside;
mod data_set_aside;
mod moves;
mod query;
mod stopped;

pub use data_can_be_set_aside::DataCanBeSetAside;
pub use data_set_aside::DataSetAside;
pub use query::PostgresQuery;
pub use stopped::PostgresStopped;

pub(crate) use control::{Control, control};

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry.add::<PostgresStopped>().add::<DataCanBeSetAside>().add::<DataSetAside>().add::<PostgresQuery>();
}
