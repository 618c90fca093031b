//! What a plugin writes: one message a line.

use std::collections::BTreeMap;
use std::fmt;

use flow_core::step::{Secret, StepError};
use serde::Deserialize;
use serde_json::Value;

use super::Nonsense;

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Lines;
    use super::*;

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
