//! What a run pins when it is started: every text, host and value it depends on. Secrets are not in
//! it: only where each came from and a keyed fingerprint, so that a resume can read it again and
//! refuse a different one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use hmac::{Hmac, Mac};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::Shown;
use crate::inventory::{Host, Inventory, holds_a_secret};
use crate::step::{MASK, Origin, Redactor, Secret};
use crate::workflow::{Bundle, Code, Diagnostic, Diagnostics};

/// The key in a pinned variable that stands for a secret.
const SECRET_MARK: &str = "$flow_secret";

/// What is pinned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The workflow and all files it is made of.
    pub bundle: Bundle,
    /// Hosts, groups and variables; secret variables replaced by their fingerprint.
    pub inventory: Inventory,
    /// The root workflow's params.
    pub params: IndexMap<String, PinnedParam>,
    /// `--limit` and `--tags`.
    pub filter: Filter,
    /// The version of each step type that is used.
    pub step_types: BTreeMap<String, u32>,
    /// The executable of each step type that isn't compiled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugins: BTreeMap<String, Origin>,
    /// The version of flow that started the run.
    pub flow: String,
    /// What a saved plan showed; none for a run that was started from a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Box<Shown>>,
}

/// A param's value, or where its secret comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinnedParam {
    /// Not a secret.
    Value(Value),
    /// A secret.
    Secret {
        /// Where it is read.
        source: SecretSource,
        /// HMAC-SHA-256 under the store's key, hexadecimal. In a plan file: see [`Fingerprinter::slow`].
        fingerprint: String,
    },
}

/// Where a secret is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; its last line end is dropped.
    File(PathBuf),
    /// The param's default, an expression over the inventory.
    Default,
    /// Made of the param's name: [`NewSecrets::OfNames`](super::NewSecrets::OfNames).
    OfName(String),
}

impl SecretSource {
    /// Reads `env:NAME` or `file:PATH`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("env:") {
            return Some(Self::Env(name.to_owned()));
        }
        text.strip_prefix("file:").map(|path| Self::File(path.into()))
    }

    /// The secret, where it doesn't come from the inventory.
    pub(super) fn read(&self) -> Result<Option<Secret>, String> {
        match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => Ok(Some(Secret::new(text))),
                Err(_) => Err(format!("the environment variable {name} is not set")),
            },
            Self::File(path) => match fs::read_to_string(path) {
                Ok(text) => Ok(Some(Secret::new(text.strip_suffix('\n').unwrap_or(&text)))),
                Err(e) => Err(format!("{} can't be read: {e}", path.display())),
            },
            Self::Default => Ok(None),
            Self::OfName(name) => Ok(Some(super::generated::of_name(name))),
        }
    }
}

/// `--limit` and `--tags`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Filter {
    /// An Ansible pattern: only tasks on these hosts.
    pub limit: Option<String>,
    /// Only steps with one of these tags.
    pub tags: BTreeSet<String>,
}

impl Filter {
    /// True where everything is to be run.
    pub fn is_empty(&self) -> bool {
        self.limit.is_none() && self.tags.is_empty()
    }
}

/// Fingerprints secrets, so that another one is noticed.
#[derive(Clone)]
pub struct Fingerprinter(Kind);

#[derive(Clone)]
enum Kind {
    Keyed([u8; 32]),
    Slow { salt: [u8; 32], known: Arc<Mutex<HashMap<String, String>>> },
}

/// What one guess at a secret costs whoever has a plan file: some hundredths of a second.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).expect("it isn't 0");

impl Fingerprinter {
    /// HMAC-SHA-256 under a store's key, which never leaves the operator's machine.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Kind::Keyed(key))
    }

    /// PBKDF2-HMAC-SHA-256 with a salt that isn't secret: for a plan file, which is of use on another machine.
    pub fn slow(salt: [u8; 32]) -> Self {
        Self(Kind::Slow { salt, known: Arc::default() })
    }

    /// The fingerprint of a secret, hexadecimal.
    pub fn of(&self, secret: &str) -> String {
        match &self.0 {
            Kind::Keyed(key) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
                mac.update(secret.as_bytes());
                hex(&mac.finalize().into_bytes())
            }
            Kind::Slow { salt, known } => {
                // Hosts of a group have the same secrets: each is worked on once.
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.entry(secret.to_owned()).or_insert_with(|| slow(salt, secret)).clone()
            }
        }
    }

    /// What pinned the secrets, for messages: "the run began".
    pub(super) fn since(&self) -> &'static str {
        match self.0 {
            Kind::Keyed(_) => "the run began",
            Kind::Slow { .. } => "the plan was made",
        }
    }

    /// What to do where a secret is another one, for messages.
    pub(super) fn or_else(&self) -> &'static str {
        match self.0 {
            Kind::Keyed(_) => "set it back to what it was, or start a new run",
            Kind::Slow { .. } => "set it back to what it was, or make a new plan",
        }
    }
}

impl From<[u8; 32]> for Fingerprinter {
    fn from(key: [u8; 32]) -> Self {
        Self::new(key)
    }
}

fn slow(salt: &[u8], secret: &str) -> String {
    let mut fingerprint = [0; 32];
    let algorithm = ring::pbkdf2::PBKDF2_HMAC_SHA256;
    ring::pbkdf2::derive(algorithm, ROUNDS, salt, secret.as_bytes(), &mut fingerprint);
    hex(&fingerprint)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The inventory with every secret variable replaced by its fingerprint.
///
/// Secret is what came out of a vault or was rendered from that, what has a secret's name or a field of such a name,
/// and what holds one of `known` (the secret params' values).
pub(super) fn mask_inventory(inventory: &Inventory, known: &Redactor, print: &Fingerprinter) -> Inventory {
    let hosts = inventory
        .hosts
        .iter()
        .map(|(name, host)| {
            let vars = host
                .vars
                .iter()
                .map(|(var, value)| {
                    let holds_known = {
                        let mut masked = value.clone();
                        known.value(&mut masked);
                        masked != *value
                    };
                    let value = if holds_known || host.secret.contains(var) || holds_a_secret(var, value) {
                        json!({ SECRET_MARK: print.of(&value.to_string()) })
                    } else {
                        value.clone()
                    };
                    (var.clone(), value)
                })
                .collect::<Map<_, _>>();
            (name.clone(), Host { vars, ..Host::clone(host) }.into())
        })
        .collect();
    Inventory { hosts, ..inventory.clone() }
}

/// The pinned inventory for looking at only: its secret variables are their mask.
pub(super) fn masked_inventory(pinned: &Inventory) -> Inventory {
    let is_secret = |value: &Value| value.get(SECRET_MARK).is_some();
    let hosts = pinned.hosts.iter().map(|(name, host)| {
        if !host.vars.values().any(is_secret) {
            return (name.clone(), Arc::clone(host));
        }
        let shown = |value: &Value| if is_secret(value) { Value::from(MASK) } else { value.clone() };
        let vars = host.vars.iter().map(|(var, value)| (var.clone(), shown(value))).collect();
        (name.clone(), Arc::new(Host { vars, ..Host::clone(host) }))
    });
    Inventory { hosts: hosts.collect(), ..pinned.clone() }
}

/// The pinned inventory with its secret variables taken from `current`, where they must be the same.
pub(super) fn unmask_inventory(
    pinned: &Inventory,
    current: Option<&Inventory>,
    print: &Fingerprinter,
) -> Result<Inventory, Diagnostics> {
    let mut wrong = Diagnostics::default();
    let mut hosts = IndexMap::new();
    for (name, host) in &pinned.hosts {
        let mut vars = host.vars.clone();
        for (var, value) in &mut vars {
            let Some(fingerprint) = value.get(SECRET_MARK).and_then(Value::as_str) else { continue };
            let now = current.and_then(|inventory| inventory.host(name)).and_then(|host| host.vars.get(var));
            match now {
                Some(now) if print.of(&now.to_string()) == fingerprint => *value = now.clone(),
                Some(_) => wrong.push(
                    Diagnostic::general(
                        Code::PARAM,
                        format!("`{var}` of {name} has changed since {}", print.since()),
                    )
                    .help(print.or_else()),
                ),
                None => wrong.push(
                    Diagnostic::general(
                        Code::PARAM,
                        format!("`{var}` of {name} is secret and must be read again"),
                    )
                    .help("give the inventory that it was made with: -i INVENTORY"),
                ),
            }
        }
        hosts.insert(name.clone(), Host { vars, ..Host::clone(host) }.into());
    }
    let secrets = current.map(|inventory| inventory.secrets.clone()).unwrap_or_default();
    wrong.into_result(Inventory { hosts, secrets, ..pinned.clone() })
}
