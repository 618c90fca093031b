//! What goes over a plugin's standard input and output: one JSON object a line. Pure: bytes in,
//! messages out. docs/plugins.md is the reference.

use std::collections::BTreeMap;
use std::fmt;

use flow_core::step::{Change, Check, Output, Resolved, Secret, StepError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the protocol that this flow speaks.
pub const PROTOCOL: u32 = 1;
/// A longer line is refused, in bytes without its end.
pub const LINE_LIMIT: usize = 4 * 1024 * 1024;

/// Why what a plugin wrote is no message. A fragment that fits after the plugin's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A line without an end.
    #[error("it wrote a line of more than {} MiB", LINE_LIMIT / 1024 / 1024)]
    TooLong,
    /// Not a message of the protocol.
    #[error("it wrote what is no message: {0}")]
    NoMessage(String),
    /// It has not read the request, or repeats an old answer.
    #[error("it answered request {said}; it was asked request {asked}")]
    WrongId {
        /// The number that it gave.
        said: u64,
        /// The request's.
        asked: u64,
    },
    /// There is more after the last message.
    #[error("it went on after its answer")]
    WentOn,
}

/// Cuts bytes into lines as they come. Keeps at most [`LINE_LIMIT`] bytes and what was last pushed.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Up to here there is no line end.
    searched: usize,
}

impl Lines {
    /// Takes in what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line without its end; none until more has come.
    ///
    /// # Errors
    /// A line that is too long, whole or not.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, Nonsense> {
        let found = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
        let end = found.map(|at| self.searched + at);
        if end.unwrap_or(self.bytes.len()) > LINE_LIMIT {
            return Err(Nonsense::TooLong);
        }
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return Ok(None);
        };
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        self.searched = 0;
        line.pop();
        Ok(Some(line))
    }

    /// What came after the last line end.
    pub fn rest(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a plugin says.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The number of the request that it belongs to.
    pub id: u64,
    /// What it says.
    pub says: Says,
}

/// The kinds of messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Says {
    /// What it waits for, for a person.
    Progress(String),
    /// It asks flow to do something on the task's host.
    Call(Call),
    /// It has done what was asked; the last message.
    Answer(Value),
    /// It failed; the last message.
    Error(Failure),
}

/// Why a plugin did not do what was asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Failure {
    /// One line, a fragment.
    pub message: String,
    /// More lines.
    #[serde(default)]
    pub detail: Option<String>,
    /// The next action.
    #[serde(default)]
    pub hint: Option<String>,
    /// Nobody knows whether it was done.
    #[serde(default)]
    pub lost: bool,
    /// A retry can't help.
    #[serde(default)]
    pub permanent: bool,
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        let Failure { message, detail, hint, lost, permanent } = failure;
        let error = if lost { Self::lost(message) } else { Self::failed(message) };
        Self { detail, hint, permanent, ..error }
    }
}

/// What flow is asked to do on the task's host.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Call {
    /// Runs a script as root that changes nothing.
    Probe {
        /// A POSIX shell script.
        script: String,
    },
    /// The text of a file.
    Read {
        /// Absolute path.
        path: String,
    },
    /// What is at a path.
    Stat {
        /// Absolute path.
        path: String,
    },
    /// Runs a script that may change anything.
    Run {
        /// A POSIX shell script.
        script: String,
        /// Sent on its standard input.
        #[serde(default)]
        stdin: Option<Secret>,
        /// Environment variables.
        #[serde(default)]
        environment: BTreeMap<String, Secret>,
        /// The user; root by default.
        #[serde(default)]
        user: Option<String>,
        /// The directory; the user's home by default.
        #[serde(default)]
        directory: Option<String>,
        /// As a systemd unit that outlives the connection.
        #[serde(default)]
        detached: bool,
    },
    /// Writes a file beside its place and renames it over.
    Write {
        /// Absolute path.
        path: String,
        /// The whole text.
        content: Secret,
        /// User name.
        #[serde(default)]
        owner: Option<String>,
        /// Group name.
        #[serde(default)]
        group: Option<String>,
        /// Permission bits, octal as text.
        #[serde(default)]
        mode: Option<String>,
    },
    /// Renames; never over what is there.
    Rename {
        /// Absolute path.
        from: String,
        /// Absolute path that doesn't exist.
        to: String,
    },
    /// Removes a file or a link.
    Remove {
        /// Absolute path.
        path: String,
    },
}

impl Call {
    /// Whether it may change the host.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Probe { .. } | Self::Read { .. } | Self::Stat { .. })
    }

    /// Its word in the protocol.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Probe { .. } => "probe",
            Self::Read { .. } => "read",
            Self::Stat { .. } => "stat",
            Self::Run { .. } => "run",
            Self::Write { .. } => "write",
            Self::Rename { .. } => "rename",
            Self::Remove { .. } => "remove",
        }
    }
}

/// Its word alone: the rest may be secret.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Reads one line.
///
/// # Errors
/// What is wrong with it.
pub fn read(line: &[u8]) -> Result<Message, Nonsense> {
    let nonsense = |what: String| Nonsense::NoMessage(what);
    let value: Value =
        serde_json::from_slice(line).map_err(|error| nonsense(format!("`{}` ({error})", shown(line))))?;
    let Value::Object(mut fields) = value else {
        return Err(nonsense(format!("`{}` is no JSON object", shown(line))));
    };
    let id = fields
        .get("id")
        .and_then(Value::as_u64)
        .ok_or_else(|| nonsense("it has no `id`, the number of the request".to_owned()))?;
    let kinds: Vec<&str> = ["progress", "call", "answer", "error"]
        .into_iter()
        .filter(|kind| fields.contains_key(*kind))
        .collect();
    let [kind] = kinds[..] else {
        return Err(nonsense("it must have one of `progress`, `call`, `answer`, `error`".to_owned()));
    };
    let content = fields.remove(kind).unwrap_or_default();
    let wrong = |error: serde_json::Error| nonsense(format!("`{kind}`: {error}"));
    let says = match kind {
        "progress" => Says::Progress(serde_json::from_value(content).map_err(wrong)?),
        "call" => Says::Call(serde_json::from_value(content).map_err(wrong)?),
        "error" => Says::Error(serde_json::from_value(content).map_err(wrong)?),
        _ => Says::Answer(content),
    };
    Ok(Message { id, says })
}

/// The beginning of a line for a person, whatever bytes it is made of.
fn shown(line: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text: String = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN)])
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    if line.len() > text.len() { format!("{text}...") } else { text }
}

/// What `describe` answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Description {
    /// The version of the protocol that it speaks.
    pub flow: u32,
    /// Its step types.
    pub steps: Vec<StepDescription>,
}

/// One step type as a plugin describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct StepDescription {
    /// The name used in workflows.
    pub name: String,
    /// Grows when the meaning of the arguments or of a recorded change does.
    pub version: u32,
    /// What it is for; the first paragraph is its summary.
    pub doc: String,
    /// JSON schema of the arguments: an object.
    pub schema: Map<String, Value>,
    /// Wants `--confirm`.
    #[serde(default)]
    pub destructive: bool,
    /// It knows `undo`.
    #[serde(default)]
    pub undoable: bool,
    /// It only looks.
    #[serde(default)]
    pub read_only: bool,
    /// It knows `resolve`; else `check` is asked.
    #[serde(default)]
    pub resolves: bool,
    /// `check` tells whether `apply` took.
    #[serde(default = "yes")]
    pub verifiable: bool,
    /// How long `check` and `resolve` may take, in seconds.
    #[serde(default = "look_seconds")]
    pub look_seconds: u32,
    /// How long `apply` and `undo` may take, in seconds.
    #[serde(default = "change_seconds")]
    pub change_seconds: u32,
}

fn yes() -> bool {
    true
}

fn look_seconds() -> u32 {
    60
}

fn change_seconds() -> u32 {
    3600
}

/// The answer to `check`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckAnswer {
    /// As it should be.
    Satisfied(Output),
    /// To be done.
    Pending(Change),
    /// Not to be known yet.
    Deferred(String),
    /// Must not be done.
    Refused(String),
}

impl From<CheckAnswer> for Check {
    fn from(answer: CheckAnswer) -> Self {
        match answer {
            CheckAnswer::Satisfied(output) => Self::Satisfied(output),
            CheckAnswer::Pending(change) => Self::Pending(change),
            CheckAnswer::Deferred(why) => Self::Deferred(why),
            CheckAnswer::Refused(why) => Self::Refused(why),
        }
    }
}

/// The answer to `apply`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyAnswer {
    /// It is done.
    Done(Output),
}

/// The answer to `resolve`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolveAnswer {
    /// The effect is there.
    Done(Output),
    /// It is not there, wholly.
    NotDone,
    /// It is still going on.
    Running,
    /// It can't be told.
    Unknown(String),
}

impl From<ResolveAnswer> for Resolved {
    fn from(answer: ResolveAnswer) -> Self {
        match answer {
            ResolveAnswer::Done(output) => Self::Done(output),
            ResolveAnswer::NotDone => Self::NotDone,
            ResolveAnswer::Running => Self::Running,
            ResolveAnswer::Unknown(why) => Self::Unknown(why),
        }
    }
}

/// The answer to `undo`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoAnswer {
    /// It was taken back.
    Undone,
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it.
pub fn answer<T: for<'de> Deserialize<'de>>(verb: &str, value: Value) -> Result<T, Nonsense> {
    serde_json::from_value(value)
        .map_err(|error| Nonsense::NoMessage(format!("the answer to `{verb}`: {error}")))
}

/// A request of flow's, the first line that a plugin reads.
#[derive(Serialize)]
pub struct Request<'r> {
    /// The version of the protocol.
    pub flow: u32,
    /// Repeated in each message that belongs to it.
    pub id: u64,
    /// `describe`, `check`, `apply`, `resolve` or `undo`.
    pub verb: &'static str,
    /// What is to be done, with every verb but `describe`.
    #[serde(flatten)]
    pub work: Option<Work<'r>>,
}

/// A task.
#[derive(Clone, Serialize)]
pub struct Work<'r> {
    /// The step type.
    pub step: &'r str,
    /// Its arguments, secrets included.
    pub arguments: &'r Map<String, Value>,
    /// The task's full name.
    pub task: &'r str,
    /// The host's name in the inventory; null at the operator's place.
    pub host: Option<&'r str>,
    /// The run's id.
    pub run: &'r str,
    /// The name of this attempt: for whatever outlives the plugin.
    pub attempt: &'r str,
    /// True while only looking, as `flow plan` does.
    pub planning: bool,
    /// The recorded change; null with `check`.
    pub change: Option<&'r Change>,
    /// With `undo`: what `apply` left, null where it left no answer.
    pub output: Option<&'r Output>,
}

/// What flow answers to a call.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done.
    Result(Value),
    /// It was not.
    Error(String),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line().unwrap() {
                found.push(line);
            }
        }
        found
    }

    #[test]
    fn lines_are_the_same_however_they_come_in_pieces() {
        let bytes = b"one\n\ntwo\nrest";
        let whole = lines(&[bytes]);
        assert_eq!(whole, [b"one".to_vec(), Vec::new(), b"two".to_vec()]);
        for at in 0..bytes.len() {
            assert_eq!(lines(&[&bytes[..at], &bytes[at..]]), whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(lines(&single), whole);
    }

    #[test]
    fn a_line_without_an_end_is_refused_once_it_is_too_long() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_LIMIT]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.next_line(), Err(Nonsense::TooLong));
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_LIMIT]);
        lines.push(b"\n");
        assert_eq!(lines.next_line().unwrap().map(|line| line.len()), Some(LINE_LIMIT));
    }

    #[test]
    fn a_message_says_one_thing_and_what_it_is_for() {
        let says = |line: &str| read(line.as_bytes());
        let progress = Message { id: 7, says: Says::Progress("waits".into()) };
        assert_eq!(
            says(r#"{"id":7,"progress":"waits","later":"unknown fields are passed over"}"#),
            Ok(progress)
        );
        let call = Says::Call(Call::Read { path: "/etc/hosts".into() });
        assert_eq!(
            says(r#"{"id":7,"call":{"do":"read","path":"/etc/hosts"}}"#),
            Ok(Message { id: 7, says: call })
        );
        let answer = Says::Answer(json!({ "done": {} }));
        assert_eq!(says(r#"{"answer":{"done":{}},"id":7}"#), Ok(Message { id: 7, says: answer }));
        for (line, part) in [
            ("hello", "`hello` (expected value"),
            ("\u{1b}[31mred", "` [31mred`"),
            ("[1]", "is no JSON object"),
            (r#"{"answer":1}"#, "no `id`"),
            (r#"{"id":-1,"answer":1}"#, "no `id`"),
            (r#"{"id":7}"#, "must have one of"),
            (r#"{"id":7,"answer":1,"error":{}}"#, "must have one of"),
            (r#"{"id":7,"call":{"do":"format","path":"/"}}"#, "`call`: unknown variant `format`"),
            (r#"{"id":7,"error":{}}"#, "missing field `message`"),
        ] {
            let told = says(line).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_call_s_debug_shows_no_secret() {
        let call = read(br#"{"id":1,"call":{"do":"write","path":"/x","content":"hunter2"}}"#).unwrap();
        assert!(!format!("{call:?}").contains("hunter2"), "{call:?}");
    }

    #[test]
    fn requests_and_replies_are_one_line_each() {
        let arguments = json!({ "path": "/x\ny" });
        let work = Work {
            step: "line.present",
            arguments: arguments.as_object().unwrap(),
            task: "a@web1",
            host: Some("web1"),
            run: "0123456789ab",
            attempt: "flow-0123456789ab-a",
            planning: false,
            change: None,
            output: None,
        };
        let request = Request { flow: PROTOCOL, id: 3, verb: "check", work: Some(work) };
        insta::assert_snapshot!(serde_json::to_string(&request).unwrap(), @r#"{"flow":1,"id":3,"verb":"check","step":"line.present","arguments":{"path":"/x\ny"},"task":"a@web1","host":"web1","run":"0123456789ab","attempt":"flow-0123456789ab-a","planning":false,"change":null,"output":null}"#);
        insta::assert_snapshot!(serde_json::to_string(&Reply::Result(json!({ "code": 0 }))).unwrap(), @r#"{"result":{"code":0}}"#);
    }

    proptest::proptest! {
        #[test]
        fn whatever_bytes_a_plugin_writes_nothing_breaks(bytes: Vec<u8>) {
            let mut lines = Lines::default();
            lines.push(&bytes);
            while let Ok(Some(line)) = lines.next_line() {
                let _ = read(&line);
            }
        }
    }
}
