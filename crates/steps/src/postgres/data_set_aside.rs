//! `postgres.data_set_aside`: a data directory out of the way, with everything in it kept.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Resolved, Step, StepError, StepType, UndoError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::control::{Control, control};
use super::moves::{Move, plan};
use super::stopped::{describe, processes_on};
use crate::host::{Content, FileKind, Host, HostChange, HostContext, Ownership, ProcessQuery, quote};

/// Renames a data directory to `DIR.set-aside-TIME-RUN`, so that nothing is there. Nothing is removed.
///
/// TIME is when the run began (UTC). What the `pg_wal` link and tablespace links point to is renamed with it, in
/// its own place, and the links follow. Beside it a note, `DIR.set-aside-TIME-RUN.flow.json`, tells what it is.
/// Refused: what is no data directory, a mount point, a symbolic link, a directory that PostgreSQL
/// or Patroni still works on, a name that is taken. A directory that is absent or empty needs nothing.
/// Undo renames it back. Output: `set_aside` (the new path, null where nothing was there),
/// `system_identifier`, `timeline`, `bytes` (null where not known).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSetAside {
    /// The data directory: `/var/lib/postgresql/15/main`.
    pub data_dir: String,
    /// Where `pg_controldata` is, to note the system identifier: `/usr/lib/postgresql/15/bin`.
    #[serde(default)]
    pub bin_dir: Option<String>,
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
enum Found {
    Nothing,
    Data,
    Refused(String),
}

impl StepType for DataSetAside {
    const NAME: &'static str = "postgres.data_set_aside";
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

impl DataSetAside {
    fn path(&self) -> &str {
        self.data_dir.trim_end_matches('/')
    }

    /// The same in every attempt of a run.
    fn suffix(cx: &Context) -> String {
        format!(".set-aside-{}-{}", cx.run_started().strftime("%Y%m%dT%H%M%SZ"), cx.run())
    }

    async fn look(&self, host: &dyn Host) -> Result<Found, StepError> {
        let path = self.path();
        let (version, control) = (format!("{path}/PG_VERSION"), format!("{path}/global/pg_control"));
        let (stat, names, version, control) =
            tokio::join!(host.stat(path), host.list(path), host.stat(&version), host.stat(&control));
        let Some(stat) = stat? else { return Ok(Found::Nothing) };
        let refused = |why: String| Ok(Found::Refused(why));
        match stat.kind {
            FileKind::Directory => {}
            FileKind::Symlink => {
                let target = stat.target.unwrap_or_default();
                return refused(format!("{path} is a symbolic link to {target}: name the directory itself in Patroni's configuration"));
            }
            _ => return refused(format!("{path} is no directory")),
        }
        if names?.unwrap_or_default().is_empty() {
            return Ok(Found::Nothing);
        }
        if version?.is_none() || control?.is_none() {
            return refused(format!(
                "{path} is no data directory of PostgreSQL (no PG_VERSION or no global/pg_control), and it isn't empty"
            ));
        }
        Ok(Found::Data)
    }

    /// Who still works on it, in words.
    async fn in_use(&self, host: &dyn Host) -> Result<Option<String>, StepError> {
        let patroni = ProcessQuery { name: Some("patroni".to_owned()), ..ProcessQuery::default() };
        let (mut running, patroni) =
            tokio::try_join!(processes_on(host, self.path()), async { Ok(host.processes(&patroni).await?) })?;
        running.extend(patroni);
        Ok((!running.is_empty()).then(|| format!("{} is in use: {}", self.path(), describe(&running))))
    }

    /// Moves what isn't moved yet. Every step of it can be done again.
    async fn carry_out(&self, cx: &Context, host: &dyn Host, moves: &[Move]) -> Result<(), StepError> {
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

/// Where a directory stands that was to be renamed, told by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    After,
    Neither,
}

async fn place(host: &dyn Host, one: &Move) -> Result<Place, StepError> {
    let (from, to) = tokio::try_join!(host.stat(&one.from), host.stat(&one.to))?;
    let is_it = |stat: &Option<crate::host::Stat>| stat.as_ref().is_some_and(|stat| stat.inode == one.inode);
    Ok(match (is_it(&from), is_it(&to)) {
        (true, false) => Place::Before,
        (false, true) => Place::After,
        _ => Place::Neither,
    })
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
        let (found, in_use) = tokio::try_join!(self.look(&*host), self.in_use(&*host))?;
        match found {
            Found::Nothing => return Ok(Check::Satisfied(Self::output(None))),
            Found::Refused(why) => return Ok(Check::Refused(why)),
            Found::Data => {}
        }
        // A plan looks at a cluster that still runs; by its turn it will have been stopped.
        if let Some(why) = in_use.filter(|_| !cx.planning()) {
            return Ok(Check::Refused(why));
        }
        let moves = match plan(&*host, self.path(), &Self::suffix(cx)).await? {
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

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        // Looked at once more: a minute may have passed since the check.
        if let Some(why) = self.in_use(&*host).await? {
            return Err(StepError::permanent(why).with_hint("stop Patroni and PostgreSQL on this host first"));
        }
        // The note comes first: an attempt that is cut short after the last rename is done with it.
        self.leave_note(cx, &*host, &recorded).await?;
        self.carry_out(cx, &*host, &recorded.moves).await?;
        Ok(Self::output(Some(&recorded)))
    }

    async fn resolve(&self, cx: &Context, change: &Change) -> Result<Resolved, StepError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        let mut done = 0;
        for one in &recorded.moves {
            match place(&*host, one).await? {
                Place::Before => {}
                Place::After => done += 1,
                Place::Neither => {
                    return Ok(Resolved::Unknown(format!(
                        "{} is neither at its place nor at {}: somebody moved it",
                        one.from, one.to
                    )));
                }
            }
        }
        if done < recorded.moves.len() {
            // What was moved before is recognised when it is planned again.
            return Ok(Resolved::NotDone);
        }
        Ok(Resolved::Done(Self::output(Some(&recorded))))
    }

    async fn undo(&self, cx: &Context, change: &Change, _output: Option<&Output>) -> Result<(), UndoError> {
        let recorded: Recorded = change.data()?;
        let host = cx.host().await?;
        if let Some(why) = self.in_use(&*host).await? {
            return Err(StepError::permanent(why).with_hint("stop Patroni and PostgreSQL on this host first").into());
        }
        for one in recorded.moves.iter().rev() {
            match place(&*host, one).await? {
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
        if let Some(main) = recorded.moves.last() {
            let note = HostChange::RemoveFile { path: format!("{}.flow.json", main.to) };
            host.change(cx.attempt(), &note).await.map_err(StepError::from)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::{Fault, FaultKind};
    use crate::testing::{BIN, DATA, HOSTS, Lab, done, pending, refused, satisfied};

    const ASIDE: &str = "/var/lib/postgresql/15/main.set-aside-20260102T030405Z-0123456789ab";

    fn step() -> DataSetAside {
        serde_json::from_value(json!({ "data_dir": DATA, "bin_dir": BIN })).unwrap()
    }

    async fn stopped() -> Lab {
        let lab = Lab::deployed().await;
        for (host, _) in HOSTS.into_iter().rev() {
            lab.make(host, "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped", "masked": true })).await;
        }
        lab
    }

    #[tokio::test]
    async fn the_directory_is_renamed_with_a_note_beside_it_and_undo_brings_it_back() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let (change, output) = lab.establish(&step(), &cx).await;
        assert_eq!(change.summary, format!("rename {DATA} to {ASIDE}"));
        assert_eq!(output.0["set_aside"], ASIDE);
        assert!(output.0["system_identifier"].as_str().unwrap().starts_with("77"));
        assert!(lab.text("patroni1", &format!("{ASIDE}/PG_VERSION")).is_some());
        assert!(lab.text("patroni1", &format!("{ASIDE}.flow.json")).unwrap().contains("\"run\": \"0123456789ab\""));
        step().undo(&cx, &change, Some(&output)).await.unwrap();
        assert!(lab.text("patroni1", &format!("{DATA}/PG_VERSION")).is_some());
        assert_eq!(lab.text("patroni1", &format!("{ASIDE}.flow.json")), None);
    }

    #[tokio::test]
    async fn nothing_there_or_an_empty_directory_needs_nothing() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        assert_eq!(satisfied(step().check(&cx).await.unwrap()).0["set_aside"], serde_json::Value::Null);
        lab.make("patroni1", "directory", json!({ "path": DATA })).await;
        satisfied(step().check(&cx).await.unwrap());
    }

    #[tokio::test]
    async fn what_is_in_use_is_refused_in_a_run_and_planned_in_a_plan() {
        let lab = Lab::deployed().await;
        let why = refused(step().check(&lab.on("patroni2")).await.unwrap());
        assert!(why.starts_with(&format!("{DATA} is in use: ")), "{why}");
        pending(step().check(&lab.planning("patroni2")).await.unwrap());
    }

    #[tokio::test]
    async fn patroni_alone_is_in_the_way_too_also_between_check_and_apply() {
        let lab = stopped().await;
        let cx = lab.on("patroni2");
        let change = pending(step().check(&cx).await.unwrap());
        lab.make("patroni2", "systemd.unit", json!({ "unit": "patroni.service", "state": "running", "masked": false })).await;
        let error = step().apply(&cx, &change).await.unwrap_err();
        assert!(error.message.contains("is in use"), "{}", error.message);
        assert!(lab.text("patroni2", &format!("{DATA}/PG_VERSION")).is_some());
    }

    #[tokio::test]
    async fn a_directory_that_is_no_data_directory_is_refused() {
        let lab = Lab::bare().await;
        lab.make("patroni1", "file", json!({ "path": format!("{DATA}/notes"), "content": "", "parents": true })).await;
        let why = refused(step().check(&lab.on("patroni1")).await.unwrap());
        assert!(why.contains("is no data directory of PostgreSQL"), "{why}");
    }

    #[tokio::test]
    async fn a_link_and_an_older_copy_of_the_same_name_are_refused() {
        let lab = stopped().await;
        lab.make("patroni1", "directory", json!({ "path": ASIDE })).await;
        let why = refused(step().check(&lab.on("patroni1")).await.unwrap());
        assert_eq!(why, format!("{ASIDE} is there already"));

        let host = lab.world.host("patroni2");
        let by = lab.on("patroni2").attempt().clone();
        for change in [
            HostChange::Rename { from: DATA.into(), to: "/srv/pg".into() },
            HostChange::Symlink { path: DATA.into(), target: "/srv/pg".into() },
        ] {
            host.change(&by, &change).await.unwrap();
        }
        let why = refused(step().check(&lab.on("patroni2")).await.unwrap());
        assert!(why.contains("is a symbolic link to /srv/pg"), "{why}");
    }

    /// `pg_wal` and a tablespace outside the data directory.
    async fn with_links(lab: &Lab) {
        let host = lab.world.host("patroni1");
        let by = lab.on("patroni1").attempt().clone();
        lab.make("patroni1", "directory", json!({ "path": "/srv/wal" })).await;
        lab.make("patroni1", "directory", json!({ "path": "/srv/space" })).await;
        for change in [
            HostChange::Rename { from: format!("{DATA}/pg_wal"), to: "/srv/wal/main".into() },
            HostChange::Symlink { path: format!("{DATA}/pg_wal"), target: "/srv/wal/main".into() },
            HostChange::Symlink { path: format!("{DATA}/pg_tblspc/16385"), target: "/srv/space".into() },
        ] {
            host.change(&by, &change).await.unwrap();
        }
    }

    const SUFFIX: &str = ".set-aside-20260102T030405Z-0123456789ab";

    async fn assert_all_aside(lab: &Lab) {
        let host = lab.world.host("patroni1");
        for gone in [DATA, "/srv/wal/main", "/srv/space"] {
            assert_eq!(host.stat(gone).await.unwrap(), None, "{gone}");
        }
        let link = host.stat(&format!("{ASIDE}/pg_wal")).await.unwrap().unwrap();
        assert_eq!(link.target, Some(format!("/srv/wal/main{SUFFIX}")));
        let link = host.stat(&format!("{ASIDE}/pg_tblspc/16385")).await.unwrap().unwrap();
        assert_eq!(link.target, Some(format!("/srv/space{SUFFIX}")));
        assert!(host.stat(&format!("/srv/space{SUFFIX}")).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_the_links_point_to_goes_with_it() {
        let lab = stopped().await;
        with_links(&lab).await;
        let (change, output) = lab.establish(&step(), &lab.on("patroni1")).await;
        assert_all_aside(&lab).await;
        step().undo(&lab.on("patroni1"), &change, Some(&output)).await.unwrap();
        let host = lab.world.host("patroni1");
        let link = host.stat(&format!("{DATA}/pg_wal")).await.unwrap().unwrap();
        assert_eq!(link.target.as_deref(), Some("/srv/wal/main"));
        assert!(host.stat("/srv/wal/main").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn interrupted_after_any_change_it_is_gone_on_with_to_the_same_end() {
        for number in 1.. {
            let lab = stopped().await;
            with_links(&lab).await;
            let cx = lab.on("patroni1");
            let before = lab.effects().len();
            let change = pending(step().check(&cx).await.unwrap());
            for _ in 1..number {
                // Passed over: faults fire one after another at calls that change something.
            }
            let texts = ["write-file", "rename /srv/wal", "symlink /var/lib/postgresql/15/main/pg_wal", "rename /srv/space",
                "symlink /var/lib/postgresql/15/main/pg_tblspc", "rename /var/lib/postgresql"];
            let Some(text) = texts.get(number - 1) else { break };
            lab.world.inject(Fault::at("patroni1", text, FaultKind::LoseAnswer)).unwrap();
            let error = step().apply(&cx, &change).await.unwrap_err();
            assert_eq!(error.outcome, flow_core::step::Outcome::Lost);
            match step().resolve(&cx, &change).await.unwrap() {
                Resolved::Done(output) => assert_eq!(output.0["set_aside"], ASIDE),
                Resolved::NotDone => {
                    let (_, output) = lab.establish(&step(), &cx).await;
                    assert_eq!(output.0["set_aside"], ASIDE);
                }
                other => panic!("{other:?} after {text}"),
            }
            assert_all_aside(&lab).await;
            done(step().resolve(&cx, &change).await.unwrap());
            assert_eq!(lab.effects().len() - before, 6, "note, renames and links were made once, after {text}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_somebody_else_moved_is_unknown() {
        let lab = stopped().await;
        let cx = lab.on("patroni1");
        let change = pending(step().check(&cx).await.unwrap());
        let away = HostChange::Rename { from: DATA.into(), to: "/srv/elsewhere".into() };
        lab.world.host("patroni1").change(cx.attempt(), &away).await.unwrap();
        assert!(matches!(step().resolve(&cx, &change).await.unwrap(), Resolved::Unknown(_)));
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        for wrong in ["/", "/data", "var/lib/x", "/var/../etc"] {
            assert!(DataSetAside { data_dir: wrong.into(), bin_dir: None }.validate().is_err(), "{wrong}");
        }
    }
}
