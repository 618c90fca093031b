//! Finding plugins, and asking each what step types it has.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{ArgumentError, Registry, StepInfo, StepSource};
use flow_core::workflow::check_values;
use schemars::Schema;
use serde_json::Value;

use super::executable::Executable;
use super::process::{self, Question, Serve, Trouble};
use super::step::PluginStep;
use super::wire::{self, Call, Description, PROTOCOL, Reply, StepDescription};

/// What the name of a plugin's file begins with.
const PREFIX: &str = "flow-step-";
/// How long `describe` may take.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(5);
/// The longest time that a step type may ask for, in seconds: a week.
const LONGEST: u32 = 7 * 24 * 3600;

/// The folders that plugins are looked for in: `FLOW_PLUGIN_PATH`, else `$XDG_DATA_HOME/flow/plugins`
/// (`~/.local/share/flow/plugins`) and `/usr/local/lib/flow/plugins`.
///
/// `variable` gives a variable of the environment. What is no absolute path is passed over: a plugin is
/// never taken from wherever flow happens to be called.
pub fn plugin_path(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folders = match variable("FLOW_PLUGIN_PATH") {
        Some(path) => std::env::split_paths(&path).collect(),
        None => {
            let data = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            let data = data.or_else(|| Some(Path::new(&variable("HOME")?).join(".local/share")));
            let own = data.map(|data| data.join("flow/plugins"));
            own.into_iter().chain([PathBuf::from("/usr/local/lib/flow/plugins")]).collect::<Vec<_>>()
        }
    };
    folders.into_iter().filter(|folder| folder.is_absolute()).collect()
}

/// Adds the plugins of these folders. None is started before one of its step types is needed.
///
/// `flow-step-NAME` has the step types `NAME` and `NAME.ANYTHING`. Of two with one name, that of the
/// earlier folder counts.
pub fn register(registry: &mut Registry, folders: &[PathBuf]) {
    let mut known = BTreeSet::new();
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned()))
            .collect();
        names.sort();
        for name in names {
            if known.insert(name.clone()) {
                let path = folder.join(format!("{PREFIX}{name}"));
                registry.add_source(Plugin { name, path, limit: DESCRIBE_LIMIT });
            }
        }
    }
}

/// An executable that was found and not started yet.
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// How long `describe` may take.
    pub(super) limit: Duration,
}

impl StepSource for Plugin {
    fn name(&self) -> String {
        format!("the plugin {}", self.path.display())
    }

    fn covers(&self, step_type: &str) -> bool {
        let rest = step_type.strip_prefix(&self.name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    fn load(&self) -> Result<Vec<StepInfo>, String> {
        if !well_formed(&self.name) {
            return Err(format!(
                "its name must be {PREFIX}NAME, of lower-case letters, digits, `-` and `_`, without an ending"
            ));
        }
        let executable = Executable::open(&self.path)?;
        let description = describe(&self.path, self.limit)?;
        if description.flow != PROTOCOL {
            return Err(format!(
                "it speaks version {} of the protocol; this flow speaks {PROTOCOL}",
                description.flow
            ));
        }
        let executable = Arc::new(executable.made_of(&description.files)?);
        let mut names = BTreeSet::new();
        for step in &description.steps {
            self.refuse(step)?;
            if !names.insert(step.name.as_str()) {
                return Err(format!("it describes `{}` twice", step.name));
            }
        }
        Ok(description.steps.into_iter().map(|step| info(&executable, step)).collect())
    }
}

impl Plugin {
    /// What is wrong with a description.
    fn refuse(&self, step: &StepDescription) -> Result<(), String> {
        let name = &step.name;
        if !self.covers(name) || !name.split('.').all(well_formed) {
            return Err(format!("its step type `{name}` must be named `{0}` or `{0}.SOMETHING`", self.name));
        }
        if step.doc.trim().is_empty() {
            return Err(format!("`{name}` has an empty `doc`"));
        }
        if step.version == 0 {
            return Err(format!("`{name}` has version 0; the first is 1"));
        }
        if step.schema.get("type").is_some_and(|kind| kind != "object") {
            return Err(format!("the schema of `{name}` must have the type `object`"));
        }
        for seconds in [step.look_seconds, step.change_seconds] {
            if !(1..=LONGEST).contains(&seconds) {
                return Err(format!("the seconds of `{name}` must be from 1 to {LONGEST}"));
            }
        }
        if step.read_only && (step.destructive || step.undoable) {
            return Err(format!("`{name}` only looks, so it is neither destructive nor undoable"));
        }
        Ok(())
    }
}

/// Lower-case letters, digits, `-`, `_`, beginning with a letter.
fn well_formed(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(legal)
}

/// Asks in a thread of its own: whoever needs the answer may be in a runtime already.
fn describe(path: &Path, limit: Duration) -> Result<Description, String> {
    let question = Question { executable: path, verb: "describe", work: None, limit, attempt: None };
    let asked = std::thread::scope(|scope| {
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Trouble::NotStarted(error.to_string()))?;
            let answer = runtime.block_on(process::ask(question, &NoHost))?;
            Ok(wire::answer("describe", answer)?)
        };
        scope.spawn(ask).join()
    });
    match asked {
        Ok(description) => description.map_err(|trouble| match trouble {
            Trouble::NotStarted(message) => message,
            Trouble::Failed(failure) => failure.message,
            Trouble::Host(error) => error.message,
            Trouble::Misbehaved { message, detail, .. } => match detail {
                Some(detail) => format!("{message}; it said: {}", detail.lines().last().unwrap_or_default()),
                None => message,
            },
        }),
        Err(_) => Err("it could not be described".to_owned()),
    }
}

/// What `describe` is given.
struct NoHost;

#[async_trait]
impl Serve for NoHost {
    async fn call(&self, call: Call) -> Result<Reply, Trouble> {
        let message = format!("it asked for a host (`{}`) during `describe`", call.word());
        Err(Trouble::Misbehaved { message, detail: None, always: true })
    }

    fn progress(&self, _text: &str) {}
}

fn info(executable: &Arc<Executable>, step: StepDescription) -> StepInfo {
    let mut schema = step.schema.clone();
    schema.insert("type".to_owned(), Value::from("object"));
    schema.insert("description".to_owned(), Value::from(step.doc.trim()));
    let schema = Schema::from(schema);
    let about = Arc::new(step);
    let made = (Arc::clone(executable), Arc::clone(&about), schema.clone());
    StepInfo {
        name: about.name.clone(),
        schema,
        destructive: about.destructive,
        undoable: about.undoable,
        undo_argument: None,
        not_undoable: "the plugin has no undo for it",
        undo_leaves: None,
        waits: false,
        read_only: about.read_only,
        gate: false,
        files: &[],
        templates: &[],
        version: about.version,
        origin: Some(Arc::clone(&executable.origin)),
        make: Arc::new(move |arguments| {
            let (executable, about, schema) = made.clone();
            let Value::Object(mut arguments) = arguments else {
                return Err(ArgumentError { message: "they are no table".to_owned() });
            };
            arguments.retain(|_, value| !value.is_null());
            check_values(schema.as_value(), &arguments).map_err(|message| ArgumentError { message })?;
            Ok(Box::new(PluginStep { executable, about, arguments }))
        }),
    }
}
