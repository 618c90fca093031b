//! Opening a store: what is no store is told apart from a damaged one, and left as it is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::{FORMAT, SqliteStore, TABLES, beside, sql_error};
use crate::store::StoreError;

/// `application_id`: "flow" in ASCII.
const APPLICATION: i64 = 0x666c_6f77;

/// How long another process that holds the store is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

impl SqliteStore {
    /// Opens a store, and makes it where there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |problem: &'static str| {
            move |source: io::Error| StoreError::Io { path: path.to_owned(), problem, source: source.into() }
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io("can't be made"))?;
        }
        match fs::metadata(path) {
            Ok(found) => look_before_touching(path, &found)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io("can't be opened")(e)),
        }
        // Made by hand first, so that it is never readable by others, not even for a moment.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io("can't be opened"))?;
        let connection = Connection::open(path).map_err(|e| sql_error(path, "can't be opened", e))?;
        let mut store = Self { connection, path: path.to_owned(), mark: None };
        let deadline = Instant::now() + PATIENCE;
        let mut prepared = store.prepare();
        // Where two switch a new store to WAL at once, SQLite doesn't wait but refuses one of them.
        while matches!(&prepared, Err(Prepare::Sql(e)) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(10));
            prepared = store.prepare();
        }
        prepared.map_err(|e| match e {
            Prepare::Sql(e) => sql_error(path, "can't be opened", e),
            Prepare::Newer(found) => StoreError::Newer { path: path.to_owned(), found, known: FORMAT },
            Prepare::Another => StoreError::NoStore {
                path: path.to_owned(),
                what: "the database of another program".to_owned(),
            },
        })?;
        keep_private(path)?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), Prepare> {
        self.connection.busy_timeout(PATIENCE)?;
        let number =
            |c: &Connection, name: &str| c.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        // Looked at before the first write, which setting the journal's mode is.
        let kind = |c: &Connection| -> Result<Kind, rusqlite::Error> {
            Ok(match (number(c, "application_id")?, number(c, "user_version")?) {
                (APPLICATION, FORMAT) => Kind::Store,
                (APPLICATION, other) => Kind::Newer(other),
                (0, 0) if tables(c)? == 0 => Kind::Empty,
                _ => Kind::Another,
            })
        };
        // In one transaction: another process may make the tables between two of its looks.
        let tx = self.connection.transaction()?;
        let found = kind(&tx)?;
        drop(tx);
        if let Kind::Store | Kind::Empty = found {
            self.connection.pragma_update(None, "journal_mode", "WAL")?;
            self.connection.pragma_update(None, "synchronous", "FULL")?;
        }
        match found {
            Kind::Store => Ok(()),
            Kind::Newer(version) => Err(Prepare::Newer(version)),
            Kind::Another => Err(Prepare::Another),
            Kind::Empty => {
                // Exclusive: of two processes that open a new store at once, one makes the tables.
                let tx =
                    self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
                if let Kind::Empty = kind(&tx)? {
                    tx.execute_batch(TABLES)?;
                    tx.pragma_update(None, "application_id", APPLICATION)?;
                    tx.pragma_update(None, "user_version", FORMAT)?;
                }
                tx.commit()?;
                Ok(())
            }
        }
    }
}

enum Kind {
    Store,
    Newer(i64),
    Empty,
    Another,
}

enum Prepare {
    Sql(rusqlite::Error),
    Newer(i64),
    Another,
}

impl From<rusqlite::Error> for Prepare {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn tables(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
}

/// Refuses what is no store before anything is done to it.
fn look_before_touching(path: &Path, found: &fs::Metadata) -> Result<(), StoreError> {
    let no_store = |what: &str| Err(StoreError::NoStore { path: path.to_owned(), what: what.to_owned() });
    if found.is_dir() {
        return no_store("a directory");
    }
    if !found.is_file() {
        return no_store("a device or a pipe");
    }
    let damaged = |what: &str| Err(StoreError::Damaged { path: path.to_owned(), what: what.to_owned() });
    if found.len() == 0 {
        // A new one is empty for a moment; one that had runs isn't.
        let locks = fs::read_dir(beside(path, ".locks"));
        return match locks.is_ok_and(|mut locks| locks.next().is_some()) {
            true => damaged("it is empty, but runs were recorded in it"),
            false => Ok(()),
        };
    }
    let mut begin = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    match read {
        Ok(()) if begin == *MAGIC => Ok(()),
        Ok(()) => damaged("file is not a database"),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => damaged("file is not a database"),
        Err(e) => Err(StoreError::Io { path: path.to_owned(), problem: "can't be opened", source: e.into() }),
    }
}

/// Takes from others what they may do with a store that was made, or copied here, with wider permissions.
fn keep_private(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", ".key"] {
        let file = if suffix.is_empty() { path.to_owned() } else { beside(path, suffix) };
        let Ok(found) = fs::metadata(&file) else { continue };
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(&file, Permissions::from_mode(0o600)).map_err(|e| StoreError::Io {
                path: file,
                problem: "can be read by others, and that can't be mended",
                source: e.into(),
            })?;
        }
    }
    Ok(())
}
