//! `etcd.snapshot`: all that is in etcd, in a file.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::connect::{connect, validate_endpoints};
use crate::clients::TlsFiles;
use crate::host::{Content, Host, HostChange, HostContext, Ownership};
use crate::rehearsal::Rehearsed;
use crate::support::sha256;

/// The largest snapshot, in bytes. etcd's own limit is 2 GiB by default; a cluster of Patroni's has some hundred kilobytes.
const LIMIT: u64 = 256 << 20;
/// Bytes of the sum at the end.
const SUM: usize = 32;
/// What each page of a database of etcd that tells of it carries, and where in the first one (bbolt's `db.go`).
const MAGIC: u32 = 0xED0C_DAED;
const MAGIC_AT: usize = 16;

/// Saves all that is in etcd to a file, on the host, at the operator, or on both. One in each run.
///
/// The file is `NAME-TIME-RUN-rREVISION.db` (TIME is when the run began, UTC; REVISION that of etcd when it was asked) and what `etcdctl snapshot save` writes,
/// so `etcdctl snapshot restore` takes it. It is verified before it gets its name, and read back from the host: its first page is that of a
/// database, and the SHA-256 that etcd put at its end is that of the rest. Files are 0600: what is in etcd may be secret. `keep` removes
/// older ones of the same name. At most 256 MiB. Output: `path`, `operator_path`, `bytes`, `sha256` (of the file), `revision`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdSnapshot {
    /// `address:port` of the members; the first that answers is asked.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// A directory on the host, an absolute path. Made where it is missing. None by default.
    #[serde(default)]
    pub directory: Option<String>,
    /// A directory on the operator's machine, an absolute path. It must be there. None by default.
    #[serde(default)]
    pub operator_directory: Option<String>,
    /// What the file's name begins with. `etcd` by default.
    #[serde(default = "name")]
    pub name: String,
    /// So many files of that name stay in each directory, the newest. All by default.
    #[serde(default)]
    pub keep: Option<usize>,
}

fn name() -> String {
    "etcd".to_owned()
}

impl StepType for EtcdSnapshot {
    const NAME: &'static str = "etcd.snapshot";
    const NOT_UNDOABLE: &'static str =
        "a copy is in nobody's way, and older ones that `keep` removed are gone";

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        let directories = || [&self.directory, &self.operator_directory].into_iter().flatten();
        if directories().next().is_none() {
            return Err("give at least one of `directory` and `operator_directory`".to_owned());
        }
        if let Some(relative) = directories().find(|path| !path.starts_with('/')) {
            return Err(format!("`{relative}` is no absolute path"));
        }
        if self.keep == Some(0) {
            return Err("`keep = 0` would keep none: leave it out to keep all".to_owned());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return Err(format!("`{}` is no beginning of a file's name", self.name));
        }
        Ok(())
    }
}

/// A snapshot that is whole.
struct Whole {
    file: String,
    bytes: usize,
    sha256: String,
}

/// What is wrong with a snapshot; none: it is whole.
fn wrong(bytes: &[u8]) -> Option<String> {
    let Some((body, sum)) = bytes.split_last_chunk::<SUM>() else {
        return Some(format!("it has {} bytes", bytes.len()));
    };
    let magic =
        body.get(MAGIC_AT..MAGIC_AT + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    if magic != Some(MAGIC) || body.len() % 512 != 0 {
        return Some("it is no database of etcd".to_owned());
    }
    (Sha256::digest(body).as_slice() != sum)
        .then(|| "its SHA-256 isn't the one that etcd put at its end".to_owned())
}

impl EtcdSnapshot {
    /// What the names of this run's files begin with.
    fn beginning(&self, cx: &Context) -> String {
        format!("{}-{}-{}-r", self.name, cx.run_started().strftime("%Y%m%dT%H%M%SZ"), cx.run())
    }

    /// Whether a file is one of this name, of whichever run, by its form.
    fn is_one(&self, file: &str) -> bool {
        let rest = file.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".db"));
        let parts: Vec<&str> = rest.unwrap_or_default().split('-').collect();
        matches!(parts[..], [time, _, revision] if time.len() == 16 && time.ends_with('Z') && revision.starts_with('r'))
    }

    /// The files that `keep` doesn't keep, oldest first: their names begin with their time.
    fn surplus(&self, files: Vec<String>) -> Vec<String> {
        let Some(keep) = self.keep else { return Vec::new() };
        let mut ours: Vec<String> = files.into_iter().filter(|file| self.is_one(file)).collect();
        ours.sort();
        ours.truncate(ours.len().saturating_sub(keep));
        ours
    }

    fn whole(&self, cx: &Context, file: String, bytes: &[u8]) -> Option<Whole> {
        let of_run = file.starts_with(&self.beginning(cx)) && self.is_one(&file) && wrong(bytes).is_none();
        of_run.then(|| Whole { file, bytes: bytes.len(), sha256: sha256(bytes) })
    }

    /// This run's file on the host, and what `keep` doesn't keep there.
    async fn on_host(
        &self,
        cx: &Context,
        host: &dyn Host,
    ) -> Result<(Option<Whole>, Vec<String>), StepError> {
        let Some(directory) = &self.directory else { return Ok((None, Vec::new())) };
        let files = host.list(directory).await?.unwrap_or_default();
        let ours = files.iter().find(|file| file.starts_with(&self.beginning(cx)) && self.is_one(file));
        let found = match ours {
            Some(file) => host.read(&format!("{directory}/{file}"), LIMIT).await?.map(|bytes| (file, bytes)),
            None => None,
        };
        let whole = found.and_then(|(file, bytes)| self.whole(cx, file.clone(), &bytes));
        Ok((whole, self.surplus(files)))
    }

    /// The same at the operator.
    fn at_operator(&self, cx: &Context) -> Result<(Option<Whole>, Vec<String>), StepError> {
        let Some(directory) = &self.operator_directory else { return Ok((None, Vec::new())) };
        let failed = |error: std::io::Error| {
            StepError::failed(format!("{directory} at the operator: {error}")).with_hint("make it first")
        };
        let entries = std::fs::read_dir(directory).map_err(failed)?;
        let files: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        let ours = files.iter().find(|file| file.starts_with(&self.beginning(cx)) && self.is_one(file));
        let found = ours.and_then(|file| Some((file, std::fs::read(Path::new(directory).join(file)).ok()?)));
        let whole = found.and_then(|(file, bytes)| self.whole(cx, file.clone(), &bytes));
        Ok((whole, self.surplus(files)))
    }

    fn output(&self, one: &Whole) -> Output {
        let path = |directory: &Option<String>| directory.as_ref().map(|path| format!("{path}/{}", one.file));
        let revision =
            one.file.rsplit_once("-r").and_then(|(_, rest)| rest.strip_suffix(".db")?.parse::<i64>().ok());
        Output::empty()
            .with("path", path(&self.directory))
            .with("operator_path", path(&self.operator_directory))
            .with("bytes", one.bytes)
            .with("sha256", &one.sha256)
            .with("revision", revision)
    }

    async fn save_on_host(
        &self,
        cx: &Context,
        host: &dyn Host,
        file: &str,
        bytes: &[u8],
    ) -> Result<(), StepError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        if host.stat(directory).await?.is_none() {
            let ownership = Ownership { mode: Some(0o700), ..Ownership::default() };
            let make = HostChange::MakeDirectory { path: directory.clone(), ownership };
            host.change(cx.attempt(), &make).await?;
        }
        let path = format!("{directory}/{file}");
        let ownership = Ownership { mode: Some(0o600), ..Ownership::default() };
        let write = HostChange::WriteFile { path: path.clone(), content: Content(bytes.to_vec()), ownership };
        host.change(cx.attempt(), &write).await?;
        match host.read(&path, LIMIT).await? {
            Some(back) if back == bytes => Ok(()),
            _ => Err(StepError::failed(format!("{path} isn't what was written"))),
        }
    }

    fn save_at_operator(&self, file: &str, bytes: &[u8]) -> Result<(), StepError> {
        let Some(directory) = &self.operator_directory else { return Ok(()) };
        let place: PathBuf = Path::new(directory).join(file);
        let beside = Path::new(directory).join(format!(".{file}.new"));
        let save = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            new.write_all(bytes)?;
            new.sync_all()?;
            std::fs::rename(&beside, &place)?;
            std::fs::File::open(directory)?.sync_all()
        };
        save().map_err(|error| StepError::failed(format!("{} at the operator: {error}", place.display())))
    }

    /// Older ones go once the new one is there.
    async fn rotate(&self, cx: &Context, host: &dyn Host) -> Result<(), StepError> {
        for file in self.on_host(cx, host).await?.1 {
            let path = format!("{}/{file}", self.directory.as_deref().unwrap_or_default());
            host.change(cx.attempt(), &HostChange::RemoveFile { path }).await?;
        }
        for file in self.at_operator(cx)?.1 {
            let path = Path::new(self.operator_directory.as_deref().unwrap_or_default()).join(file);
            std::fs::remove_file(&path)
                .map_err(|error| StepError::failed(format!("{} at the operator: {error}", path.display())))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Step for EtcdSnapshot {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        if self.operator_directory.is_some() && cx.resource::<Rehearsed>().is_ok() {
            return Ok(Check::Refused("a rehearsal writes nothing on the operator's machine".to_owned()));
        }
        let host = cx.host().await?;
        let (on_host, surplus) = self.on_host(cx, &*host).await?;
        let (at_operator, more) = self.at_operator(cx)?;
        let there = [(&self.directory, &on_host), (&self.operator_directory, &at_operator)];
        let complete = there.iter().all(|(directory, found)| directory.is_none() || found.is_some());
        if complete
            && surplus.is_empty()
            && more.is_empty()
            && let Some(one) = on_host.as_ref().or(at_operator.as_ref())
        {
            return Ok(Check::Satisfied(self.output(one)));
        }
        let places = [&self.directory, &self.operator_directory].into_iter().flatten();
        let places: Vec<&str> = places.map(String::as_str).collect();
        Ok(Check::Pending(Change::new(format!("save all that is in etcd to {}", places.join(" and ")))))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        // An attempt that was cut short may have saved it, in one place or both.
        let (on_host, _) = self.on_host(cx, &*host).await?;
        let (at_operator, _) = self.at_operator(cx)?;
        let lacks =
            |directory: &Option<String>, found: &Option<Whole>| directory.is_some() && found.is_none();
        let incomplete = lacks(&self.directory, &on_host) || lacks(&self.operator_directory, &at_operator);
        let mut one = on_host.or(at_operator);
        if incomplete {
            let client = connect(&*host, &self.endpoints, self.tls.as_ref()).await?;
            let status = client.status().await?;
            cx.progress(format!("reading {} KiB", status.db_size >> 10));
            let bytes = client.snapshot(LIMIT).await?;
            if let Some(why) = wrong(&bytes) {
                return Err(StepError::failed(format!("the snapshot that came can't be used: {why}")));
            }
            let file = match one {
                Some(there) => there.file,
                None => format!("{}{}.db", self.beginning(cx), status.revision),
            };
            self.save_on_host(cx, &*host, &file, &bytes).await?;
            self.save_at_operator(&file, &bytes)?;
            one = self.whole(cx, file, &bytes);
        }
        self.rotate(cx, &*host).await?;
        let one = one.ok_or_else(|| StepError::failed("the snapshot isn't there".to_owned()))?;
        Ok(self.output(&one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    const DIRECTORY: &str = "/var/backups/etcd";

    fn step(with: &serde_json::Value) -> EtcdSnapshot {
        let mut all = json!({ "endpoints": ["198.18.0.12:2379"], "name": "demo" });
        all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[tokio::test]
    async fn a_snapshot_is_saved_whole_in_both_places_once_a_run_and_so_many_are_kept() {
        let operator = tempfile::tempdir().unwrap();
        let here = operator.path().to_str().unwrap();
        let lab = Lab::deployed().await;
        let old = ["20250101T000000Z-a-r1", "20250102T000000Z-b-r2", "20250103T000000Z-c-r3"];
        for name in old {
            std::fs::write(operator.path().join(format!("demo-{name}.db")), "").unwrap();
            let path = format!("{DIRECTORY}/demo-{name}.db");
            lab.make("patroni1", "file", json!({ "path": path, "content": "", "parents": true })).await;
        }
        std::fs::write(operator.path().join("demo-notes.db"), "mine").unwrap();
        let both = step(&json!({ "directory": DIRECTORY, "operator_directory": here, "keep": 2 }));
        let (_, output) = lab.establish(&both, &lab.on("patroni1")).await;
        let revision = lab.world.state().unwrap().etcd.revision;
        assert_eq!(output.0["revision"], revision);
        let path = output.0["operator_path"].as_str().unwrap();
        assert!(path.ends_with(&format!("/demo-20260102T030405Z-0123456789ab-r{revision}.db")), "{path}");
        assert_eq!(wrong(&std::fs::read(path).unwrap()), None);
        let mut left: Vec<_> =
            std::fs::read_dir(here).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left.len(), 3, "{left:?}");
        assert_eq!((left[0].as_str(), left[2].as_str()), ("demo-20250103T000000Z-c-r3.db", "demo-notes.db"));
        let host = lab.on("patroni1").host().await.unwrap();
        assert_eq!(host.list(DIRECTORY).await.unwrap().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_file_that_is_damaged_is_written_anew() {
        let lab = Lab::deployed().await;
        let one = step(&json!({ "directory": DIRECTORY }));
        let (_, output) = lab.establish(&one, &lab.on("patroni1")).await;
        let path = output.0["path"].as_str().unwrap().to_owned();
        lab.world
            .edit_host("patroni1", |host| host.files.write(&path, "cut", &Ownership::default()))
            .unwrap()
            .unwrap();
        lab.establish(&one, &lab.on("patroni1")).await;
        satisfied(one.check(&lab.on("patroni1")).await.unwrap());
    }

    #[test]
    fn what_is_no_snapshot_is_told() {
        assert_eq!(wrong(b"short").as_deref(), Some("it has 5 bytes"));
        assert_eq!(wrong(&[0; 544]).as_deref(), Some("it is no database of etcd"));
        assert!(step(&json!({})).validate().is_err());
        assert!(step(&json!({ "directory": "x" })).validate().is_err());
        assert!(step(&json!({ "directory": "/x", "keep": 0 })).validate().is_err());
    }
}
