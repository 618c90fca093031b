//! Certificates: an authority whose files are on the operator's machine, and what it signs for hosts.
//!
//! Private keys are made in this process. They go to a file at the operator or on a host, and nowhere else.

mod authority;
mod compare;
mod desk;
mod issue;
mod leaf;
mod lifetimes;
mod read;
mod rehearsed;
mod valid;

#[cfg(test)]
mod leaf_tests;

pub use authority::Authority;
pub use leaf::{Leaf, Usage};
#[cfg(test)]
pub(crate) use lifetimes::End;
pub(crate) use lifetimes::Ends;
pub use lifetimes::Lifetimes;
pub use valid::Valid;

use flow_core::step::Registry;

/// Whether the first certificate of a PEM file can be read: a way in for the fuzz targets. No part of the library's
/// interface.
///
/// # Errors
/// Why it can't.
#[doc(hidden)]
pub fn readable(text: &[u8]) -> Result<(), String> {
    read::Certificate::from_pem(text).map(drop)
}

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry.add::<Authority>().add::<Leaf>().add::<Valid>().add::<Lifetimes>();
}
