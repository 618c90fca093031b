//! The plan file: a definition with what was shown of it, to be run later, also elsewhere.
//!
//! JSON with a checksum, so that damage and edits are noticed (it is no signature: whoever can write the file
//! can make another one). Secrets are not in it, only their sources and fingerprints. A store's
//! fingerprints are made under a key that stays on its machine; a plan file must be of use on others, so
//! it carries a salt of its own, and its fingerprints are slow ([`Fingerprinter::slow`]): whoever gets hold of
//! the file can try guesses, but few.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Definition, Fingerprinter};
use crate::step::Registry;

/// Grows with every change of the file's form or of what is compared.
const FORMAT: u64 = 1;

/// This program's version, as it stands in files.
const FLOW: &str = env!("CARGO_PKG_VERSION");

/// What a plan file holds.
pub struct SavedPlan {
    /// What its fingerprints are salted with.
    pub salt: [u8; 32],
    /// What is to be run, with what was shown.
    pub definition: Definition,
}

/// The file as it is written, without its checksum.
#[derive(Serialize, Deserialize)]
struct Form {
    flow_plan: u64,
    flow: String,
    salt: String,
    plan: Value,
}

/// Why a plan file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedPlanError {
    /// It is cut short, or no plan file at all.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// It was written by a later version.
    #[error("it has format {found}, this flow reads {known}")]
    OtherFormat {
        /// Its format.
        found: u64,
        /// The one that is known.
        known: u64,
    },
    /// The checksum is another one.
    #[error("its checksum is wrong: it was damaged or edited")]
    Edited,
    /// It was made by a later version.
    #[error("it was made by flow {made_by}, this is flow {this}")]
    LaterFlow {
        /// The version that made it.
        made_by: String,
        /// This one.
        this: String,
    },
    /// A step type means something else now.
    #[error("it was made with version {then} of the step type `{name}`, this flow has {now}")]
    StepType {
        /// The step type.
        name: String,
        /// Its version in the file.
        then: u32,
        /// Its version here: a number, or "none".
        now: String,
    },
}

impl SavedPlanError {
    /// The next action.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OtherFormat { found, known } if found > known => "run it with the flow that made it",
            Self::LaterFlow { .. } => "run it with the flow that made it, or make a new plan with this one",
            _ => "make a new plan: `flow plan WORKFLOW --out FILE`",
        }
    }
}

/// Whether a text is meant as a plan file. No workflow begins so.
pub fn is_plan_file(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

impl SavedPlan {
    /// A new salt, and what fingerprints with it.
    pub fn fresh_salt() -> ([u8; 32], Fingerprinter) {
        let salt = rand::random();
        (salt, Fingerprinter::slow(salt))
    }

    /// The text of the file.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let form = Form {
            flow_plan: FORMAT,
            flow: FLOW.to_owned(),
            salt: hex(&self.salt),
            plan: serde_json::to_value(&self.definition)?,
        };
        let mut file = json!({
            "flow_plan": form.flow_plan, "flow": form.flow, "sha256": null, "salt": form.salt, "plan": form.plan,
        });
        // Of what a reader will see, so that no number is written in one way and checked in another.
        file["sha256"] = checksum(&serde_json::from_str(&serde_json::to_string(&form)?)?)?.into();
        Ok(serde_json::to_string_pretty(&file)? + "\n")
    }

    /// Reads a file's text, and refuses what this program can't run as it was shown.
    pub fn read(text: &str, registry: &Registry) -> Result<Self, SavedPlanError> {
        let unreadable = |e: serde_json::Error| SavedPlanError::Unreadable(e.to_string());
        let file: Value = serde_json::from_str(text).map_err(unreadable)?;
        let Some(found) = file.get("flow_plan").and_then(Value::as_u64) else {
            return Err(SavedPlanError::Unreadable("it has no number `flow_plan`".to_owned()));
        };
        if found != FORMAT {
            return Err(SavedPlanError::OtherFormat { found, known: FORMAT });
        }
        let sum = file.get("sha256").and_then(Value::as_str).unwrap_or_default().to_owned();
        let form: Form = serde_json::from_value(file).map_err(unreadable)?;
        if checksum(&form).map_err(unreadable)? != sum {
            return Err(SavedPlanError::Edited);
        }
        if version(&form.flow) > version(FLOW) {
            return Err(SavedPlanError::LaterFlow { made_by: form.flow, this: FLOW.to_owned() });
        }
        let salt = from_hex(&form.salt)
            .ok_or_else(|| SavedPlanError::Unreadable("its salt isn't 32 bytes long".to_owned()))?;
        let definition: Definition = serde_json::from_value(form.plan).map_err(unreadable)?;
        if definition.shown.is_none() {
            return Err(SavedPlanError::Unreadable("it doesn't say what was shown".to_owned()));
        }
        for (name, &then) in &definition.step_types {
            let now = registry.get(name).map(|info| info.version);
            if now != Some(then) {
                let now = now.map_or_else(|| "none".to_owned(), |now| now.to_string());
                return Err(SavedPlanError::StepType { name: name.clone(), then, now });
            }
        }
        Ok(Self { salt, definition })
    }

    /// What its fingerprints are made with.
    pub fn fingerprinter(&self) -> Fingerprinter {
        Fingerprinter::slow(self.salt)
    }
}

fn checksum(form: &Form) -> Result<String, serde_json::Error> {
    Ok(hex(&Sha256::digest(serde_json::to_string(form)?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let bytes: Option<Vec<u8>> =
        (0..text.len() / 2).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// The numbers of a version, for comparing.
fn version(text: &str) -> Vec<u64> {
    text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}
