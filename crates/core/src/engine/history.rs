//! Reads a run back: one thread reads its events while another makes the plan that they belong to, and
//! takes them in as they come. A run of a million events is never held as a whole.

use std::sync::mpsc::sync_channel;
use std::thread;

use super::EngineError;
use crate::run::{Record, RunId};
use crate::store::Store;

/// So many events are handed over at once.
const CHUNK: usize = 1000;

/// So many chunks wait for the plan: about 100 MB of events at most.
const WAITING: usize = 256;

/// Makes something by `make`, and gives it every event of the run in order by `take`.
pub(super) fn replay<T>(
    store: &mut dyn Store,
    run: &RunId,
    make: impl FnOnce() -> Result<T, EngineError>,
    mut take: impl FnMut(&mut T, Record) -> Result<(), EngineError>,
) -> Result<T, EngineError> {
    thread::scope(|scope| {
        let (sender, chunks) = sync_channel(WAITING);
        let reader = scope.spawn(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = store.scan(run, &mut |record| {
                chunk.push(record);
                // Nobody listens any more where `make` or `take` has failed.
                chunk.len() < CHUNK
                    || sender.send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))).is_ok()
            });
            let _ = sender.send(chunk);
            read
        });
        let mut made = make()?;
        for record in chunks.into_iter().flatten() {
            take(&mut made, record)?;
        }
        match reader.join() {
            Ok(read) => read?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(made)
    })
}
