//! What the lab's tests share: the hosts ([`lab`]), flow as an operator runs it ([`operator`]), and what
//! a user would see of the cluster ([`cluster`]), looked at without flow.

pub mod cluster;
pub mod lab;
pub mod operator;

pub use cluster::{ETCDCTL, PROMOTERS};
pub use lab::Lab;
pub use operator::{Done, Operator, Running};

use std::time::{Duration, Instant};

/// How long anything on the lab may take before a test gives up on it; generous, since machines are busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `what` gives something. A condition that is looked at again and again, never a mere sleep.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
