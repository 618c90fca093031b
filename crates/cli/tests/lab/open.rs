//! What a reset closes: nothing leads to the empty cluster, and nothing is archived, until the operator opens it. And that an archiver works
//! at a recovery's end.

use crate::balancers::{BALANCERS, client, holder};
use crate::harness::{Lab, Operator, PROMOTERS, until};

const CONFIG: &str = "/etc/patroni/config.yml";
const OPEN: [&str; 4] = ["run", "open.toml", "--confirm", "demo"];

fn archived_by(lab: &Lab, host: &str, command: &str) {
    let patch = format!(r#"{{"postgresql": {{"parameters": {{"archive_command": "{command}"}}}}}}"#);
    lab.rest(host, "PATCH", "/config", &patch).unwrap();
}

/// An archive of the old cluster at each host, and pgBackRest's stanza of whatever cluster lies there.
fn with_archives(lab: &Lab) {
    lab.on_all(&format!(
        "set -e; DEBIAN_FRONTEND=noninteractive apt-get install -y pgbackrest >/dev/null 2>&1; install -d -o postgres /archive; \
         echo old >/archive/000000010000000000000001; data=$(ls -d /var/lib/postgresql/[0-9]*/main); \
         printf '[global]\\nrepo1-path=/var/lib/pgbackrest\\n[demo]\\npg1-path=%s\\n' $data >/etc/pgbackrest.conf; \
         sed -i 's/^  parameters:$/&\\n    archive_mode: \"on\"/' {CONFIG}; cd /; \
         runuser -u postgres -- pgbackrest --stanza=demo --no-online stanza-create"
    ));
}

fn closed(lab: &Lab) {
    for haproxy in lab.each(&BALANCERS, "systemctl is-enabled haproxy; systemctl is-active haproxy || true") {
        assert_eq!(haproxy.as_deref(), Ok("masked\ninactive"));
    }
    let nobody = until("the address to be nobody's", || match holder(lab) {
        Err(why) if why.starts_with("[]") => Ok(why),
        other => Err(format!("{other:?}")),
    });
    assert!(client(lab, 5000).is_err() && !nobody.is_empty());
}

#[test]
fn an_empty_cluster_is_reached_and_archived_only_once_it_is_opened() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    with_archives(&lab);
    archived_by(&lab, &lab.key("/service/demo/leader"), "cp %p /archive/%f");
    let before = lab.before(Some(&broken));

    let mut running = operator.recover();
    running.wait_event("task_done", "archiving-off");
    running.kill();
    closed(&lab);
    let done = lab.assert_resumes(&operator, &before);
    let leader = lab.assert_healthy().leader().to_owned();
    let run = operator.runs()[0].0.clone();
    done.says(&[
        "no client comes in by a balancer",
        "archive_command is off",
        "flow run open.toml --confirm demo",
    ]);
    closed(&lab);
    let by_run = format!("by run {run}");
    operator.flow(&["diagnose"]).ended(2).says(&[
        "HAProxy on lb1, lb2 is closed",
        "archiving on patroni1, patroni2, patroni3 is off",
        &by_run,
        "flow run open.toml --confirm demo",
    ]);
    operator.flow(&["plan", "deploy.toml"]).ended(1).says(&[
        "HAProxy is closed until the cluster is opened; lb1: by run",
        "archiving is off until the cluster is opened; patroni1: by run",
    ]);

    // Into an archive that can't be looked into nothing is archived by the way, nor into another cluster's stanza.
    until("the dynamic configuration to have come to the members", || {
        let text = operator.flow(&OPEN).ended(1).says(&["archive_is_new=true"]).text();
        if text.contains("cp %p /archive/%f") { Ok(()) } else { Err(text) }
    });
    archived_by(&lab, &leader, "pgbackrest --stanza=demo archive-push %p");
    until("pgBackRest to be asked", || {
        let text = operator.flow(&OPEN).ended(1).text();
        if text.contains("stanza-upgrade") { Ok(()) } else { Err(text) }
    });
    operator.flow(&["diagnose"]).ended(2).says(&["takes none of its WAL", "no backup", "stanza-upgrade"]);
    closed(&lab);
    assert_eq!(lab.sql(&leader, "select archived_count + failed_count from pg_stat_archiver"), "0");
    let old = lab.on_all("cat /archive/000000010000000000000001; ls /archive | wc -l");
    assert!(old.values().all(|old| old == "old\n1"), "{old:?}");

    lab.on_all("cd / && runuser -u postgres -- pgbackrest --stanza=demo --no-online stanza-upgrade");
    let mut running = operator.start(&[&OPEN[..], &["--output", "json"]].concat());
    running.wait_event("task_done", "opened");
    running.kill();
    operator
        .resume()
        .wait()
        .ended(0)
        .says(&["archives its WAL again, by `pgbackrest", "HAProxy runs; it was closed"]);
    let address = crate::harness::lab::address(&leader);
    until("the leader behind the virtual address", || match client(&lab, 5000)? {
        (server, false) if server == address => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let info = "cd / && runuser -u postgres -- pgbackrest --stanza=demo info";
    let max = lab.on(&leader, &format!("{info} | grep 'wal archive min/max' | tail -n 1"));
    assert!(max.contains("/0000000"), "WAL is in the archive: {max}");
    assert_eq!(
        lab.on_all(&format!("grep -c flow: {CONFIG} || true")).values().filter(|c| *c != "0").count(),
        0
    );
    for note in lab.each(&BALANCERS, "test ! -e /etc/haproxy/closed-by-flow") {
        note.unwrap();
    }
    operator.flow(&OPEN).ended(0).says(&["no run has closed anything here", "nothing to do"]);
    operator.diagnosed_healthy();

    // A repair that ends with an archiver that fails is told as that, and gone on with once it works.
    archived_by(&lab, &leader, "false");
    let other = PROMOTERS.into_iter().find(|host| *host != leader && *host != broken).unwrap();
    lab.break_system_id(other);
    until("the leader to have read it", || match &*lab.sql(&leader, "show archive_command") {
        "false" => Ok(()),
        other => Err(other.to_owned()),
    });
    let failed = operator.flow(&["run", "system-id-recovery.toml", "--confirm", "demo"]).ended(1);
    failed.says(&["archived@", "WAL isn't archived", "flow resume"]);
    lab.wait_healthy();
    archived_by(&lab, &leader, "true");
    until("the leader to have read it", || match &*lab.sql(&leader, "show archive_command") {
        "true" => Ok(()),
        other => Err(other.to_owned()),
    });
    operator.flow(&["resume"]).ended(0).says(&["its WAL is archived"]);
}
