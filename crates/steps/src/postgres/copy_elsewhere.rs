//! `postgres.copy_elsewhere`: a copy that was set aside, on another file system of the same host, where its own has no room.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::copy::{CopyName, plain_directory};
use super::data_set_aside::validate_path;
use super::moves::Refusal;
use super::room::{free, in_words, reserve};
use super::stopped::{describe, processes_on};
use crate::host::{Command, Content, FileKind, Host, HostChange, HostContext, Ownership, quote};
use crate::support::exit_error;

/// A copy that was set aside beside the data directory is moved into a directory on another file system of its host.
///
/// It is copied there, synced, and compared with the original: every file by its SHA-256, all of them by names, kinds, owners, modes, sizes, times
/// and links. Only then is the original removed: the one data that goes without your naming it, and it is proven to be elsewhere. What its
/// links point to (WAL, tablespaces) stays where it is. The note beside the original's place says where it is now. Refused: a directory that isn't there or is on
/// the same file system, a name that is taken, too little room, a copy in use. Output: `now` (where the copy is, null where nothing was moved).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresCopyElsewhere {
    /// The copy: `"{{ steps.set_aside.set_aside }}"`. Null: nothing was set aside, and nothing is to be done.
    #[serde(default)]
    pub copy: Option<String>,
    /// The data directory beside which it was set aside.
    pub data_dir: String,
    /// `HOST:PATH`: the directory into which that host's copy is moved. Those of other hosts are passed over.
    pub into: Vec<String>,
}

/// What a change records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    from: String,
    to: String,
}

/// The longest note that is read, in bytes.
const NOTE_LIMIT: u64 = 1 << 20;

/// The directory that is named for a host.
pub(super) fn named<'n>(into: &'n [String], host: &str) -> Option<&'n str> {
    let own = format!("{host}:");
    into.iter().find_map(|named| named.strip_prefix(&own)).map(|path| path.trim_end_matches('/'))
}

/// Whether so many bytes of that file system's data can go into a directory, and on to which device; else why not.
pub(super) async fn has_room(
    host: &dyn Host,
    from: &str,
    into: &str,
    bytes: Option<u64>,
) -> Result<Result<(), Refusal>, StepError> {
    if let Err(why) = validate_path(&format!("{into}/copy")) {
        return Ok(Err(why));
    }
    let inside = format!("{into}/copy");
    let (place, data, free) = tokio::try_join!(
        async { Ok(host.stat(into).await?) },
        async { Ok(host.stat(from).await?) },
        free(host, &inside)
    )?;
    let Some(place) = place.filter(|place| place.kind == FileKind::Directory) else {
        return Ok(Err(format!("there is no directory {into} on {}", host.name())));
    };
    if data.is_some_and(|data| data.device == place.device) {
        return Ok(Err(format!("{into} is on the file system of {from}: nothing would be gained there")));
    }
    let (Some(bytes), Some(free)) = (bytes, free) else {
        return Ok(Err(format!("how large {from} is, or how much is free in {into}, can't be told")));
    };
    let needed = bytes.saturating_add(reserve(bytes));
    Ok(if free < needed {
        Err(format!("{from} needs {} in {into}, and {} are free there", in_words(needed), in_words(free)))
    } else {
        Ok(())
    })
}

/// Copies, compares, and only then removes. Done again from wherever it was cut short.
fn script(from: &str, to: &str) -> String {
    let (from, to) = (quote(from), quote(to));
    format!(
        r#"set -eu
from={from} to={to}
partial="$to.being-copied" gone="$from.being-removed"
told() {{
  cd "$1"
  find . -type d -printf 'd %p %U:%G %m\n' -o -type l -printf 'l %p %U:%G %l\n' -o -printf '%y %p %U:%G %m %s %T@\n' | LC_ALL=C sort
  find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
}}
if [ -d "$from" ]; then
  if [ ! -e "$to" ]; then
    rm -rf --one-file-system -- "$partial"
    cp -a --reflink=auto -- "$from" "$partial"
    sync -f "$partial"
    was=$(told "$from" | sha256sum) now=$(told "$partial" | sha256sum)
    [ "$was" = "$now" ] || {{ echo "the copy in $partial isn't what it was made of; nothing was removed" >&2; exit 1; }}
    mv -n -T -- "$partial" "$to"
    sync -f "$to"
  fi
  was=$(told "$from" | sha256sum) now=$(told "$to" | sha256sum)
  [ "$was" = "$now" ] || {{ echo "$to isn't what $from is; nothing was removed" >&2; exit 1; }}
  mv -n -T -- "$from" "$gone"
fi
[ -d "$to" ]
rm -rf --one-file-system -- "$gone"
"#
    )
}

impl StepType for PostgresCopyElsewhere {
    const NAME: &'static str = "postgres.copy_elsewhere";
    const DESTRUCTIVE: bool = true;
    const NOT_UNDOABLE: &'static str =
        "the original is removed, and where it was there may be no room for it any more; the copy is whole";

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.data_dir)
    }
}

impl PostgresCopyElsewhere {
    /// The note that was left beside the original's place tells where it is now.
    async fn note(&self, cx: &Context, host: &dyn Host, name: &CopyName, to: &str) -> Result<(), StepError> {
        let there = host.read(&name.note(), NOTE_LIMIT).await?;
        let mut note: Value =
            there.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| json!({}));
        if note["now"] == to {
            return Ok(());
        }
        note["now"] = to.into();
        let write = HostChange::WriteFile {
            path: name.note(),
            content: Content((serde_json::to_string_pretty(&note).unwrap_or_default() + "\n").into_bytes()),
            ownership: Ownership { mode: Some(0o644), ..Ownership::default() },
        };
        Ok(host.change(cx.attempt(), &write).await?)
    }
}

#[async_trait]
impl Step for PostgresCopyElsewhere {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let none = || Ok(Check::Satisfied(Output::empty().with("now", None::<String>)));
        let (Some(copy), Some(into)) = (&self.copy, named(&self.into, host.name())) else { return none() };
        let name = match CopyName::of(copy, &self.data_dir) {
            Ok(name) => name,
            Err(why) => return Ok(Check::Refused(why)),
        };
        let base = name.path.rsplit('/').next().unwrap_or_default();
        let to = format!("{into}/{base}");
        let removing = name.removing();
        let (there, moved, begun) = tokio::try_join!(
            plain_directory(&*host, &name.path),
            plain_directory(&*host, &to),
            plain_directory(&*host, &removing)
        )?;
        let (there, moved, begun) = match (there, moved, begun) {
            (Ok(there), Ok(moved), Ok(begun)) => (there, moved, begun),
            (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return Ok(Check::Refused(why)),
        };
        if !there && !begun {
            return Ok(if moved {
                Check::Satisfied(Output::empty().with("now", &to))
            } else {
                Check::Refused(format!("there is no {}", name.path))
            });
        }
        if there {
            let running = processes_on(&*host, &name.path).await?;
            if !running.is_empty() {
                return Ok(Check::Refused(format!("{} is in use: {}", name.path, describe(&running))));
            }
        }
        if there && !moved {
            let bytes = super::copy::bytes(&*host, &name.path, &[]).await?;
            if let Err(why) = has_room(&*host, &name.path, into, bytes).await? {
                return Ok(Check::Refused(why));
            }
        }
        let change = Change::new(format!("copy {} to {to}, compare, and remove the original", name.path));
        Ok(Check::Pending(change.with_data(Recorded { from: name.path, to })))
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let Recorded { from, to } = change.data()?;
        let host = cx.host().await?;
        let name = CopyName::of(&from, &self.data_dir).map_err(StepError::permanent)?;
        cx.progress(format!("copying {from} to {to}, and comparing"));
        let reply = host.run(cx.attempt(), &Command::new(script(&from, &to)).detached()).await?;
        if !reply.success() {
            return Err(
                exit_error(&reply).with_hint("the original is where it was; `flow resume` begins again")
            );
        }
        self.note(cx, &*host, &name, &to).await?;
        Ok(Output::empty().with("now", &to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, HOSTS, Lab, refused, satisfied};
    use std::fs;
    use std::path::{Path, PathBuf};

    const SUFFIX: &str = ".set-aside-20260102T030405Z-0123456789ab";

    /// A copy of some files, and a directory to move it into.
    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::TempDir::new().unwrap();
        let (from, into) = (folder.path().join(format!("it's main{SUFFIX}")), folder.path().join("into"));
        fs::create_dir_all(from.join("base/5")).unwrap();
        fs::create_dir_all(&into).unwrap();
        fs::write(from.join("base/5/1259"), b"rows").unwrap();
        std::os::unix::fs::symlink("/srv/wal", from.join("pg_wal")).unwrap();
        let to = into.join("main");
        (folder, from, to)
    }

    fn moved(from: &Path, to: &Path) -> bool {
        let script = script(from.to_str().unwrap(), to.to_str().unwrap());
        std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success()
    }

    #[test]
    fn the_original_goes_once_the_copy_is_the_same() {
        let (_folder, from, to) = folders();
        let modified = |path: &Path| fs::metadata(path.join("base/5/1259")).unwrap().modified().unwrap();
        let then = modified(&from);
        assert!(moved(&from, &to));
        assert_eq!(fs::read(to.join("base/5/1259")).unwrap(), b"rows");
        assert_eq!(fs::read_link(to.join("pg_wal")).unwrap(), Path::new("/srv/wal"));
        assert_eq!(modified(&to), then);
        assert!(!from.exists());
        assert!(moved(&from, &to), "done again, it is done");
    }

    #[test]
    fn a_copy_that_differs_removes_nothing() {
        let (_folder, from, to) = folders();
        assert!(moved(&from, &to));
        fs::create_dir_all(from.join("base/5")).unwrap();
        fs::write(from.join("base/5/1259"), b"rowz").unwrap();
        assert!(!moved(&from, &to));
        assert_eq!(fs::read(from.join("base/5/1259")).unwrap(), b"rowz");
    }

    #[test]
    fn one_that_was_cut_short_begins_anew_or_ends() {
        let (folder, from, to) = folders();
        let partial = folder.path().join("into/main.being-copied");
        fs::create_dir_all(partial.join("half")).unwrap();
        assert!(moved(&from, &to) && !partial.exists() && !to.join("half").exists());
        let gone = PathBuf::from(format!("{}.being-removed", from.display()));
        fs::create_dir_all(gone.join("rest")).unwrap();
        assert!(moved(&from, &to) && !gone.exists());
    }

    #[tokio::test]
    async fn the_same_file_system_or_no_directory_is_refused_and_another_host_s_is_passed_over() {
        let lab = Lab::deployed().await;
        let host = HOSTS[2].0;
        let copy = format!("{DATA}{SUFFIX}");
        lab.world.initdb(host, &copy).unwrap();
        lab.make(host, "directory", json!({ "path": "/mnt/big" })).await;
        let step = |into: &str| -> PostgresCopyElsewhere {
            serde_json::from_value(json!({ "copy": copy, "data_dir": DATA, "into": [into] })).unwrap()
        };
        let cx = lab.on(host);
        let own = |path: &str| format!("{host}:{path}");
        assert!(refused(step(&own("/mnt/none")).check(&cx).await.unwrap()).contains("no directory"));
        assert!(
            refused(step(&own("/mnt/big")).check(&cx).await.unwrap()).contains("nothing would be gained")
        );
        satisfied(step("other:/mnt/big").check(&cx).await.unwrap());
        lab.world
            .edit(|state| state.hosts.get_mut(host).unwrap().files.mounts.insert("/mnt/big".into(), 7))
            .unwrap();
        let change = crate::testing::pending(step(&own("/mnt/big/")).check(&cx).await.unwrap());
        assert_eq!(
            change.summary,
            format!("copy {copy} to /mnt/big/main{SUFFIX}, compare, and remove the original")
        );
    }
}
