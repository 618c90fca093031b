//! Looks that are taken before their turn: made at once, and worth nothing once anything isn't as it should be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flow_core::engine::Engine;
use flow_core::run::{Event, Outcome};
use flow_core::step::{Change, Check, Context, Output, Resources, Step, StepError, StepType, is_early};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Barrier;

use crate::world::{World, finish, plan, registry, store};

/// `look`: finds all as it should be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Look {
    /// What is written down.
    name: String,
    /// Only once another one looks too.
    #[serde(default)]
    together: bool,
    #[serde(default)]
    early: bool,
}

struct Looks {
    made: Mutex<Vec<(String, bool)>>,
    two: Barrier,
}

#[async_trait]
impl Step for Look {
    fn early(&self) -> bool {
        self.early
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let looks = cx.resource::<Looks>()?;
        if self.together {
            looks.two.wait().await;
        }
        looks.made.lock().unwrap().push((self.name.clone(), is_early()));
        Ok(Check::Satisfied(Output::empty().with("name", &self.name)))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

impl StepType for Look {
    const NAME: &'static str = "look";
}

/// What a run of that text makes of a world: its outcome, the tasks that were satisfied, and the looks, in order.
async fn run(text: &str, world: &Arc<World>) -> (Outcome, Vec<String>, Vec<(String, bool)>) {
    let looks = Arc::new(Looks { made: Mutex::default(), two: Barrier::new(2) });
    let mut resources = Resources::default();
    resources.insert(Arc::clone(world));
    resources.insert_shared(Arc::clone(&looks));
    let mut registry = registry();
    registry.add::<Look>();
    let engine = Engine::new(registry).with_resources(resources);
    let folder = tempfile::tempdir().unwrap();
    let confirmed = text.contains("wipe").then_some("t");
    let handle = engine.start(plan(&engine, text, &["n1"]), store(folder.path()), confirmed).unwrap();
    // Looks that wait for each other in vain would never end.
    let ended = tokio::time::timeout(Duration::from_secs(60), finish(handle)).await;
    let (report, events) = ended.expect("the looks were not made together");
    let satisfied = events.into_iter().filter_map(|event| match event {
        Event::TaskSatisfied { task, .. } => Some(task.to_string()),
        _ => None,
    });
    let made = looks.made.lock().unwrap().clone();
    (report.outcome, satisfied.collect(), made)
}

const HEAD: &str = "name = \"t\"\nsummary = \"s\"\n";

#[tokio::test]
async fn looks_in_a_row_are_made_together_each_once_and_told_in_their_order() {
    let text = format!(
        r#"{HEAD}
[steps.first]
uses = "look"
with = {{ name = "first", together = true, early = true }}
[steps.second]
uses = "look"
needs = ["first"]
with = {{ name = "second", together = true, early = true }}
[steps.third]
uses = "look"
needs = ["second"]
with = {{ name = "after {{{{ steps.second.name }}}}", early = true }}
"#
    );
    let (outcome, satisfied, mut made) = run(&text, &Arc::default()).await;
    assert_eq!(
        (outcome, satisfied),
        (Outcome::Succeeded, ["first", "second", "third"].map(String::from).to_vec())
    );
    made.sort();
    let expected = ["after second", "first", "second"].map(|name| (name.to_owned(), true));
    assert_eq!(made, expected);
}

#[tokio::test]
async fn a_step_that_does_not_allow_it_is_looked_at_in_its_turn() {
    let text = format!(
        r#"{HEAD}
[steps.first]
uses = "look"
with = {{ name = "first", early = true }}
[steps.second]
uses = "look"
needs = ["first"]
with = {{ name = "second" }}
"#
    );
    let (_, _, made) = run(&text, &Arc::default()).await;
    assert_eq!(made, [("first".to_owned(), true), ("second".to_owned(), false)]);
}

#[tokio::test]
async fn what_was_found_before_a_change_is_looked_at_again() {
    // As it is now the second one is satisfied, until the first one has done its work.
    let text = format!(
        r#"{HEAD}
[steps.one]
uses = "make"
with = {{ thing = "x", value = "1" }}
[steps.two]
uses = "make"
needs = ["one"]
with = {{ thing = "x", value = "2" }}
"#
    );
    let world = Arc::new(World::default());
    world.put("x", "2");
    let (outcome, satisfied, _) = run(&text, &world).await;
    assert_eq!((outcome, satisfied), (Outcome::Succeeded, Vec::new()));
    assert_eq!((world.count("x"), world.value("x").as_deref()), (2, Some("2")));
}

#[tokio::test]
async fn nothing_is_looked_at_ahead_where_something_is_to_be_destroyed() {
    let text = format!(
        r#"{HEAD}confirm = "t"
[steps.first]
uses = "look"
with = {{ name = "first", early = true }}
[steps.wipe]
uses = "wipe"
needs = ["first"]
with = {{ thing = "x" }}
"#
    );
    let (_, _, made) = run(&text, &Arc::default()).await;
    assert_eq!(made, [("first".to_owned(), false)]);
}
