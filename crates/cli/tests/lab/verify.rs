//! `verify.toml`: green on a stack that works, and each thing that doesn't is named.

use crate::harness::{Lab, Operator};

#[test]
fn short_a_stack_that_works_is_verified_and_each_thing_that_does_not_is_named() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let members = lab.assert_healthy();
    // Deployed a moment ago: balancers may still be asking who leads.
    let verified = crate::harness::until("the stack to be verified", || {
        let done = operator.flow(&["run", "verify.toml"]);
        if done.code() == Some(0) { Ok(done) } else { Err(done.text()) }
    });
    verified.says(&[
        "cluster:",
        "system identifier",
        "Member",
        "Leader",
        "Replica",
        "Lag in MB",
        "1 changed",
    ]);
    let written = lab.sql(members.leader(), "select count(*) from flow_canary where scope = 'demo'");
    assert_eq!(written, "1", "one row, however often it is verified");
    operator.flow(&["run", "verify.toml", "--set", "canary=false"]).ended(0).says(&["nothing to do"]);

    let replica = members.replicas()[0].clone();
    lab.on(&replica, "systemctl stop patroni.service");
    lab.on("patroni3", "systemctl stop etcd.service");
    lab.on("lb2", "systemctl stop haproxy.service");
    let failed = operator.flow(&["run", "verify.toml"]).ended(1);
    let member = format!("member@{replica}");
    let connection = format!("connection@{replica}");
    let found = [
        "etcd@patroni3",
        &member,
        &connection,
        "cluster@patroni1",
        "balancer-primary@lb2",
        "balancer-replicas@lb2",
    ];
    let failed = failed.says(&found);
    for right in ["etcd@patroni1", "balancer-primary@lb1", "virtual-address@lb1"] {
        assert!(failed.text().contains(&format!("ok       {right}")), "{right}: {}", failed.text());
    }
}
