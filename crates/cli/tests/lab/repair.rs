//! Diagnosis, and the repair that loses nothing: the fault is made for real, named, mended, and the rows are counted.

use crate::harness::lab::ROWS;
use crate::harness::{Lab, Operator, PROMOTERS, until};

/// An identifier that is nobody's. Shorter ones count for Patroni as none.
const NOBODYS: &str = "7700000000000000001";

const REPAIR: [&str; 4] = ["run", "system-id-repair.toml", "--confirm", "demo"];

fn kinds(operator: &Operator, code: i32) -> (String, Vec<String>) {
    let text = operator.flow(&["diagnose", "--output", "json"]).ended(code).stdout;
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kinds = found["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["kind"].as_str().unwrap().to_owned());
    (found["verdict"].as_str().unwrap().to_owned(), kinds.collect())
}

/// The first process of PostgreSQL and when it started.
fn postmaster(lab: &Lab, host: &str) -> String {
    lab.on(host, "pid=$(pgrep -o -x postgres); echo $pid $(cut -d' ' -f22 /proc/$pid/stat)")
}

fn rows(lab: &Lab, host: &str) -> String {
    lab.sql(host, "select count(*) || ' ' || md5(string_agg(id || owner, ',' order by id)) from accounts where id <= 1000000")
}

#[test]
fn short_a_member_initialised_anew_is_named_and_mended_while_clients_write_on() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let other = PROMOTERS.into_iter().find(|host| *host != leader && *host != broken).unwrap();
    let (before, untouched) = (rows(&lab, &leader), [postmaster(&lab, &leader), postmaster(&lab, other)]);
    assert!(before.starts_with(&format!("{ROWS} ")), "{before}");
    let (verdict, kinds) = kinds(&operator, 2);
    assert_eq!((verdict.as_str(), kinds[0].as_str()), ("disposable", "disposable-members"));

    // A client that writes all the while, and notes what was committed.
    lab.on(
        &leader,
        "cat > /var/tmp/writer <<'EOS'\nn=1000001\nwhile [ -e /var/tmp/writing ]; do\n  \
         runuser -u postgres -- psql -XqAt -c \"insert into accounts values ($n, 'writer')\" && echo $n >> /var/tmp/committed\n  \
         n=$((n+1)); sleep 0.1\ndone\nEOS\ntouch /var/tmp/writing; : > /var/tmp/committed; cd /; \
         systemd-run --quiet --unit=writer sh /var/tmp/writer",
    );
    operator.flow(&REPAIR).ended(0).says(&["disposable", &broken]);
    lab.on(&leader, "rm /var/tmp/writing; while systemctl is-active --quiet writer; do sleep 0.1; done");

    assert_eq!([postmaster(&lab, &leader), postmaster(&lab, other)], untouched, "the others weren't touched");
    let healthy = lab.wait_healthy();
    assert_eq!(healthy.leader(), leader);
    let committed = lab.on(&leader, "sort -n /var/tmp/committed");
    assert!(committed.lines().count() > 10, "writes went on: {committed}");
    for host in PROMOTERS {
        until("all that was committed on each member", || {
            let there = lab.sql(host, "select id from accounts where id > 1000000 order by id");
            let lost = committed.lines().find(|id| !there.lines().any(|one| one == *id));
            lost.map_or(Ok(()), |lost| Err(format!("{host} lacks row {lost}")))
        });
        assert_eq!(rows(&lab, host), before, "{host}");
    }
    let aside = lab.on(&broken, "ls -d /var/lib/postgresql/*/main.set-aside-* | grep -vc json");
    assert_eq!(aside, "1", "the odd directory is kept");
    assert_eq!(
        lab.on_all("cat /var/lib/flow/lock 2>/dev/null || true").values().find(|lock| !lock.is_empty()),
        None
    );
    operator.flow(&["diagnose"]).ended(0).says(&["healthy"]);
    operator.flow(&REPAIR).ended(0).says(&["nothing to do"]);
}

#[test]
fn a_wrong_key_is_mended_and_no_data_directory_is_touched() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let before = rows(&lab, &leader);
    let inodes = lab.on_all("stat -c %i /var/lib/postgresql/*/main");
    for host in lab.wait_healthy().replicas().iter().chain([&leader]) {
        lab.on(host, "systemctl stop patroni.service");
    }
    lab.put_key("/service/demo/initialize", NOBODYS);
    lab.on_all("systemctl start --no-block patroni.service");
    until("Patroni to give up on every member", || {
        let running = lab.on_all("pgrep -x postgres || true");
        let said = lab
            .on_all("journalctl -u patroni.service -o cat --no-pager | grep -c 'system ID mismatch' || true");
        let gave_up = running.values().all(String::is_empty) && said.values().all(|count| count != "0");
        if gave_up { Ok(()) } else { Err(format!("{running:?} {said:?}")) }
    });

    let (verdict, kinds) = kinds(&operator, 2);
    assert_eq!((verdict.as_str(), kinds[0].as_str()), ("key-wrong", "key-wrong"));
    operator.flow(&REPAIR).ended(0).says(&["key-wrong"]);

    lab.wait_healthy();
    assert_eq!(lab.on_all("stat -c %i /var/lib/postgresql/*/main"), inodes, "no data directory was touched");
    for host in PROMOTERS {
        assert_eq!(rows(&lab, host), before, "{host}");
    }
    operator.flow(&["diagnose"]).ended(0).says(&["healthy"]);
}

#[test]
fn what_is_not_proven_is_refused_and_an_unreachable_host_stops_no_diagnosis() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    // The odd member has a table.
    lab.on(
        &broken,
        "set -e; systemctl stop patroni.service; bin=$(ls -d /usr/lib/postgresql/*/bin); data=$(ls -d /var/lib/postgresql/*/main); cd /; \
         run() { runuser -u postgres -- \"$@\"; }; run $bin/pg_ctl -D $data -s -w -l /dev/null -o '-p 5499 -c listen_addresses=' start; \
         run psql -XqAt -p 5499 -c 'create table theirs as select 1'; run $bin/pg_ctl -D $data -s -w stop",
    );
    let untouched = [postmaster(&lab, &leader), lab.on(&broken, "ls -d /var/lib/postgresql/*/main*")];
    operator
        .flow(&["diagnose"])
        .ended(2)
        .says(&["has relations, tablespaces or databases of users", &broken]);
    operator.flow(&REPAIR).ended(1).says(&["undecided", "nothing was changed"]);

    let other = PROMOTERS.into_iter().find(|host| *host != leader && *host != broken).unwrap();
    lab.must(&["cut", other]);
    operator.flow(&["diagnose"]).ended(2).says(&[&format!("{other} can't be reached"), &leader]);
    lab.must(&["heal", other]);
    assert_eq!([postmaster(&lab, &leader), lab.on(&broken, "ls -d /var/lib/postgresql/*/main*")], untouched);
}
