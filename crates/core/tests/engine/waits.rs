//! What is waited for, and goes away again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use flow_core::engine::Engine;
use flow_core::plan::{Filter, Plan, Request};
use flow_core::run::Outcome;
use flow_core::step::{Change, Check, Context, Output, Resources, Step, StepError, StepType};
use flow_core::testing::{self, MemoryStore};
use schemars::JsonSchema;
use serde::Deserialize;

/// How often it is still gone when it is looked at, and how often it was waited for.
#[derive(Default)]
struct Line {
    gone: AtomicUsize,
    waited: AtomicUsize,
}

/// Waits for a line that comes, and may be cut again at once.
#[derive(Deserialize, JsonSchema)]
struct LineUp {}

#[async_trait]
impl Step for LineUp {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let gone = &cx.resource::<Arc<Line>>()?.gone;
        let before =
            gone.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)));
        match before {
            Ok(0) | Err(_) => Ok(Check::Satisfied(Output::empty())),
            Ok(_) => Ok(Check::Pending(Change::new("wait for the line"))),
        }
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let before = cx.resource::<Arc<Line>>()?.waited.fetch_add(1, Ordering::SeqCst);
        if before == 3 {
            std::future::pending::<()>().await;
        }
        Ok(Output::empty())
    }
}

impl StepType for LineUp {
    const NAME: &'static str = "line_up";
    const WAITS: bool = true;
}

/// The same of something that is changed.
#[derive(Deserialize, JsonSchema)]
struct LineLaid {}

#[async_trait]
impl Step for LineLaid {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        LineUp {}.check(cx).await
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        LineUp {}.apply(cx, change).await
    }
}

impl StepType for LineLaid {
    const NAME: &'static str = "line_laid";
}

/// The run's outcome, and how often was waited, where the line is gone at so many looks.
async fn run(uses: &str, gone: usize) -> (Outcome, usize, String) {
    run_filtered(uses, gone, Filter::default()).await
}

async fn run_filtered(uses: &str, gone: usize, filter: Filter) -> (Outcome, usize, String) {
    let line = Arc::new(Line { gone: AtomicUsize::new(gone), ..Line::default() });
    let mut registry = testing::registry();
    registry.add::<LineUp>().add::<LineLaid>();
    let mut resources = Resources::default();
    resources.insert(Arc::clone(&line));
    let engine = Engine::new(registry).with_resources(resources);
    let text = format!(
        "name = \"line\"\nsummary = \"A line.\"\n[steps.line]\nuses = \"{uses}\"\nhosts = \"nodes\"\ntimeout = \"50ms\"\n\
         [steps.last]\nuses = \"await\"\nneeds = [\"line\"]\ntags = [\"last\"]\n"
    );
    let request = Request { filter, ..testing::request(&text, &["n1"], &[]) };
    let plan = Plan::new(request, engine.registry(), [7; 32]).unwrap();
    let handle = engine.start(plan, Box::new(MemoryStore::new()), None).unwrap();
    let report = tokio::time::timeout(Duration::from_secs(100), handle.wait()).await.unwrap().unwrap();
    let why = report.failures.first().map(|(_, error)| error.to_string()).unwrap_or_default();
    (report.outcome, line.waited.load(Ordering::SeqCst), why)
}

#[tokio::test]
async fn what_is_waited_for_and_goes_away_at_once_is_waited_for_again() {
    assert_eq!(run("line_up", 0).await.1, 0);
    assert_eq!(run("line_up", 1).await, (Outcome::Succeeded, 1, String::new()));
    assert_eq!(run("line_up", 3).await, (Outcome::Succeeded, 3, String::new()));
}

#[tokio::test]
async fn what_is_changed_and_does_not_take_is_a_failure() {
    let (outcome, applied, why) = run("line_laid", 2).await;
    assert_eq!((outcome, applied), (Outcome::Failed, 1));
    assert!(why.contains("it did not take"), "{why}");
}

#[tokio::test]
async fn what_is_filtered_out_but_needed_is_waited_for_where_it_only_waits() {
    let last = || Filter { tags: ["last".to_owned()].into(), ..Filter::default() };
    assert_eq!(run_filtered("line_up", 1, last()).await, (Outcome::Succeeded, 1, String::new()));
    let (outcome, applied, why) = run_filtered("line_laid", 1, last()).await;
    assert_eq!((outcome, applied), (Outcome::Failed, 0));
    assert!(why.contains("it was filtered out"), "{why}");
}

#[tokio::test]
async fn each_time_that_is_waited_again_has_the_steps_time_out() {
    let (outcome, waited, _) = run("line_up", 4).await;
    // The fourth never comes: it is given up after the time out, and then looked at once more.
    assert_eq!((outcome, waited), (Outcome::Succeeded, 4));
    let (outcome, waited, _) = run("line_up", 9).await;
    assert_eq!(waited, 4, "nothing is waited for after a time out");
    assert_eq!(outcome, Outcome::Failed);
}
