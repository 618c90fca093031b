//! Setting a data directory aside, on simulated hosts.

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
        lab.make(
            host,
            "systemd.unit",
            json!({ "unit": "patroni.service", "state": "stopped", "masked": true }),
        )
        .await;
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
    assert!(
        lab.text("patroni1", &format!("{ASIDE}.flow.json")).unwrap().contains("\"run\": \"0123456789ab\"")
    );
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
    lab.make(
        "patroni2",
        "systemd.unit",
        json!({ "unit": "patroni.service", "state": "running", "masked": false }),
    )
    .await;
    let error = step().apply(&cx, &change).await.unwrap_err();
    assert!(error.message.contains("is in use"), "{}", error.message);
    assert!(lab.text("patroni2", &format!("{DATA}/PG_VERSION")).is_some());
}

#[tokio::test]
async fn a_directory_that_is_no_data_directory_is_refused() {
    let lab = Lab::bare().await;
    lab.make("patroni1", "file", json!({ "path": format!("{DATA}/notes"), "content": "", "parents": true }))
        .await;
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
    let changes = [
        "write-file",
        "rename /srv/wal",
        "symlink /var/lib/postgresql/15/main/pg_wal",
        "rename /srv/space",
        "symlink /var/lib/postgresql/15/main/pg_tblspc",
        "rename /var/lib/postgresql",
    ];
    for text in changes {
        let lab = stopped().await;
        with_links(&lab).await;
        let cx = lab.on("patroni1");
        let before = lab.effects().len();
        let change = pending(step().check(&cx).await.unwrap());
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
        // Each rename and link was made once; the note may be written again.
        let again = lab.effects()[before..].iter().filter(|text| !text.starts_with("write-file")).count();
        assert_eq!(again, 5, "after {text}");
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
        assert!(
            DataSetAside { data_dir: wrong.into(), bin_dir: None, anything: false }.validate().is_err(),
            "{wrong}"
        );
    }
}
