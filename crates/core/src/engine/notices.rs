//! What a run tells its watcher. Handed over in batches: a watcher that is woken for each of a hundred
//! thousand events a second costs more than the work that it watches.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::Notice;

/// So many notices wait for a hand-over at most.
const HELD: usize = 64;

/// A channel of notices.
pub(super) fn channel() -> (Notifier, Notices) {
    let (sender, batches) = mpsc::unbounded_channel();
    (Notifier { held: Arc::default(), sender }, Notices { batches, batch: Vec::new().into_iter() })
}

/// The end that tells. What clones of it tell comes in one order.
#[derive(Clone)]
pub(super) struct Notifier {
    held: Arc<Mutex<Vec<Notice>>>,
    sender: mpsc::UnboundedSender<Vec<Notice>>,
}

impl Notifier {
    /// Tells the watcher at once.
    pub(super) fn tell(&self, notice: Notice) {
        self.hold(notice);
        self.hand_over();
    }

    /// Tells the watcher at the next hand-over. For a thread that makes one before it waits.
    pub(super) fn hold(&self, notice: Notice) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push(notice);
        if held.len() >= HELD {
            self.send(&mut held);
        }
    }

    /// Hands over what is held.
    pub(super) fn hand_over(&self) {
        self.send(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Under the lock, so that batches come in their order.
    fn send(&self, held: &mut Vec<Notice>) {
        if !held.is_empty() {
            // Nobody need listen.
            let _ = self.sender.send(std::mem::take(held));
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// What happens in a run, in order.
pub struct Notices {
    batches: mpsc::UnboundedReceiver<Vec<Notice>>,
    batch: std::vec::IntoIter<Notice>,
}

impl Notices {
    /// The next one; none once the work has ended. Cancel-safe: nothing is lost where it is dropped.
    pub async fn recv(&mut self) -> Option<Notice> {
        loop {
            if let Some(notice) = self.batch.next() {
                return Some(notice);
            }
            self.batch = self.batches.recv().await?.into_iter();
        }
    }
}
