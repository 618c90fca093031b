//! The run's state machine and the host's lock, held against every order of events in small worlds.
//!
//! The checker (stateright) goes through every state that can be reached: processes that work, are
//! killed, fall asleep and wake up late, answers that are lost, requests that arrive late, an operator
//! who takes a lock away by force, a store that was copied, an operator who takes the run back, approvals, hosts
//! that are chosen on the way. The transitions of a run are the real ones:
//! each process's store is a `RunState`, and `RunState::apply` takes every event. What the engine does
//! between them, and the lock on the host, are modelled, and stand for these lines:
//!
//! | rule of the model | where it really is |
//! |---|---|
//! | `commit` before `send` | `engine/scheduler.rs`, `finish`: the batch is durable before `leave` is given |
//! | `begin`: one process a store, one epoch more | `engine/session.rs`, `open` and `resume`; `store/sqlite.rs`, `claim` |
//! | `lock` | `steps/src/host/posix/guard.rs`, `lock`: free, or the same run with a smaller epoch |
//! | `arrive` | `guard.rs`, `guard`: lock verified, attempt flocked, both under the lock's flock, so one step |
//! | `Rules::epoch` | `guard.rs`, `verify`: `[ "$epoch" = ... ] \|\| stop fenced` |
//! | `Rules::lock` | `guard.rs`, `verify`: `[ -n "$held" ]`, `[ "$held" = ... ]` |
//! | `Rules::closing` | `posix/look.rs`, `attempt`, and `guard.rs`, `known`: an attempt that was found ended begins no more |
//! | `Rules::waiting` | `engine/executor.rs`, `settle`: an attempt that is alive is waited for |
//! | `Rules::proof` | `guard.rs`, `unlock`: by force only where no attempt of that run is alive |
//! | `settle` | `engine/executor.rs`, `settle`: done, not done, unknown |
//! | `settle_back` | `engine/taking_back.rs`, `settle_undo`, with `Step::resolve_undo` as it is by default: made again |
//! | `check_back`, `stopped` | `engine/way_back.rs`: the intent is durable first; a failure stops it |
//! | `approve` | `engine/asking.rs`: an approval counts for the time that it was asked |
//! | `leave` | `engine/session.rs`, `give_back`: the lock is kept where something is unsettled |
//!
//! Each rule is taken away once too, and the checker must then find the harm: so the model can see.
//! Every action uses something up, so no path is endless, and "every run can come to its end" is: where
//! nothing more can happen, every run has succeeded or was taken back.

#![expect(clippy::unwrap_used, reason = "a test that can't go on may stop")]

mod action;
mod checked;
mod world;
