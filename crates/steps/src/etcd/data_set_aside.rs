//! `etcd.data_set_aside`: a member's data directory out of the way, with everything in it kept.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::host::{FileKind, Host, HostChange, HostContext, ProcessQuery};

/// Renames etcd's data directory to `DIR.set-aside-TIME-RUN`, so that nothing is there. Nothing is removed.
///
/// TIME is when the run began (UTC). Refused: a directory that is no member's data and isn't empty, a mount point, a link,
/// a name that is taken, and while an etcd runs on the host. A directory that is absent or empty needs nothing. Undo renames it
/// back, never over anything. Output: `set_aside` (the new path, null where nothing was there).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdDataSetAside {
    /// The data directory: `/var/lib/etcd/default`, or `"{{ steps.etcd_settings.data_dir }}"`.
    pub data_dir: String,
}

/// What a change records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Moved {
    from: String,
    to: String,
    /// A rename keeps it.
    inode: u64,
}

impl StepType for EtcdDataSetAside {
    const NAME: &'static str = "etcd.data_set_aside";
    const DESTRUCTIVE: bool = true;
    const UNDOABLE: bool = true;

    fn validate(&self) -> Result<(), String> {
        let path = &self.data_dir;
        let plain = path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".");
        if !plain || path.trim_matches('/').split('/').count() < 2 {
            return Err(format!("`{path}` is no absolute path of a data directory"));
        }
        Ok(())
    }
}

impl EtcdDataSetAside {
    fn path(&self) -> &str {
        self.data_dir.trim_end_matches('/')
    }

    /// The rename to be done; none: nothing is there. The inner error says why it isn't done.
    async fn plan(&self, cx: &Context, host: &dyn Host) -> Result<Result<Option<Moved>, String>, StepError> {
        let from = self.path().to_owned();
        let to = format!("{from}.set-aside-{}-{}", cx.run_started().strftime("%Y%m%dT%H%M%SZ"), cx.run());
        let parent =
            from.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
        let member = format!("{from}/member");
        let (stat, names, member, parent, taken) = tokio::try_join!(
            host.stat(&from),
            host.list(&from),
            host.stat(&member),
            host.stat(parent),
            host.stat(&to)
        )?;
        let Some(stat) = stat else { return Ok(Ok(None)) };
        let refused = |why: String| Ok(Err(why));
        if stat.kind != FileKind::Directory {
            return refused(format!("{from} is no directory: name the directory itself in ETCD_DATA_DIR"));
        }
        if names.unwrap_or_default().is_empty() {
            return Ok(Ok(None));
        }
        if member.is_none() {
            return refused(format!(
                "{from} is no data directory of etcd (no `member` in it), and it isn't empty"
            ));
        }
        if parent.is_some_and(|parent| parent.device != stat.device) {
            return refused(format!(
                "{from} is a mount point, which can't be renamed: set its content aside by hand"
            ));
        }
        if taken.is_some() {
            return refused(format!("{to} is there already"));
        }
        Ok(Ok(Some(Moved { from, to, inode: stat.inode })))
    }

    /// Who still works on it, in words.
    async fn in_use(&self, host: &dyn Host) -> Result<Option<String>, StepError> {
        let query = ProcessQuery { name: Some("etcd".to_owned()), ..ProcessQuery::default() };
        let running = host.processes(&query).await?;
        Ok(running.first().map(|one| format!("an etcd runs on this host: {} ({})", one.pid, one.command)))
    }

    fn output(moved: Option<&Moved>) -> Output {
        Output::empty().with("set_aside", moved.map(|moved| &moved.to))
    }
}

/// Whether the directory of that inode is at a path.
async fn is_at(host: &dyn Host, path: &str, inode: u64) -> Result<bool, StepError> {
    Ok(host.stat(path).await?.is_some_and(|stat| stat.inode == inode))
}

#[async_trait]
impl Step for EtcdDataSetAside {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let moved = match self.plan(cx, &*host).await? {
            Err(why) => return Ok(Check::Refused(why)),
            Ok(None) => return Ok(Check::Satisfied(Self::output(None))),
            Ok(Some(moved)) => moved,
        };
        // A plan looks at a member that still runs; by its turn it will have been stopped.
        if let Some(why) = self.in_use(&*host).await?.filter(|_| !cx.planning()) {
            return Ok(Check::Refused(why));
        }
        Ok(Check::Pending(Change::new(format!("rename {} to {}", moved.from, moved.to)).with_data(moved)))
    }

    /// Which directory it is. What it is called afterwards carries the run's time.
    fn invariant(&self, change: &Change) -> serde_json::Value {
        let moved: Option<Moved> = change.data().ok();
        json!(moved.map(|moved| (moved.from, moved.inode)))
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let moved: Moved = change.data()?;
        let host = cx.host().await?;
        // Looked at once more: a minute may have passed since the check.
        if let Some(why) = self.in_use(&*host).await? {
            return Err(StepError::permanent(why).with_hint("stop it on this host first"));
        }
        let rename = HostChange::Rename { from: moved.from.clone(), to: moved.to.clone() };
        host.change(cx.attempt(), &rename).await?;
        Ok(Self::output(Some(&moved)))
    }

    async fn resolve(&self, cx: &Context, change: &Change) -> Result<Resolved, StepError> {
        let moved: Moved = change.data()?;
        let host = cx.host().await?;
        Ok(
            match (
                is_at(&*host, &moved.from, moved.inode).await?,
                is_at(&*host, &moved.to, moved.inode).await?,
            ) {
                (true, _) => Resolved::NotDone,
                (_, true) => Resolved::Done(Self::output(Some(&moved))),
                _ => Resolved::Unknown(format!(
                    "{} is neither at its place nor at {}: somebody moved it",
                    moved.from, moved.to
                )),
            },
        )
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let moved: Moved = change.data()?;
        let host = cx.host().await?;
        if is_at(&*host, &moved.from, moved.inode).await? {
            return Ok(());
        }
        if let Some(why) = self.in_use(&*host).await? {
            return Err(StepError::permanent(why).with_hint("stop it on this host first").into());
        }
        if host.stat(&moved.from).await.map_err(StepError::from)?.is_some() {
            let error = format!("there is something at {} again: nothing is put over it", moved.from);
            let hint = "see whether it is still needed; move it away, then take the run back again";
            return Err(StepError::permanent(error).with_hint(hint).into());
        }
        let back = HostChange::Rename { from: moved.to, to: moved.from };
        host.change(cx.attempt(), &back).await.map_err(StepError::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, done, pending, refused};

    const DATA: &str = "/var/lib/etcd/default";

    fn step() -> EtcdDataSetAside {
        EtcdDataSetAside { data_dir: DATA.into() }
    }

    #[tokio::test]
    async fn data_of_a_running_etcd_stays_and_that_of_a_stopped_one_is_renamed_and_comes_back() {
        let lab = Lab::deployed().await;
        let cx = lab.on("patroni3");
        assert!(refused(step().check(&cx).await.unwrap()).contains("an etcd runs"));
        lab.make("patroni3", "systemd.unit", json!({ "unit": "etcd.service", "state": "stopped" })).await;
        let before = pending(step().check(&cx).await.unwrap());
        let (change, output) = lab.establish(&step(), &cx).await;
        let aside = output.0["set_aside"].as_str().unwrap().to_owned();
        assert!(aside.starts_with(&format!("{DATA}.set-aside-20260102T030405Z-")), "{aside}");
        assert!(lab.text("patroni3", &format!("{aside}/member/cluster")).is_some(), "nothing is lost");
        assert_eq!(done(step().resolve(&cx, &before).await.unwrap()), output);
        step().undo(&cx, &change, Some(&output)).await.unwrap();
        assert!(lab.text("patroni3", &format!("{DATA}/member/cluster")).is_some());
    }

    #[tokio::test]
    async fn what_is_no_data_of_etcd_is_left_alone() {
        let lab = Lab::bare().await;
        let foreign = json!({ "path": format!("{DATA}/x"), "content": "", "parents": true });
        lab.make("patroni1", "file", foreign).await;
        assert!(
            refused(step().check(&lab.on("patroni1")).await.unwrap()).contains("no data directory of etcd")
        );
    }
}
