//! `assert`: a condition that must hold before anything later is done.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

/// Stops the run where a condition does not hold. Changes nothing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assert {
    /// What must be true, such as `"{{ steps.survey.paused == false }}"`.
    pub that: bool,
    /// What is said where it isn't, as a fragment: what is wrong.
    pub message: String,
    /// The next action, as a sentence.
    #[serde(default)]
    pub hint: Option<String>,
}

impl StepType for Assert {
    const NAME: &'static str = "assert";
    const READ_ONLY: bool = true;
}

#[async_trait]
impl Step for Assert {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        if self.that {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let error = StepError::permanent(&self.message);
        Err(match &self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::operator;

    #[tokio::test]
    async fn what_holds_is_satisfied_and_what_does_not_stops_with_its_words() {
        let assert = |that| Assert { that, message: "two leaders".into(), hint: Some("look".into()) };
        assert_eq!(assert(true).check(&operator()).await.unwrap(), Check::Satisfied(Output::empty()));
        let error = assert(false).check(&operator()).await.unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.hint.as_deref(), error.permanent),
            ("two leaders", Some("look"), true)
        );
    }
}
