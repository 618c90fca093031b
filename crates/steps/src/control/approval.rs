//! `approval`: a person decides whether the run goes on.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

/// Waits for a person's approval. What needs this step starts once somebody gave it.
///
/// It is given at the terminal where the run goes on, or from anywhere with the same store:
/// `flow approve RUN TASK`, also while no process works on the run. A rejection fails the task; a resume
/// asks again. Who approved and when is recorded. `timeout` of the step limits the wait, counted anew
/// by each process that takes the run up; without one it has no end. Other tasks go on meanwhile.
///
/// Outputs: `by` (`user@machine`), `at` (RFC 3339).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What is asked, in one line: what will be done once it is approved, and what to look at before.
    pub message: String,
}

impl StepType for Approval {
    const NAME: &'static str = "approval";
    const GATE: bool = true;

    fn validate(&self) -> Result<(), String> {
        match self.message.trim() {
            "" => Err("`message` is empty".to_owned()),
            text if text.contains('\n') => Err("`message` is one line".to_owned()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Step for Approval {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        Ok(Check::Pending(Change::new(self.message.trim())))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Err(StepError::permanent("an approval is given by a person, never by a program"))
    }
}
