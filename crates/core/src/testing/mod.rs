//! For tests of what is built on the engine: a store in memory, step types that do as they are told,
//! hosts that are only names, and a store that stops at the points where a process may be killed.
//!
//! Nothing here touches a disk or a network. What is established lives in a [`World`] and what
//! happened in a [`MemoryStore`]; both outlive the engine, so that a test can end a "process" at any
//! [`Point`] of a task and let another one go on:
//!
//! ```
//! use std::sync::Arc;
//! use flow_core::run::Outcome;
//! use flow_core::testing::{self, Fault, MemoryStore, Point, PointStore, World};
//!
//! const WORKFLOW: &str = r#"
//! name = "two"
//! summary = "Makes two things on each host, one after the other."
//! [steps.first]
//! uses = "make"
//! hosts = "nodes"
//! with = { thing = "first", value = "1" }
//! [steps.second]
//! uses = "make"
//! needs = ["first"]
//! hosts = "nodes"
//! with = { thing = "second", value = "{{ steps.first.value }}2" }
//! "#;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let world = Arc::new(World::default());
//! let engine = testing::engine(&world);
//! let store = MemoryStore::new();
//!
//! // A process that is killed when `second` is there on n2, before that is recorded.
//! let plan = testing::plan(&engine, WORKFLOW, &["n1", "n2"])?;
//! let killed = PointStore::killing(store.clone(), "second@n2", Point::AfterEffect);
//! let run = engine.start(plan, Box::new(killed), None)?;
//! let id = run.id.clone();
//! assert!(run.wait().await.is_err());
//!
//! // Another one goes on. The next attempt at anything would fail: there is none.
//! world.fault("second@n2", &[Fault::Fail]);
//! let report = engine.open(Box::new(store), &id, None)?.resume()?.wait().await?;
//! assert_eq!(report.outcome, Outcome::Succeeded);
//! assert_eq!(world.value("second@n2").as_deref(), Some("12"));
//! assert_eq!(world.count("second@n2"), 1);
//! # Ok(())
//! # }
//! ```

mod doubles;
mod fleet;
mod memory;
mod points;

pub use doubles::{Await, Bare, Fault, Make, Wipe, World, engine, inventory, plan, registry, request};
pub use fleet::VirtualFleet;
pub use memory::MemoryStore;
pub use points::{Moment, POINTS, Point, PointStore};
