//! One file a subcommand.

pub mod approve;
pub mod completions;
pub mod eject;
pub mod explain;
pub mod export;
pub mod graph;
pub mod import;
pub mod inventory;
pub mod locks;
pub mod man;
pub mod plan;
pub mod planned;
pub mod prune;
pub mod report;
pub mod resolve;
pub mod resume;
pub mod run;
pub mod runs;
pub mod schema;
pub mod show;
pub mod steps;
pub mod test;
pub mod undo;
pub mod unlock;
pub mod validate;
pub mod workflows;
