//! The store in one SQLite file: `journal_mode=WAL`, `synchronous=FULL` (every commit is synced; in
//! WAL mode `NORMAL` is not safe against a loss of power). Files are 0600, their folder 0700.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Claim, NewRun, RunRow, Store, StoreError};
use crate::run::{Event, Record, RunId};

/// Grows with every change of the tables or of an event's form.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE runs (
        number     INTEGER PRIMARY KEY,
        id         TEXT NOT NULL UNIQUE,
        workflow   TEXT NOT NULL,
        started    TEXT NOT NULL,
        definition TEXT NOT NULL
    ) STRICT;
    -- One number for run and event: appended at the end of the tree, and read in its order.
    CREATE TABLE events (
        place INTEGER PRIMARY KEY, -- the run's number * 2^32 + seq
        at    INTEGER NOT NULL,    -- nanoseconds since 1970
        body  TEXT NOT NULL
    ) STRICT;
    -- For people with sqlite3.
    CREATE VIEW history AS
        SELECT runs.id AS run, place & 0xFFFFFFFF AS seq, datetime(at / 1000000000, 'unixepoch') AS at, body
        FROM events JOIN runs ON runs.number = place >> 32;
";

/// A run's events stand at its number times this, plus their own number.
const RUN: i64 = 1 << 32;

/// A store in one file.
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens a store, and makes it where there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |problem: &'static str| {
            move |source: std::io::Error| StoreError::Io {
                path: path.to_owned(),
                problem,
                source: source.into(),
            }
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io("can't be made"))?;
        }
        // Made by hand first, so that it is never readable by others, not even for a moment.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o600)))
            .map_err(io("can't be opened"))?;
        let connection = Connection::open(path).map_err(|e| sql_error(path, "can't be opened", e))?;
        let mut store = Self { connection, path: path.to_owned() };
        store.prepare().map_err(|e| match e {
            Prepare::Sql(e) => sql_error(path, "can't be opened", e),
            Prepare::Newer(found) => StoreError::Newer { path: path.to_owned(), found, known: FORMAT },
        })?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), Prepare> {
        self.connection.busy_timeout(Duration::from_secs(10))?;
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let version = |c: &Connection| c.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
        match version(&self.connection)? {
            FORMAT => Ok(()),
            0 => {
                // Exclusive: of two processes that open a new store at once, one makes the tables.
                let tx =
                    self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
                if version(&tx)? == 0 {
                    tx.execute_batch(TABLES)?;
                    tx.pragma_update(None, "user_version", FORMAT)?;
                }
                tx.commit()?;
                Ok(())
            }
            newer => Err(Prepare::Newer(newer)),
        }
    }

    fn error(&self, problem: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
        move |e| sql_error(&self.path, problem, e)
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what }
    }

    /// The run's number, under which its events are kept.
    fn number(&self, run: &RunId) -> Result<i64, StoreError> {
        self.connection
            .prepare_cached("SELECT number FROM runs WHERE id = ?1")
            .and_then(|mut found| found.query_row([run.as_str()], |row| row.get(0)).optional())
            .map_err(self.error("can't be read"))?
            .ok_or_else(|| StoreError::NoRun(format!("there is no run {run}")))
    }

    /// Gives events one after another, until `visit` says stop or there are no more.
    fn read_events(
        &self,
        run: &RunId,
        order: &str,
        visit: &mut dyn FnMut(Record) -> bool,
    ) -> Result<(), StoreError> {
        let first = self.number(run)? * RUN;
        let sql = format!(
            "SELECT place, at, body FROM events WHERE place > ?1 AND place < ?2 ORDER BY place {order}"
        );
        let mut statement = self.connection.prepare_cached(&sql).map_err(self.error("can't be read"))?;
        let mut rows = statement.query([first, first + RUN]).map_err(self.error("can't be read"))?;
        while let Some(row) = rows.next().map_err(self.error("can't be read"))? {
            let place: i64 = row.get(0).map_err(self.error("can't be read"))?;
            let seq = place - first;
            let wrong = |e: &dyn std::fmt::Display| self.damaged(format!("event {seq} of run {run}: {e}"));
            let at: i64 = row.get(1).map_err(|e| wrong(&e))?;
            let body = row.get_ref(2).map_err(|e| wrong(&e))?.as_str().map_err(|e| wrong(&e))?;
            let record = Record {
                seq: seq.unsigned_abs(),
                at: Timestamp::from_nanosecond(at.into()).map_err(|e| wrong(&e))?,
                event: serde_json::from_str::<Event>(body).map_err(|e| wrong(&e))?,
            };
            if !visit(record) {
                break;
            }
        }
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.path.with_file_name(name)
    }
}

enum Prepare {
    Sql(rusqlite::Error),
    Newer(i64),
}

impl From<rusqlite::Error> for Prepare {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Store for SqliteStore {
    fn create(&mut self, run: &NewRun) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT INTO runs (id, workflow, started, definition) VALUES (?1, ?2, ?3, ?4)",
                params![run.id.as_str(), run.workflow, run.started.to_string(), run.definition],
            )
            .map_err(self.error("can't be written"))?;
        Ok(())
    }

    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let first = self.number(run)? * RUN;
        let path = self.path.clone();
        let error = |e: rusqlite::Error| sql_error(&path, "can't be written", e);
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(error)?;
        {
            let mut last = tx
                .prepare_cached("SELECT max(place) FROM events WHERE place > ?1 AND place < ?2")
                .map_err(error)?;
            let last: Option<i64> = last.query_row([first, first + RUN], |row| row.get(0)).map_err(error)?;
            let mut last = last.map_or(0, |place| place - first);
            let mut insert = tx
                .prepare_cached("INSERT INTO events (place, at, body) VALUES (?1, ?2, ?3)")
                .map_err(error)?;
            let mut body = Vec::new();
            for record in records {
                let seq = record.seq.cast_signed();
                if seq <= last {
                    // The number is taken: another process has appended meanwhile, this one has lost the run.
                    return Err(StoreError::Busy {
                        run: run.clone(),
                        owner: "it has appended events".to_owned(),
                    });
                }
                if seq != last + 1 || seq >= RUN {
                    return Err(damaged(format!("run {run}: event {seq} can't follow event {last}")));
                }
                body.clear();
                serde_json::to_writer(&mut body, &record.event)
                    .map_err(|e| damaged(format!("event {seq} can't be written: {e}")))?;
                let body = str::from_utf8(&body)
                    .map_err(|e| damaged(format!("event {seq} can't be written: {e}")))?;
                // In range until the year 2262.
                let at = i64::try_from(record.at.as_nanosecond()).unwrap_or(i64::MAX);
                insert.execute(params![first + seq, at, body]).map_err(error)?;
                last = seq;
            }
        }
        tx.commit().map_err(error)
    }

    fn definition(&self, run: &RunId) -> Result<String, StoreError> {
        self.connection
            .query_row("SELECT definition FROM runs WHERE id = ?1", [run.as_str()], |row| row.get(0))
            .optional()
            .map_err(self.error("can't be read"))?
            .ok_or_else(|| StoreError::NoRun(format!("there is no run {run}")))
    }

    fn scan(&self, run: &RunId, visit: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        let (mut expected, mut missing) = (1, None);
        self.read_events(run, "ASC", &mut |record| {
            if record.seq != expected {
                missing = Some(expected);
                return false;
            }
            expected += 1;
            visit(record)
        })?;
        match missing {
            Some(seq) => Err(self.damaged(format!("run {run} has no event {seq}"))),
            None => Ok(()),
        }
    }

    fn last_events(&self, run: &RunId, count: usize) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        if count > 0 {
            self.read_events(run, "DESC", &mut |record| {
                records.push(record);
                records.len() < count
            })?;
        }
        Ok(records)
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
        let folder = self.beside(".locks");
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
        let path = self.beside(".key");
        let io = |problem: &'static str| {
            let path = path.clone();
            move |source: std::io::Error| StoreError::Io { path, problem, source: source.into() }
        };
        if !path.exists() {
            // Written beside and linked into place: of two processes one wins, and both read the same.
            let fresh = self.beside(&format!(".key.{}", std::process::id()));
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
                "SELECT id, workflow, started FROM runs WHERE substr(id, 1, length(?1)) = ?1
                 ORDER BY started DESC, id",
            )
            .map_err(self.error("can't be read"))?;
        let rows = statement
            .query_map([prefix], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })
            .map_err(self.error("can't be read"))?;
        rows.map(|row| {
            let (id, workflow, started) = row.map_err(self.error("can't be read"))?;
            let started = started.parse().map_err(|e| self.damaged(format!("run {id}: {e}")))?;
            Ok(RunRow { id: RunId::from_text(&id), workflow, started })
        })
        .collect()
    }
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
