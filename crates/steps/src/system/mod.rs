//! The machine itself: commands, files, packages, units.

mod clock;
mod command;
pub(crate) mod content;
mod directory;
mod file;
mod interface;
mod masked;
mod package;
mod ports;
mod template;
mod unit;
mod validated;
mod wait_for;

pub use clock::HostClock;
pub use command::Command;
pub use content::{Diff, Masked};
pub use directory::Directory;
pub use file::File;
pub use interface::NetworkInterface;
pub use package::Package;
pub use ports::NetworkPorts;
pub use template::Template;
pub use unit::{SystemdUnit, UnitTarget};
pub(crate) use validated::CANDIDATE;
pub use wait_for::WaitFor;

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry
        .add::<Command>()
        .add::<File>()
        .add::<Template>()
        .add::<Directory>()
        .add::<Package>()
        .add::<SystemdUnit>()
        .add::<WaitFor>()
        .add::<NetworkInterface>()
        .add::<NetworkPorts>()
        .add::<HostClock>();
}
