//! etcd v3: members and keys.

mod connect;
mod data_set_aside;
mod key_present;
mod key_set;
mod keyspace;
mod member;
mod member_absent;
mod member_joined;
mod members;
mod prefix_absent;
mod prefix_saved;
mod same_scheme;
mod settings;
mod snapshot;

pub use data_set_aside::EtcdDataSetAside;
pub use key_present::EtcdKeyPresent;
pub use key_set::EtcdKeySet;
pub use keyspace::EtcdKeyspace;
pub use member::EtcdMember;
pub use member_absent::{EtcdMemberAbsent, EtcdMemberCanLeave};
pub use member_joined::EtcdMemberJoined;
pub use prefix_absent::EtcdPrefixAbsent;
pub use prefix_saved::EtcdPrefixSaved;
pub use same_scheme::EtcdSameScheme;
pub use settings::EtcdSettings;
pub use snapshot::EtcdSnapshot;

pub(crate) use connect::{connect, reach, status};

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry
        .add::<EtcdMember>()
        .add::<EtcdSameScheme>()
        .add::<EtcdSettings>()
        .add::<EtcdMemberCanLeave>()
        .add::<EtcdMemberJoined>()
        .add::<EtcdMemberAbsent>()
        .add::<EtcdSnapshot>()
        .add::<EtcdDataSetAside>()
        .add::<EtcdKeyPresent>()
        .add::<EtcdKeySet>()
        .add::<EtcdKeyspace>()
        .add::<EtcdPrefixSaved>()
        .add::<EtcdPrefixAbsent>();
}
