//! flow on the lab's real hosts: what its users rely on, from bare hosts to a cluster recovered under fire.
//!
//! Needs root and a lab; `fixtures/scripts/test` runs all, `cargo test` none of them. One test at a time:
//! `FLOW_TEST_RELEASE=bookworm FLOW_LAB=mine cargo test -p flow-cli --test lab -- --test-threads=1 [NAME]`.
//! Tests with `short` in their names are the short set.

#![expect(unreachable_pub, reason = "nothing is reached from outside a test")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aside;
mod balancers;
mod campaign;
mod certificates;
mod deploy;
mod elsewhere;
mod findings;
mod growth;
mod harness;
mod hosts;
mod interrupted;
mod killed;
mod locks;
mod login;
mod open;
mod page;
mod parameters;
mod recovery;
mod repair;
mod secrets;
mod spared;
mod tls;
mod undo;
mod verify;
