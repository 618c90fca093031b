//! Old runs are removed, and only such that nobody will go on with.

use std::fs;

use insta::assert_snapshot;

use crate::run::{FAILS, MAKE};
use crate::support::Place;

/// Three runs that went well around one that failed.
fn place() -> Place {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.file("fill.toml", FAILS);
    place.flow("run make.toml").exits(0);
    place.flow("run fill.toml").exits(1);
    place.flow("run make.toml").exits(0);
    place.flow("run make.toml").exits(0);
    place
}

#[test]
fn what_would_go_is_shown_and_goes_with_yes_and_what_could_be_gone_on_with_stays() {
    let place = place();
    let nothing = place.flow("runs --prune").exits(3);
    let shown = place.flow("runs --prune --keep 1").exits(0);
    assert_eq!(place.runs().len(), 4);
    let failed = place.runs()[2]["id"].as_str().unwrap().to_owned();
    let gone = place.flow("runs --prune --keep 1 --yes --output json").exits(0).document();
    assert_eq!(gone["runs"].as_array().unwrap().len(), 2);
    assert!(gone["bytes_after"].as_u64() < gone["bytes_before"].as_u64(), "{gone}");
    let left = place.runs();
    assert_eq!(left.len(), 2);
    assert_eq!(left[1]["id"], *failed);
    // By name it goes too, and nothing of it is left beside the store.
    let named = place.flow(&format!("runs --prune {failed} --yes")).exits(0);
    assert_eq!(place.runs().len(), 1);
    for entry in fs::read_dir(place.path("state/flow/runs.db.locks")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with(&failed), "{name} was left");
    }
    let ages = |text: String| {
        let size = regex::Regex::new(r"\d+ KiB").unwrap();
        let id = regex::Regex::new(r"(would go|stays|removed)( +)[0-9a-z]+ +WHEN").unwrap();
        let text = size.replace_all(&text, "SIZE");
        id.replace_all(&text, "$1${2}RUN WHEN").replace(&failed, "RUN")
    };
    assert_snapshot!(ages(format!("{nothing}\n\n{shown}\n\n{named}")), @r#"
    $ flow runs --prune
    2| error: it isn't said which runs to remove
    2| hint: --keep COUNT, --older-than 30d, or the runs' ids
    exit 3

    $ flow runs --prune --keep 1
    2| 2 runs would go; nothing was removed yet; to go ahead: --yes
    1| would go  RUN WHEN  succeeded     make
    1| would go  RUN WHEN  succeeded     make
    1| stays     RUN WHEN  failed        fill  (it could be gone on with; to remove it, name it)
    exit 0

    $ flow runs --prune RUN --yes
    2| hosts that are still locked for a removed run stay so: `flow unlock RUN` takes its locks off
    2| 1 run removed; the store has SIZE now, SIZE before
    1| removed   RUN WHEN  failed        fill
    exit 0
    "#);
    place.flow("runs --prune --older-than 1h --yes").exits(0).says("no run to remove");
}

#[test]
fn a_run_that_is_being_worked_on_stays_even_where_it_is_named() {
    let place = Place::new();
    place.file(
        "wait.toml",
        r#"
name = "wait"
summary = "Waits."
[steps.wait]
uses = "command"
hosts = "web[0]"
with = { script = "touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done", creates = "DIR/go" }
"#,
    );
    let running = place.start("run wait.toml");
    place.wait_for("begun");
    let ran = place.flow(&format!("runs --prune {} --yes", place.newest())).exits(0);
    assert!(ran.out.contains("it is being worked on"), "{}", ran.out);
    place.file("go", "");
    running.ended().exits(0);
    assert_eq!(place.runs()[0]["status"], "succeeded");
}

#[test]
fn what_was_removed_is_no_longer_in_the_file() {
    let place = Place::new();
    place.file("make.toml", &MAKE.replace("Makes a file", "marked-text-7 makes a file"));
    place.flow("run make.toml").exits(0);
    let marked = |place: &Place| place.store_bytes().windows(13).any(|part| part == b"marked-text-7");
    assert!(marked(&place));
    place.flow("runs --prune --keep 0 --yes").exits(0);
    assert!(!marked(&place), "it can still be read in the store's file");
}
