//! The store in one SQLite file: `journal_mode=WAL`, `synchronous=FULL` (every commit is synced; in
//! WAL mode `NORMAL` is not safe against a loss of power). Files are 0600, their folder 0700. Every row has a
//! checksum, and how many events a run has is noted beside the database too: damage is found, not read.

mod mark;
mod open;
mod sum;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use mark::Mark;
use sum::sum;

use super::{Claim, NewRun, RunRow, Store, StoreError};
use crate::run::{Event, Record, RunId};

/// Grows with every change of the tables or of an event's form.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE runs (
        nr             INTEGER PRIMARY KEY,
        id             TEXT NOT NULL UNIQUE,
        workflow       TEXT NOT NULL,
        started        TEXT NOT NULL,
        imported       INTEGER NOT NULL,
        sum            INTEGER NOT NULL,
        definition     TEXT NOT NULL,
        definition_sum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        run  TEXT NOT NULL REFERENCES runs (id),
        seq  INTEGER NOT NULL,
        at   TEXT NOT NULL,
        body TEXT NOT NULL,
        sum  INTEGER NOT NULL,
        PRIMARY KEY (run, seq)
    ) STRICT, WITHOUT ROWID;
";

/// A store in one file.
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
    mark: Option<Mark>,
}

impl SqliteStore {
    fn error(&self, problem: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
        move |e| sql_error(&self.path, problem, e)
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what }
    }

    fn read_events(&self, run: &RunId, tail: &str, limit: i64) -> Result<Vec<Record>, StoreError> {
        let sql =
            format!("SELECT seq, at, body, sum FROM events WHERE run = ?1 ORDER BY seq {tail} LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql).map_err(self.error("can't be read"))?;
        let rows = statement
            .query_map(params![run.as_str(), limit], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, i64>(3)?,
                ))
            })
            .map_err(self.error("can't be read"))?;
        let mut records = Vec::new();
        for row in rows {
            let (seq, at, body, noted) = row.map_err(self.error("can't be read"))?;
            let wrong = |e: &dyn std::fmt::Display| self.damaged(format!("event {seq} of run {run}: {e}"));
            if event_sum(run, seq, &at, &body) != noted {
                return Err(wrong(&"its checksum is wrong"));
            }
            records.push(Record {
                seq: u64::try_from(seq).map_err(|e| wrong(&e))?,
                at: at.parse::<Timestamp>().map_err(|e| wrong(&e))?,
                event: serde_json::from_str::<Event>(&body).map_err(|e| wrong(&e))?,
            });
        }
        Ok(records)
    }
}

/// The path of what lies beside the database: `runs.db` and a suffix.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

impl Store for SqliteStore {
    fn create(&mut self, run: &NewRun) -> Result<(), StoreError> {
        insert_run(&self.connection, &self.path, run, false)
    }

    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let path = self.path.clone();
        let error = |e: rusqlite::Error| sql_error(&path, "can't be written", e);
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(error)?;
        append_in(&tx, &path, run, records)?;
        tx.commit().map_err(error)?;
        if let Some(last) = records.last() {
            Mark::set(&mut self.mark, &path, run, last.seq);
        }
        Ok(())
    }

    fn import(&mut self, run: &NewRun, records: &[Record]) -> Result<(), StoreError> {
        let path = self.path.clone();
        let error = |e: rusqlite::Error| sql_error(&path, "can't be written", e);
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(error)?;
        insert_run(&tx, &path, run, true)?;
        append_in(&tx, &path, &run.id, records)?;
        tx.commit().map_err(error)
    }

    fn remove(&mut self, runs: &[RunId]) -> Result<(u64, u64), StoreError> {
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        let whole = |path: &Path| size(path) + size(&beside(path, "-wal"));
        let path = self.path.clone();
        let error = |e: rusqlite::Error| sql_error(&path, "can't be written", e);
        let before = whole(&path);
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(error)?;
        for run in runs {
            tx.execute("DELETE FROM events WHERE run = ?1", [run.as_str()]).map_err(error)?;
            tx.execute("DELETE FROM runs WHERE id = ?1", [run.as_str()]).map_err(error)?;
        }
        tx.commit().map_err(error)?;
        for run in runs {
            let _ = fs::remove_file(Mark::path(&path, run));
            let _ = fs::remove_file(beside(&path, ".locks").join(run.as_str()));
        }
        // They are gone. That others write just now, or that there is no room for the smaller copy, only keeps
        // the file from shrinking until the next time.
        let _ = self.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);");
        Ok((before, whole(&path)))
    }

    fn definition(&self, run: &RunId) -> Result<String, StoreError> {
        let row = self
            .connection
            .query_row("SELECT definition, definition_sum FROM runs WHERE id = ?1", [run.as_str()], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()
            .map_err(self.error("can't be read"))?;
        match row {
            None => Err(StoreError::NoRun(format!("there is no run {run}"))),
            Some((definition, noted)) if sum(&[&definition]) == noted => Ok(definition),
            Some(_) => Err(self.damaged(format!("run {run}: its definition's checksum is wrong"))),
        }
    }

    fn events(&self, run: &RunId) -> Result<Vec<Record>, StoreError> {
        // Read first: while another process appends, it may be behind, and never ahead.
        let noted = Mark::read(&self.path, run).unwrap_or(0);
        let records = self.read_events(run, "ASC", -1)?;
        for (expected, record) in (1..).zip(&records) {
            if record.seq != expected {
                return Err(self.damaged(format!("run {run} has no event {expected}")));
            }
        }
        let found = records.len() as u64;
        if found < noted {
            return Err(StoreError::CutShort {
                path: self.path.clone(),
                run: run.clone(),
                found,
                noted,
                mark: Mark::path(&self.path, run),
            });
        }
        Ok(records)
    }

    fn last_events(&self, run: &RunId, count: usize) -> Result<Vec<Record>, StoreError> {
        self.read_events(run, "DESC", i64::try_from(count).unwrap_or(i64::MAX))
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        self.select_runs("")
    }

    fn find(&self, prefix: &str) -> Result<RunRow, StoreError> {
        let mut found = self.select_runs(prefix)?;
        if let Some(exact) = found.iter().position(|row| row.id.as_str() == prefix) {
            return Ok(found.swap_remove(exact));
        }
        match found.len() {
            0 => Err(StoreError::NoRun(format!("no run's id begins with `{prefix}`"))),
            1 => Ok(found.swap_remove(0)),
            _ => {
                let ids: Vec<&str> = found.iter().take(5).map(|row| row.id.as_str()).collect();
                Err(StoreError::NoRun(format!(
                    "{} runs begin with `{prefix}`: {}",
                    found.len(),
                    ids.join(", ")
                )))
            }
        }
    }

    fn claim(&self, run: &RunId, owner: &str) -> Result<Box<dyn Claim>, StoreError> {
        let folder = beside(&self.path, ".locks");
        let path = folder.join(run.as_str());
        let io = |problem: &'static str| {
            let path = path.clone();
            move |source: std::io::Error| StoreError::Io { path, problem, source: source.into() }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io("can't be made"))?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("can't be opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).map_err(io("can't be read"))?;
                return Err(StoreError::Busy { run: run.clone(), owner: owner.trim().to_owned() });
            }
            Err(TryLockError::Error(e)) => return Err(io("can't be locked")(e)),
        }
        // Who holds it is a courtesy to others: a full disk must not keep a run from going on.
        let _ = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
        Ok(Box::new(FileClaim(file)))
    }

    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError> {
        let path = beside(&self.path, ".key");
        let io = |problem: &'static str| {
            let path = path.clone();
            move |source: std::io::Error| StoreError::Io { path, problem, source: source.into() }
        };
        if !path.exists() {
            // Written beside and linked into place: of two processes one wins, and both read the same.
            let fresh = beside(&self.path, &format!(".key.{}", std::process::id()));
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&fresh)
                .map_err(io("can't be made"))?;
            file.write_all(&rand::random::<[u8; 32]>())
                .and_then(|()| file.sync_all())
                .map_err(io("can't be written"))?;
            let linked = fs::hard_link(&fresh, &path);
            let _ = fs::remove_file(&fresh);
            match linked {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(io("can't be made")(e));
                }
                _ => {}
            }
        }
        let bytes = fs::read(&path).map_err(io("can't be read"))?;
        bytes
            .try_into()
            .map_err(|_| StoreError::Damaged { path, what: "the key isn't 32 bytes long".to_owned() })
    }
}

impl SqliteStore {
    fn select_runs(&self, prefix: &str) -> Result<Vec<RunRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT id, workflow, started, imported, sum FROM runs WHERE substr(id, 1, length(?1)) = ?1
                 ORDER BY nr DESC",
            )
            .map_err(self.error("can't be read"))?;
        let rows = statement
            .query_map([prefix], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, bool>(3)?,
                    row.get::<_, i64>(4)?,
                ))
            })
            .map_err(self.error("can't be read"))?;
        rows.map(|row| {
            let (id, workflow, started, imported, noted) = row.map_err(self.error("can't be read"))?;
            if run_sum(&id, &workflow, &started, imported) != noted {
                return Err(self.damaged(format!("run {id}: its checksum is wrong")));
            }
            let started = started.parse().map_err(|e| self.damaged(format!("run {id}: {e}")))?;
            Ok(RunRow { id: RunId::from_text(&id), workflow, started, imported })
        })
        .collect()
    }
}

/// Appends within a transaction. Sequence numbers must follow the last one of the run.
fn append_in(tx: &Connection, path: &Path, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
    let error = |e: rusqlite::Error| sql_error(path, "can't be written", e);
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    let mut last = tx
        .prepare_cached("SELECT seq FROM events WHERE run = ?1 ORDER BY seq DESC LIMIT 1")
        .map_err(error)?;
    let last: Option<i64> = last.query_row([run.as_str()], |row| row.get(0)).optional().map_err(error)?;
    let mut last = last.unwrap_or(0);
    let mut insert = tx
        .prepare_cached("INSERT INTO events (run, seq, at, body, sum) VALUES (?1, ?2, ?3, ?4, ?5)")
        .map_err(error)?;
    for record in records {
        let seq = record.seq.cast_signed();
        if seq <= last {
            // The number is taken: another process has appended meanwhile, this one has lost the run.
            return Err(StoreError::Busy { run: run.clone(), owner: "it has appended events".to_owned() });
        }
        if seq != last + 1 {
            return Err(damaged(format!("run {run}: event {seq} can't follow event {last}")));
        }
        let body = serde_json::to_string(&record.event)
            .map_err(|e| damaged(format!("event {seq} can't be written: {e}")))?;
        let at = record.at.to_string();
        let sum = event_sum(run, seq, &at, &body);
        insert.execute(params![run.as_str(), seq, at, body, sum]).map_err(error)?;
        last = seq;
    }
    Ok(())
}

fn insert_run(connection: &Connection, path: &Path, run: &NewRun, imported: bool) -> Result<(), StoreError> {
    let (id, started) = (run.id.as_str(), run.started.to_string());
    let inserted = connection.execute(
        "INSERT INTO runs (id, workflow, started, imported, sum, definition, definition_sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            id,
            run.workflow,
            started,
            imported,
            run_sum(id, &run.workflow, &started, imported),
            run.definition,
            sum(&[&run.definition])
        ],
    );
    match inserted {
        Ok(_) => Ok(()),
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(StoreError::Exists { run: run.id.clone() })
        }
        Err(e) => Err(sql_error(path, "can't be written", e)),
    }
}

fn run_sum(id: &str, workflow: &str, started: &str, imported: bool) -> i64 {
    sum(&[id, workflow, started, if imported { "imported" } else { "" }])
}

fn event_sum(run: &RunId, seq: i64, at: &str, body: &str) -> i64 {
    sum(&[run.as_str(), &seq.to_string(), at, body])
}

/// An advisory lock on a file beside the store; the kernel drops it with the process. The file stays:
/// removing it would let two processes hold locks on two files of one name.
struct FileClaim(#[expect(dead_code, reason = "held for its lock")] File);

impl Claim for FileClaim {}

fn sql_error(path: &Path, problem: &'static str, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), what: error.to_string() }
        }
        _ => StoreError::Io { path: path.to_owned(), problem, source: error.into() },
    }
}
