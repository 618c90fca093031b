//! Answers that checks share which are made before their turn: as long as a run has changed nothing, what several of them
//! ask a host in the same words is asked once. Whatever is asked in its turn is asked for itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flow_core::step::is_early;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long an answer is shared, from when it was asked for.
const SHARED_FOR: Duration = Duration::from_secs(2);

/// Since when an answer is asked for, and the answer once it is there.
type Asked<T> = (Instant, Arc<OnceCell<T>>);

/// Answers by what was asked.
pub(super) struct Shared<T>(Mutex<HashMap<String, Asked<T>>>);

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Answers may hold secrets.
        f.write_str("Shared")
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Shared<T> {
    /// The answer to a question, asked by `ask`. No answer is not shared.
    pub(super) async fn get<E, F>(
        &self,
        question: impl FnOnce() -> String,
        ask: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        if !is_early() {
            return ask().await;
        }
        let answer = {
            let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            asked.retain(|_, (since, _)| now.duration_since(*since) < SHARED_FOR);
            Arc::clone(&asked.entry(question()).or_insert_with(|| (now, Arc::default())).1)
        };
        answer.get_or_try_init(ask).await.cloned()
    }
}
