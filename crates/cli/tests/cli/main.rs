//! The command line as its user meets it: the real binary, real local hosts, what is printed, what a
//! shell gets. A test has its own folder, store and hosts; none knows of another.

#![expect(clippy::unwrap_used, reason = "a test that can't go on may stop")]

mod approvals;
mod confirm;
mod damage;
mod explain;
mod graph;
mod hosts;
mod interrupted;
mod inventory;
mod json;
mod limits;
mod locks;
mod looking;
mod moved;
mod planted;
mod plugins;
mod prune;
mod refused;
mod rehearsal;
mod report;
mod resume;
mod run;
mod saved;
mod secrets;
mod shipped;
mod stores;
mod support;
mod undo;
