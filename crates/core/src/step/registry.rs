//! The step types that a program knows, by name.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Step;

/// A step type: a struct of arguments that is a [`Step`].
///
/// Its doc comments are the help of `flow steps`, its JSON schema is what arguments are checked
/// against and editors complete from. Use `#[serde(deny_unknown_fields)]`.
pub trait StepType: Step + DeserializeOwned + JsonSchema + 'static {
    /// The name used in workflows, such as `systemd.unit`.
    const NAME: &'static str;
    /// Whether it takes away what can't be had again without care. Such steps want `--confirm`.
    const DESTRUCTIVE: bool = false;
    /// Whether `undo` is written.
    const UNDOABLE: bool = false;
    /// The argument without which `undo` can't take it back, where there is one.
    const UNDO_ARGUMENT: Option<&'static str> = None;
    /// Why it can't be taken back, as a fragment; only where `UNDOABLE` is false.
    const NOT_UNDOABLE: &'static str = "this step type has no undo";
    /// Whether it changes nothing, at most waits for something: there is nothing to take back.
    const WAITS: bool = false;
    /// Whether it only looks: its `check` never says pending.
    const READ_ONLY: bool = false;
    /// Arguments that name a file of the workflow's folder, pinned with the workflow.
    const FILES: &'static [&'static str] = &[];
    /// Those of [`Self::FILES`] whose text the step renders: it is checked before a run like the
    /// step's arguments.
    const TEMPLATES: &'static [&'static str] = &[];
    /// Grows when the meaning of the arguments or of a recorded change does; pinned with a run.
    const VERSION: u32 = 1;

    /// Refuses what the types alone can't, such as two arguments that exclude each other.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Whether what a step does can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undoability {
    /// It changes nothing.
    Nothing,
    /// It can.
    Possible,
    /// The workflow says that it stays.
    Kept,
    /// It can't; the text says why, as a fragment.
    Impossible(String),
}

/// Arguments that a step type refuses.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ArgumentError {
    /// What is wrong, as a fragment.
    pub message: String,
}

/// What is known of a step type without making one.
pub struct StepInfo {
    /// The name used in workflows.
    pub name: &'static str,
    /// Its arguments: a JSON schema with descriptions and defaults.
    pub schema: Schema,
    /// Wants `--confirm`.
    pub destructive: bool,
    /// Has an undo.
    pub undoable: bool,
    /// The argument without which the undo can't take it back.
    pub undo_argument: Option<&'static str>,
    /// Why it can't be taken back.
    pub not_undoable: &'static str,
    /// Changes nothing, at most waits.
    pub waits: bool,
    /// Only looks.
    pub read_only: bool,
    /// Arguments that name files pinned with the workflow.
    pub files: &'static [&'static str],
    /// Those of `files` that are rendered.
    pub templates: &'static [&'static str],
    /// The version of its arguments' meaning.
    pub version: u32,
    make: fn(Value) -> Result<Box<dyn Step>, ArgumentError>,
}

impl StepInfo {
    /// A step of this type with these arguments, all templates rendered.
    pub fn make(&self, arguments: Value) -> Result<Box<dyn Step>, ArgumentError> {
        (self.make)(arguments)
    }

    /// Whether what a step of this type does can be taken back; `has` tells which arguments it has.
    pub fn undoability(&self, has: impl Fn(&str) -> bool) -> Undoability {
        if self.read_only || self.waits {
            return Undoability::Nothing;
        }
        if !self.undoable {
            return Undoability::Impossible(self.not_undoable.to_owned());
        }
        match self.undo_argument {
            Some(argument) if !has(argument) => {
                Undoability::Impossible(format!("the step has no `{argument}`"))
            }
            _ => Undoability::Possible,
        }
    }

    /// The first paragraph of the type's documentation.
    pub fn summary(&self) -> &str {
        self.description().split("\n\n").next().unwrap_or_default()
    }

    /// The type's whole documentation.
    pub fn description(&self) -> &str {
        self.schema.get("description").and_then(Value::as_str).unwrap_or_default()
    }
}

/// The step types of a program.
#[derive(Default)]
pub struct Registry(BTreeMap<&'static str, StepInfo>);

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step type. One of the same name is replaced.
    pub fn add<S: StepType>(&mut self) -> &mut Self {
        let make = |arguments: Value| {
            let step: S = serde_json::from_value(arguments)
                .map_err(|error| ArgumentError { message: error.to_string() })?;
            step.validate().map_err(|message| ArgumentError { message })?;
            Ok(Box::new(step) as Box<dyn Step>)
        };
        let info = StepInfo {
            name: S::NAME,
            schema: SchemaGenerator::default().into_root_schema_for::<S>(),
            destructive: S::DESTRUCTIVE,
            undoable: S::UNDOABLE,
            undo_argument: S::UNDO_ARGUMENT,
            not_undoable: S::NOT_UNDOABLE,
            waits: S::WAITS,
            read_only: S::READ_ONLY,
            files: S::FILES,
            templates: S::TEMPLATES,
            version: S::VERSION,
            make,
        };
        self.0.insert(S::NAME, info);
        self
    }

    /// The step type of that name.
    pub fn get(&self, name: &str) -> Option<&StepInfo> {
        self.0.get(name)
    }

    /// All step types, by name.
    pub fn iter(&self) -> impl Iterator<Item = &StepInfo> {
        self.0.values()
    }
}
