//! Putting a copy back, on simulated hosts.

use super::*;
use crate::testing::{BIN, DATA, HOSTS, Lab, refused, satisfied};

const ASIDE: &str = "/var/lib/postgresql/15/main.set-aside-20260102T030405Z-0123456789ab";
const HOST: &str = HOSTS[2].0;

fn step() -> DataPutBack {
    serde_json::from_value(json!({ "copy": ASIDE, "data_dir": DATA })).unwrap()
}

async fn link(lab: &Lab, path: &str, target: &str) {
    let cx = lab.on(HOST);
    let link = HostChange::Symlink { path: path.to_owned(), target: target.to_owned() };
    cx.host().await.unwrap().change(cx.attempt(), &link).await.unwrap();
}

/// A stopped member with a tablespace, whose data directory was set aside.
async fn set_aside() -> Lab {
    let lab = Lab::deployed().await;
    lab.make(HOST, "systemd.unit", json!({ "unit": "patroni.service", "state": "stopped", "masked": true }))
        .await;
    lab.make(HOST, "directory", json!({ "path": "/srv/space" })).await;
    link(&lab, &format!("{DATA}/pg_tblspc/16400"), "/srv/space").await;
    lab.make(HOST, "postgres.data_set_aside", json!({ "data_dir": DATA, "bin_dir": BIN })).await;
    lab
}

#[tokio::test]
async fn a_copy_comes_back_with_its_tablespaces_and_undo_makes_it_the_copy_again() {
    let lab = set_aside().await;
    let (cx, host) = (lab.on(HOST), lab.world.host(HOST));
    let note = lab.text(HOST, &format!("{ASIDE}.flow.json")).unwrap();
    let inode = host.stat(ASIDE).await.unwrap().unwrap().inode;
    can_be_put_back(&*host, ASIDE, DATA).await.unwrap().unwrap_or_else(|why| panic!("{why}"));

    let (change, output) = lab.establish(&step(), &cx).await;
    assert_eq!(output.0["was"], ASIDE);
    assert_eq!(host.stat(DATA).await.unwrap().unwrap().inode, inode);
    let points = host.stat(&format!("{DATA}/pg_tblspc/16400")).await.unwrap().unwrap().target;
    assert_eq!(points.as_deref(), Some("/srv/space"));
    assert!(host.stat("/srv/space").await.unwrap().is_some());
    assert_eq!(lab.text(HOST, &format!("{ASIDE}.flow.json")), None);
    satisfied(step().check(&cx).await.unwrap());

    step().undo(&cx, &change, Some(&output)).await.unwrap();
    assert_eq!(host.stat(ASIDE).await.unwrap().unwrap().inode, inode);
    assert_eq!(lab.text(HOST, &format!("{ASIDE}.flow.json")), Some(note));
    let points = host.stat(&format!("{ASIDE}/pg_tblspc/16400")).await.unwrap().unwrap().target;
    assert_eq!(points.unwrap(), format!("/srv/space{}", ASIDE.strip_prefix(DATA).unwrap()));
}

#[tokio::test]
async fn nothing_is_put_over_anything() {
    let lab = set_aside().await;
    let (cx, host) = (lab.on(HOST), lab.world.host(HOST));
    lab.make(HOST, "directory", json!({ "path": "/srv/space" })).await;
    let why = refused(step().check(&cx).await.unwrap());
    assert!(why.contains("belongs at /srv/space, where something else is"), "{why}");
    let Err(why) = can_be_put_back(&*host, ASIDE, DATA).await.unwrap() else { panic!() };
    assert!(why.contains("where something else is"), "{why}");
    let away = HostChange::RemoveDirectory { path: "/srv/space".into() };
    host.change(cx.attempt(), &away).await.unwrap();
    lab.world.initdb(HOST, DATA).unwrap();
    assert!(refused(step().check(&cx).await.unwrap()).contains("to be set aside first"));
}

#[tokio::test]
async fn what_is_no_copy_is_never_put_back() {
    let lab = set_aside().await;
    let cx = lab.on(HOST);
    for copy in ["/etc/patroni".to_owned(), format!("{DATA}.failed"), format!("{ASIDE}/base")] {
        let step: DataPutBack = serde_json::from_value(json!({ "copy": copy, "data_dir": DATA })).unwrap();
        let why = refused(step.check(&cx).await.unwrap());
        assert!(why.contains("no copy that was set aside here"), "{why}");
    }
}
