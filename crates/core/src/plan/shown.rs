//! What a saved plan showed of every task. It is pinned with the definition, so that the run of it does
//! that and nothing else, also when it is resumed.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::{Identity, RunId, TaskName};
use crate::step::StepError;

/// What stands for the run's beginning in what is compared: it is another one in the run than in the plan.
const RUN_STARTED: &str = "{{ run.started }}";

/// What the error begins with of a task that is not as a saved plan showed it. Going on needs `--as-found`.
pub const NOT_AS_PLANNED: &str = "not as planned: ";

/// What was shown when a plan was saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The id that the run will have, chosen beforehand: names that steps make of it are shown as they will be.
    pub run: RunId,
    /// When it was shown.
    pub made: Timestamp,
    /// To whom: `user@machine (pid N)`
    pub by: String,
    /// Who the hosts were.
    pub hosts: BTreeMap<String, Identity>,
    /// Every task, each after what it needs.
    pub tasks: IndexMap<TaskName, ShownTask>,
}

/// What was shown of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum ShownTask {
    /// As it should be.
    Ok,
    /// As it should be at the time; something before it was to change something, so it was said that it
    /// would be looked at again.
    OkNow,
    /// This would be done.
    Change {
        /// The change in a line.
        summary: String,
        /// More lines.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        diff: Option<String>,
        /// What must be the same again: [`Step::invariant`](crate::step::Step::invariant).
        invariant: Value,
    },
    /// The run would wait for an approval.
    Asks {
        /// What would be asked.
        message: String,
    },
    /// Its condition was false.
    Skip {
        /// The condition.
        why: String,
    },
    /// These hosts would be chosen for its step, in this order.
    Hosts {
        /// Their names.
        hosts: Vec<String>,
    },
    /// It could be known only after these steps.
    Later {
        /// Their names.
        after: String,
    },
}

/// A task that isn't as it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The task.
    pub task: TaskName,
    /// What was shown and what is so now.
    pub words: String,
    /// The lines of both, where one line tells no difference.
    pub detail: Option<String>,
}

impl ShownTask {
    /// In a few words.
    pub fn words(&self) -> String {
        match self {
            Self::Ok | Self::OkNow => "as it should be".to_owned(),
            Self::Change { summary, .. } => summary.clone(),
            Self::Asks { message } => format!("waits for approval: {message}"),
            Self::Skip { why } => format!("skipped, {why}"),
            Self::Hosts { hosts } if hosts.is_empty() => "no host".to_owned(),
            Self::Hosts { hosts } => format!("in this order: {}", hosts.join(", ")),
            Self::Later { after } => format!("known only after {after}"),
        }
    }

    /// Whether it was said that what is done would be known only in its turn.
    fn left_open(&self) -> bool {
        matches!(self, Self::OkNow | Self::Later { .. })
    }

    /// How the same task differs now, before the run; none where it is as it was shown.
    pub fn moved(&self, task: &TaskName, now: &Self) -> Option<Moved> {
        let same = match (self, now) {
            (Self::Later { .. }, _) => true,
            (Self::Ok | Self::OkNow, Self::Ok | Self::OkNow) | (Self::Skip { .. }, Self::Skip { .. }) => true,
            (Self::Asks { message: then }, Self::Asks { message: now }) => then == now,
            (Self::Hosts { hosts: then }, Self::Hosts { hosts: now }) => then == now,
            (Self::Change { invariant: then, .. }, Self::Change { invariant: now, .. }) => then == now,
            _ => false,
        };
        (!same).then(|| self.difference(task, now))
    }

    /// Why a change must not be made in its turn; none where it is what was shown, or where it was said that
    /// it would be known only now.
    pub(crate) fn forbids(&self, task: &TaskName, now: &Self) -> Option<StepError> {
        if self.left_open() {
            return None;
        }
        let moved = self.moved(task, now)?;
        let error = StepError::permanent(format!("{NOT_AS_PLANNED}{}", moved.words)).with_hint(
            "this task changed nothing; where what is so now is right, `flow resume --as-found` goes on with it",
        );
        Some(StepError { detail: moved.detail, ..error })
    }

    fn difference(&self, task: &TaskName, now: &Self) -> Moved {
        let (then_words, now_words) = (self.words(), now.words());
        let lines = |shown: &Self| match shown {
            Self::Change { diff: Some(diff), .. } => diff.trim_end().to_owned(),
            _ => "(no more lines)".to_owned(),
        };
        if then_words != now_words {
            let words = format!("shown: {then_words}; now: {now_words}");
            return Moved { task: task.clone(), words, detail: None };
        }
        let detail = format!("shown:\n{}\nnow:\n{}", lines(self), lines(now));
        let words = format!("{now_words}: the details are other ones now");
        Moved { task: task.clone(), words, detail: (lines(self) != lines(now)).then_some(detail) }
    }
}

/// The value with the time that the run began replaced by its name.
pub(crate) fn without_time(value: Value, started: Timestamp) -> Value {
    let time = started.to_string();
    match value {
        Value::String(text) => text.replace(&time, RUN_STARTED).into(),
        Value::Array(items) => items.into_iter().map(|item| without_time(item, started)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, field)| (name, without_time(field, started))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(summary: &str, invariant: Value) -> ShownTask {
        ShownTask::Change { summary: summary.to_owned(), diff: Some("+a\n".to_owned()), invariant }
    }

    fn words(then: &ShownTask, now: &ShownTask) -> Option<String> {
        then.moved(&TaskName::from_text("a"), now).map(|moved| moved.words)
    }

    #[test]
    fn what_is_compared_is_the_invariant_and_what_is_told_are_the_words() {
        assert_eq!(words(&change("at 1", json!("x")), &change("at 2", json!("x"))), None);
        assert_eq!(
            words(&change("at 1", json!("x")), &change("at 2", json!("y"))).as_deref(),
            Some("shown: at 1; now: at 2")
        );
        assert_eq!(
            words(&change("at 1", json!("x")), &change("at 1", json!("y"))).as_deref(),
            Some("at 1: the details are other ones now")
        );
        assert_eq!(
            words(&ShownTask::Ok, &change("stop", json!(1))).as_deref(),
            Some("shown: as it should be; now: stop")
        );
        assert_eq!(words(&ShownTask::Ok, &ShownTask::OkNow), None);
    }

    #[test]
    fn only_what_was_left_open_may_be_another_change_in_its_turn() {
        let task = TaskName::from_text("a");
        let now = change("stop", json!(1));
        assert_eq!(ShownTask::OkNow.forbids(&task, &now), None);
        assert_eq!(ShownTask::Later { after: "b".to_owned() }.forbids(&task, &now), None);
        assert_eq!(change("stop", json!(1)).forbids(&task, &now), None);
        for other in [ShownTask::Ok, ShownTask::Skip { why: "no".to_owned() }, change("start", json!(2))] {
            let error = other.forbids(&task, &now).unwrap();
            assert!(error.permanent && error.message.starts_with("not as planned: shown: "), "{error}");
        }
    }

    #[test]
    fn the_time_of_the_run_is_no_difference() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (plan, run) = (at("2026-01-02T03:04:05.678Z"), at("2026-01-02T04:00:00Z"));
        let told =
            |time: Timestamp| json!({ "diff": format!("+started {time}"), "list": [time.to_string()] });
        assert_eq!(without_time(told(plan), plan), without_time(told(run), run));
    }
}
