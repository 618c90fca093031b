//! The renames that set a data directory aside: the directory itself, and what its `pg_wal` link and its
//! tablespace links point to. Planned by looking alone; the same plan comes out again after a part was done. Putting a copy back is
//! the same the other way round.

use flow_core::step::{Context, StepError, UndoError};
use serde::{Deserialize, Serialize};

use crate::host::{FileKind, Host, HostChange, Stat};

/// One rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Move {
    /// Where it is.
    pub(super) from: String,
    /// Where it goes; nothing is there.
    pub(super) to: String,
    /// The directory's inode, which a rename keeps.
    pub(super) inode: u64,
    /// The link inside the data directory that points to it; none for the data directory itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
}

/// Why a directory isn't set aside. Not an error of the host: nothing was changed.
pub(super) type Refusal = String;

/// All renames, in order; the data directory is the last, so that it is found again until all is done.
///
/// What an interrupted attempt of the same run has moved is planned again with the same names, as done.
pub(super) async fn plan(
    host: &dyn Host,
    data_dir: &str,
    suffix: &str,
) -> Result<Result<Vec<Move>, Refusal>, StepError> {
    let (stat, links) = tokio::try_join!(host.stat(data_dir), links(host, data_dir))?;
    let Some(stat) = stat else { return Ok(Err(format!("there is no {data_dir}"))) };
    let mut moves = Vec::new();
    for (link, target) in links {
        if !target.starts_with('/') {
            return Ok(Err(format!("{link} points to {target}, which is no absolute path")));
        }
        // Re-pointed already by an interrupted attempt of this run.
        let from = target.strip_suffix(suffix).unwrap_or(&target).trim_end_matches('/').to_owned();
        match movable(host, &from, suffix).await? {
            Ok(inode) => moves.push(Move { to: format!("{from}{suffix}"), from, inode, link: Some(link) }),
            Err(why) => return Ok(Err(format!("{link} points to {target}: {why}"))),
        }
    }
    if let Err(why) = movable(host, data_dir, suffix).await? {
        return Ok(Err(why));
    }
    let (from, to) = (data_dir.to_owned(), format!("{data_dir}{suffix}"));
    moves.push(Move { from, to, inode: stat.inode, link: None });
    Ok(Ok(moves))
}

/// The links that lead out of a data directory, with their targets.
pub(crate) async fn links(
    host: &dyn Host,
    data_dir: &str,
) -> Result<Vec<(String, String)>, crate::host::HostError> {
    let tablespaces = format!("{data_dir}/pg_tblspc");
    let names = host.list(&tablespaces).await?.unwrap_or_default();
    let mut paths = vec![format!("{data_dir}/pg_wal")];
    paths.extend(names.into_iter().map(|name| format!("{tablespaces}/{name}")));
    let stats = futures_util::future::try_join_all(paths.iter().map(|path| host.stat(path))).await?;
    let target = |stat: Option<Stat>| stat.filter(|stat| stat.kind == FileKind::Symlink)?.target;
    Ok(paths.into_iter().zip(stats).filter_map(|(path, stat)| Some((path, target(stat)?))).collect())
}

/// The inode of a directory that a rename can move (or has moved already), or why it can't.
async fn movable(host: &dyn Host, path: &str, suffix: &str) -> Result<Result<u64, Refusal>, StepError> {
    let parent = match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    };
    let to = format!("{path}{suffix}");
    let (stat, parent, target) = tokio::try_join!(host.stat(path), host.stat(parent), host.stat(&to))?;
    let stat = match (stat, target) {
        (Some(_), Some(_)) => return Ok(Err(format!("{to} is there already"))),
        (None, None) => return Ok(Err(format!("there is no {path}"))),
        (None, Some(moved)) => return Ok(Ok(moved.inode)),
        (Some(stat), None) => stat,
    };
    match stat.kind {
        FileKind::Directory => {}
        FileKind::Symlink => {
            let target = stat.target.unwrap_or_default();
            return Ok(Err(format!(
                "{path} is a symbolic link to {target}: name the directory itself in Patroni's configuration"
            )));
        }
        _ => return Ok(Err(format!("{path} is no directory"))),
    }
    if parent.is_some_and(|parent| parent.device != stat.device) {
        return Ok(Err(format!(
            "{path} is a mount point, which can't be renamed: use a directory below it as the data directory, or set its content aside by hand"
        )));
    }
    Ok(Ok(stat.inode))
}

/// Where a directory stands that was to be renamed, told by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    After,
    Neither,
}

pub(super) async fn place(host: &dyn Host, one: &Move) -> Result<Place, StepError> {
    let (from, to) = tokio::try_join!(host.stat(&one.from), host.stat(&one.to))?;
    let is_it = |stat: &Option<Stat>| stat.as_ref().is_some_and(|stat| stat.inode == one.inode);
    Ok(match (is_it(&from), is_it(&to)) {
        (true, false) => Place::Before,
        (false, true) => Place::After,
        _ => Place::Neither,
    })
}

/// Moves what isn't moved yet. Every step of it can be done again.
pub(super) async fn carry_out(cx: &Context, host: &dyn Host, moves: &[Move]) -> Result<(), StepError> {
    for one in moves {
        if place(host, one).await? == Place::Before {
            cx.progress(format!("renaming {} to {}", one.from, one.to));
            let rename = HostChange::Rename { from: one.from.clone(), to: one.to.clone() };
            host.change(cx.attempt(), &rename).await?;
        }
        if let Some(link) = &one.link {
            let points = host.stat(link).await?.and_then(|stat| stat.target);
            if points.as_deref() != Some(one.to.as_str()) {
                let follow = HostChange::Symlink { path: link.clone(), target: one.to.clone() };
                host.change(cx.attempt(), &follow).await?;
            }
        }
    }
    Ok(())
}

/// Moves all of it back, the last first, never over anything.
pub(super) async fn take_back(cx: &Context, host: &dyn Host, moves: &[Move]) -> Result<(), UndoError> {
    // All of it is looked at first: half of it put back would help nobody.
    for one in moves {
        if place(host, one).await? == Place::After
            && host.stat(&one.from).await.map_err(StepError::from)?.is_some()
        {
            let error = format!("there is something at {} again: nothing is put over it", one.from);
            let hint = "see whether it is still needed; move it away, then take the run back again";
            return Err(StepError::permanent(error).with_hint(hint).into());
        }
    }
    for one in moves.iter().rev() {
        match place(host, one).await? {
            Place::Before => {}
            Place::After => {
                let rename = HostChange::Rename { from: one.to.clone(), to: one.from.clone() };
                host.change(cx.attempt(), &rename).await.map_err(StepError::from)?;
            }
            Place::Neither => {
                let lost = format!("{} is not at {}", one.from, one.to);
                return Err(StepError::permanent(lost).into());
            }
        }
        if let Some(link) = &one.link {
            let back = HostChange::Symlink { path: link.clone(), target: one.from.clone() };
            host.change(cx.attempt(), &back).await.map_err(StepError::from)?;
        }
    }
    Ok(())
}

/// What became of all renames: all done, some not yet, or one that somebody else moved; why.
pub(super) async fn became(host: &dyn Host, moves: &[Move]) -> Result<Result<bool, Refusal>, StepError> {
    let mut done = 0;
    for one in moves {
        match place(host, one).await? {
            Place::Before => {}
            Place::After => done += 1,
            Place::Neither => {
                return Ok(Err(format!(
                    "{} is neither at its place nor at {}: somebody moved it",
                    one.from, one.to
                )));
            }
        }
    }
    Ok(Ok(done == moves.len()))
}
