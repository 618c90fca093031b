//! `directory`: a directory with this owner and mode.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::content::{Made, ownership_differences, parse_mode, validate_path};
use crate::host::{FileKind, HostChange, HostContext, Ownership};

/// A directory with this owner and mode. What is in it is not looked at.
///
/// Directories above it are made where they are missing (root, 0755). Undo removes what was made, if
/// nothing is in it, or sets owner and mode back. Output: `path`.
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

/// What a change records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Recorded {
    Made(Made),
    /// It was there, and was so.
    Was(Ownership),
}

impl StepType for Directory {
    const NAME: &'static str = "directory";
    const UNDOABLE: bool = true;

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
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let path = &self.path;
        let host = cx.host().await?;
        let Some(stat) = host.stat(path).await? else {
            let made = Made::missing(&*host, path).await?.map(Recorded::Made);
            return Ok(Check::Pending(Change::new(format!("make {path}")).with_data(made)));
        };
        if stat.kind != FileKind::Directory {
            return Ok(Check::Refused(format!("{path} is there and is no directory")));
        }
        let differences = ownership_differences(&self.ownership()?, &stat);
        Ok(if differences.is_empty() {
            Check::Satisfied(self.output())
        } else {
            let was = Ownership { owner: Some(stat.owner), group: Some(stat.group), mode: Some(stat.mode) };
            let change = Change::new(format!("change {path}: {}", differences.join(", ")));
            Check::Pending(change.with_data(Recorded::Was(was)))
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let make = HostChange::MakeDirectory { path: self.path.clone(), ownership: self.ownership()? };
        cx.host().await?.change(cx.attempt(), &make).await?;
        Ok(self.output())
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let host = cx.host().await?;
        let recorded: Option<Recorded> = change.data()?;
        match recorded {
            None => {}
            Some(Recorded::Was(ownership)) => {
                if host.stat(&self.path).await.map_err(StepError::from)?.is_none() {
                    return Err(StepError::permanent(format!("{} is gone", self.path)).into());
                }
                let set = HostChange::SetOwnership { path: self.path.clone(), ownership };
                host.change(cx.attempt(), &set).await.map_err(StepError::from)?;
            }
            Some(Recorded::Made(made)) => {
                let names = host.list(&self.path).await.map_err(StepError::from)?.unwrap_or_default();
                if !names.is_empty() {
                    let error = format!("{} isn't empty: it is left as it is", self.path);
                    let hint = "see what is in it; `--keep TASK` leaves it and takes back the rest";
                    return Err(StepError::permanent(error).with_hint(hint).into());
                }
                made.remove(cx, &*host).await?;
            }
        }
        Ok(())
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
    async fn what_was_made_is_removed_again_and_what_was_changed_is_set_back() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = |mode: &str| -> Directory {
            serde_json::from_value(json!({ "path": "/srv/a/b", "mode": mode })).unwrap()
        };
        let (made, _) = lab.establish(&step("0750"), &cx).await;
        let (changed, _) = lab.establish(&step("0700"), &cx).await;
        step("0700").undo(&cx, &changed, None).await.unwrap();
        let host = cx.host().await.unwrap();
        assert_eq!(host.stat("/srv/a/b").await.unwrap().unwrap().mode, 0o750);
        lab.make("patroni1", "file", json!({ "path": "/srv/a/b/theirs", "content": "" })).await;
        let error = step("0750").undo(&cx, &made, None).await.unwrap_err();
        assert_eq!(error.to_string(), "/srv/a/b isn't empty: it is left as it is");
        let by = cx.attempt();
        host.change(by, &HostChange::RemoveFile { path: "/srv/a/b/theirs".into() }).await.unwrap();
        step("0750").undo(&cx, &made, None).await.unwrap();
        assert_eq!(host.stat("/srv/a").await.unwrap(), None, "the one above it was made for it");
        step("0750").undo(&cx, &made, None).await.unwrap();
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
