//! From bare hosts to a healthy cluster, and again.

use crate::harness::{Lab, Operator};

#[test]
fn short_bare_hosts_become_a_healthy_cluster_and_a_second_run_changes_nothing() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    operator.flow(&["plan", "deploy.toml"]).ended(2);
    operator.flow(&["run", "deploy.toml"]).ended(0);
    lab.assert_healthy();

    let before = lab.footprint(None);
    operator.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
    operator.flow(&["plan", "deploy.toml"]).ended(0);
    assert_eq!(lab.footprint(None), before, "nothing was restarted, written or locked");

    lab.fill_and_save();
}
