//! A preview, while hosts don't answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::engine::{Engine, Finding, Fleet, Holder};
use flow_core::inventory::Host;
use flow_core::run::Identity;
use flow_core::step::{Attempt, Change, Check, Context, Output, Resources, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::world::{self, plan};

/// Looks at a host, and lets that be known.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Knock {
    /// Tells what can't be seen.
    #[serde(default)]
    tells: bool,
}

#[async_trait]
impl Step for Knock {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        cx.resource::<Arc<Notify>>()?.notify_one();
        Ok(Check::Satisfied(Output::empty().with("seen", true)))
    }

    fn unseen(&self, why: &StepError) -> Option<Output> {
        self.tells.then(|| Output::empty().with("unseen", &why.message))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

impl StepType for Knock {
    const NAME: &'static str = "knock";
}

/// `n1` is given up only once another host was looked at.
struct Late(Arc<Notify>);

#[async_trait]
impl Fleet for Late {
    async fn meet(&self, host: &Arc<Host>) -> Result<Identity, StepError> {
        if host.name == "n1" {
            self.0.notified().await;
            return Err(StepError::failed("n1 can't be reached"));
        }
        Ok(Identity { machine_id: host.name.clone(), key_fingerprint: String::new() })
    }

    async fn lock(&self, _: &Arc<Host>, _: &Holder) -> Result<(), StepError> {
        Ok(())
    }

    async fn unlock(&self, _: &Arc<Host>, _: &Holder) -> Result<(), StepError> {
        Ok(())
    }

    async fn alive(&self, _: &Arc<Host>, _: &Attempt) -> Result<bool, StepError> {
        Ok(false)
    }

    async fn close(&self) {}
}

#[tokio::test]
async fn a_host_that_is_given_up_late_holds_no_look_at_another_up_and_is_told_by_who_can() {
    let knocked = Arc::new(Notify::new());
    let mut registry = world::registry();
    registry.add::<Knock>();
    let mut resources = Resources::default();
    resources.insert(Arc::clone(&knocked));
    let engine = Engine::new(registry).with_resources(resources).with_fleet(Arc::new(Late(knocked)));
    let text = "name = \"look\"\nsummary = \"s\"\n[steps.tells]\nuses = \"knock\"\nhosts = \"nodes\"\nwith = { tells = true }\n\
        [steps.fails]\nuses = \"knock\"\nhosts = \"nodes\"\n";
    let plan = plan(&engine, text, &["n1", "n2"]);
    let preview = tokio::time::timeout(Duration::from_secs(60), engine.preview(plan)).await.unwrap();
    let of = |name: &str| preview.tasks.iter().find(|task| task.name.as_str() == name).unwrap();
    assert_eq!(of("tells@n1").output, Some(Output::empty().with("unseen", "n1 can't be reached")));
    assert!(matches!(of("tells@n1").finding, Finding::Satisfied));
    assert!(
        matches!(&of("fails@n1").finding, Finding::Failed(error) if error.message == "n1 can't be reached")
    );
    for name in ["tells@n2", "fails@n2"] {
        assert_eq!(of(name).output, Some(Output::empty().with("seen", true)), "{name}");
    }
    assert_eq!(preview.hosts.keys().collect::<Vec<_>>(), ["n2"]);
}
