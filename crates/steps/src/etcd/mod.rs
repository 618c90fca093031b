//! etcd v3: members and keys.

mod connect;
mod key_present;
mod key_set;
mod member;
mod prefix_absent;
mod prefix_saved;
mod same_scheme;

pub use key_present::EtcdKeyPresent;
pub use key_set::EtcdKeySet;
pub use member::EtcdMember;
pub use prefix_absent::EtcdPrefixAbsent;
pub use prefix_saved::EtcdPrefixSaved;
pub use same_scheme::EtcdSameScheme;

pub(crate) use connect::{connect, reach};

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry
        .add::<EtcdMember>()
        .add::<EtcdSameScheme>()
        .add::<EtcdKeyPresent>()
        .add::<EtcdKeySet>()
        .add::<EtcdPrefixSaved>()
        .add::<EtcdPrefixAbsent>();
}
