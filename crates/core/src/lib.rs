//! The engine of flow: reads workflows, expands them to plans, runs plans durably, resumes runs.
//!
//! Nothing here knows SSH, Patroni, PostgreSQL or a terminal.

pub mod engine;
pub mod inventory;
pub mod plan;
pub mod run;
pub mod step;
pub mod store;
pub mod testing;
pub mod workflow;
