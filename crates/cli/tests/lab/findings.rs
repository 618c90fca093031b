//! What `flow diagnose` finds beyond whose data is the right one: faults made for real, many at once, each named with what
//! mends it; and a healthy cluster is called so.

use serde_json::Value;

use crate::harness::{ETCDCTL, Lab, Operator, until};

/// The problems that are told with these words of the command line.
fn problems(operator: &Operator, words: &[&str]) -> Vec<Value> {
    let done = operator.flow(&[&["diagnose", "--output", "json"], words].concat());
    let found: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.text()));
    let problems = found["problems"].as_array().unwrap().clone();
    assert_eq!(done.code(), Some(if found["healthy"] == true { 0 } else { 2 }), "{}", done.text());
    problems
}

/// What of these is not told: a kind, and words of what is wrong, why, or what mends it.
fn missing(problems: &[Value], wanted: &[(&str, &str)]) -> Result<(), String> {
    let is_told = |(kind, words): &(&str, &str)| {
        problems.iter().any(|problem| problem["kind"] == *kind && problem.to_string().contains(words))
    };
    match wanted.iter().find(|one| !is_told(one)) {
        None => Ok(()),
        Some(one) => Err(format!("{one:?} is not among {}", Value::from(problems.to_vec()))),
    }
}

fn patch(lab: &Lab, host: &str, patch: &str) {
    lab.rest(host, "PATCH", "/config", patch).unwrap();
}

#[test]
fn short_each_fault_of_a_cluster_is_named_with_what_mends_it_and_a_healthy_one_is_called_healthy() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let members = lab.assert_healthy();
    let leader = members.leader().to_owned();
    let [behind, lost] = &members.replicas()[..] else { panic!("not two replicas") };
    operator.diagnosed_healthy().says(&["leads to", "free for data and WAL", "lease"]);

    // A slot that nobody reads; an archiver that fails, which takes a restart; and then a setting that waits for one.
    let settings = r#"{"archive_mode": "on", "archive_command": "S3_SECRET=hush false"}"#;
    patch(
        &lab,
        &leader,
        &format!(
            r#"{{"slots": {{"forgotten": {{"type": "physical"}}}}, "postgresql": {{"parameters": {settings}}}}}"#
        ),
    );
    until("the slot and the restart that the leader wants", || {
        let pending = lab.rest(&leader, "GET", "/patroni", "")?.contains("pending_restart");
        let slots =
            lab.sql(&leader, "select count(*) from pg_replication_slots where slot_name = 'forgotten'");
        if pending && slots == "1" { Ok(()) } else { Err(slots) }
    });
    lab.rest(&leader, "POST", "/restart", "{}").unwrap();
    lab.sql(&leader, "select pg_switch_wal()");
    patch(&lab, &leader, r#"{"postgresql": {"parameters": {"max_connections": 120}}}"#);
    // A member whose etcd is dead, whose data is half there, and whose Patroni was left masked.
    lab.on(lost, "systemctl stop patroni.service etcd.service; systemctl mask --quiet patroni.service; cd /var/lib/postgresql/*/; \
        mv main main.failed; mkdir -m 700 main; cp main.failed/PG_VERSION main; chown -R postgres: main");
    patch(&lab, &leader, r#"{"pause": true}"#);
    lab.sql(&leader, "create table filler (n int)");
    // Balancers: one dead, one that leads to nobody, and nobody has the virtual address.
    lab.on("lb1", "systemctl stop keepalived.service haproxy.service");
    lab.on("lb2", "systemctl stop keepalived.service; sed -i 's/port 8008/port 8009/' /etc/haproxy/haproxy.cfg; systemctl reload haproxy.service");

    let limits =
        ["--set", "slot_wal=1000", "--set", "lag=1000", "--set", "days=400", "--set", "disk_free=99"];
    let restart = format!("patronictl -c /etc/patroni/config.yml restart demo {behind} --pending");
    let rename = format!("on {lost}: systemctl stop patroni.service && mv -T /var/lib/postgresql/");
    let replace = format!("flow run etcd-member-replace.toml --set node={lost} --confirm {lost}");
    let unmask = format!("on {lost}: systemctl unmask patroni.service");
    let wanted = [
        ("slot-holds-wal", "pg_drop_replication_slot('forgotten')"),
        ("archiver-failing", "S3_SECRET=•••••• false"),
        ("pending-restart", "max_connections"),
        ("pending-restart", restart.as_str()),
        ("etcd-member", replace.as_str()),
        ("data-unreadable", "no global/pg_control"),
        ("data-unreadable", "main.failed"),
        ("data-unreadable", rename.as_str()),
        ("masked", unmask.as_str()),
        ("lagging", "not replayed yet"),
        ("paused", "patronictl -c /etc/patroni/config.yml resume demo"),
        ("balancer-down", "on lb1: systemctl start haproxy.service"),
        ("balancer-disagrees", "HAProxy on lb2 leads those who want the leader to nobody"),
        ("keepalived-down", "on lb2: systemctl start keepalived.service"),
        ("address-nowhere", "198.18.0.100"),
        ("certificate-ends", "/etc/postgresql/certs/server.crt on patroni1, patroni2, patroni3"),
        ("certificate-ends", "/etc/etcd/certs/server.crt"),
        ("disk-filling", "told below 99 % (`disk_free`)"),
    ];
    until("each fault to be named", || {
        // A replica that doesn't replay. Its Patroni resumes that once where a setting changes (`handle_parameter_change`).
        lab.sql(behind, "select pg_wal_replay_pause()");
        lab.sql(&leader, "insert into filler select generate_series(1, 1000)");
        missing(&problems(&operator, &limits), &wanted)
    });
    // With the limits as they are, what is small is no fault; and what is wrong is told to people with the same exit code.
    let told = operator.flow(&["diagnose"]).ended(2).says(&["(proven)", "to do: ", "touches: ", &replace]);
    for quiet in ["forgotten on", "of WAL behind", "nearly full", "ends in"] {
        assert!(!told.text().contains(quiet), "{quiet}: {}", told.text());
    }

    // A primary beside Patroni, which in pause leaves its PostgreSQL alone; a slot whose WAL is gone; data of another major version;
    // balancers that don't hear each other.
    lab.on(
        behind,
        "systemctl stop patroni.service; cd /var/lib/postgresql/*/; \
        runuser -u postgres -- /usr/lib/postgresql/*/bin/pg_ctl promote -D \"$PWD/main\"",
    );
    for setting in ["max_slot_wal_keep_size = '1MB'", "wal_keep_size = 0"] {
        lab.sql(&leader, &format!("alter system set {setting}"));
    }
    lab.sql(&leader, "select pg_reload_conf()");
    lab.sql(
        &leader,
        "select pg_logical_emit_message(false, '', 'x'), pg_switch_wal() from generate_series(1, 4)",
    );
    lab.sql(&leader, "checkpoint");
    lab.on(lost, "cd /var/lib/postgresql/*/main; echo 9.6 >PG_VERSION");
    lab.on("lb1", "systemctl start haproxy.service keepalived.service");
    lab.on("lb2", "sed -i 's/virtual_router_id .*/virtual_router_id 99/' /etc/keepalived/keepalived.conf; systemctl start keepalived.service");
    let beside = format!("{behind}: its PostgreSQL isn't in recovery");
    let wanted = [
        ("two-primaries", beside.as_str()),
        ("slot-lost", "replication slot forgotten"),
        ("other-version", "is PostgreSQL 9.6's"),
        ("address-twice", "lb1 and lb2 have the virtual address 198.18.0.100"),
    ];
    until("the next faults to be named", || missing(&problems(&operator, &[]), &wanted));

    // The address stays where keepalived hangs, whatever became of HAProxy there.
    lab.on("lb2", "systemctl stop keepalived.service");
    lab.on("lb1", "systemctl kill -s STOP keepalived.service; systemctl stop haproxy.service");
    // A member that comes back with too little room raises an alarm.
    let filler = format!("head -c 100000 /dev/zero | tr '\\0' x | {ETCDCTL} put /filler");
    lab.on(lost, "echo ETCD_QUOTA_BACKEND_BYTES=65536 >>/etc/default/etcd; systemctl start etcd.service");
    let alarm = format!("etcd on {lost} has no room left (NOSPACE)");
    until("etcd's alarm and the address", || {
        // Refused once the alarm is raised.
        let _ = lab.try_on(lost, &filler);
        let misplaced =
            ("address-misplaced", "lb1 has the virtual address 198.18.0.100, and its HAProxy doesn't run");
        missing(&problems(&operator, &[]), &[("etcd-alarm", &alarm), misplaced])
    });
}
