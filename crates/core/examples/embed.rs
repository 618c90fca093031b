//! flow as a library: a step type of one's own, a workflow in a string, a run that is watched,
//! interrupted and resumed.
//!
//! `cargo run -p flow-core --example embed`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use flow_core::engine::{Engine, Notice, RunHandle, Stop};
use flow_core::inventory::Inventory;
use flow_core::plan::{Filter, Inputs, Plan, Request};
use flow_core::run::{Event, Outcome};
use flow_core::step::{Change, Check, Context, Output, Registry, Step, StepError, StepType};
use flow_core::store::{SqliteStore, Store};
use flow_core::workflow::Bundle;
use schemars::JsonSchema;
use serde::Deserialize;

/// Keeps a line in a file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Line {
    /// The file.
    path: PathBuf,
    /// The line, without its end.
    line: String,
}

#[async_trait]
impl Step for Line {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        Ok(if text.lines().any(|line| line == self.line) {
            Check::Satisfied(Output::empty().with("lines", text.lines().count()))
        } else {
            Check::Pending(Change::new(format!("add `{}` to {}", self.line, self.path.display())))
        })
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        // Real work takes a while: long enough here to be stopped in the middle of the run.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.push_str(&self.line);
        text.push('\n');
        std::fs::write(&self.path, text).map_err(|e| StepError::failed(e.to_string()))?;
        Ok(Output::empty())
    }
}

impl StepType for Line {
    const NAME: &'static str = "example.line";
}

const WORKFLOW: &str = r#"
name = "greet"
summary = "Writes three lines, one after another."

[params.path]
type = "string"
help = "the file to write"

[steps.first]
uses = "example.line"
with = { path = "{{ params.path }}", line = "one" }

[steps.second]
uses = "example.line"
needs = ["first"]
with = { path = "{{ params.path }}", line = "two" }

[steps.third]
uses = "example.line"
needs = ["second"]
with = { path = "{{ params.path }}", line = "{{ steps.second.lines }} lines before this one" }
"#;

fn open(folder: &Path) -> Result<Box<dyn Store>, Box<dyn std::error::Error>> {
    Ok(Box::new(SqliteStore::open(&folder.join("runs.db"))?))
}

/// Watches a run; once `stop_after` is begun, asks it to stop.
async fn watch(mut run: RunHandle, stop_after: Option<&str>) -> Result<Outcome, Box<dyn std::error::Error>> {
    while let Some(notice) = run.notices.recv().await {
        let Notice::Event(record) = notice else { continue };
        match &record.event {
            Event::TaskIntended { task, change, .. } => {
                println!("{:>3}  {task}: {}", record.seq, change.summary);
                if stop_after == Some(task.as_str()) {
                    run.stop(Stop::Gently);
                }
            }
            Event::TaskDone { task, .. } => println!("{:>3}  {task}: done", record.seq),
            Event::RunEnded { outcome, .. } => println!("{:>3}  the run: {outcome:?}", record.seq),
            _ => {}
        }
    }
    Ok(run.wait().await?.outcome)
}

/// Runs the workflow in `folder`: interrupted once, then resumed. Gives the lines that were written.
pub async fn embed(folder: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut registry = Registry::new();
    registry.add::<Line>();
    let engine = Engine::new(registry);

    let path = folder.join("greeting.txt");
    let store = open(folder)?;
    let request = Request {
        bundle: Bundle::single("greet.toml", WORKFLOW),
        inventory: Inventory::default(),
        inputs: Inputs::new([("path".to_owned(), path.display().to_string())]),
        filter: Filter::default(),
    };
    let plan = Plan::new(request, engine.registry(), store.fingerprint_key()?)?;

    let run = engine.start(plan, store, None)?;
    let id = run.id.clone();
    let outcome = watch(run, Some("first")).await?;
    assert_eq!(outcome, Outcome::Interrupted);

    let run = engine.open(open(folder)?, &id, None)?.resume()?;
    let outcome = watch(run, None).await?;
    assert_eq!(outcome, Outcome::Succeeded);
    Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("flow-embed-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let lines = embed(&folder).await?;
    println!("{}", lines.join("\n"));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
