//! `postgres.data_put_back`: a copy that was set aside, in the data directory's place again.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::copy::{CopyName, belongings, plain_directory};
use super::data_set_aside::{in_use, validate_path};
use super::moves::{Move, Refusal, became, carry_out, links, take_back};
use crate::host::{Content, Host, HostChange, HostContext, Ownership};

/// Renames a copy that was set aside back to the data directory, where nothing may be.
///
/// Its WAL and tablespaces elsewhere are renamed back to their places too, and the links follow; the note beside the copy goes. Refused: what is
/// no copy that was set aside, anything at one of these places, and while PostgreSQL or Patroni works on either. Undo
/// renames it all to the copy again, with the note; what a PostgreSQL wrote into it meanwhile stays in it. Output: `data_dir`, `was` (the copy's
/// path).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataPutBack {
    /// The copy: `/var/lib/postgresql/15/main.set-aside-20260102T030405Z-0123456789ab`.
    pub copy: String,
    /// The data directory.
    pub data_dir: String,
}

/// The longest note that is kept, in bytes.
const NOTE_LIMIT: u64 = 1 << 20;

/// What a change records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    moves: Vec<Move>,
    /// The note that was beside the copy.
    note: Option<String>,
}

/// A copy that may be put back.
pub(crate) struct Copy {
    pub(crate) name: CopyName,
    /// What its links point to.
    pub(crate) also: Vec<String>,
}

/// Looks whether a copy could be put back, before anything is stopped. The inner error says why not.
pub(crate) async fn can_be_put_back(
    host: &dyn Host,
    copy: &str,
    data_dir: &str,
) -> Result<Result<Copy, Refusal>, StepError> {
    let name = match CopyName::of(copy, data_dir) {
        Ok(name) => name,
        Err(why) => return Ok(Err(why)),
    };
    if name.path != format!("{}{}", data_dir.trim_end_matches('/'), name.suffix) {
        return Ok(Err(format!(
            "{} was Patroni's `.failed` one: what failed once isn't put back",
            name.path
        )));
    }
    match plain_directory(host, &name.path).await? {
        Ok(true) => {}
        Ok(false) => return Ok(Err(format!("there is no {}", name.path))),
        Err(why) => return Ok(Err(why)),
    }
    let also = match belongings(host, &name.path, &name).await? {
        Ok(also) => also,
        Err(why) => return Ok(Err(why)),
    };
    let present = links(host, data_dir.trim_end_matches('/')).await?;
    for (link, target) in &also {
        let place = target.trim_end_matches('/').strip_suffix(&name.suffix).unwrap_or(target);
        let (there, at_place) = tokio::try_join!(host.stat(target), host.stat(place))?;
        if there.is_none() {
            return Ok(Err(format!("{link} points to {target}, and nothing is there")));
        }
        // What the present data directory has there is set aside with it.
        if at_place.is_some() && !present.iter().any(|(_, used)| used.trim_end_matches('/') == place) {
            return Ok(Err(format!("{link} belongs at {place}, where something else is")));
        }
    }
    let also = also.into_iter().map(|(_, target)| target).collect();
    Ok(Ok(Copy { name, also }))
}

/// All renames, in order; the copy itself is the last. What an attempt that was cut short has moved is planned again, as done.
async fn plan(
    host: &dyn Host,
    name: &CopyName,
    data_dir: &str,
) -> Result<Result<Vec<Move>, Refusal>, StepError> {
    let Some(copy) = host.stat(&name.path).await? else {
        return Ok(Err(format!("there is no {}", name.path)));
    };
    let mut moves = Vec::new();
    for (link, target) in links(host, &name.path).await? {
        let place = target.trim_end_matches('/').strip_suffix(&name.suffix).unwrap_or(&target).to_owned();
        if let Err(why) = validate_path(&place) {
            return Ok(Err(format!("{link} points to {target}: {why}")));
        }
        let from = format!("{place}{}", name.suffix);
        let (there, moved) = tokio::try_join!(host.stat(&from), host.stat(&place))?;
        let inode = match (there, moved) {
            (Some(stat), None) => stat.inode,
            (None, Some(moved)) => moved.inode,
            (Some(_), Some(_)) => {
                return Ok(Err(format!("{link} belongs at {place}, where something else is")));
            }
            (None, None) => return Ok(Err(format!("{link} points to {target}, and nothing is there"))),
        };
        moves.push(Move { from, to: place, inode, link: Some(link) });
    }
    moves.push(Move { from: name.path.clone(), to: data_dir.to_owned(), inode: copy.inode, link: None });
    Ok(Ok(moves))
}

impl StepType for DataPutBack {
    const NAME: &'static str = "postgres.data_put_back";
    const DESTRUCTIVE: bool = true;
    const UNDOABLE: bool = true;
    const UNDO_LEAVES: Option<&'static str> =
        Some("what a PostgreSQL that ran on the copy meanwhile has written into it");

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.data_dir)?;
        validate_path(&self.copy)
    }
}

impl DataPutBack {
    fn data_dir(&self) -> &str {
        self.data_dir.trim_end_matches('/')
    }

    fn output(&self) -> Output {
        Output::empty().with("data_dir", self.data_dir()).with("was", self.copy.trim_end_matches('/'))
    }

    async fn used(&self, host: &dyn Host) -> Result<Option<String>, StepError> {
        let copy = in_use(host, self.copy.trim_end_matches('/')).await?;
        Ok(if copy.is_some() { copy } else { in_use(host, self.data_dir()).await? })
    }
}

#[async_trait]
impl Step for DataPutBack {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let name = match CopyName::of(&self.copy, &self.data_dir) {
            Ok(name) => name,
            Err(why) => return Ok(Check::Refused(why)),
        };
        let (copy, there, names) =
            tokio::try_join!(host.stat(&name.path), host.stat(self.data_dir()), host.list(self.data_dir()))?;
        let empty = there.is_none() || names.is_some_and(|names| names.is_empty());
        if copy.is_none() && !empty && !cx.planning() {
            return Ok(Check::Satisfied(self.output()));
        }
        if !cx.planning() {
            if !empty {
                let why = format!("there is something at {}: it is to be set aside first", self.data_dir());
                return Ok(Check::Refused(why));
            }
            if let Some(why) = self.used(&*host).await? {
                return Ok(Check::Refused(why));
            }
        }
        let moves = if cx.planning() {
            // The places are taken until the present data directory is set aside.
            match can_be_put_back(&*host, &self.copy, &self.data_dir).await? {
                Ok(copy) => {
                    return Ok(Check::Pending(Change::new(format!(
                        "rename {} to {}",
                        copy.name.path,
                        self.data_dir()
                    ))));
                }
                Err(why) => Err(why),
            }
        } else {
            plan(&*host, &name, self.data_dir()).await?
        };
        let moves = match moves {
            Ok(moves) => moves,
            Err(why) => return Ok(Check::Refused(why)),
        };
        let note = host.read(&name.note(), NOTE_LIMIT).await.ok().flatten();
        let note = note.and_then(|bytes| String::from_utf8(bytes).ok());
        let lines: String = moves.iter().map(|one| format!("{} -> {}\n", one.from, one.to)).collect();
        let change = Change::new(format!("rename {} to {}", name.path, self.data_dir())).with_diff(lines);
        Ok(Check::Pending(change.with_data(Recorded { moves, note })))
    }

    /// Which copy; the links' places are known once the present data directory is out of the way.
    fn invariant(&self, _change: &Change) -> serde_json::Value {
        json!({ "copy": self.copy, "data_dir": self.data_dir })
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        // Looked at once more: a minute may have passed since the check.
        if let Some(why) = self.used(&*host).await? {
            return Err(StepError::permanent(why).with_hint("stop Patroni and PostgreSQL on this host first"));
        }
        if let Some(main) = recorded.moves.last() {
            // The note goes first: an attempt that is cut short after the last rename is done.
            host.change(cx.attempt(), &HostChange::RemoveFile { path: format!("{}.flow.json", main.from) })
                .await?;
            if host.list(self.data_dir()).await?.is_some_and(|names| names.is_empty()) {
                let empty = HostChange::RemoveDirectory { path: self.data_dir().to_owned() };
                host.change(cx.attempt(), &empty).await?;
            }
        }
        carry_out(cx, &*host, &recorded.moves).await?;
        Ok(self.output())
    }

    async fn resolve(&self, cx: &Context, change: &Change) -> Result<Resolved, StepError> {
        let recorded: Recorded = change.data()?;
        Ok(match became(&*cx.host().await?, &recorded.moves).await? {
            Ok(true) => Resolved::Done(self.output()),
            Ok(false) => Resolved::NotDone,
            Err(why) => Resolved::Unknown(why),
        })
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        if let Some(why) = self.used(&*host).await? {
            return Err(StepError::permanent(why)
                .with_hint("stop Patroni and PostgreSQL on this host first")
                .into());
        }
        take_back(cx, &*host, &recorded.moves).await?;
        if let (Some(main), Some(note)) = (recorded.moves.last(), recorded.note) {
            let write = HostChange::WriteFile {
                path: format!("{}.flow.json", main.from),
                content: Content(note.into_bytes()),
                ownership: Ownership { mode: Some(0o644), ..Ownership::default() },
            };
            host.change(cx.attempt(), &write).await.map_err(StepError::from)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "data_put_back_tests.rs"]
mod tests;
