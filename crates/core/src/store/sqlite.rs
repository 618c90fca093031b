//! The store in one SQLite file: `journal_mode=WAL`, `synchronous=FULL` (every commit is synced; in
//! WAL mode `NORMAL` is not safe against a loss of power). Files are 0600, their folder 0700. Every row has a
//! checksum, and how many events a run has is noted beside the database too: damage is found, not read.

mod beside;
mod mark;
mod open;
mod runs;
mod sum;

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use beside::beside;
use mark::Mark;
use runs::insert_run;
use sum::Sum;

use super::{Claim, NewRun, RunRow, Signal, Store, StoreError};
use crate::run::{Event, Record, RunId};

/// Grows with every change of the tables or of an event's form.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE runs (
        number     INTEGER PRIMARY KEY,
        id         TEXT NOT NULL UNIQUE,
        workflow   TEXT NOT NULL,
        started    TEXT NOT NULL,
        imported   INTEGER NOT NULL,
        sum        INTEGER NOT NULL,    -- of this row but for what follows
        definition TEXT NOT NULL,
        definition_sum INTEGER NOT NULL
    ) STRICT;
    -- One number for run and event: appended at the end of the tree, and read in its order.
    CREATE TABLE events (
        place INTEGER PRIMARY KEY, -- the run's number * 2^32 + seq
        at    INTEGER NOT NULL,    -- nanoseconds since 1970
        sum   INTEGER NOT NULL,    -- of this row
        body  TEXT NOT NULL
    ) STRICT;
    -- For people with sqlite3.
    CREATE VIEW history AS
        SELECT runs.id AS run, place & 0xFFFFFFFF AS seq, datetime(at / 1000000000, 'unixepoch') AS at, body
        FROM events JOIN runs ON runs.number = place >> 32;
    CREATE TABLE signals (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        run    TEXT NOT NULL REFERENCES runs (id),
        body   TEXT NOT NULL
    ) STRICT;
    CREATE INDEX signals_of_run ON signals (run);
";

/// A run's events stand at its number times this, plus their own number.
const RUN: i64 = 1 << 32;

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
            "SELECT place, at, body, sum FROM events WHERE place > ?1 AND place < ?2 ORDER BY place {order}"
        );
        let mut statement = self.connection.prepare_cached(&sql).map_err(self.error("can't be read"))?;
        let mut rows = statement.query([first, first + RUN]).map_err(self.error("can't be read"))?;
        while let Some(row) = rows.next().map_err(self.error("can't be read"))? {
            let place: i64 = row.get(0).map_err(self.error("can't be read"))?;
            let seq = place - first;
            let wrong = |e: &dyn std::fmt::Display| self.damaged(format!("event {seq} of run {run}: {e}"));
            let at: i64 = row.get(1).map_err(|e| wrong(&e))?;
            // That it is UTF-8 is seen where it is read as JSON.
            let body = row.get_ref(2).map_err(|e| wrong(&e))?.as_bytes().map_err(|e| wrong(&e))?;
            let noted: i64 = row.get(3).map_err(|e| wrong(&e))?;
            if event_sum(place, at, body) != noted {
                return Err(wrong(&"its checksum is wrong"));
            }
            let record = Record {
                seq: seq.unsigned_abs(),
                at: Timestamp::from_nanosecond(at.into()).map_err(|e| wrong(&e))?,
                event: serde_json::from_slice::<Event>(body).map_err(|e| wrong(&e))?,
            };
            if !visit(record) {
                break;
            }
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    fn create(&mut self, run: &NewRun) -> Result<(), StoreError> {
        insert_run(&self.connection, &self.path, run, false).map(drop)
    }

    fn append(&mut self, run: &RunId, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let first = self.number(run)? * RUN;
        let path = self.path.clone();
        let error = |e: rusqlite::Error| sql_error(&path, "can't be written", e);
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(error)?;
        append_in(&tx, &path, run, first, records)?;
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
        let number = insert_run(&tx, &path, run, true)?;
        append_in(&tx, &path, &run.id, number * RUN, records)?;
        tx.commit().map_err(error)
    }

    fn is_imported(&self, run: &RunId) -> Result<bool, StoreError> {
        self.connection
            .query_row("SELECT imported FROM runs WHERE id = ?1", [run.as_str()], |row| row.get(0))
            .optional()
            .map_err(self.error("can't be read"))?
            .ok_or_else(|| StoreError::NoRun(format!("there is no run {run}")))
    }

    fn remove(&mut self, runs: &[RunId]) -> Result<(u64, u64), StoreError> {
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        let whole = |path: &Path| size(path) + size(&beside(path, "-wal"));
        let numbers = runs.iter().map(|run| self.number(run)).collect::<Result<Vec<_>, _>>()?;
        let path = self.path.clone();
        let error = |e: rusqlite::Error| sql_error(&path, "can't be written", e);
        let before = whole(&path);
        let tx = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(error)?;
        for (run, number) in runs.iter().zip(numbers) {
            let first = number * RUN;
            tx.execute("DELETE FROM events WHERE place > ?1 AND place < ?2", [first, first + RUN])
                .map_err(error)?;
            tx.execute("DELETE FROM signals WHERE run = ?1", [run.as_str()]).map_err(error)?;
            tx.execute("DELETE FROM runs WHERE number = ?1", [number]).map_err(error)?;
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
            Some((text, noted)) if Sum::new().text(&text).get() == noted => Ok(text),
            Some(_) => Err(self.damaged(format!("run {run}: its definition's checksum is wrong"))),
        }
    }

    fn scan(&self, run: &RunId, visit: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        // Read first: while another process appends, it may be behind, and never ahead.
        let noted = Mark::read(&self.path, run).unwrap_or(0);
        let (mut expected, mut missing, mut whole) = (1, None, true);
        self.read_events(run, "ASC", &mut |record| {
            if record.seq != expected {
                missing = Some(expected);
                return false;
            }
            expected += 1;
            whole = visit(record);
            whole
        })?;
        if let Some(seq) = missing {
            return Err(self.damaged(format!("run {run} has no event {seq}")));
        }
        let found = expected - 1;
        if whole && found < noted {
            return Err(StoreError::CutShort {
                path: self.path.clone(),
                run: run.clone(),
                found,
                noted,
                mark: Mark::path(&self.path, run),
            });
        }
        Ok(())
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

    fn post(&mut self, run: &RunId, signal: &Signal) -> Result<(), StoreError> {
        let body = serde_json::to_string(signal)
            .map_err(|e| self.damaged(format!("a signal can't be written: {e}")))?;
        self.connection
            .execute("INSERT INTO signals (run, body) VALUES (?1, ?2)", params![run.as_str(), body])
            .map_err(self.error("can't be written"))?;
        Ok(())
    }

    fn signals(&self, run: &RunId) -> Result<Vec<(i64, Signal)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT number, body FROM signals WHERE run = ?1 ORDER BY number")
            .map_err(self.error("can't be read"))?;
        let rows = statement
            .query_map([run.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
            .map_err(self.error("can't be read"))?;
        rows.map(|row| {
            let (number, body) = row.map_err(self.error("can't be read"))?;
            let signal = serde_json::from_str(&body)
                .map_err(|e| self.damaged(format!("signal {number} of run {run}: {e}")))?;
            Ok((number, signal))
        })
        .collect()
    }

    fn take_off(&mut self, run: &RunId, number: i64) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM signals WHERE run = ?1 AND number = ?2", params![run.as_str(), number])
            .map_err(self.error("can't be written"))?;
        Ok(())
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
        beside::claim(&self.path, run, owner)
    }

    fn fingerprint_key(&self) -> Result<[u8; 32], StoreError> {
        beside::fingerprint_key(&self.path)
    }
}

/// Appends within a transaction. Sequence numbers must follow the last one of the run, whose events are kept
/// from `first` on.
fn append_in(
    tx: &Connection,
    path: &Path,
    run: &RunId,
    first: i64,
    records: &[Record],
) -> Result<(), StoreError> {
    let error = |e: rusqlite::Error| sql_error(path, "can't be written", e);
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    let mut last =
        tx.prepare_cached("SELECT max(place) FROM events WHERE place > ?1 AND place < ?2").map_err(error)?;
    let last: Option<i64> = last.query_row([first, first + RUN], |row| row.get(0)).map_err(error)?;
    let mut last = last.map_or(0, |place| place - first);
    let mut insert = tx
        .prepare_cached("INSERT INTO events (place, at, sum, body) VALUES (?1, ?2, ?3, ?4)")
        .map_err(error)?;
    let mut body = Vec::new();
    for record in records {
        let seq = record.seq.cast_signed();
        if seq <= last {
            // The number is taken: another process has appended meanwhile, this one has lost the run.
            return Err(StoreError::Busy { run: run.clone(), owner: "it has appended events".to_owned() });
        }
        if seq != last + 1 || seq >= RUN {
            return Err(damaged(format!("run {run}: event {seq} can't follow event {last}")));
        }
        body.clear();
        serde_json::to_writer(&mut body, &record.event)
            .map_err(|e| damaged(format!("event {seq} can't be written: {e}")))?;
        let body =
            str::from_utf8(&body).map_err(|e| damaged(format!("event {seq} can't be written: {e}")))?;
        // In range until the year 2262.
        let at = i64::try_from(record.at.as_nanosecond()).unwrap_or(i64::MAX);
        let place = first + seq;
        insert.execute(params![place, at, event_sum(place, at, body.as_bytes()), body]).map_err(error)?;
        last = seq;
    }
    Ok(())
}

fn event_sum(place: i64, at: i64, body: &[u8]) -> i64 {
    Sum::new().number(place).number(at).bytes(body).get()
}

fn sql_error(path: &Path, problem: &'static str, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        // What SQLite calls an I/O error where the index of its log can't grow.
        Some(_) if error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
            StoreError::Io { path: path.to_owned(), problem, source: "database or disk is full".into() }
        }
        Some(DatabaseCorrupt | NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), what: error.to_string() }
        }
        _ => StoreError::Io { path: path.to_owned(), problem, source: error.into() },
    }
}
