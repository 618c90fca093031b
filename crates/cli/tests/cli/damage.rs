//! Stores that are damaged, cut short, or no stores at all: told with exit code 5, and left as they are.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;
use rusqlite::Connection;

use crate::run::MAKE;
use crate::support::Place;

/// A place with one run that went well, all of it in `runs.db`.
fn with_run() -> Place {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.flow("run make.toml --store sqlite:runs.db").exits(0);
    assert!(!place.has("runs.db-wal"), "not all of it is in the database");
    place
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn what_is_no_store_is_named_and_left_as_it_is() {
    let place = Place::new();
    fs::create_dir(place.path("folder.db")).unwrap();
    assert!(Command::new("mkfifo").arg(place.path("pipe.db")).status().unwrap().success());
    let other = Connection::open(place.path("other.db")).unwrap();
    other.execute_batch("CREATE TABLE moz_places (id INTEGER PRIMARY KEY)").unwrap();
    drop(other);
    place.file("text.db", "PASSWORD=x and more than sixteen bytes\n");
    for name in ["other.db", "text.db"] {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let before = (bytes(&place.path("other.db")), bytes(&place.path("text.db")));
    let told: Vec<String> = ["folder", "pipe", "other", "text"]
        .map(|name| place.flow(&format!("runs --store sqlite:{name}.db")).exits(5).to_string())
        .into();
    assert_snapshot!(told.join("\n\n"), @r#"
    $ flow runs --store sqlite:folder.db
    2| error: folder.db is no store but a directory; it was left as it is
    2| hint: name a file of its own: `--store sqlite:PATH`
    exit 5

    $ flow runs --store sqlite:pipe.db
    2| error: pipe.db is no store but a device or a pipe; it was left as it is
    2| hint: name a file of its own: `--store sqlite:PATH`
    exit 5

    $ flow runs --store sqlite:other.db
    2| error: other.db is no store but the database of another program; it was left as it is
    2| hint: name a file of its own: `--store sqlite:PATH`
    exit 5

    $ flow runs --store sqlite:text.db
    2| error: the store text.db is damaged: file is not a database
    2| hint: keep a copy; `sqlite3 text.db .recover` may bring events back
    exit 5
    "#);
    assert_eq!(before, (bytes(&place.path("other.db")), bytes(&place.path("text.db"))));
    for name in ["other.db", "text.db"] {
        let mode = fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o644, "{name}: the permissions of somebody else's file were changed");
        assert!(!place.has(&format!("{name}-wal")), "{name}");
    }
}

#[test]
fn a_store_that_was_cut_short_or_overwritten_is_called_damaged() {
    let place = with_run();
    let whole = bytes(&place.path("runs.db"));
    let mut told = Vec::new();
    for (what, damaged) in [
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("its first 100 bytes", whole[..100].to_vec()),
        ("nothing", Vec::new()),
        ("another beginning", [b"garbage ".repeat(12).as_slice(), &whole[96..]].concat()),
    ] {
        fs::write(place.path("runs.db"), &damaged).unwrap();
        let ran = place.flow("show --store sqlite:runs.db").exits(5);
        told.push(format!("{what}:\n{ran}"));
        assert_eq!(bytes(&place.path("runs.db")), damaged, "{what}: it was written to");
    }
    assert_snapshot!(told.join("\n\n"), @r#"
    half of it:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: database disk image is malformed
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5

    its first 100 bytes:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: database disk image is malformed
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5

    nothing:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: it is empty, but runs were recorded in it
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5

    another beginning:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: file is not a database
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5
    "#);
    fs::write(place.path("runs.db"), whole).unwrap();
    place.flow("show --store sqlite:runs.db").exits(0);
}

#[test]
fn a_row_that_was_changed_or_is_missing_is_named() {
    let place = with_run();
    let whole = bytes(&place.path("runs.db"));
    let mut told = Vec::new();
    for change in [
        "UPDATE events SET body = 'no json' WHERE place & 4294967295 = 6",
        "UPDATE events SET body = replace(body, 'web1', 'web9') WHERE place & 4294967295 = 2",
        "DELETE FROM events WHERE place & 4294967295 = 3",
        "DELETE FROM events WHERE place & 4294967295 > 7",
        "UPDATE runs SET definition = replace(definition, 'touch', 'rm -f')",
        "UPDATE runs SET workflow = 'other'",
    ] {
        let store = Connection::open(place.path("runs.db")).unwrap();
        assert!(store.execute(change, []).unwrap() > 0, "{change}");
        drop(store);
        let line = if change.contains("definition") { "resume" } else { "show" };
        told.push(format!(
            "{change}:\n{}",
            place.flow(&format!("{line} {}--store sqlite:runs.db", id(&place, line))).exits(5)
        ));
        fs::write(place.path("runs.db"), &whole).unwrap();
    }
    assert_snapshot!(told.join("\n\n"), @r#"
    UPDATE events SET body = 'no json' WHERE place & 4294967295 = 6:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: event 6 of run RUN: its checksum is wrong
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5

    UPDATE events SET body = replace(body, 'web1', 'web9') WHERE place & 4294967295 = 2:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: event 2 of run RUN: its checksum is wrong
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5

    DELETE FROM events WHERE place & 4294967295 = 3:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: run RUN has no event 3
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5

    DELETE FROM events WHERE place & 4294967295 > 7:
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: run RUN has 7 events, but 11 were recorded: the newest are gone
    2| hint: put the newer copy back, with the file that ends in -wal; what was done since is known to the hosts alone. To go on with what is there, look at the hosts first, then remove runs.db.locks/RUN.events
    exit 5

    UPDATE runs SET definition = replace(definition, 'touch', 'rm -f'):
    $ flow resume RUN --store sqlite:runs.db
    2| error: the store runs.db is damaged: run RUN: its definition's checksum is wrong
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5

    UPDATE runs SET workflow = 'other':
    $ flow show --store sqlite:runs.db
    2| error: the store runs.db is damaged: run RUN: its checksum is wrong
    2| hint: keep a copy; `sqlite3 runs.db .recover` may bring events back
    exit 5
    "#);
}

/// For `resume`, which else finds nothing to go on with.
fn id(place: &Place, line: &str) -> String {
    let locks = fs::read_dir(place.path("runs.db.locks")).unwrap().map(|entry| entry.unwrap().file_name());
    let id = locks.map(|name| name.into_string().unwrap()).find(|name| !name.ends_with(".events")).unwrap();
    if line == "resume" { format!("{id} ") } else { String::new() }
}

#[test]
fn where_the_log_of_the_newest_events_is_damaged_that_is_told() {
    let place = Place::new();
    place.file(
        "wait.toml",
        r#"
name = "wait"
summary = "Waits in the middle."
[steps.first]
uses = "command"
hosts = "web[0]"
with = { script = "true", repeatable = true }
[steps.wait]
uses = "command"
needs = ["first"]
hosts = "web[0]"
with = { script = "touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done", creates = "DIR/go" }
"#,
    );
    let running = place.start("run wait.toml --store sqlite:runs.db");
    place.wait_for("begun");
    running.signal("KILL");
    running.ended();
    place.file("go", "");
    let wal = place.path("runs.db-wal");
    let length = fs::metadata(&wal).unwrap().len();
    let mut file = OpenOptions::new().write(true).open(&wal).unwrap();
    // The last pages that were written: the intent of the step at work.
    file.seek(SeekFrom::Start(length - 4000)).unwrap();
    file.write_all(&[0xAB; 4000]).unwrap();
    drop(file);
    let told = place.flow("resume --store sqlite:runs.db").exits(5);
    assert_snapshot!(told, @r#"
    $ flow resume --store sqlite:runs.db
    2| error: the store runs.db is damaged: run RUN has 4 events, but 5 were recorded: the newest are gone
    2| hint: put the newer copy back, with the file that ends in -wal; what was done since is known to the hosts alone. To go on with what is there, look at the hosts first, then remove runs.db.locks/RUN.events
    exit 5
    "#);
    place.flow("show --store sqlite:runs.db").exits(5);
    // Once the operator has looked, there is a way on.
    let mark = fs::read_dir(place.path("runs.db.locks")).unwrap().map(|entry| entry.unwrap().path());
    let mark: Vec<PathBuf> =
        mark.filter(|path| path.extension().is_some_and(|end| end == "events")).collect();
    fs::remove_file(&mark[0]).unwrap();
    place.flow("resume --store sqlite:runs.db").exits(0);
}

#[test]
fn permissions_that_are_too_open_are_taken_back() {
    let place = with_run();
    place.file("secret.toml", &MAKE.replace("[steps", "[params.p]\ntype = \"secret\"\n[steps"));
    let files = ["runs.db", "runs.db.key"];
    for name in files {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    place.flow("runs --store sqlite:runs.db").exits(0);
    for name in files {
        let mode = fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

/// A file or folder that can't be written, taken away at the end.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(path: PathBuf) -> Self {
        let mount = |arguments: &[&str]| {
            let done = Command::new("mount").args(arguments).arg(&path).arg(&path).status();
            assert!(done.is_ok_and(|status| status.success()), "this test mounts: run it as root");
        };
        mount(&["--bind"]);
        mount(&["-o", "remount,ro,bind"]);
        Self(path)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_store_whose_file_or_folder_is_read_only_is_told_and_nothing_is_begun() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    fs::create_dir(place.path("kept")).unwrap();
    place.flow("runs --store sqlite:kept/runs.db").exits(0);
    let mut told = Vec::new();
    for name in ["kept/runs.db", "kept"] {
        let read_only = ReadOnly::new(place.path(name));
        told.push(place.flow("run make.toml --store sqlite:kept/runs.db").exits(5).to_string());
        drop(read_only);
    }
    assert_snapshot!(told.join("\n\n"), @r#"
    $ flow run make.toml --store sqlite:kept/runs.db
    2| error: the store kept/runs.db can't be opened: Read-only file system (os error 30)
    2| hint: see that kept has room and can be written; what was recorded so far is kept
    exit 5

    $ flow run make.toml --store sqlite:kept/runs.db
    2| error: the store kept/runs.db can't be opened: Read-only file system (os error 30)
    2| hint: see that kept has room and can be written; what was recorded so far is kept
    exit 5
    "#);
    assert!(!place.has("made-web1"));
    place.flow("run make.toml --store sqlite:kept/runs.db").exits(0);
}
