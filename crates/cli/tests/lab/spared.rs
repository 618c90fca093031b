//! What Patroni itself would delete while a member is mended is spared: its own removals are off meanwhile, and `main.failed` is out of its way.

use crate::harness::{Lab, Operator};

const CONFIG: &str = "/etc/patroni/config.yml";
const OPTIONS: &str = "^  remove_data_directory_on_[a-z_]*:";

#[test]
fn patroni_removes_nothing_while_a_member_is_mended_and_is_then_configured_as_before() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let dynamic = r#"{"postgresql": {"remove_data_directory_on_rewind_failure": true}}"#;
    lab.rest(&leader, "PATCH", "/config", dynamic).unwrap();
    lab.on(
        &broken,
        &format!(
            "set -e; sed -i 's/^postgresql:$/&\\n  remove_data_directory_on_diverged_timelines: true  # ours/' {CONFIG}; \
             cd /var/lib/postgresql/*/; install -d -o postgres -g postgres -m 700 main.failed; echo theirs > main.failed/rows"
        ),
    );
    let file = format!("stat -c '%U %G %a' {CONFIG}; sha256sum < {CONFIG}");
    let before = lab.on_all(&file);

    let mut running =
        operator.start(&["run", "system-id-recovery.toml", "--confirm", "demo", "--output", "json"]);
    running.wait_event("task_done", "removal-off");
    let meanwhile = lab.on(&broken, &format!("grep -o '{OPTIONS} *[a-z]*' {CONFIG} | sort"));
    assert_eq!(
        meanwhile,
        "  remove_data_directory_on_diverged_timelines: false\n  remove_data_directory_on_rewind_failure: false"
    );
    running.wait().ended(0).says(&["main.failed.set-aside-"]);
    lab.wait_healthy();
    assert_eq!(lab.on_all(&file), before, "the file is as it was, on every host");
    assert_eq!(lab.on(&broken, "cat /var/lib/postgresql/*/main.failed.set-aside-*/rows"), "theirs");
    let now = lab.dynamic_configuration(&leader);
    assert_eq!(now["postgresql"]["remove_data_directory_on_rewind_failure"], true);
    let listed = operator.flow(&["run", "set-aside.toml"]).ended(0);
    listed.says(&["main.failed.set-aside-", "no cluster that pg_controldata can read"]);
}

#[test]
fn a_host_to_be_kept_whose_data_lacks_patronis_roles_is_told_while_all_goes_on() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    lab.on(
        &broken,
        "set -e; systemctl stop patroni.service; cd /; run() { runuser -u postgres -- \"$@\"; }; \
         data=$(ls -d /var/lib/postgresql/*/main); run $(ls -d /usr/lib/postgresql/*/bin)/pg_ctl -D $data -s -w -l /dev/null \
         -o '-p 5499 -c listen_addresses=' start; run psql -XqAt -p 5499 -c 'create table theirs as select 1'",
    );
    let footprint = lab.footprint(Some(&broken));
    operator
        .flow(&["run", "system-id-recovery.toml", "--set", &format!("keep={broken}"), "--confirm", "demo"])
        .ended(1)
        .says(&[&format!("{broken} couldn't lead"), "no role `replicator`"]);
    assert_eq!(lab.footprint(Some(&broken)), footprint, "nothing was changed");
}
