//! The step library of flow: a folder for each system it operates.

pub mod clients;
pub mod host;
