//! Hosts, groups and variables. Knows nothing of how a host is reached.
//!
//! The types are here. Ansible's files are read as Ansible reads them: `ini` and `yaml` fill a
//! `Builder`, `vars_files` adds `group_vars` and `host_vars`, `vault` opens what is encrypted, `templates` evaluates
//! what refers to other variables, and what comes out is flat: every host with its merged variables. What flow
//! doesn't understand is an error with its line, never dropped.

mod builder;
mod ini;
mod literal;
mod load;
mod pattern;
mod range;
mod raw;
mod secrets;
mod shlex;
mod templates;
mod tree;
mod vars_files;
mod vault;
mod yaml;

pub use builder::GroupOutline;
pub use load::{Loaded, Sources, load, read_all};
pub use pattern::{PatternError, with_files};
pub use raw::Place;
pub use secrets::Masked;
pub(crate) use secrets::{holds_a_secret, secrets_of};
pub use vault::{NoPasswords, VaultPassword, VaultPasswords};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use builder::Merged;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A machine by the name that people use for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Host {
    /// The inventory's name: `patroni1`.
    pub name: String,
    /// Its variables, groups' and its own merged in Ansible's order of precedence, templates evaluated.
    pub vars: Map<String, Value>,
    /// Of these, those that hold something out of a vault, or that was rendered from it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secret: BTreeSet<String>,
    /// Variables that are there but can't be evaluated, each with why and its file and line: an error for whoever asks
    /// for one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, String>,
}

impl Host {
    /// A text variable, where it is set and not empty. Numbers are given as text.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.vars.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Where it is reached: `ansible_host`, or its name.
    pub fn address(&self) -> String {
        self.text("ansible_host").unwrap_or_else(|| self.name.clone())
    }
}

/// All hosts and groups of one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Hosts in the order in which the file names them first.
    pub hosts: IndexMap<String, Arc<Host>>,
    /// Groups with the names of all their hosts, children's included: a group's own hosts first,
    /// as Ansible orders them. `all` and `ungrouped` are always there.
    pub groups: IndexMap<String, Vec<String>>,
    /// The files that were read, for messages.
    #[serde(default)]
    pub sources: Vec<PathBuf>,
    /// What the user named, for a resume that must read secrets again.
    #[serde(default)]
    pub given: Given,
    /// The texts that came out of vaults or were rendered from them. Never stored.
    #[serde(skip)]
    pub secrets: SecretTexts,
}

/// What an inventory is read from, as the user named it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Given {
    /// Files, folders, and lists of hosts (`web1,web2`).
    pub inventories: Vec<PathBuf>,
    /// The folder whose `group_vars` and `host_vars` are read besides those beside the inventories: the playbook's.
    pub playbook_dir: Option<PathBuf>,
}

/// Texts that must not be shown; its `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretTexts(BTreeSet<String>);

impl SecretTexts {
    /// Adds one.
    pub(crate) fn insert(&mut self, text: impl Into<String>) {
        self.0.insert(text.into());
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl std::fmt::Debug for SecretTexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Inventory {
    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.get(name)
    }
}
