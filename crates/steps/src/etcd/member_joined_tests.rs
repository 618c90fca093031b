use super::*;
use crate::etcd::EtcdMemberAbsent;
use crate::testing::{Lab, pending, satisfied};
use serde_json::json;

fn joined() -> EtcdMemberJoined {
    serde_json::from_value(json!({ "timeout": 1 })).unwrap()
}

/// A cluster that patroni3 has left, with nothing in its way.
async fn left() -> Lab {
    let lab = Lab::deployed().await;
    let absent = EtcdMemberAbsent {
        endpoints: vec!["198.18.0.11:2379".into()],
        tls: None,
        name: "patroni3".into(),
        peer_urls: Vec::new(),
    };
    lab.establish(&absent, &lab.on("patroni1")).await;
    let masked = json!({ "unit": "etcd.service", "state": "stopped", "masked": true });
    lab.make("patroni3", "systemd.unit", masked).await;
    lab
}

async fn set_aside(lab: &Lab) {
    lab.make("patroni3", "etcd.data_set_aside", json!({ "data_dir": "/var/lib/etcd/default" })).await;
}

async fn refused(lab: &Lab) -> String {
    joined().check(&lab.on("patroni3")).await.unwrap_err().message
}

#[tokio::test]
async fn a_new_host_is_added_started_and_given_its_vote() {
    let lab = left().await;
    assert!(refused(&lab).await.contains("holds the data of a member that etcd's cluster doesn't have"));
    set_aside(&lab).await;
    let (change, output) = lab.establish(&joined(), &lab.on("patroni3")).await;
    assert_eq!(change.summary, "patroni3 joins etcd: add it as a learner, start it, give it its vote");
    assert_eq!(output.0["state"], "member");
    let members: crate::etcd::EtcdMember =
        serde_json::from_value(json!({ "members": 3, "timeout": 0 })).unwrap();
    satisfied(members.check(&lab.on("patroni3")).await.unwrap());
    assert_eq!(lab.text("patroni3", DROP_IN), None, "what was for the first start is gone");
}

#[tokio::test]
async fn one_that_was_added_and_never_started_is_gone_on_with() {
    let lab = left().await;
    set_aside(&lab).await;
    let host = lab.on("patroni1").host().await.unwrap();
    let client = crate::etcd::connect(&*host, &["198.18.0.11:2379".into()], None).await.unwrap();
    client.member_add_learner("http://198.18.0.13:2380").await.unwrap();
    let (change, _) = lab.establish(&joined(), &lab.on("patroni3")).await;
    assert_eq!(change.summary, "patroni3 joins etcd: start it, give it its vote");
}

#[tokio::test]
async fn nobody_joins_while_a_member_is_ill_and_where_there_is_no_cluster_there_is_nothing_to_do() {
    let lab = left().await;
    set_aside(&lab).await;
    lab.world.kill("patroni2").unwrap();
    assert!(refused(&lab).await.contains("etcd can't answer for its cluster"));
    lab.world.kill("patroni1").unwrap();
    assert_eq!(satisfied(joined().check(&lab.on("patroni3")).await.unwrap()).0["state"], "none");
    let lab = Lab::deployed().await;
    satisfied(joined().check(&lab.on("patroni3")).await.unwrap());
    let bare = Lab::bare().await;
    assert!(matches!(joined().check(&bare.planning("patroni1")).await.unwrap(), Check::Deferred(_)));
}

#[tokio::test]
async fn a_learner_without_its_vote_keeps_every_other_change_back() {
    let lab = left().await;
    set_aside(&lab).await;
    let host = lab.on("patroni1").host().await.unwrap();
    let client = crate::etcd::connect(&*host, &["198.18.0.11:2379".into()], None).await.unwrap();
    client.member_add_learner("http://198.18.0.13:2380").await.unwrap();
    let other = EtcdMemberAbsent {
        endpoints: vec!["198.18.0.11:2379".into()],
        tls: None,
        name: "patroni2".into(),
        peer_urls: Vec::new(),
    };
    let why = crate::testing::refused(other.check(&lab.on("patroni1")).await.unwrap());
    assert!(why.contains("is a learner of etcd still"), "{why}");
    pending(joined().check(&lab.on("patroni3")).await.unwrap());
}
