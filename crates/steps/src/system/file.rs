//! `file`: a file with this content, owner and mode, or none.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::content::{self, Diff, Wanted, parse_mode, validate_path};
use super::validated::validate_words;
use crate::host::Ownership;

/// A file with this content, owner and mode.
///
/// The check compares every byte, and what is given of owner, group and mode. The file is replaced at
/// once, never half written. What was there is kept on the host below `/var/lib/flow/former/RUN` (0600)
/// and put back by undo, unless the file was changed since. Output: `path`, `sha256`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// The whole content.
    pub content: String,
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
    /// Show what changes line by line; `"masked"`: with the values of what is called a password, a secret or a token masked. By default for a new file, and where everybody may read the present one:
    /// another one may hold secrets that flow doesn't know.
    #[serde(default)]
    pub diff: Option<Diff>,
    /// A command that looks at the new content before it takes the file's place, as a list of words in which `%s`
    /// stands for its path: `["haproxy", "-c", "-f", "%s"]`. It runs as root, without a shell's rules (for those:
    /// `["sh", "-c", "...", "sh", "%s"]`), when the content changes, and when the step is applied: a plan runs nothing.
    /// The new content lies beside the file as `.flow-new.NAME`, with the file's owner and mode. Only where the
    /// command exits with 0 is the file replaced; otherwise the step fails with what it wrote, and the file
    /// is left as it was. Where `diff` isn't shown, neither is what it wrote. Undo puts the former file back without it.
    #[serde(default)]
    pub validate: Vec<String>,
}

impl StepType for File {
    const NAME: &'static str = "file";
    const UNDOABLE: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.path)?;
        validate_words(&self.validate)?;
        parse_mode(self.mode.as_deref()).map(|_| ())
    }
}

impl File {
    fn wanted(&self) -> Result<Wanted<'_>, StepError> {
        let mode = parse_mode(self.mode.as_deref()).map_err(StepError::permanent)?;
        Ok(Wanted {
            path: &self.path,
            content: &self.content,
            ownership: Ownership { owner: self.owner.clone(), group: self.group.clone(), mode },
            parents: self.parents,
            diff: self.diff,
            validate: &self.validate,
        })
    }
}

#[async_trait]
impl Step for File {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        self.wanted()?.check(cx).await
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        self.wanted()?.apply(cx, change).await
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        content::undo(cx, &self.path, change, !self.validate.is_empty()).await
    }
}
