//! Why there is no rehearsal, each with the next action.

use flow_core::run::TaskName;
use flow_core::step::StepError;
use flow_core::workflow::Diagnostics;

use crate::host::sim::{Unknown, UnknownKind};

/// Why a workflow could not be rehearsed.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The workflow, the inventory or the params are wrong.
    #[error("{0}")]
    Refused(Diagnostics),
    /// The test file is wrong.
    #[error("{message}")]
    File {
        /// What is wrong, as a fragment.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// The simulated hosts have no answer to these.
    #[error("the simulated hosts have no answer to {} of {workflow}", asked(.unknown))]
    NoAnswer {
        /// The workflow.
        workflow: String,
        /// What was asked, each once.
        unknown: Vec<Unknown>,
    },
    /// Nobody disturbed it, and yet it did not come to a good end.
    #[error("on simulated hosts {workflow} does not come to a good end even undisturbed: {ended}")]
    Undisturbed {
        /// The workflow.
        workflow: String,
        /// How it ended.
        ended: String,
        /// What failed.
        failures: Vec<(TaskName, StepError)>,
    },
    /// There is no such case.
    #[error("there is no case `{only}`")]
    NoCase {
        /// What was asked for.
        only: String,
        /// The tasks that have cases.
        tasks: Vec<String>,
    },
}

fn asked(unknown: &[Unknown]) -> String {
    let queries = unknown.iter().filter(|unknown| unknown.kind == UnknownKind::Query).count();
    let count = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let parts = [count(unknown.len() - queries, "command", "commands"), count(queries, "query", "queries")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

impl RehearsalError {
    /// More lines for a person: what was asked and the lines to add, or what failed.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::NoAnswer { unknown, .. } => {
                let lines: Vec<String> = unknown.iter().map(lines_to_add).collect();
                Some(lines.join("\n"))
            }
            Self::Undisturbed { failures, .. } if !failures.is_empty() => {
                let line = |(task, error): &(TaskName, StepError)| {
                    let detail = error.detail.as_ref().map(|text| format!("\n{text}")).unwrap_or_default();
                    format!("{task}: {error}{detail}")
                };
                Some(failures.iter().map(line).collect::<Vec<_>>().join("\n"))
            }
            _ => None,
        }
    }

    /// The next action.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Refused(_) => return None,
            Self::File { hint, .. } => return hint.clone(),
            Self::NoAnswer { .. } => {
                "add these lines to NAME.test.toml beside the workflow NAME.toml, with what \
                the command answers and does; docs/testing-workflows.md"
                    .to_owned()
            }
            Self::Undisturbed { .. } => {
                "see that the start state is right: --deployed, --after WORKFLOW, or \
                `after` in NAME.test.toml; docs/testing-workflows.md says what the simulated hosts know"
                    .to_owned()
            }
            Self::NoCase { tasks, .. } if tasks.is_empty() => {
                "no task changes anything, so there is nothing to disturb".to_owned()
            }
            Self::NoCase { tasks, .. } => {
                format!("TASK, STEP or TASK/POINT, of: {}", tasks.join(", "))
            }
        })
    }
}

/// What to write in the test file for an answer that is missing.
fn lines_to_add(unknown: &Unknown) -> String {
    let text = toml::Value::String(unknown.text.trim().to_owned());
    match unknown.kind {
        UnknownKind::Run => {
            format!("[[commands]]      # on {}\nrun = {text}\ncreates = \"/what/it/makes\"\n", unknown.host)
        }
        UnknownKind::Probe => {
            format!("[[commands]]      # only looks, on {}\nrun = {text}\nexit = 0\n", unknown.host)
        }
        UnknownKind::Query => {
            format!(
                "[[queries]]      # on {}\nquery = {text}\nrows = [{{ column = \"value\" }}]\n",
                unknown.host
            )
        }
    }
}

impl From<Diagnostics> for RehearsalError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Refused(diagnostics)
    }
}
