//! One file a subcommand.

pub mod graph;
pub mod plan;
pub mod planned;
pub mod resume;
pub mod run;
pub mod runs;
pub mod show;
pub mod steps;
pub mod undo;
pub mod unlock;
pub mod validate;
pub mod workflows;
