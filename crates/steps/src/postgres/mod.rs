//! PostgreSQL: its data directory, its processes, queries.

mod control;
mod copies;
mod copy;
mod copy_elsewhere;
mod copy_removed;
mod data_can_be_set_aside;
mod data_put_back;
mod data_set_aside;
mod history;
mod moves;
mod password;
mod query;
mod role;
mod room;
mod stopped;
mod user_data;
mod wal;

pub use copies::PostgresCopies;
pub use copy_elsewhere::PostgresCopyElsewhere;
pub use copy_removed::PostgresCopyRemoved;
pub use data_can_be_set_aside::DataCanBeSetAside;
pub use data_put_back::DataPutBack;
pub use data_set_aside::DataSetAside;
pub use password::PostgresPassword;
pub use query::PostgresQuery;
pub use role::PostgresRole;
pub use stopped::PostgresStopped;

pub(crate) use control::{Control, control};
pub(crate) use data_put_back::can_be_put_back;
pub(crate) use history::{Fork, Lsn};
pub(crate) use moves::links;
pub(crate) use room::{in_words, size};
pub(crate) use stopped::processes_on;
pub(crate) use user_data::user_data;
pub(crate) use wal::{WalRecord, record_at, timelines, wal};

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry
        .add::<PostgresStopped>()
        .add::<DataCanBeSetAside>()
        .add::<DataSetAside>()
        .add::<DataPutBack>()
        .add::<PostgresCopies>()
        .add::<PostgresCopyElsewhere>()
        .add::<PostgresCopyRemoved>()
        .add::<PostgresPassword>()
        .add::<PostgresQuery>()
        .add::<PostgresRole>();
}
