//! Removing a copy, on simulated hosts: that one, and nothing else whatever it is called.

use super::*;
use crate::testing::{DATA, HOSTS, Lab, pending, refused, satisfied};

const SUFFIX: &str = ".set-aside-20260102T030405Z-0123456789ab";

fn step(copy: &str) -> PostgresCopyRemoved {
    serde_json::from_value(json!({ "copy": copy, "data_dir": DATA })).unwrap()
}

/// A cluster, one member of which has a copy with a tablespace beside it.
async fn with_copy() -> (Lab, String) {
    let lab = Lab::deployed().await;
    let (host, copy) = (HOSTS[2].0, format!("{DATA}{SUFFIX}"));
    lab.world.initdb(host, &copy).unwrap();
    lab.make(host, "directory", json!({ "path": format!("/srv/space{SUFFIX}") })).await;
    lab.make(host, "file", json!({ "path": format!("{copy}.flow.json"), "content": "{}\n" })).await;
    link(&lab, &format!("{copy}/pg_tblspc/16400"), &format!("/srv/space{SUFFIX}")).await;
    // The tests' attempts have one name, and a detached command of an attempt isn't run twice.
    lab.world.edit(|state| state.hosts.values_mut().for_each(|host| host.attempts.clear())).unwrap();
    (lab, copy)
}

async fn link(lab: &Lab, path: &str, target: &str) {
    let cx = lab.on(HOSTS[2].0);
    let link = HostChange::Symlink { path: path.to_owned(), target: target.to_owned() };
    cx.host().await.unwrap().change(cx.attempt(), &link).await.unwrap();
}

#[tokio::test]
async fn a_copy_goes_with_its_tablespaces_and_its_note_and_the_data_directory_stays() {
    let (lab, copy) = with_copy().await;
    let cx = lab.on(HOSTS[2].0);
    let (change, output) = lab.establish(&step(&copy), &cx).await;
    assert!(change.summary.starts_with(&format!("remove {copy} (")), "{}", change.summary);
    assert!(change.diff.unwrap().contains(&format!("/srv/space{SUFFIX}")));
    assert_eq!(output.0["removed"], true);
    assert!(output.0["bytes"].as_u64().unwrap() > 0);
    let host = cx.host().await.unwrap();
    for gone in [
        copy.clone(),
        format!("{copy}.being-removed"),
        format!("/srv/space{SUFFIX}"),
        format!("{copy}.flow.json"),
    ] {
        assert_eq!(host.stat(&gone).await.unwrap(), None, "{gone}");
    }
    assert!(host.stat(&format!("{DATA}/PG_VERSION")).await.unwrap().is_some());
    assert_eq!(satisfied(step(&copy).check(&cx).await.unwrap()).0["removed"], false);
}

#[tokio::test]
async fn a_removal_that_was_cut_short_is_gone_on_with() {
    let (lab, copy) = with_copy().await;
    let cx = lab.on(HOSTS[2].0);
    let change = pending(step(&copy).check(&cx).await.unwrap());
    let host = cx.host().await.unwrap();
    let begun = HostChange::Rename { from: copy.clone(), to: format!("{copy}.being-removed") };
    host.change(cx.attempt(), &begun).await.unwrap();
    assert!(matches!(step(&copy).resolve(&cx, &change).await.unwrap(), Resolved::NotDone));
    lab.establish(&step(&copy), &cx).await;
    assert_eq!(host.stat(&format!("/srv/space{SUFFIX}")).await.unwrap(), None);
    assert!(
        matches!(step(&copy).resolve(&cx, &change).await.unwrap(), Resolved::Done(output) if output.0["removed"] == true)
    );
}

#[tokio::test]
async fn what_is_no_copy_or_in_use_is_refused_and_nothing_is_touched() {
    let (lab, copy) = with_copy().await;
    let cx = lab.on(HOSTS[2].0);
    let other = format!("{DATA}.set-aside-20260102T030405Z-ffffffffffff");
    link(&lab, &other, DATA).await;
    let before = lab.effects();
    for (path, words) in [
        (DATA.to_owned(), "the present data directory"),
        (format!("{DATA}/base"), "no copy that was set aside here"),
        ("/etc/patroni".to_owned(), "no copy that was set aside here"),
        (other, "is a symbolic link to"),
    ] {
        let why = refused(step(&path).check(&cx).await.unwrap());
        assert!(why.contains(words), "{path}: {why}");
    }
    assert!(
        serde_json::from_value::<PostgresCopyRemoved>(
            json!({ "copy": format!("{copy}/../main"), "data_dir": DATA })
        )
        .unwrap()
        .validate()
        .is_err()
    );
    assert_eq!(lab.effects(), before);

    // Somebody's tablespace that wasn't set aside with it; then one that the data directory uses too.
    link(&lab, &format!("{copy}/pg_tblspc/16401"), "/srv/theirs").await;
    assert!(refused(step(&copy).check(&cx).await.unwrap()).contains("wasn't set aside with it"));
    link(&lab, &format!("{copy}/pg_tblspc/16401"), &format!("/srv/space{SUFFIX}")).await;
    link(&lab, &format!("{DATA}/pg_tblspc/16400"), &format!("/srv/space{SUFFIX}")).await;
    assert!(refused(step(&copy).check(&cx).await.unwrap()).contains("points to it too"));
}
