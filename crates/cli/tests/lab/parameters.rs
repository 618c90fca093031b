//! PostgreSQL's settings: those that want a restart, and the restarts one after another while clients write on.

use std::collections::BTreeMap;

use crate::harness::{Lab, Operator, PROMOTERS, until};
use crate::page::{RESTART, page};

const ALLOWED: [&str; 4] = ["run", "deploy.toml", "--set", "allow_restart=true"];

/// How often each host's PostgreSQL was started.
fn starts(lab: &Lab) -> BTreeMap<String, u32> {
    let counts =
        lab.on_all("journalctl -u patroni.service -o cat --no-pager | grep -c 'LOG:  starting PostgreSQL'");
    counts.into_iter().map(|(host, count)| (host, count.parse().unwrap())).collect()
}

/// A client that comes by the balancers' address, writes all the while, and notes what was committed.
fn write_on(lab: &Lab) {
    let password = lab.variable("postgresql_superuser_password");
    lab.on(
        "patroni1",
        &format!(
            "printf '*:*:*:*:%s\\n' '{password}' > /var/tmp/pgpass; chmod 600 /var/tmp/pgpass; cat > /var/tmp/writer <<'EOS'\nn=1000001\n\
             export PGPASSFILE=/var/tmp/pgpass PGCONNECT_TIMEOUT=2\nwhile [ -e /var/tmp/writing ]; do\n  \
             timeout 5 psql -XqAt 'host=198.18.0.100 port=5000 user=postgres sslmode=require' \
             -c \"insert into accounts values ($n, 'writer')\" && echo $n >> /var/tmp/committed\n  \
             n=$((n+1)); sleep 0.1\ndone\nEOS\ntouch /var/tmp/writing; : > /var/tmp/committed; cd /; \
             systemd-run --quiet --unit=writer sh /var/tmp/writer"
        ),
    );
}

#[test]
fn a_setting_that_wants_a_restart_waits_until_that_is_allowed_and_the_leader_comes_last() {
    let lab = Lab::deployed();
    let inventory = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let operator = Operator::with_inventory(&lab, &inventory);
    operator.edit_variables(|text| {
        format!(
            "{text}\npostgresql_parameters: {{max_connections: 150}}\npatroni_dynamic_config: {{ttl: 40}}\n"
        )
    });
    let leader = lab.key("/service/demo/leader");
    let before = starts(&lab);

    operator.flow(&["run", "deploy.toml"]).ended(0).says(&[
        "Settings of PostgreSQL wait for a restart",
        "patroni1: max_connections 100 -> 150",
        "patroni3: max_connections 100 -> 150",
        "flow run deploy.toml --set allow_restart=true",
        "Pending restart",
        "* restarted by `flow run deploy.toml --set allow_restart=true`",
    ]);
    assert_eq!(starts(&lab), before, "nothing was restarted");
    let dynamic = lab.dynamic_configuration("patroni2");
    assert_eq!(dynamic["postgresql"]["parameters"]["max_connections"], 150);
    assert_eq!(dynamic["postgresql"]["use_slots"], true, "what else is set stays");
    assert_eq!((&dynamic["ttl"], &dynamic["loop_wait"]), (&40.into(), &10.into()));

    operator.flow(&["plan", "deploy.toml", "--set", "allow_restart=true"]).ended(2).says(&[
        "hand the lead over to a replica (switchover), then restart PostgreSQL: max_connections 100 -> 150",
        "restart PostgreSQL: max_connections 100 -> 150",
    ]);
    write_on(&lab);
    until("the first rows", || lab.try_on("patroni1", "test -s /var/tmp/committed"));
    operator.flow(&ALLOWED).ended(0);
    lab.on("patroni1", "rm /var/tmp/writing; while systemctl is-active --quiet writer; do sleep 0.1; done");

    let once: BTreeMap<_, _> = before.iter().map(|(host, count)| (host.clone(), count + 1)).collect();
    assert_eq!(starts(&lab), once, "each was restarted once");
    let healthy = lab.assert_healthy();
    assert_ne!(healthy.leader(), leader, "the leader has handed over");
    let started =
        |host: &str| lab.sql(host, "select extract(epoch from pg_postmaster_start_time())::numeric(20, 3)");
    let last = PROMOTERS.into_iter().max_by_key(|host| started(host)).unwrap();
    assert_eq!(last, leader, "replicas first");
    let committed = lab.on("patroni1", "sort -n /var/tmp/committed");
    assert!(committed.lines().count() > 10, "writes went on: {committed}");
    for host in PROMOTERS {
        assert_eq!(lab.sql(host, "show max_connections"), "150", "{host}");
        until("all that was committed on each member", || {
            let there = lab.sql(host, "select id from accounts where id > 1000000 order by id");
            let lost = committed.lines().find(|id| !there.lines().any(|one| one == *id));
            lost.map_or(Ok(()), |lost| Err(format!("{host} lacks row {lost}")))
        });
    }
    operator.flow(&ALLOWED).ended(0).says(&["nothing to do"]);
    page(&operator, RESTART, &[]).ended(0).says(&["nothing to do"]);
    assert_eq!(starts(&lab), once);

    // No replica can have less than its leader, which comes last: nobody is restarted.
    operator.edit_variables(|text| text.replace("max_connections: 150", "max_connections: 120"));
    let smaller = ["run", "postgresql-parameters.toml", "--set", "allow_restart=true"];
    operator.flow(&smaller).ended(1).says(&["max_connections becomes smaller"]);
    assert_eq!(starts(&lab), once);
}
