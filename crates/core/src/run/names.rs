//! Names of runs and tasks.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The id of a run: 12 characters of Crockford's base 32 in lower case.
///
/// The first five are chance, so that people need to type few of them (any prefix that is unique
/// will do); the others are the time it began, in units of 32 s.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Arc<str>);

/// Crockford's digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RunId {
    /// Whether a text could be an id: of its length, in its digits. What isn't must name no file.
    pub fn is_well_formed(text: &str) -> bool {
        text.len() == 12 && text.bytes().all(|byte| DIGITS.contains(&byte))
    }

    /// A new id for a run that begins at `seconds` since 1970, told apart by `chance`.
    pub fn new(seconds: i64, chance: u64) -> Self {
        let digit = |value: u64, place: u32| char::from(DIGITS[((value >> (5 * place)) & 31) as usize]);
        let age = seconds.unsigned_abs() >> 5;
        let time = (0..7).rev().map(|place| digit(age, place));
        let rest = (0..5).rev().map(|place| digit(chance, place));
        // The varying part comes first, so that a few characters tell runs apart.
        Self(rest.chain(time).collect::<String>().into())
    }

    /// Takes an id as it is, such as one read back from a store.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a task: its step, and its host where it has one: `restart/healthy@patroni2`; of a step
/// that goes through items, the item's key too: `create[app]@patroni1`.
///
/// Neither a step's name nor a key has an `@`: what follows the first one is the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TaskName(Arc<str>);

impl TaskName {
    /// The task of `step` on `host`, or at the operator's place.
    pub fn new(step: &str, host: Option<&str>) -> Self {
        match host {
            Some(host) => Self(format!("{step}@{host}").into()),
            None => Self(step.into()),
        }
    }

    /// Takes a name as it is, such as one read back from a store.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The step's part.
    pub fn step(&self) -> &str {
        self.0.split_once('@').map_or(&*self.0, |(step, _)| step)
    }

    /// The host's part.
    pub fn host(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, host)| host)
    }
}

impl<'de> Deserialize<'de> for TaskName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Copies a name once, from where it stands: a run that is opened again has millions.
struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = TaskName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a task")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TaskName, E> {
        Ok(TaskName::from_text(text))
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
