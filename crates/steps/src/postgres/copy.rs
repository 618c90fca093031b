//! A copy that was set aside: how its path is told from any other, and what belongs to it.
//!
//! What is removed or put back is found here first. A path counts by its whole name alone, beside the data directory that Patroni's
//! configuration names: so neither `..` nor a link leads anywhere else.

use flow_core::step::StepError;

use super::data_set_aside::validate_path;
use super::moves::{Refusal, links};
use crate::host::{FileKind, Host, quote};

/// What a copy is called while it is being removed: from then on it counts as none.
const REMOVING: &str = ".being-removed";
/// Digits of a run's id.
const RUN_LENGTH: usize = 12;

/// The name of a copy, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyName {
    /// Its path.
    pub(crate) path: String,
    /// `.set-aside-TIME-RUN`; what its links point to ends so too.
    pub(crate) suffix: String,
    /// When that run began: `2026-01-02 03:04:05 UTC`.
    pub(crate) since: String,
    /// The run that set it aside.
    pub(crate) run: String,
}

impl CopyName {
    /// Takes a path for a copy of that data directory, or of what Patroni had renamed to `DATA_DIRECTORY.failed`.
    ///
    /// # Errors
    /// It isn't called so; in words.
    pub(crate) fn of(path: &str, data_dir: &str) -> Result<Self, Refusal> {
        let (path, data_dir) = (path.trim_end_matches('/'), data_dir.trim_end_matches('/'));
        if path == data_dir {
            return Err(format!("{path} is the present data directory, no copy that was set aside"));
        }
        let no_copy = || {
            format!(
                "{path} is no copy that was set aside here: such a one is called {data_dir}.set-aside-TIME-RUN"
            )
        };
        let named = path.strip_prefix(data_dir).ok_or_else(no_copy)?;
        let suffix = named.strip_prefix(".failed").unwrap_or(named);
        let (time, run) = suffix
            .strip_prefix(".set-aside-")
            .and_then(|rest| rest.split_once('-'))
            .filter(|(_, run)| {
                run.len() == RUN_LENGTH && run.bytes().all(|byte| byte.is_ascii_alphanumeric())
            })
            .ok_or_else(no_copy)?;
        let since = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).map_err(|_| no_copy())?;
        Ok(Self {
            path: path.to_owned(),
            suffix: suffix.to_owned(),
            since: since.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            run: run.to_owned(),
        })
    }

    /// A copy whose removal was cut short, by the name that it then has.
    pub(crate) fn of_removing(path: &str, data_dir: &str) -> Option<Self> {
        Self::of(path.strip_suffix(REMOVING)?, data_dir).ok()
    }

    /// What it is called while it is being removed.
    pub(crate) fn removing(&self) -> String {
        format!("{}{REMOVING}", self.path)
    }

    /// The note that was left beside it.
    pub(crate) fn note(&self) -> String {
        format!("{}.flow.json", self.path)
    }
}

/// The links that lead out of a copy, with what they point to. `at`: where it is now.
///
/// The inner error: something of it isn't named as set aside together with it, so it may be somebody else's.
pub(super) async fn belongings(
    host: &dyn Host,
    at: &str,
    name: &CopyName,
) -> Result<Result<Vec<(String, String)>, Refusal>, StepError> {
    let found = links(host, at).await?;
    for (link, target) in &found {
        if validate_path(target).is_err() || !target.ends_with(&name.suffix) {
            return Ok(Err(format!(
                "{link} points to {target}, which wasn't set aside with it (its name would end in {}): it may be in use elsewhere",
                name.suffix
            )));
        }
        if let Err(why) = plain_directory(host, target).await? {
            return Ok(Err(format!("{link} points to {target}: {why}")));
        }
    }
    Ok(Ok(found))
}

/// A directory of the file system of its parent, or nothing at all; never a link or a mount point. True: it is there.
pub(super) async fn plain_directory(host: &dyn Host, path: &str) -> Result<Result<bool, Refusal>, StepError> {
    let parent =
        path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
    let (stat, parent) = tokio::try_join!(host.stat(path), host.stat(parent))?;
    let Some(stat) = stat else { return Ok(Ok(false)) };
    Ok(match stat.kind {
        FileKind::Directory if parent.is_some_and(|parent| parent.device != stat.device) => {
            Err(format!("{path} is a mount point"))
        }
        FileKind::Directory => Ok(true),
        FileKind::Symlink => Err(format!("{path} is a symbolic link to {}", stat.target.unwrap_or_default())),
        _ => Err(format!("{path} is no directory")),
    })
}

/// Who uses one of these, as far as `/proc` tells: a process with a file open below it, or a PostgreSQL whose own data directory (its
/// working directory) links to it. `None`: nobody.
///
/// A PostgreSQL that was started on somebody's own copy of the copy still uses its tablespaces, by the same links.
pub(super) async fn used_by(host: &dyn Host, directories: &[&str]) -> Result<Option<String>, StepError> {
    for directory in directories {
        if directory.contains(['*', '?', '[', '\\']) {
            return Ok(Some(format!("whether {directory} is used can't be told: its name has a wildcard")));
        }
        let (itself, below) = (quote(directory), quote(&format!("{directory}/*")));
        let script = format!(
            "find /proc/[0-9]*/fd /proc/[0-9]*/cwd/pg_tblspc /proc/[0-9]*/cwd/pg_wal -maxdepth 1 \\( -lname {itself} -o -lname {below} \\) \
             -print -quit 2>/dev/null"
        );
        let found = host.probe(&script).await?.text();
        if let Some(pid) = found.trim().split('/').nth(2) {
            return Ok(Some(format!("process {pid} uses {directory}")));
        }
    }
    Ok(None)
}

/// Bytes on disk of a copy with all that belongs to it. `None`: it can't be counted in a minute.
pub(super) async fn bytes(
    host: &dyn Host,
    at: &str,
    belongings: &[(String, String)],
) -> Result<Option<u64>, StepError> {
    let mut sum = 0_u64;
    for path in std::iter::once(at).chain(belongings.iter().map(|(_, target)| target.as_str())) {
        let reply = host.probe(&format!("timeout 60 du -sxB1 -- {}", quote(path))).await?;
        let counted = reply.text().split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        match counted {
            Some(bytes) => sum = sum.saturating_add(bytes),
            // Something that a removal which was cut short took away already.
            None if host.stat(path).await?.is_none() => {}
            None => return Ok(None),
        }
    }
    Ok(Some(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::DATA;

    #[test]
    fn a_copy_is_told_by_its_whole_name() {
        let path = format!("{DATA}.set-aside-20260102T030405Z-0123456789ab");
        let name = CopyName::of(&format!("{path}/"), DATA).unwrap();
        assert_eq!((name.path.as_str(), name.run.as_str()), (path.as_str(), "0123456789ab"));
        assert_eq!(name.since, "2026-01-02 03:04:05 UTC");
        assert_eq!(CopyName::of_removing(&name.removing(), DATA), Some(name.clone()));
        let failed = CopyName::of(&path.replace("main.", "main.failed."), DATA).unwrap();
        assert_eq!(failed.suffix, name.suffix);
    }

    #[test]
    fn no_other_path_is_a_copy() {
        let copy = format!("{DATA}.set-aside-20260102T030405Z-0123456789ab");
        for path in [
            "/".to_owned(),
            "/etc".to_owned(),
            format!("{DATA}/base"),
            format!("{DATA}/../main"),
            format!("{copy}/base"),
            format!("{copy}/.."),
            format!("{DATA}.set-aside-20260102T030405Z-x/../../0123456789ab"),
            format!("{DATA}.set-aside-20261302T030405Z-0123456789ab"),
            format!("{DATA}.set-aside-20260102T030405Z-../../ab/cdef"),
            format!("{copy}.flow.json"),
            format!("{DATA}.failed"),
            "/srv/main.set-aside-20260102T030405Z-0123456789ab".to_owned(),
        ] {
            let why = CopyName::of(&path, DATA).unwrap_err();
            assert!(why.contains("no copy that was set aside here"), "{path}: {why}");
        }
        assert!(CopyName::of(DATA, DATA).unwrap_err().contains("the present data directory"));
    }
}
