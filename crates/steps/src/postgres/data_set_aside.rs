//! `postgres.data_set_aside`: a data directory out of the way, with everything in it kept.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::control::{Control, control};
use super::moves::{Move, became, carry_out, plan, take_back};
use super::stopped::{describe, processes_on};
use crate::host::{Content, FileKind, Host, HostChange, HostContext, Ownership, ProcessQuery, quote};

/// Renames a data directory to `DIR.set-aside-TIME-RUN`, so that nothing is there. Nothing is removed.
///
/// TIME is when the run began (UTC). What the `pg_wal` link and tablespace links point to is renamed with it, in
/// its own place, and the links follow. Beside it a note, `DIR.set-aside-TIME-RUN.flow.json`, tells what it is.
/// Refused: what is no data directory, a mount point, a symbolic link, a directory that PostgreSQL
/// or Patroni still works on, a name that is taken. A directory that is absent or empty needs nothing.
/// Undo renames it back, never over anything. Output: `set_aside` (the new path, null where nothing was there),
/// `system_identifier`, `timeline`, `bytes` (null where not known).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSetAside {
    /// The data directory: `/var/lib/postgresql/15/main`.
    pub data_dir: String,
    /// Where `pg_controldata` is, to note the system identifier: `/usr/lib/postgresql/15/bin`.
    #[serde(default)]
    pub bin_dir: Option<String>,
    /// Also what is no data directory, such as what a clone that failed has left (`main.failed`). False by default.
    #[serde(default)]
    pub anything: bool,
}

/// The longest note that is compared, in bytes.
const NOTE_LIMIT: u64 = 1 << 20;

/// What a change records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    moves: Vec<Move>,
    control: Option<Control>,
    bytes: Option<u64>,
}

/// What is at the place of a data directory.
pub(super) enum Found {
    Nothing,
    Data,
    Refused(String),
}

impl StepType for DataSetAside {
    const NAME: &'static str = "postgres.data_set_aside";
    const DESTRUCTIVE: bool = true;
    const UNDOABLE: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.data_dir)
    }
}

/// An absolute path that isn't near the root.
pub(super) fn validate_path(path: &str) -> Result<(), String> {
    let plain = path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".");
    if !plain || path.trim_matches('/').split('/').count() < 2 {
        return Err(format!("`{path}` is no absolute path of a data directory"));
    }
    Ok(())
}

impl DataSetAside {
    fn path(&self) -> &str {
        self.data_dir.trim_end_matches('/')
    }

    /// Tells whoever finds the directory in a year what it is.
    async fn leave_note(&self, cx: &Context, host: &dyn Host, recorded: &Recorded) -> Result<(), StepError> {
        let Some(main) = recorded.moves.last() else { return Ok(()) };
        let note = json!({
            "what": "a PostgreSQL data directory that flow set aside; nothing in it was changed",
            "host": host.name(),
            "run": cx.run().as_str(),
            "run_started": cx.run_started().to_string(),
            "was": main.from,
            "now": main.to,
            "also_moved": recorded.moves.iter().filter(|one| one.link.is_some()).collect::<Vec<_>>(),
            "control": recorded.control,
        });
        let text = serde_json::to_string_pretty(&note).unwrap_or_default() + "\n";
        let path = format!("{}.flow.json", main.to);
        // An attempt that was cut short may have left it.
        let there = host.read(&path, NOTE_LIMIT).await.ok().flatten();
        if there.is_some_and(|bytes| bytes == text.as_bytes()) {
            return Ok(());
        }
        let write = HostChange::WriteFile {
            path,
            content: Content(text.into_bytes()),
            ownership: Ownership { mode: Some(0o644), ..Ownership::default() },
        };
        Ok(host.change(cx.attempt(), &write).await?)
    }

    fn output(recorded: Option<&Recorded>) -> Output {
        let main = recorded.and_then(|recorded| recorded.moves.last());
        let control = recorded.and_then(|recorded| recorded.control.as_ref());
        Output::empty()
            .with("set_aside", main.map(|main| &main.to))
            .with("system_identifier", control.map(|control| &control.system_identifier))
            .with("timeline", control.map(|control| control.timeline))
            .with("bytes", recorded.and_then(|recorded| recorded.bytes))
    }
}

/// Who still works on a directory, in words: a process of PostgreSQL, or any Patroni.
pub(super) async fn in_use(host: &dyn Host, path: &str) -> Result<Option<String>, StepError> {
    let patroni = ProcessQuery { name: Some("patroni".to_owned()), ..ProcessQuery::default() };
    let (mut running, patroni) =
        tokio::try_join!(processes_on(host, path), async { Ok(host.processes(&patroni).await?) })?;
    running.extend(patroni);
    Ok((!running.is_empty()).then(|| format!("{path} is in use: {}", describe(&running))))
}

/// What a run's set-aside directories end in. The same in every attempt of a run.
pub(super) fn suffix(cx: &Context) -> String {
    format!(".set-aside-{}-{}", cx.run_started().strftime("%Y%m%dT%H%M%SZ"), cx.run())
}

/// Looks at what is at the place of a data directory.
pub(super) async fn look(host: &dyn Host, path: &str, anything: bool) -> Result<Found, StepError> {
    let (version, control) = (format!("{path}/PG_VERSION"), format!("{path}/global/pg_control"));
    let (stat, names, version, control) =
        tokio::join!(host.stat(path), host.list(path), host.stat(&version), host.stat(&control));
    let Some(stat) = stat? else { return Ok(Found::Nothing) };
    let refused = |why: String| Ok(Found::Refused(why));
    match stat.kind {
        FileKind::Directory => {}
        FileKind::Symlink => {
            let target = stat.target.unwrap_or_default();
            return refused(format!(
                "{path} is a symbolic link to {target}: name the directory itself in Patroni's configuration"
            ));
        }
        _ => return refused(format!("{path} is no directory")),
    }
    if names?.unwrap_or_default().is_empty() {
        return Ok(Found::Nothing);
    }
    if !anything && (version?.is_none() || control?.is_none()) {
        return refused(format!(
            "{path} is no data directory of PostgreSQL (no PG_VERSION or no global/pg_control), and it isn't empty"
        ));
    }
    Ok(Found::Data)
}

/// Its size on disk. Counting a big one takes long, so that is given up after some seconds.
async fn size(host: &dyn Host, path: &str) -> Result<Option<u64>, StepError> {
    let reply = host.probe(&format!("timeout 5 du -sxB1 -- {}", quote(path))).await?;
    let text = reply.text();
    Ok(text.split_whitespace().next().filter(|_| reply.success()).and_then(|bytes| bytes.parse().ok()))
}

#[async_trait]
impl Step for DataSetAside {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let (found, in_use) =
            tokio::try_join!(look(&*host, self.path(), self.anything), in_use(&*host, self.path()))?;
        match found {
            Found::Nothing => return Ok(Check::Satisfied(Self::output(None))),
            Found::Refused(why) => return Ok(Check::Refused(why)),
            Found::Data => {}
        }
        // A plan looks at a cluster that still runs; by its turn it will have been stopped.
        if let Some(why) = in_use.filter(|_| !cx.planning()) {
            return Ok(Check::Refused(why));
        }
        let moves = match plan(&*host, self.path(), &suffix(cx)).await? {
            Ok(moves) => moves,
            Err(why) => return Ok(Check::Refused(why)),
        };
        let known = async {
            match &self.bin_dir {
                Some(bin_dir) => control(&*host, bin_dir, self.path()).await,
                None => Ok(None),
            }
        };
        let (control, bytes) = tokio::try_join!(known, size(&*host, self.path()))?;
        let lines: String = moves.iter().map(|one| format!("{} -> {}\n", one.from, one.to)).collect();
        let to = moves.last().map(|one| one.to.clone()).unwrap_or_default();
        let change = Change::new(format!("rename {} to {to}", self.path())).with_diff(lines);
        Ok(Check::Pending(change.with_data(Recorded { moves, control, bytes })))
    }

    /// The directories, told by their inodes, and whose data it is. What they are called afterwards carries the
    /// run's time, and what the control file tells of positions moves.
    fn invariant(&self, change: &Change) -> serde_json::Value {
        let Ok(Recorded { moves, control, .. }) = change.data::<Recorded>() else {
            return json!({ "summary": change.summary });
        };
        let moves: Vec<_> = moves.into_iter().map(|one| (one.from, one.inode)).collect();
        json!({ "moves": moves, "system_identifier": control.map(|control| control.system_identifier) })
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        // Looked at once more: a minute may have passed since the check.
        if let Some(why) = in_use(&*host, self.path()).await? {
            return Err(StepError::permanent(why).with_hint("stop Patroni and PostgreSQL on this host first"));
        }
        // The note comes first: an attempt that is cut short after the last rename is done with it.
        self.leave_note(cx, &*host, &recorded).await?;
        carry_out(cx, &*host, &recorded.moves).await?;
        Ok(Self::output(Some(&recorded)))
    }

    async fn resolve(&self, cx: &Context, change: &Change) -> Result<Resolved, StepError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        Ok(match became(&*host, &recorded.moves).await? {
            Ok(true) => Resolved::Done(Self::output(Some(&recorded))),
            // What was moved before is recognised when it is planned again.
            Ok(false) => Resolved::NotDone,
            Err(why) => Resolved::Unknown(why),
        })
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        if let Some(why) = in_use(&*host, self.path()).await? {
            return Err(StepError::permanent(why)
                .with_hint("stop Patroni and PostgreSQL on this host first")
                .into());
        }
        take_back(cx, &*host, &recorded.moves).await?;
        if let Some(main) = recorded.moves.last() {
            let note = HostChange::RemoveFile { path: format!("{}.flow.json", main.to) };
            host.change(cx.attempt(), &note).await.map_err(StepError::from)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "data_set_aside_tests.rs"]
mod tests;
