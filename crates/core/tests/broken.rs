//! Bad input and the message that each must give: `fixtures/broken`.
//!
//! To add one, put a workflow or an inventory there and run the tests with `UPDATE_EXPECT=1`, which
//! writes the text beside it; then read that text as the one who will meet it.

#![expect(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flow_core::inventory;
use flow_core::plan::{Filter, Inputs, Plan, Request};
use flow_core::step::{Change, Check, Context, Output, Registry, Secret, Step, StepError, StepType};
use flow_core::workflow::{Code, Diagnostics, Documents, Files, json_schema};
use miette::{GraphicalReportHandler, GraphicalTheme};
use schemars::JsonSchema;
use serde::Deserialize;

#[test]
fn every_broken_workflow_gives_its_message() {
    let workflows = entries("workflows", |path| path.extension() == Some(OsStr::new("toml")));
    assert!(workflows.len() > 20, "the fixtures are found");
    check(&workflows, |path| plan(path).err());
}

#[test]
fn every_broken_inventory_gives_its_message() {
    let inventories = entries("inventories", |path| path.extension() != Some(OsStr::new("txt")));
    assert!(inventories.len() > 5, "the fixtures are found");
    check(&inventories, |path| {
        let file = if path.is_dir() { path.join("hosts.ini") } else { path.to_owned() };
        inventory::load(&file).err()
    });
}

#[test]
fn there_is_a_fixture_for_every_kind_of_error() {
    let told: String = ["workflows", "inventories"]
        .into_iter()
        .flat_map(|folder| entries(folder, |path| path.extension() == Some(OsStr::new("txt"))))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let lines: BTreeSet<&str> = told.lines().collect();
    let codes = [
        Code::SYNTAX,
        Code::UNKNOWN_KEY,
        Code::MISSING_KEY,
        Code::TYPE,
        Code::UNKNOWN_STEP_TYPE,
        Code::UNKNOWN_ARGUMENT,
        Code::MISSING_ARGUMENT,
        Code::PARAM,
        Code::NEEDS,
        Code::CYCLE,
        Code::ID,
        Code::EXPRESSION,
        Code::NOT_UPSTREAM,
        Code::UNDO,
        Code::HOSTS,
        Code::FILE,
        Code::FILTER,
        Code::INVENTORY,
    ];
    for code in codes {
        assert!(lines.contains(code.0), "no fixture gives {}", code.0);
    }
}

/// What a schema can tell.
const STRUCTURAL: [Code; 7] = [
    Code::UNKNOWN_KEY,
    Code::MISSING_KEY,
    Code::TYPE,
    Code::UNKNOWN_STEP_TYPE,
    Code::UNKNOWN_ARGUMENT,
    Code::MISSING_ARGUMENT,
    Code::ID,
];

/// Of these kinds, but a schema can't tell them: what a step type itself refuses, what another file or a
/// plan's values show, a default that isn't among the choices.
const BEYOND_A_SCHEMA: [&str; 7] = [
    "argument-refused",
    "confirm-included",
    "confirm-missing",
    "foreach-values",
    "include-broken",
    "param-choices",
    "param-generate",
];

#[test]
fn the_json_schema_refuses_what_is_broken_in_structure_and_nothing_else() {
    let schema = json_schema(&registry());
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let mut wrong = Vec::new();
    for path in entries("workflows", |path| path.extension() == Some(OsStr::new("toml"))) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(document) = toml::from_str::<toml::Value>(&text) else { continue };
        let document = serde_json::to_value(document).unwrap();
        let told = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let structural = STRUCTURAL.iter().any(|code| told.lines().any(|line| line == code.0));
        let name = path.file_stem().and_then(OsStr::to_str).unwrap();
        let refused = !validator.is_valid(&document);
        if refused != structural && !BEYOND_A_SCHEMA.contains(&name) {
            let faults: Vec<String> =
                validator.iter_errors(&document).map(|fault| fault.to_string()).collect();
            wrong.push(format!(
                "{name}: {}",
                if refused { faults.join("; ") } else { "not refused".to_owned() }
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Compares the messages of all files at once with the texts beside them.
fn check(paths: &[PathBuf], refuse: impl Fn(&Path) -> Option<Diagnostics>) {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let Some(diagnostics) = refuse(path) else {
            wrong.push(format!("{}: nothing is wrong with it", path.display()));
            continue;
        };
        let message = render(&diagnostics);
        let beside = PathBuf::from(format!("{}.txt", path.with_extension("").display()));
        let beside = if path.extension().is_some() && path.with_extension("").exists() {
            PathBuf::from(format!("{}.txt", path.display()))
        } else {
            beside
        };
        if update {
            std::fs::write(&beside, &message).unwrap();
        } else if std::fs::read_to_string(&beside).unwrap_or_default() != message {
            wrong.push(format!("{}: the message is now\n{message}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 writes the new texts", wrong.join("\n\n"));
}

/// The entries of a folder of fixtures, as a person in `fixtures/broken` would name them.
fn entries(folder: &str, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    // Every test of this program does the same, so it doesn't matter which one is first.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/broken")).unwrap();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| (path.is_dir() == (folder == "inventories") || path.is_file()) && wanted(path))
        .collect();
    paths.sort();
    paths
}

fn render(diagnostics: &Diagnostics) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    for (at, diagnostic) in diagnostics.0.iter().enumerate() {
        text.push_str(if at > 0 { "\n" } else { "" });
        handler.render_report(&mut text, diagnostic).unwrap();
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn plan(path: &Path) -> Result<(), Diagnostics> {
    let registry = Arc::new(registry());
    let root = path.file_name().and_then(OsStr::to_str).unwrap();
    let (bundle, _) = Documents::read(&Workflows, root, &registry)?;
    let inventory = inventory::load(Path::new("inventory.ini"))?;
    let request = Request { bundle, inventory, inputs: Inputs::default(), filter: Filter::default() };
    Plan::new(request, &registry, [7; 32]).map(drop)
}

struct Workflows;

impl Files for Workflows {
    fn read(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(Path::new("workflows").join(path))
    }

    fn display(&self, path: &str) -> String {
        path.to_owned()
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .add::<Command>()
        .add::<Unit>()
        .add::<WaitFor>()
        .add::<Template>()
        .add::<Query>()
        .add::<Purge>()
        .add::<Approval>();
    registry
}

/// Declares a step type that is never run.
macro_rules! step_type {
    ($type:ty, $name:literal $(, $item:item)*) => {
        #[async_trait]
        impl Step for $type {
            async fn check(&self, _: &Context) -> Result<Check, StepError> {
                Ok(Check::Satisfied(Output::empty()))
            }

            async fn apply(&self, _: &Context, _: &Change) -> Result<Output, StepError> {
                Ok(Output::empty())
            }
        }

        impl StepType for $type {
            const NAME: &'static str = $name;
            $($item)*
        }
    };
}

/// Runs a command.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Command {
    /// The command and its arguments, as a shell would read them.
    #[expect(dead_code, reason = "only its place in the schema counts")]
    command: String,
    /// A path that the command makes; while it is there, nothing is run.
    creates: Option<String>,
    /// Whether running it twice does no harm.
    #[serde(default)]
    repeatable: bool,
}

step_type!(
    Command,
    "command",
    fn validate(&self) -> Result<(), String> {
        match (&self.creates, self.repeatable) {
            (Some(_), true) => Err("`creates` and `repeatable` exclude each other".to_owned()),
            _ => Ok(()),
        }
    }
);

/// What a unit is to be.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Its process is there.
    Running,
    /// No process of it is left.
    Stopped,
    /// It can't be started.
    Masked,
}

/// A systemd unit in a state.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their places in the schema count")]
struct Unit {
    /// The unit's name, with its suffix.
    name: String,
    /// What it is to be.
    state: State,
    /// Whether it starts at boot.
    enabled: Option<bool>,
}

step_type!(Unit, "systemd.unit");

/// A time.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its place in the schema counts")]
struct Every {
    /// Seconds.
    seconds: u32,
}

/// Waits for a port to answer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their places in the schema count")]
struct WaitFor {
    /// The TCP port.
    port: u16,
    /// How often to look.
    every: Option<Every>,
}

step_type!(WaitFor, "wait-for", const WAITS: bool = true;);

/// A file made from a template.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their places in the schema count")]
struct Template {
    /// The template, beside the workflow.
    src: String,
    /// The file.
    dest: String,
}

step_type!(
    Template,
    "template",
    const FILES: &'static [&'static str] = &["src"];,
    const TEMPLATES: &'static [&'static str] = &["src"];
);

/// Asks PostgreSQL.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their places in the schema count")]
struct Query {
    /// The SQL.
    query: String,
    /// The password of the user.
    password: Option<Secret>,
}

step_type!(Query, "postgres.query");

/// Removes all keys below a prefix.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its place in the schema counts")]
struct Purge {
    /// The prefix, ending in a slash.
    prefix: String,
}

step_type!(Purge, "etcd.purge", const DESTRUCTIVE: bool = true;);

/// Waits for a person.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its place in the schema counts")]
struct Approval {
    /// What is asked.
    message: String,
}

step_type!(Approval, "approval", const GATE: bool = true;);
