//! What a host is asked and what it answers.

use std::collections::BTreeMap;
use std::fmt;

use flow_core::step::{Secret, StepError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream, such as a tunnelled TCP connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}
/// A boxed byte stream.
pub type BoxStream = Box<dyn Stream>;

/// What a machine is, read once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`, or what stands for it; a reboot changes it.
    pub boot_id: String,
    /// SHA-256 of the SSH host key (`SHA256:...`); empty for a local host.
    pub key_fingerprint: String,
    /// `ID` of os-release: `debian`.
    pub os_id: String,
    /// `VERSION_CODENAME` of os-release: `bookworm`.
    pub os_codename: String,
    /// The kernel's host name.
    pub hostname: String,
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// The exit status; 128 + N for signal N.
    pub code: i32,
    /// Standard output, whatever bytes.
    pub stdout: Vec<u8>,
    /// Standard error, whatever bytes.
    pub stderr: Vec<u8>,
}

impl Reply {
    /// True for exit 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Standard output as text without trailing white space; bytes that aren't UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text without trailing white space.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// What kind of thing is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// File, directory, link.
    pub kind: FileKind,
    /// Permission bits, such as `0o700`.
    pub mode: u32,
    /// Owner's name (or number where it has none).
    pub owner: String,
    /// Group's name (or number where it has none).
    pub group: String,
    /// Bytes.
    pub size: u64,
    /// Inode number: stays with a renamed directory.
    pub inode: u64,
    /// Device number; differs from the parent's at a mount point.
    pub device: u64,
    /// Where a link points to.
    pub target: Option<String>,
}

/// The state of a systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `LoadState`: `loaded`, `not-found`, `masked`.
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    /// `SubState`: `running`, `dead`, `auto-restart`.
    pub sub: String,
    /// `UnitFileState`: `enabled`, `disabled`, `masked`, `static`, or empty.
    pub file_state: String,
    /// `MainPID`, 0 for none.
    pub main_pid: u32,
    /// `InvocationID`, empty for none.
    pub invocation: String,
    /// Processes in the unit's control group, the main one included.
    pub processes: Vec<u32>,
}

impl Unit {
    /// Masked, whether for good or until the next boot.
    pub fn masked(&self) -> bool {
        self.load == "masked" || self.file_state.starts_with("masked")
    }
}

/// Which processes are meant. All that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessQuery {
    /// The name of the executable (`comm`, up to 15 characters).
    pub name: Option<String>,
    /// A text that the command line (arguments joined by blanks) contains.
    pub command_contains: Option<String>,
    /// A directory that is its working directory or stands among its arguments; what PostgreSQL's
    /// processes have in common.
    pub directory: Option<String>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id on that host.
    pub pid: u32,
    /// Owner.
    pub user: String,
    /// Arguments joined by blanks.
    pub command: String,
}

/// Installed packages: name to version. One that isn't installed is absent.
pub type Packages = BTreeMap<String, String>;

/// What is done with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitVerb {
    /// `systemctl start`
    Start,
    /// `systemctl stop`; waits until it has stopped.
    Stop,
    /// `systemctl restart`
    Restart,
    /// `systemctl reload-or-restart`
    Reload,
    /// `systemctl enable`
    Enable,
    /// `systemctl disable`
    Disable,
    /// `systemctl mask`: for good, it survives a reboot.
    Mask,
    /// `systemctl unmask`
    Unmask,
    /// `systemctl reset-failed`
    ResetFailed,
    /// `systemctl daemon-reload`; the unit's name is not used.
    DaemonReload,
}

/// A file's owner and mode; what is `None` is left as it is (for a new file: root, 0644 or 0755).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ownership {
    /// User name.
    pub owner: Option<String>,
    /// Group name.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// Bytes that may be secret: they are sent, never shown, and never on a command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// One change of a host. Each is atomic, or safe to do again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChange {
    /// Writes a file beside its place, syncs it and renames it over.
    WriteFile {
        /// Absolute path.
        path: String,
        /// The whole content.
        content: Content,
        /// Owner and mode; of an existing file what is not given is kept.
        ownership: Ownership,
    },
    /// Makes a directory and those above it that are missing.
    MakeDirectory {
        /// Absolute path.
        path: String,
        /// Of the last directory.
        ownership: Ownership,
    },
    /// Sets owner, group or mode of what is there, not of what is below.
    SetOwnership {
        /// Absolute path.
        path: String,
        /// What is to be set.
        ownership: Ownership,
    },
    /// rename(2) and fsync of both directories: refused across file systems, where `from` is
    /// missing, and where `to` exists.
    Rename {
        /// Absolute path.
        from: String,
        /// Absolute path that doesn't exist.
        to: String,
    },
    /// rename(2) of a file over another one in the same directory, or to where nothing is, and fsync:
    /// refused where `from` is no file and where `path` is a directory.
    Replace {
        /// Absolute path of what is replaced.
        path: String,
        /// Absolute path of what takes its place.
        from: String,
    },
    /// Removes a file or a link; nothing there is no error.
    RemoveFile {
        /// Absolute path.
        path: String,
    },
    /// Removes a directory that is empty; nothing there is no error.
    RemoveDirectory {
        /// Absolute path.
        path: String,
    },
    /// Makes or replaces a symbolic link.
    Symlink {
        /// Absolute path of the link.
        path: String,
        /// What it points to.
        target: String,
    },
    /// One systemctl verb.
    Unit {
        /// The unit, such as `patroni.service`.
        unit: String,
        /// What is done with it.
        verb: UnitVerb,
    },
}

/// A command to be run on a host.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// A POSIX shell script.
    pub script: String,
    /// Sent on standard input.
    pub stdin: Option<Secret>,
    /// The directory to run in; root's home by default.
    pub directory: Option<String>,
    /// The user to run as; root by default.
    pub user: Option<String>,
    /// Environment variables; sent on standard input, never on a command line.
    pub environment: BTreeMap<String, Secret>,
    /// Run as a transient systemd unit that survives the connection. `stdin` is then refused.
    pub detached: bool,
    /// What the script writes on standard output and standard error is dropped on the host.
    pub silent: bool,
}

impl Command {
    /// A script with nothing else set.
    pub fn new(script: impl Into<String>) -> Self {
        Self { script: script.into(), ..Self::default() }
    }

    /// The same, as a transient unit that survives the connection.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }
}

/// What became of an attempt's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptState {
    /// The host has never heard of it (or was rebooted since, so that nothing of it is left).
    Absent,
    /// A process of it is alive.
    Running,
    /// All its processes have ended; with the reply of the last command where it was kept.
    Ended(Option<Reply>),
}

/// Who holds a host's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockClaim {
    /// The run's id.
    pub run: String,
    /// The workflow's name.
    pub workflow: String,
    /// `user@machine (pid N)` of the operator's process, for people.
    pub owner: String,
    /// Grows with each process that works on the run; a change with a lower one is refused.
    pub epoch: u64,
    /// When it was first taken.
    pub since: Timestamp,
}

/// Why a host did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No connection: the address doesn't answer, the key is refused, the login fails.
    #[error("{host} ({address}) can't be reached: {message}")]
    Unreachable {
        /// The inventory's name.
        host: String,
        /// Where it was tried.
        address: String,
        /// What went wrong.
        message: String,
        /// The next action.
        hint: Option<String>,
    },
    /// The connection was lost, or time ran out, before the answer came.
    #[error("{host}: the answer was lost: {message}")]
    Lost {
        /// The inventory's name.
        host: String,
        /// What went wrong.
        message: String,
    },
    /// The host's lock is another run's.
    #[error("{host} is locked by run {} ({}), held by {} since {}", holder.run, holder.workflow, holder.owner, holder.since.strftime("%Y-%m-%d %H:%M:%S UTC"))]
    Locked {
        /// The inventory's name.
        host: String,
        /// Whose it is.
        holder: Box<LockClaim>,
    },
    /// This run's lock is gone or was renewed by another process: nothing was changed.
    #[error("{host}: this process no longer holds the host's lock; nothing was changed")]
    Fenced {
        /// The inventory's name.
        host: String,
    },
    /// It was carried out and failed.
    #[error("{host}: {message}")]
    Failed {
        /// The inventory's name.
        host: String,
        /// What went wrong, as a fragment.
        message: String,
        /// Standard error's end.
        detail: Option<String>,
    },
}

impl From<HostError> for StepError {
    fn from(error: HostError) -> Self {
        let message = error.to_string();
        let code = error.code().map(|code| code.0.to_owned());
        let error = match error {
            HostError::Unreachable { hint, .. } => Self { hint, ..Self::failed(message) },
            HostError::Lost { .. } => Self::lost(message),
            HostError::Locked { holder, .. } => Self::permanent(message).with_hint(format!(
                "where it was started, `flow show {0}` tells its state and `flow resume {0}` goes on with it; \
                 `flow unlock {0}` takes its locks off if it is given up",
                holder.run
            )),
            HostError::Fenced { .. } => Self::permanent(message)
                .with_hint("`flow runs` lists the runs; another process has taken this one over"),
            HostError::Failed { detail, .. } => Self { detail, ..Self::failed(message) },
        };
        Self { code, ..error }
    }
}
