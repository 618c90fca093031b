//! How many events of a run were made durable, kept beside the database. SQLite takes the end of a damaged
//! log for the end of what was written; what was recorded after that would be forgotten without a word.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::beside;
use crate::run::RunId;

/// The mark of the run that this process appends to.
pub(super) struct Mark {
    run: RunId,
    file: File,
}

impl Mark {
    /// Where the mark of a run is.
    pub(super) fn path(store: &Path, run: &RunId) -> PathBuf {
        beside(store, ".locks").join(format!("{run}.events"))
    }

    /// Notes that so many events are durable. Where it can't be written it stays lower, which does no harm.
    pub(super) fn set(mark: &mut Option<Self>, store: &Path, run: &RunId, events: u64) {
        if mark.as_ref().is_none_or(|mark| mark.run != *run) {
            let path = Self::path(store, run);
            let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
            *mark = opened.ok().map(|file| Self { run: run.clone(), file });
        }
        if let Some(mark) = mark {
            let _ = mark.file.write_all_at(format!("{events:020}\n").as_bytes(), 0);
        }
    }

    /// How many events of a run were durable when this was last noted.
    pub(super) fn read(store: &Path, run: &RunId) -> Option<u64> {
        fs::read_to_string(Self::path(store, run)).ok()?.trim().parse().ok()
    }
}
