//! `postgres.copy_removed`: a copy that was set aside and isn't needed any more, gone. The one step that removes data.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::copy::{CopyName, belongings, bytes, plain_directory, used_by};
use super::data_set_aside::validate_path;
use super::moves::{Refusal, links};
use super::room::in_words;
use super::stopped::{describe, processes_on};
use crate::host::{Command, Host, HostChange, HostContext, quote};
use crate::support::exit_error;

/// A copy that was set aside is not there any more, with its WAL and tablespaces and the note beside it.
///
/// It is renamed first, to `COPY.being-removed`: what a removal that was cut short leaves is never taken for a copy; done again, it
/// goes on. Refused: whatever isn't called `DATA_DIRECTORY.set-aside-TIME-RUN`, the data directory itself, a link, a mount
/// point, a copy on which a PostgreSQL runs, one of whose WAL or tablespaces the data directory or a process uses, or that weren't set aside with it. What
/// kept keys and evidence, `DATA_DIRECTORY.flow-RUN.json`, stays. Output: `removed` (false where it wasn't there), `bytes` that it
/// had (null where that couldn't be counted).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresCopyRemoved {
    /// The copy: `/var/lib/postgresql/15/main.set-aside-20260102T030405Z-0123456789ab`.
    pub copy: String,
    /// The data directory beside which it was set aside.
    pub data_dir: String,
}

/// What a change records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    /// The copy's inode: a rename keeps it.
    inode: u64,
    bytes: Option<u64>,
    also: Vec<String>,
}

/// What is there of a copy that may be removed.
pub(super) struct Removable {
    name: CopyName,
    /// Where it is now; none where nothing is left of it.
    at: Option<String>,
    also: Vec<(String, String)>,
}

/// Looks at a copy, and says why it isn't removed.
pub(super) async fn removable(
    host: &dyn Host,
    path: &str,
    data_dir: &str,
) -> Result<Result<Removable, Refusal>, StepError> {
    let name = match CopyName::of(path, data_dir) {
        Ok(name) => name,
        Err(why) => return Ok(Err(why)),
    };
    let removing = name.removing();
    let (whole, begun) =
        tokio::try_join!(plain_directory(host, &name.path), plain_directory(host, &removing))?;
    let at = match (whole, begun) {
        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        (Ok(true), Ok(true)) => {
            return Ok(Err(format!(
                "{} and {removing} are there both: remove one of them by hand",
                name.path
            )));
        }
        (Ok(true), Ok(false)) => name.path.clone(),
        (Ok(false), Ok(true)) => removing,
        (Ok(false), Ok(false)) => return Ok(Ok(Removable { name, at: None, also: Vec::new() })),
    };
    let also = match belongings(host, &at, &name).await? {
        Ok(also) => also,
        Err(why) => return Ok(Err(why)),
    };
    let present = links(host, data_dir.trim_end_matches('/')).await?;
    if let Some((link, target)) = present.iter().find(|(_, used)| also.iter().any(|(_, own)| own == used)) {
        return Ok(Err(format!(
            "{target} belongs to {at}, and {link} of the data directory points to it too"
        )));
    }
    let running = processes_on(host, &at).await?;
    if !running.is_empty() {
        return Ok(Err(format!("{at} is in use: {}", describe(&running))));
    }
    let directories: Vec<&str> = also.iter().map(|(_, target)| target.as_str()).collect();
    if let Some(why) = used_by(host, &directories).await? {
        return Ok(Err(format!("{at} is in use: {why}")));
    }
    Ok(Ok(Removable { name, at: Some(at), also }))
}

impl StepType for PostgresCopyRemoved {
    const NAME: &'static str = "postgres.copy_removed";
    const DESTRUCTIVE: bool = true;
    const NOT_UNDOABLE: &'static str = "what was removed is gone";

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.data_dir)?;
        validate_path(&self.copy)
    }
}

fn output(recorded: &Recorded) -> Output {
    Output::empty().with("removed", true).with("bytes", recorded.bytes)
}

#[async_trait]
impl Step for PostgresCopyRemoved {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let found = match removable(&*host, &self.copy, &self.data_dir).await? {
            Ok(found) => found,
            Err(why) => return Ok(Check::Refused(why)),
        };
        let Some(at) = found.at else {
            let output = Output::empty().with("removed", false).with("bytes", Some(0));
            return Ok(match host.stat(&found.name.note()).await? {
                None => Check::Satisfied(output),
                Some(note) => Check::Pending(
                    Change::new(format!("remove what is left of {}: its note", found.name.path))
                        .with_data(Recorded { inode: note.inode, bytes: Some(0), also: Vec::new() }),
                ),
            });
        };
        let (stat, bytes) =
            tokio::try_join!(async { Ok(host.stat(&at).await?) }, bytes(&*host, &at, &found.also))?;
        let Some(stat) = stat else { return Err(StepError::failed(format!("{at} went away just now"))) };
        let also: Vec<String> = found.also.into_iter().map(|(_, target)| target).collect();
        let size = bytes.map(|bytes| format!(" ({})", in_words(bytes))).unwrap_or_default();
        let lines: String = std::iter::once(&at).chain(&also).map(|path| format!("- {path}\n")).collect();
        let change = Change::new(format!("remove {}{size}, for good", found.name.path)).with_diff(lines);
        Ok(Check::Pending(change.with_data(Recorded { inode: stat.inode, bytes, also })))
    }

    /// That directory, and what else goes with it.
    fn invariant(&self, change: &Change) -> serde_json::Value {
        let Ok(Recorded { inode, also, .. }) = change.data::<Recorded>() else {
            return json!({ "summary": change.summary });
        };
        json!({ "copy": self.copy, "inode": inode, "also": also })
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        // Looked at once more: a minute may have passed since the check.
        let found = removable(&*host, &self.copy, &self.data_dir).await?.map_err(StepError::permanent)?;
        if let Some(at) = found.at {
            let same = host.stat(&at).await?.is_some_and(|stat| stat.inode == recorded.inode);
            if !same {
                return Err(StepError::permanent(format!("{at} is another directory than a moment ago")));
            }
            let removing = found.name.removing();
            if at != removing {
                let rename = HostChange::Rename { from: at, to: removing.clone() };
                host.change(cx.attempt(), &rename).await?;
            }
            // The copy itself goes last: its links say what else does.
            let paths: Vec<String> = found
                .also
                .iter()
                .map(|(_, target)| target)
                .chain([&removing])
                .map(|path| quote(path))
                .collect();
            cx.progress(format!("removing {removing}"));
            let script = format!("rm -rf --one-file-system -- {}", paths.join(" "));
            let reply = host.run(cx.attempt(), &Command::new(script).detached()).await?;
            if !reply.success() {
                return Err(exit_error(&reply));
            }
        }
        host.change(cx.attempt(), &HostChange::RemoveFile { path: found.name.note() }).await?;
        Ok(output(&recorded))
    }

    async fn resolve(&self, cx: &Context, change: &Change) -> Result<Resolved, StepError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        Ok(match removable(&*host, &self.copy, &self.data_dir).await? {
            Ok(found) if found.at.is_none() && host.stat(&found.name.note()).await?.is_none() => {
                Resolved::Done(output(&recorded))
            }
            Ok(_) => Resolved::NotDone,
            Err(why) => Resolved::Unknown(why),
        })
    }
}

#[cfg(test)]
#[path = "copy_removed_tests.rs"]
mod tests;
