//! `directory`: a directory with this owner and mode.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::content::{ownership_differences, parse_mode, validate_path};
use crate::host::{FileKind, HostChange, HostContext, Ownership};

/// A directory with this owner and mode. What is in it is not looked at.
///
/// Directories above it are made where they are missing (root, 0755). Output: `path`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Absolute path.
    pub path: String,
    /// Owner; of an existing directory it is kept, a new one is root's.
    #[serde(default)]
    pub owner: Option<String>,
    /// Group; as with `owner`.
    #[serde(default)]
    pub group: Option<String>,
    /// Permission bits, octal as text: `"0750"`. Kept, or `0755` for a new directory.
    #[serde(default)]
    pub mode: Option<String>,
}

impl StepType for Directory {
    const NAME: &'static str = "directory";

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.path)?;
        parse_mode(self.mode.as_deref()).map(|_| ())
    }
}

impl Directory {
    fn ownership(&self) -> Result<Ownership, StepError> {
        let mode = parse_mode(self.mode.as_deref()).map_err(StepError::permanent)?;
        Ok(Ownership { owner: self.owner.clone(), group: self.group.clone(), mode })
    }

    fn output(&self) -> Output {
        Output::empty().with("path", &self.path)
    }
}

#[async_trait]
impl Step for Directory {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let path = &self.path;
        let Some(stat) = cx.host().await?.stat(path).await? else {
            return Ok(Check::Pending(Change::new(format!("make {path}"))));
        };
        if stat.kind != FileKind::Directory {
            return Ok(Check::Refused(format!("{path} is there and is no directory")));
        }
        let differences = ownership_differences(&self.ownership()?, &stat);
        Ok(if differences.is_empty() {
            Check::Satisfied(self.output())
        } else {
            Check::Pending(Change::new(format!("change {path}: {}", differences.join(", "))))
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let make = HostChange::MakeDirectory { path: self.path.clone(), ownership: self.ownership()? };
        cx.host().await?.change(cx.attempt(), &make).await?;
        Ok(self.output())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, pending, refused};
    use serde_json::json;

    #[tokio::test]
    async fn a_directory_is_made_and_its_mode_kept_as_said() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = |mode: &str| -> Directory {
            serde_json::from_value(json!({ "path": "/srv/a/b", "mode": mode })).unwrap()
        };
        lab.establish(&step("0750"), &cx).await;
        assert_eq!(
            pending(step("0700").check(&cx).await.unwrap()).summary,
            "change /srv/a/b: mode 0750 -> 0700"
        );
        lab.establish(&step("0700"), &cx).await;
    }

    #[tokio::test]
    async fn a_file_at_its_place_is_refused() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        lab.make("patroni1", "file", json!({ "path": "/srv/a", "content": "" })).await;
        let step: Directory = serde_json::from_value(json!({ "path": "/srv/a" })).unwrap();
        assert!(refused(step.check(&cx).await.unwrap()).contains("no directory"));
    }
}
