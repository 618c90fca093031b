//! `template`: a file made from one of the workflow's files.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::content::{self, Diff, Wanted, parse_mode, validate_path};
use super::validated::validate_words;
use crate::host::Ownership;

/// A file made from a template of the workflow's folder.
///
/// The template sees what the step's arguments see: params, outputs, variables of the host. Everything
/// else is as with `file`. Output: `path`, `sha256`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The template, beside the workflow: `templates/patroni.yml`. Pinned with the run.
    pub src: String,
    /// Absolute path on the host.
    pub path: String,
    /// Owner; of an existing file it is kept, a new one is root's.
    #[serde(default)]
    pub owner: Option<String>,
    /// Group; as with `owner`.
    #[serde(default)]
    pub group: Option<String>,
    /// Permission bits, octal as text: `"0600"`. Kept, or `0644` for a new file.
    #[serde(default)]
    pub mode: Option<String>,
    /// Make the directories above it where they are missing (root, 0755).
    #[serde(default)]
    pub parents: bool,
    /// Show what changes line by line; `"masked"`: with the values of what is called a password, a secret or a token masked. By default for a new file, and where everybody may read the present one.
    #[serde(default)]
    pub diff: Option<Diff>,
    /// A command that must exit with 0 on the new content before it takes the file's place, as with `file`:
    /// `["haproxy", "-c", "-f", "%s"]`, where `%s` stands for the new content's path.
    #[serde(default)]
    pub validate: Vec<String>,
}

impl StepType for Template {
    const NAME: &'static str = "template";
    const UNDOABLE: bool = true;
    const FILES: &'static [&'static str] = &["src"];
    const TEMPLATES: &'static [&'static str] = &["src"];

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.path)?;
        validate_words(&self.validate)?;
        parse_mode(self.mode.as_deref()).map(|_| ())
    }
}

impl Template {
    fn content(&self, cx: &Context) -> Result<String, StepError> {
        let text = cx.file(&self.src)?;
        cx.render(&text).map_err(|error| StepError {
            message: format!("{}: {}", self.src, error.message),
            permanent: true,
            ..error
        })
    }

    fn wanted<'a>(&'a self, content: &'a str) -> Result<Wanted<'a>, StepError> {
        let mode = parse_mode(self.mode.as_deref()).map_err(StepError::permanent)?;
        Ok(Wanted {
            path: &self.path,
            content,
            ownership: Ownership { owner: self.owner.clone(), group: self.group.clone(), mode },
            parents: self.parents,
            diff: self.diff,
            validate: &self.validate,
        })
    }
}

#[async_trait]
impl Step for Template {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let content = self.content(cx)?;
        self.wanted(&content)?.check(cx).await
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let content = self.content(cx)?;
        self.wanted(&content)?.apply(cx, change).await
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        content::undo(cx, &self.path, change, !self.validate.is_empty()).await
    }
}
