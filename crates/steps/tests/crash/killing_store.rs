//! A store that ends its process by SIGKILL just before or just after an event is durable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flow_core::store::SqliteStore;
pub(crate) use flow_core::testing::{Moment, POINTS, Point, PointStore};
use serde::{Deserialize, Serialize};

/// When a process is ended, the first time that it gets there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kill {
    /// At a point of a task.
    Task { task: String, point: Point },
    /// At a point of a task while it is taken back.
    Back { task: String, point: Point },
    /// Before or after the n-th commit of this process becomes durable, whatever is in it.
    Commit { number: usize, before: bool },
    /// At a point of a task, but it only falls asleep: it makes a file `asleep` in this folder, and
    /// goes on once there is a file `wake`.
    Sleep { task: String, point: Point, folder: PathBuf },
}

impl Kill {
    pub(crate) fn at(task: &str, point: Point) -> Self {
        Self::Task { task: task.to_owned(), point }
    }

    /// Whether this is the moment.
    fn is_due(&self, moment: &Moment<'_>) -> bool {
        match self {
            Self::Commit { number, before } => *number == moment.commit && *before == moment.before,
            Self::Back { task, point } => moment.is_back_at(task, *point),
            Self::Task { task, point } | Self::Sleep { task, point, .. } => moment.is_at(task, *point),
        }
    }

    /// Ends this process at once: nothing is flushed, no destructor runs. Or sends it to sleep.
    fn strike(&self) {
        if let Self::Sleep { folder, .. } = self {
            std::fs::write(folder.join("asleep"), "").unwrap();
            wait_for(&folder.join("wake"));
            return;
        }
        let me = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-KILL", &me]).status().unwrap().success());
        // The signal is on its way; nothing more happens on this thread.
        loop {
            std::thread::park();
        }
    }
}

/// Waits until there is such a file.
pub(crate) fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The store of a process that is to be killed.
pub(crate) fn killing(inner: SqliteStore, mut kill: Option<Kill>) -> PointStore<SqliteStore> {
    PointStore::new(inner, move |moment| {
        if let Some(kill) = kill.take_if(|kill| kill.is_due(moment)) {
            kill.strike();
        }
    })
}
