//! The rows of runs.

use std::path::Path;

use rusqlite::{Connection, params};

use super::sum::Sum;
use super::{SqliteStore, sql_error};
use crate::run::RunId;
use crate::store::{NewRun, RunRow, StoreError};

impl SqliteStore {
    /// Those whose id begins so, newest first.
    pub(super) fn select_runs(&self, prefix: &str) -> Result<Vec<RunRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT id, workflow, started, imported, sum FROM runs WHERE substr(id, 1, length(?1)) = ?1
                 ORDER BY number DESC",
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
            Ok(RunRow { id: RunId::from_text(&id), workflow, started })
        })
        .collect()
    }
}

/// Adds one, and gives its number.
pub(super) fn insert_run(
    connection: &Connection,
    path: &Path,
    run: &NewRun,
    imported: bool,
) -> Result<i64, StoreError> {
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
            Sum::new().text(&run.definition).get()
        ],
    );
    match inserted {
        Ok(_) => Ok(connection.last_insert_rowid()),
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(StoreError::Exists { run: run.id.clone() })
        }
        Err(e) => Err(sql_error(path, "can't be written", e)),
    }
}

fn run_sum(id: &str, workflow: &str, started: &str, imported: bool) -> i64 {
    Sum::new().text(id).text(workflow).text(started).number(imported.into()).get()
}
