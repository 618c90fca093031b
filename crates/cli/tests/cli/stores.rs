//! Stores that can't be used.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;

use crate::run::MAKE;
use crate::support::Place;

#[test]
fn something_else_than_a_store_is_called_damaged() {
    let place = Place::new();
    place.file("garbage.db", &"garbage ".repeat(1000));
    assert_snapshot!(place.flow("runs --store sqlite:garbage.db").exits(5), @r#"
    $ flow runs --store sqlite:garbage.db
    2| error: the store garbage.db is damaged: file is not a database
    2| hint: keep a copy; `sqlite3 garbage.db .recover` may bring events back
    exit 5
    "#);
    assert_eq!(fs::read_to_string(place.path("garbage.db")).unwrap(), "garbage ".repeat(1000));
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let place = Place::new();
    place.flow("runs --store sqlite:newer.db").exits(0);
    // `user_version` is the number at byte 60 of an SQLite file.
    let mut bytes = fs::read(place.path("newer.db")).unwrap();
    bytes[60..64].copy_from_slice(&9u32.to_be_bytes());
    fs::write(place.path("newer.db"), bytes).unwrap();
    assert_snapshot!(place.flow("runs --store sqlite:newer.db").exits(5), @r#"
    $ flow runs --store sqlite:newer.db
    2| error: the store newer.db has format 9, this flow reads up to 1
    2| hint: use the newer flow, or another store with `--store sqlite:PATH`
    exit 5
    "#);
}

#[test]
fn a_store_that_can_t_be_made_is_named_with_the_reason() {
    let place = Place::new();
    place.file("file", "");
    assert_snapshot!(place.flow("runs --store sqlite:file/runs.db").exits(5), @r#"
    $ flow runs --store sqlite:file/runs.db
    2| error: the store file/runs.db can't be made: File exists (os error 17)
    2| hint: see that file has room and can be written; what was recorded so far is kept
    exit 5
    "#);
    place.flow("runs --store postgres:x").exits(3).says("--store sqlite:PATH");
}

#[test]
fn stores_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.flow("run make.toml").exits(0);
    for (name, mode) in
        [("state/flow", 0o700), ("state/flow/runs.db", 0o600), ("state/flow/runs.db.key", 0o600)]
    {
        let found = fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}

/// A small file system of its own, taken away at the end.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(place: &Place, options: &str) -> Self {
        let path = place.path("disk");
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a small disk: run it as root"
        );
        Self(path)
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills its first task's output into the store, again and again.
const MUCH: &str = r#"
name = "much"
summary = "Says much."
[steps.one]
uses = "command"
hosts = "web[0]"
with = { script = "echo x >>DIR/one; touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done", creates = "DIR/go" }
[steps.two]
uses = "command"
needs = ["one"]
hosts = "web[0]"
with = { script = "echo x >>DIR/two", creates = "DIR/two" }
"#;

#[test]
fn on_a_full_disk_a_run_stops_with_nothing_half_written_and_goes_on_once_there_is_room() {
    let place = Place::new();
    let disk = Disk::new(&place, "size=1m");
    place.file("much.toml", MUCH);
    let running = place.start("run much.toml --store sqlite:disk/runs.db");
    place.wait_for("begun");
    // Now no block is left: the result of what runs can't be recorded.
    let mut rest = fs::File::create(disk.0.join("rest")).unwrap();
    while std::io::Write::write_all(&mut rest, &[0; 4096]).is_ok() {}
    place.file("go", "");
    let full = running.ended().exits(5);
    assert_snapshot!(full, @r#"
    $ flow run much.toml --store sqlite:disk/runs.db
    2| run RUN: much, 2 tasks
    2| run RUN broke off; once the cause below is mended, go on with: flow resume RUN --store sqlite:disk/runs.db
    2| error: the store disk/runs.db can't be written: database or disk is full
    2| hint: see that disk has room and can be written; what was recorded so far is kept
    exit 5
    "#);
    assert!(!place.has("two"), "it went on without a record");
    let shown = place.flow("show --output json --store sqlite:disk/runs.db");
    drop(rest);
    fs::remove_file(disk.0.join("rest")).unwrap();
    if shown.code() == 0 {
        assert_eq!(shown.document()["tasks"][0]["state"], "begun");
    }
    place.flow("resume --store sqlite:disk/runs.db").exits(0);
    for file in ["one", "two"] {
        assert_eq!(fs::read_to_string(place.path(file)).unwrap(), "x\n", "{file} was done twice");
    }
}

#[test]
fn a_run_is_not_begun_where_it_can_t_be_recorded() {
    let place = Place::new();
    let disk = Disk::new(&place, "size=1m");
    place.file("make.toml", MAKE);
    place.flow("runs --store sqlite:disk/runs.db").exits(0);
    disk.remount("ro");
    let ran = place.flow("run make.toml --store sqlite:disk/runs.db").exits(5);
    assert_snapshot!(ran, @r#"
    $ flow run make.toml --store sqlite:disk/runs.db
    2| error: the store disk/runs.db can't be opened: Read-only file system (os error 30)
    2| hint: see that disk has room and can be written; what was recorded so far is kept
    exit 5
    "#);
    assert!(!place.has("made-web1"));
}

/// Fills it to the last block, until what is given back is dropped.
fn fill(disk: &Disk) -> fs::File {
    let mut rest = fs::File::create(disk.0.join("rest")).unwrap();
    while std::io::Write::write_all(&mut rest, &[0; 4096]).is_ok() {}
    rest
}

#[test]
fn on_a_full_disk_no_run_is_created_and_once_there_is_room_nothing_of_it_is_left() {
    let place = Place::new();
    let disk = Disk::new(&place, "size=1m");
    place.file("make.toml", MAKE);
    let run = "run make.toml --store sqlite:disk/runs.db";
    // Not even the store can be made.
    let rest = fill(&disk);
    place.flow(run).exits(5);
    drop(rest);
    fs::remove_file(disk.0.join("rest")).unwrap();
    assert_eq!(
        place.flow("runs --output json --store sqlite:disk/runs.db").exits(0).document(),
        serde_json::json!([])
    );
    // The store is there, and has no room for a run.
    let rest = fill(&disk);
    assert_snapshot!(place.flow(run).exits(5), @r#"
    $ flow run make.toml --store sqlite:disk/runs.db
    2| error: the store disk/runs.db can't be opened: database or disk is full
    2| hint: see that disk has room and can be written; what was recorded so far is kept
    exit 5
    "#);
    assert!(!place.has("made-web1"));
    drop(rest);
    fs::remove_file(disk.0.join("rest")).unwrap();
    assert_eq!(
        place.flow("runs --output json --store sqlite:disk/runs.db").exits(0).document(),
        serde_json::json!([])
    );
    place.flow(run).exits(0);
}

#[test]
fn two_runs_at_once_share_a_store() {
    let place = Place::new();
    for host in ["web1", "web2"] {
        place.file(
            &format!("{host}.toml"),
            &MUCH
                .replace("web[0]", host)
                .replace("DIR/", &format!("DIR/{host}-"))
                .replace("name = \"much\"", &format!("name = \"{host}\"")),
        );
    }
    let (first, second) = (place.start("run web1.toml"), place.start("run web2.toml"));
    place.wait_for("web1-begun");
    place.wait_for("web2-begun");
    // Others see both, and neither can be taken from whoever works on it.
    assert!(place.runs().iter().all(|run| run["status"] == "running"));
    place.flow(&format!("resume {}", place.newest())).exits(3).says("is being worked on by another process");
    place.file("web1-go", "");
    place.file("web2-go", "");
    first.ended().exits(0);
    second.ended().exits(0);
    assert!(place.runs().iter().all(|run| run["status"] == "succeeded"));
}
