//! What a scheduler is told: by its executors, and by whoever holds the run's handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::executor::End;
use crate::run::NodeId;
use crate::step::Change;
use crate::store::Signal;

/// How a run is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Start nothing new, let what runs finish.
    Gently,
    /// Leave what runs as it is; a resume finds out what became of it.
    AtOnce,
}

/// What the scheduler is told.
pub(super) enum Message {
    /// A check said pending. `leave` is answered once the intent is durable, or dropped.
    Pending { node: NodeId, attempt: u32, change: Change, leave: oneshot::Sender<()> },
    /// A task is about to be taken back. `leave` as above.
    Undoing { node: NodeId, attempt: u32, leave: oneshot::Sender<()> },
    /// An executor's work ended.
    Finished { node: NodeId, attempt: u32, end: End },
    /// The wait before another attempt is over.
    Due { node: NodeId },
    /// A person answered what waits for approval.
    Answer(Signal),
    /// It is time to look for answers that other processes left.
    Look,
    /// The time to wait for an approval is over.
    Expired { node: NodeId, attempt: u32 },
    /// The operator asked to stop.
    Stop,
}

/// Reaches a scheduler from outside.
#[derive(Clone)]
pub(crate) struct Control {
    level: Arc<AtomicU8>,
    inbox: mpsc::UnboundedSender<Message>,
}

impl Control {
    pub(super) fn new(inbox: mpsc::UnboundedSender<Message>) -> Self {
        Self { level: Arc::default(), inbox }
    }

    pub(super) fn stop(&self, how: Stop) {
        self.level.fetch_max(how as u8 + 1, Ordering::SeqCst);
        let _ = self.inbox.send(Message::Stop);
    }

    pub(super) fn answer(&self, signal: Signal) {
        let _ = self.inbox.send(Message::Answer(signal));
    }

    pub(super) fn asked(&self) -> Option<Stop> {
        match self.level.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(Stop::Gently),
            _ => Some(Stop::AtOnce),
        }
    }
}
