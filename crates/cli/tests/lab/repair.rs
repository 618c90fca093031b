//! Diagnosis, and the repair that loses nothing: the fault is made for real, named, mended, and the rows are counted.

use crate::harness::lab::ROWS;
use crate::harness::{ETCDCTL, Lab, Operator, PROMOTERS, until};

/// An identifier that is nobody's. Shorter ones count for Patroni as none.
const NOBODYS: &str = "7700000000000000001";

pub const REPAIR: [&str; 4] = ["run", "system-id-recovery.toml", "--confirm", "demo"];

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

/// The cluster's rows, counted and summed up.
pub const ROWS_OF: &str = "select count(*) || ' ' || md5(string_agg(id || owner, ',' order by id)) from accounts where id <= 1000000";

pub fn rows(lab: &Lab, host: &str) -> String {
    lab.sql(host, ROWS_OF)
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
    let ran = operator.flow(&REPAIR).ended(0).says(&["disposable", &broken]);
    assert!(!ran.text().contains("whether a row comes"), "{}", ran.text());
    let canaries = PROMOTERS.map(|host| lab.sql(host, "select run from flow_canary where scope = 'demo'"));
    assert!(!canaries[0].is_empty() && canaries.iter().all(|run| *run == canaries[0]), "{canaries:?}");
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
    operator.diagnosed_healthy();
    operator.flow(&REPAIR).ended(0).says(&["nothing to do"]);
}

#[test]
fn a_wrong_key_is_mended_and_no_data_directory_is_touched() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let before = rows(&lab, &leader);
    let inodes = lab.on_all("stat -c %i /var/lib/postgresql/*/main");
    lab.sql(&leader, "create table busy (n int)");
    for host in lab.wait_healthy().replicas().iter().chain([&leader]) {
        lab.on(host, "systemctl stop patroni.service");
        if *host != leader {
            lab.sql(&leader, "insert into busy select generate_series(1, 2000)");
        }
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
        until("what was written last on each member", || {
            match &*lab.sql(host, "select count(*) from busy") {
                "4000" => Ok(()),
                other => Err(format!("{host}: {other}")),
            }
        });
    }
    operator.diagnosed_healthy();
}

/// The former leader crashed with a row that nobody else has: its Patroni died, another took over, and it was written to.
fn diverged() -> (Lab, String) {
    let lab = Lab::deployed();
    let old = lab.key("/service/demo/leader");
    lab.on(
        &old,
        "kill -9 $(systemctl show -P MainPID patroni.service); systemctl mask --quiet patroni.service",
    );
    lab.on(&old, &format!("{ETCDCTL} del /service/demo/leader"));
    until("another to lead, and the third to stream from it", || {
        let new = lab.key("/service/demo/leader");
        if new.is_empty() || new == old {
            return Err(format!("leader `{new}`"));
        }
        match lab.sql(&new, "select count(*) from pg_stat_replication where state = 'streaming'").as_str() {
            "1" => Ok(()),
            other => Err(format!("{other} stream from {new}")),
        }
    });
    lab.sql(&old, "insert into accounts values (2000000, 'nobody else has it')");
    lab.on(&old, "kill -9 $(pgrep -x postgres); while pgrep -x postgres; do sleep 0.1; done");
    (lab, old)
}

#[test]
fn a_former_leader_with_rows_of_its_own_is_neither_started_nor_cloned_and_its_rows_are_in_the_copy() {
    let (lab, old) = diverged();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let (verdict, kinds) = kinds(&operator, 2);
    assert_eq!((verdict.as_str(), kinds[0].as_str()), ("undecided", "diverged"));
    let told = operator
        .flow(&["diagnose"])
        .ended(2)
        .says(&[&format!("keep={leader}"), "beyond where the other left"]);
    for harmful in ["systemctl start", "unmask", "patronictl"] {
        assert!(!told.text().contains(harmful), "{harmful}: {}", told.text());
    }
    let refused = operator.flow(&["run", "deploy.toml", "--tags", "patroni"]).ended(1);
    refused.says(&[&format!("{old}: it may have rows that {leader} lacks"), "no Patroni was started"]);
    let before = rows(&lab, &leader);

    // A power loss later nobody leads, and the key is right: the histories fork all the same.
    for host in PROMOTERS.into_iter().filter(|host| *host != old && *host != leader).chain([leader.as_str()])
    {
        lab.on(host, "systemctl stop patroni.service");
    }
    let told = operator.flow(&["diagnose"]).ended(2).says(&["keep=HOST", "nobody leads"]);
    assert!(!told.text().contains("systemctl start"), "{}", told.text());
    operator.flow(&REPAIR).ended(1).says(&["undecided", "nothing was changed", "--set keep=HOST"]);

    let keep = format!("keep={leader}");
    operator.flow(&keeping(&keep, &[])).ended(0).says(&["kept", "main.set-aside-"]);
    assert_eq!(lab.wait_healthy().leader(), leader);
    for host in PROMOTERS {
        assert_eq!(rows(&lab, host), before, "{host}");
    }
    let kept = of_a_copy(&lab, &old, "select owner from accounts where id = 2000000");
    assert_eq!(kept, "nobody else has it", "its row is in the copy");
}

/// A member that belongs to another cluster, and has a table of its own and the roles by which Patroni works.
pub fn broken_with_rows() -> (Lab, String) {
    let (lab, broken) = Lab::broken();
    lab.on(
        &broken,
        r#"set -e; systemctl stop patroni.service; bin=$(ls -d /usr/lib/postgresql/*/bin); data=$(ls -d /var/lib/postgresql/*/main); cd /
        run() { runuser -u postgres -- "$@"; }
        sql() { run psql -XqAt -p 5499 -c "$1"; }
        password() { sed -n "/^    $1:/,/password/s/.*password: *\"\(.*\)\"/\1/p" /etc/patroni/config.yml; }
        run $bin/pg_ctl -D $data -s -w -l /dev/null -o '-p 5499 -c listen_addresses=' start
        sql 'create table theirs as select n from generate_series(1, 7) n'
        sql "alter role postgres password '$(password superuser)'"
        sql "create role replicator login replication password '$(password replication)'"
        run $bin/pg_ctl -D $data -s -w stop"#,
    );
    (lab, broken)
}

/// What a query gives on a copy of a set-aside directory; the directory itself stays as it is.
pub fn of_a_copy(lab: &Lab, host: &str, query: &str) -> String {
    lab.on(
        host,
        &format!(
            "set -e; bin=$(ls -d /usr/lib/postgresql/*/bin); cd /; aside=$(ls -d /var/lib/postgresql/*/main.set-aside-* | grep -v json); \
             cp -a $aside /var/tmp/copy; rm -f /var/tmp/copy/postmaster.pid; run() {{ runuser -u postgres -- \"$@\"; }}; \
             run $bin/pg_ctl -D /var/tmp/copy -s -w -l /dev/null -o '-p 5499 -c listen_addresses= -c archive_mode=off' start; \
             run psql -XqAt -p 5499 -c \"{query}\"; run $bin/pg_ctl -D /var/tmp/copy -s -m immediate stop; rm -rf /var/tmp/copy"
        ),
    )
}

fn keeping<'a>(keep: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&REPAIR[..], &["--set", keep], words].concat()
}

#[test]
fn a_leader_that_is_kept_goes_on_while_a_member_with_rows_of_its_own_is_set_aside() {
    let (lab, broken) = broken_with_rows();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let other = PROMOTERS.into_iter().find(|host| *host != leader && *host != broken).unwrap();
    let before = rows(&lab, &leader);
    let untouched = [postmaster(&lab, &leader), postmaster(&lab, other)];
    operator.flow(&["diagnose"]).ended(2).says(&["keep=HOST"]);
    operator.flow(&REPAIR).ended(1).says(&["undecided", "nothing was changed", "--set keep=HOST"]);

    let keep = format!("keep={leader}");
    operator.flow(&keeping(&keep, &[])).ended(0).says(&["kept", "main.set-aside-"]);
    assert_eq!([postmaster(&lab, &leader), postmaster(&lab, other)], untouched, "the others weren't touched");
    lab.wait_healthy();
    for host in PROMOTERS {
        assert_eq!(rows(&lab, host), before, "{host}");
    }
    assert_eq!(of_a_copy(&lab, &broken, "select count(*) from theirs"), "7", "its rows are in the copy");
    operator.flow(&keeping(&keep, &[])).ended(0).says(&["healthy"]);
}

#[test]
fn a_member_that_is_kept_against_a_living_leader_leads_alone_and_all_others_rows_are_kept_aside() {
    let (lab, broken) = broken_with_rows();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let before = rows(&lab, &leader);
    let keep = format!("keep={broken}");
    // What would keep it from leading is told while all goes on.
    let running = postmaster(&lab, &leader);
    lab.put_key("/service/demo/failover", &format!("'{{\"candidate\": \"{leader}\"}}'"));
    operator.flow(&keeping(&keep, &[])).ended(1).says(&["a failover to", "nothing was changed"]);
    assert_eq!(postmaster(&lab, &leader), running);
    lab.on(&leader, &format!("{ETCDCTL} del /service/demo/failover"));

    let done = operator.flow(&keeping(&keep, &["--output", "json"])).ended(0);
    let healthy = lab.wait_healthy();
    assert_eq!(healthy.leader(), broken);
    for host in PROMOTERS {
        until("the kept rows on each member", || match &*lab.sql(host, "select count(*) from theirs") {
            "7" => Ok(()),
            other => Err(format!("{host}: {other}")),
        });
        let run = done.result()["run"].as_str().unwrap().to_owned();
        let saved = lab.on(host, &format!("cat /var/lib/postgresql/*/main.flow-{run}.json"));
        let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
        assert_eq!((&saved["verdict"], &saved["keys"]["leader"]), (&"kept".into(), &leader.as_str().into()));
    }
    for host in PROMOTERS.into_iter().filter(|host| *host != broken) {
        assert_eq!(of_a_copy(&lab, host, ROWS_OF), before, "{host}: all rows are in the copy");
    }
    assert_eq!(lab.on(&broken, "ls -d /var/lib/postgresql/*/main.set-aside-* 2>/dev/null || true"), "");
}

#[test]
fn a_key_that_is_gone_is_written_back_by_the_living_leader_and_nothing_is_restarted() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let identifier = lab.key("/service/demo/initialize");
    let started =
        |lab: &Lab| lab.on_all("systemctl show -p InvocationID patroni.service; pgrep -o -x postgres");
    let before = started(&lab);
    // Patroni may write it back before anybody has looked: then it is deleted once more.
    until("the key to be seen gone", || {
        lab.on(&leader, &format!("{ETCDCTL} del /service/demo/initialize"));
        let done = operator.flow(&REPAIR).ended(0).text();
        if done.contains("key-gone-leader-alive") { Ok(()) } else { Err(done) }
    });
    assert_eq!(lab.key("/service/demo/initialize"), identifier);
    assert_eq!(started(&lab), before, "nothing was restarted");
    operator.diagnosed_healthy();
}

#[test]
fn two_clusters_in_one_scope_are_refused_also_where_one_is_to_be_kept() {
    let (lab, broken) = broken_with_rows();
    let operator = Operator::new(&lab);
    lab.put_key("/service/demo/members/theirs", "'{\"api_url\": \"http://198.18.0.99:8008/patroni\"}'");
    let footprint = lab.footprint(Some(&broken));
    operator.flow(&["diagnose"]).ended(2).says(&["members outside the inventory", "theirs"]);
    for keep in [format!("keep={broken}"), format!("keep={}", lab.key("/service/demo/leader"))] {
        operator.flow(&keeping(&keep, &[])).ended(1).says(&["two-clusters", "theirs", "nothing was changed"]);
    }
    operator.flow(&REPAIR).ended(1).says(&["two-clusters"]);
    // Whoever says "keep" doesn't mean "empty it".
    let both = keeping("mode=reset", &["--set", "keep=patroni1"]);
    operator.flow(&both).ended(1).says(&["only one of them can be meant", "nothing was changed"]);
    assert_eq!(lab.footprint(Some(&broken)), footprint);
}

#[test]
fn an_unreachable_host_stops_no_diagnosis_and_is_never_decided_about() {
    let (lab, broken) = broken_with_rows();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    operator
        .flow(&["diagnose"])
        .ended(2)
        .says(&["has relations, tablespaces or databases of users", &broken]);
    let other = PROMOTERS.into_iter().find(|host| *host != leader && *host != broken).unwrap();
    lab.must(&["cut", other]);
    operator.flow(&["diagnose"]).ended(2).says(&[&format!("{other} can't be reached"), &leader]);
    lab.must(&["heal", other]);
}
