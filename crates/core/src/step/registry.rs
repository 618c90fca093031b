//! The step types that a program knows, by name: those compiled into it, and those of sources that
//! are asked only where one of theirs is needed (executables that speak the plugin protocol).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
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
    /// What stays on the hosts where it was taken back, as a fragment; by default all is as before.
    const UNDO_LEAVES: Option<&'static str> = None;
    /// Whether it changes nothing, at most waits for something: there is nothing to take back.
    const WAITS: bool = false;
    /// Whether it only looks: its `check` never says pending.
    const READ_ONLY: bool = false;
    /// Whether a person decides: where its `check` says pending, the run waits for an approval, and `apply`
    /// is never called. The change's summary is what is asked.
    const GATE: bool = false;
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

/// Makes a step of its arguments, all templates rendered.
pub type MakeStep = Arc<dyn Fn(Value) -> Result<Box<dyn Step>, ArgumentError> + Send + Sync>;

/// What is known of a step type without making one.
#[derive(Clone)]
pub struct StepInfo {
    /// The name used in workflows.
    pub name: String,
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
    /// What stays on the hosts where it was taken back.
    pub undo_leaves: Option<&'static str>,
    /// Changes nothing, at most waits.
    pub waits: bool,
    /// Only looks.
    pub read_only: bool,
    /// A person decides.
    pub gate: bool,
    /// Arguments that name files pinned with the workflow.
    pub files: &'static [&'static str],
    /// Those of `files` that are rendered.
    pub templates: &'static [&'static str],
    /// The version of its arguments' meaning.
    pub version: u32,
    /// The executable that it comes from; none where it is compiled in.
    pub origin: Option<Arc<Origin>>,
    /// Makes one.
    pub make: MakeStep,
}

/// An executable that step types come from. Pinned with a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where it was found.
    pub path: PathBuf,
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// What else it is made of: files by their path relative to it, with the SHA-256 of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl StepInfo {
    /// A step of this type with these arguments, all templates rendered.
    pub fn make(&self, arguments: Value) -> Result<Box<dyn Step>, ArgumentError> {
        (self.make)(arguments)
    }

    /// Whether what a step of this type does can be taken back; `has` tells which arguments it has.
    pub fn undoability(&self, has: impl Fn(&str) -> bool) -> Undoability {
        if self.read_only || self.waits || self.gate {
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

/// Where step types come from that aren't compiled in. Asked once, when one of its types is needed
/// or all are listed.
pub trait StepSource: Send + Sync {
    /// What it is called in messages, such as a path.
    fn name(&self) -> String;

    /// Whether a step type of that name would be its own. Answers without looking at anything.
    fn covers(&self, step_type: &str) -> bool;

    /// Its step types. Those that it doesn't cover are passed over.
    ///
    /// # Errors
    /// Why they can't be told, as a fragment.
    fn load(&self) -> Result<Vec<StepInfo>, String>;
}

/// A source and what it said.
struct Sourced {
    source: Box<dyn StepSource>,
    loaded: OnceLock<Result<BTreeMap<String, StepInfo>, String>>,
}

impl Sourced {
    fn types(&self) -> &Result<BTreeMap<String, StepInfo>, String> {
        self.loaded.get_or_init(|| {
            let types = self.source.load()?.into_iter().filter(|info| self.source.covers(&info.name));
            Ok(types.map(|info| (info.name.clone(), info)).collect())
        })
    }
}

/// The step types of a program.
#[derive(Default)]
pub struct Registry {
    known: BTreeMap<String, StepInfo>,
    sources: Vec<Sourced>,
}

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
            name: S::NAME.to_owned(),
            schema: SchemaGenerator::default().into_root_schema_for::<S>(),
            destructive: S::DESTRUCTIVE,
            undoable: S::UNDOABLE,
            undo_argument: S::UNDO_ARGUMENT,
            not_undoable: S::NOT_UNDOABLE,
            undo_leaves: S::UNDO_LEAVES,
            waits: S::WAITS,
            read_only: S::READ_ONLY,
            gate: S::GATE,
            files: S::FILES,
            templates: S::TEMPLATES,
            version: S::VERSION,
            origin: None,
            make: Arc::new(make),
        };
        self.known.insert(info.name.clone(), info);
        self
    }

    /// Adds a source. What is compiled in goes before it, and so do sources that were added earlier.
    pub fn add_source(&mut self, source: impl StepSource + 'static) -> &mut Self {
        self.sources.push(Sourced { source: Box::new(source), loaded: OnceLock::new() });
        self
    }

    /// The step type of that name.
    pub fn get(&self, name: &str) -> Option<&StepInfo> {
        self.known.get(name).or_else(|| self.source_of(name)?.types().as_ref().ok()?.get(name))
    }

    /// Why there is no step type of that name, where a source would have it and can't tell.
    pub fn why_not(&self, name: &str) -> Option<String> {
        let sourced = self.source_of(name).filter(|_| !self.known.contains_key(name))?;
        let why = sourced.types().as_ref().err()?;
        Some(format!("{}: {why}", sourced.source.name()))
    }

    /// All step types, by name. Asks every source.
    pub fn iter(&self) -> impl Iterator<Item = &StepInfo> {
        self.ask_all();
        let mut all: BTreeMap<&str, &StepInfo> = BTreeMap::new();
        let sourced = self.sources.iter().rev().filter_map(|sourced| sourced.types().as_ref().ok()).flatten();
        all.extend(sourced.chain(&self.known).map(|(name, info)| (name.as_str(), info)));
        all.into_values()
    }

    /// The names of what is compiled in and of the sources asked so far. Asks none.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let asked = self.sources.iter().filter_map(|sourced| sourced.loaded.get()?.as_ref().ok());
        self.known.keys().chain(asked.flat_map(BTreeMap::keys)).map(String::as_str)
    }

    /// The sources that can't tell their step types, and why. Asks every source.
    pub fn problems(&self) -> impl Iterator<Item = (String, &str)> {
        self.ask_all();
        self.sources
            .iter()
            .filter_map(|sourced| Some((sourced.source.name(), sourced.types().as_ref().err()?.as_str())))
    }

    /// The first source that covers a name.
    fn source_of(&self, name: &str) -> Option<&Sourced> {
        self.sources.iter().find(|sourced| sourced.source.covers(name))
    }

    /// Asks all sources at once: a slow one holds back none.
    fn ask_all(&self) {
        if self.sources.iter().all(|sourced| sourced.loaded.get().is_some()) {
            return;
        }
        std::thread::scope(|scope| {
            for sourced in &self.sources {
                scope.spawn(|| sourced.types());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Has one type, `NAME.thing`, or fails.
    struct Source(&'static str, Result<u32, &'static str>, Arc<AtomicU32>);

    impl StepSource for Source {
        fn name(&self) -> String {
            format!("/plugins/{}", self.0)
        }

        fn covers(&self, step_type: &str) -> bool {
            step_type.split('.').next() == Some(self.0)
        }

        fn load(&self) -> Result<Vec<StepInfo>, String> {
            self.2.fetch_add(1, Ordering::SeqCst);
            let version = self.1?;
            let named = |name: &str| StepInfo {
                name: name.to_owned(),
                schema: Schema::default(),
                destructive: false,
                undoable: false,
                undo_argument: None,
                not_undoable: "",
                undo_leaves: None,
                waits: false,
                read_only: false,
                gate: false,
                files: &[],
                templates: &[],
                version,
                origin: None,
                make: Arc::new(|_| Err(ArgumentError { message: "never".to_owned() })),
            };
            Ok(vec![named(&format!("{}.thing", self.0)), named("other.thing")])
        }
    }

    fn registry(asked: &Arc<AtomicU32>) -> Registry {
        let mut registry = Registry::new();
        registry.add_source(Source("good", Ok(1), Arc::clone(asked)));
        registry.add_source(Source("good", Ok(2), Arc::clone(asked)));
        registry.add_source(Source("bad", Err("it hangs"), Arc::clone(asked)));
        registry
    }

    #[test]
    fn a_source_is_asked_once_and_only_where_one_of_its_types_is_needed() {
        let asked = Arc::new(AtomicU32::new(0));
        let registry = registry(&asked);
        assert!(registry.get("command").is_none() && registry.why_not("command").is_none());
        assert_eq!((registry.names().count(), asked.load(Ordering::SeqCst)), (0, 0));
        assert_eq!(registry.get("good.thing").map(|info| info.version), Some(1), "the earlier one");
        assert!(registry.get("good.other").is_none() && registry.why_not("good.other").is_none());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(registry.names().collect::<Vec<_>>(), ["good.thing"]);
    }

    #[test]
    fn a_source_that_fails_says_why_and_takes_nothing_from_the_others() {
        let registry = registry(&Arc::default());
        assert!(registry.get("bad.thing").is_none());
        assert_eq!(registry.why_not("bad.thing").as_deref(), Some("/plugins/bad: it hangs"));
        assert_eq!(registry.problems().collect::<Vec<_>>(), [("/plugins/bad".to_owned(), "it hangs")]);
        let all: Vec<_> = registry.iter().map(|info| (info.name.as_str(), info.version)).collect();
        assert_eq!(all, [("good.thing", 1)], "what a source doesn't cover is passed over");
    }
}
