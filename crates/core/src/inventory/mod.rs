//! Hosts, groups and variables. Knows nothing of how a host is reached.
//!
//! The types are here. Ansible's files are read as Ansible reads them: `ini` and `yaml` fill a
//! `Builder`, `vars_files` adds `group_vars` and `host_vars`, and what comes out is flat: every host
//! with its merged variables. What flow doesn't understand is an error with its line, never dropped.

mod builder;
mod ini;
mod literal;
mod load;
mod pattern;
mod range;
mod shlex;
mod tree;
mod vars_files;
mod yaml;

pub use load::load;
pub use pattern::PatternError;

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A machine by the name that people use for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The inventory's name: `patroni1`.
    pub name: String,
    /// Its variables, groups' and its own merged in Ansible's order of precedence.
    pub vars: Map<String, Value>,
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
    /// The files that were read, for messages and for a resume that must read secrets again.
    #[serde(default)]
    pub sources: Vec<PathBuf>,
}

impl Inventory {
    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.get(name)
    }
}
