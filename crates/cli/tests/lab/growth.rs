//! A cluster shrinks and grows: a host leaves for good, without a trace, and the others run on.

use crate::harness::lab::{ROWS, address};
use crate::harness::{Done, ETCDCTL, Lab, Operator, PROMOTERS, until};

/// The first process of PostgreSQL and when it started.
fn postmaster(lab: &Lab, host: &str) -> String {
    lab.on(host, "pid=$(pgrep -o -x postgres); echo $pid $(cut -d' ' -f22 /proc/$pid/stat)")
}

fn rows(lab: &Lab, host: &str) -> String {
    lab.sql(host, "select count(*) || ' ' || md5(string_agg(id || owner, ',' order by id)) from accounts")
}

fn remove(operator: &Operator, host: &str) -> Done {
    operator.flow(&["run", "remove-node.toml", "--set", &format!("node={host}"), "--confirm", host])
}

/// etcd's members by name, sorted.
fn etcd_members(lab: &Lab, by: &str) -> String {
    lab.on(by, &format!("{ETCDCTL} member list | cut -d, -f2,3 | tr -d ' ' | sort | xargs"))
}

#[test]
fn short_a_replica_leaves_without_a_trace_and_comes_back_while_the_others_run_on() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let (leader, leaving) = (healthy.leader().to_owned(), healthy.replicas()[0].clone());
    let other = healthy.replicas()[1].clone();
    let before = rows(&lab, &leader);
    assert!(before.starts_with(&format!("{ROWS} ")), "{before}");
    let untouched = [postmaster(&lab, &leader), postmaster(&lab, &other)];

    remove(&operator, &leader).ended(1).says(&[
        &format!("{leader} leads demo"),
        "switchover demo",
        "nothing was changed",
    ]);
    lab.on(&other, "systemctl stop etcd.service");
    remove(&operator, &leaving).ended(1).says(&["1 of 2 are", &other, "nothing was changed"]);
    lab.on(&other, "systemctl start etcd.service");

    remove(&operator, &leaving).ended(0).says(&[&leaving, "set-aside-", "take it out of the inventory"]);
    assert_eq!(
        [postmaster(&lab, &leader), postmaster(&lab, &other)],
        untouched,
        "the others weren't restarted"
    );
    assert_eq!([rows(&lab, &leader), rows(&lab, &other)], [before.clone(), before.clone()]);
    assert_eq!(lab.on(&leader, &format!("{ETCDCTL} get --prefix /service/demo/members/{leaving}")), "");
    assert_eq!(lab.sql(&leader, "select string_agg(slot_name, ' ') from pg_replication_slots"), other);
    let mut left = [format!("started,{leader}"), format!("started,{other}")];
    left.sort();
    assert_eq!(etcd_members(&lab, &leader), left.join(" "));
    let units = "systemctl is-enabled patroni etcd; pgrep -x 'postgres|patroni|etcd' || true; ls -d /var/lib/postgresql/*/main /var/lib/etcd/default 2>/dev/null || true";
    assert_eq!(lab.on(&leaving, units), "masked\nmasked");
    let kept = lab.on(
        &leaving,
        "ls -d /var/lib/postgresql/*/main.set-aside-*/PG_VERSION /var/lib/etcd/default.set-aside-*/member",
    );
    assert_eq!(kept.lines().count(), 2, "{kept}");

    remove(&operator, &leaving).ended(0).says(&["nothing to do"]);
    let leads = lab.on(&leader, &format!("{ETCDCTL} get --print-value-only /service/demo/leader"));
    assert_eq!(leads, leader);

    // It comes back as a new host would. A run that was killed had added it to etcd already, and not started it.
    let url = format!("https://{}:2380", address(&leaving));
    lab.on(&leader, &format!("{ETCDCTL} member add {leaving} --learner --peer-urls={url}"));
    operator
        .flow(&["run", "add-node.toml", "--set", &format!("node={leaving}")])
        .ended(0)
        .says(&[&format!("{leaving} joins etcd: start it, give it its vote")]);
    let healthy = lab.assert_healthy();
    assert_eq!(healthy.leader(), leader);
    assert_eq!(
        [postmaster(&lab, &leader), postmaster(&lab, &other)],
        untouched,
        "the others weren't restarted"
    );
    assert_eq!(rows(&lab, &leaving), before);
    assert_eq!(etcd_members(&lab, &leaving), "started,patroni1 started,patroni2 started,patroni3");
    assert_eq!(
        lab.on(&leaving, &format!("{ETCDCTL} member list | grep -c 'true$' || true")),
        "0",
        "no learner is left"
    );
    assert_eq!(
        lab.on(&leaving, "systemctl is-enabled patroni etcd; ls /run/systemd/system/etcd.service.d"),
        "enabled\nenabled"
    );
    operator
        .flow(&["run", "add-node.toml", "--set", &format!("node={leaving}")])
        .ended(0)
        .says(&["nothing to do"]);
}

#[test]
fn a_host_that_is_dead_for_good_is_removed_by_what_the_others_have_of_it() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let (leader, dead) = (healthy.leader().to_owned(), healthy.replicas()[0].clone());
    let other = healthy.replicas()[1].clone();
    let untouched = [postmaster(&lab, &leader), postmaster(&lab, &other)];
    let remove = || {
        let node = format!("node={dead}");
        operator.flow(&["run", "remove-node.toml", "--set", &node, "--set", "dead=true", "--confirm", &dead])
    };
    remove().ended(1).says(&[&format!("etcd has a key of {dead}"), "nothing was changed"]);

    lab.on(&dead, "systemctl stop patroni.service");
    until("its key to expire", || {
        let key = lab.on(&leader, &format!("{ETCDCTL} get --keys-only /service/demo/members/{dead}"));
        if key.is_empty() { Ok(()) } else { Err(key) }
    });
    remove().ended(1).says(&[&format!("{dead} isn't dead: its member of etcd works")]);
    assert!(etcd_members(&lab, &leader).contains(&format!("started,{dead}")));

    lab.must(&["kill", &dead]);
    remove().ended(0).says(&["Should it ever be switched on again"]);
    let mut left = [format!("started,{leader}"), format!("started,{other}")];
    left.sort();
    assert_eq!(etcd_members(&lab, &leader), left.join(" "));
    assert_eq!(lab.sql(&leader, "select string_agg(slot_name, ' ') from pg_replication_slots"), other);
    assert_eq!([postmaster(&lab, &leader), postmaster(&lab, &other)], untouched);
    remove().ended(0).says(&["nothing to do"]);
}

#[test]
fn a_member_of_etcd_that_lost_its_data_is_replaced_after_a_snapshot_was_saved() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let (leader, dead) = (healthy.leader().to_owned(), healthy.replicas()[0].clone());
    let postmasters = |lab: &Lab| ["patroni1", "patroni2", "patroni3"].map(|host| postmaster(lab, host));
    let untouched = postmasters(&lab);

    let here = operator.folder().join("snapshots");
    std::fs::create_dir(&here).unwrap();
    let to = format!("to={}", here.display());
    let host = format!("host={leader}");
    operator.flow(&["run", "etcd-snapshot.toml", "--set", &host, "--set", &to]).ended(0).says(&["SHA-256"]);
    let saved: Vec<_> = std::fs::read_dir(&here).unwrap().map(|file| file.unwrap().path()).collect();
    let [saved] = saved.as_slice() else { panic!("{saved:?}") };
    let name = saved.file_name().unwrap().to_str().unwrap();
    let status = format!("cd /var/backups/etcd && {ETCDCTL} snapshot status {name} && sha256sum {name}");
    let status = lab.on(&leader, &status);
    let sum = std::process::Command::new("sha256sum").arg(saved).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(
        status.lines().last().unwrap().split(' ').next(),
        sum.split(' ').next(),
        "both are one: {status}"
    );

    let replace = |host: &str| {
        operator.flow(&[
            "run",
            "etcd-member-replace.toml",
            "--set",
            &format!("node={host}"),
            "--confirm",
            host,
        ])
    };
    replace(&dead).ended(0).says(&["nothing to do"]);
    lab.on(
        &dead,
        "systemctl stop etcd; rm -r /var/lib/etcd/default/member/wal; systemctl start --no-block etcd",
    );
    replace(&dead).ended(0).says(&["/var/lib/etcd/default.set-aside-"]);
    assert_eq!(etcd_members(&lab, &dead), "started,patroni1 started,patroni2 started,patroni3");
    let health = &format!("{ETCDCTL} endpoint health 2>&1 | grep -c 'is healthy'");
    assert_eq!(lab.on(&dead, health), "1");
    assert_eq!(postmasters(&lab), untouched);
    assert_eq!(lab.wait_healthy().leader(), leader);
}

#[test]
fn a_cluster_is_taken_away_and_all_of_its_data_is_kept() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let before = lab.before(None);
    let remove = || operator.flow(&["run", "remove-cluster.toml", "--confirm", "demo"]);
    lab.put_key("/service/demo/members/stranger", "{}");
    remove().ended(1).says(&["members that the inventory doesn't have: stranger", "nothing was changed"]);
    lab.on("patroni1", &format!("{ETCDCTL} del /service/demo/members/stranger"));

    remove().ended(0).says(&["set-aside-"]);
    let left = lab.on_all(
        "systemctl is-enabled patroni etcd; pgrep -x 'postgres|patroni|etcd' || true; ls -d /var/lib/postgresql/*/main /var/lib/etcd/default 2>/dev/null || true",
    );
    assert!(left.values().all(|left| left == "masked\nmasked"), "{left:?}");
    assert_eq!(lab.set_aside().len(), PROMOTERS.len());
    let rows = format!("grep -acF 'customer {ROWS}' /var/lib/postgresql/*/main.set-aside-*/{}", before.table);
    assert!(lab.on_all(&rows).values().all(|lines| lines != "0"), "every row is kept");
    let keys = "grep -c '\"initialize\"' /var/lib/postgresql/*/main.flow-*.json; ls -d /var/lib/etcd/default.set-aside-*/member";
    assert!(lab.on_all(keys).values().all(|kept| kept.starts_with("1\n")), "keys and etcd's data are kept");
    for balancer in ["lb1", "lb2"] {
        assert_eq!(lab.on(balancer, "systemctl is-enabled haproxy keepalived || true"), "masked\nmasked");
        assert_eq!(lab.on(balancer, "ip -o addr show to 198.18.0.100"), "");
    }
    remove().ended(0).says(&["nothing to do"]);
}

#[test]
fn a_balancer_goes_and_the_address_is_on_the_other_one_which_stays() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let held = |host: &str| lab.on(host, "ip -o addr show to 198.18.0.100 | wc -l");
    let holder = until("a holder of the address", || {
        let holders: Vec<&str> = ["lb1", "lb2"].into_iter().filter(|host| held(host) == "1").collect();
        if let [one] = holders[..] { Ok(one) } else { Err(format!("{holders:?}")) }
    });
    let other = if holder == "lb1" { "lb2" } else { "lb1" };
    let remove =
        |host: &str| operator.flow(&["run", "remove-balancer.toml", "--set", &format!("node={host}")]);
    remove(holder).ended(0).says(&["keepalived.conf"]);
    assert_eq!([held(holder), held(other)], ["0", "1"]);
    assert_eq!(lab.on(holder, "systemctl is-enabled haproxy keepalived || true"), "masked\nmasked");
    remove(holder).ended(0).says(&["nothing to do"]);
    remove(other).ended(1).says(&["doesn't answer"]);
    assert_eq!(held(other), "1");
    lab.assert_healthy();
}
