//! What was set aside on real hosts: listed, brought back with all that belongs to it, removed by name and nothing else with it.

use crate::harness::{Lab, Operator, until};

/// A replica that is cloned anew, its former data kept.
const RECLONE: &str = r#"
name = "reclone"
summary = "A replica is cloned anew."
confirm = "demo"

[steps.configuration]
uses = "patroni.config"
hosts = "REPLICA"

[steps.stopped]
uses = "systemd.unit"
needs = ["configuration"]
hosts = "REPLICA"
with = { unit = "patroni.service", state = "stopped" }

[steps.aside]
uses = "postgres.data_set_aside"
needs = ["stopped"]
hosts = "REPLICA"
with = { data_dir = "{{ steps.configuration.data_dir }}", bin_dir = "{{ steps.configuration.bin_dir }}" }

[steps.started]
uses = "systemd.unit"
needs = ["aside"]
hosts = "REPLICA"
with = { unit = "patroni.service", state = "running" }

[steps.streams]
uses = "patroni.member"
needs = ["started"]
hosts = "REPLICA"
with = { role = "replica" }
"#;

/// The directory's inode, what its WAL and tablespace links point to, and whether these are there.
fn directory(lab: &Lab, host: &str, path: &str) -> String {
    lab.on(
        host,
        &format!(
            "cd {path} && stat -c %i . && for link in pg_tblspc/*; do readlink $link && test -d $link/; done"
        ),
    )
}

fn rows(lab: &Lab, host: &str) -> String {
    lab.sql(host, "select count(*) || ' ' || md5(string_agg(id || owner, ',' order by id)) from accounts, (select sum(n) from elsewhere) s")
}

#[test]
fn a_copy_of_the_cluster_s_own_past_comes_back_and_streams_and_what_is_named_is_removed_alone() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    let (leader, replica) = (healthy.leader().to_owned(), healthy.replicas()[0].clone());
    lab.on_all("install -d -o postgres -g postgres -m 700 /var/lib/postgresql/extra");
    lab.sql(&leader, "create tablespace extra location '/var/lib/postgresql/extra'");
    lab.sql(&leader, "create table elsewhere tablespace extra as select n from generate_series(1, 500) n");
    until("the tablespace on the replica", || {
        lab.try_on(&replica, "ls /var/lib/postgresql/extra/PG*/*/* >/dev/null")
    });
    let data = lab.on(&replica, "ls -d /var/lib/postgresql/[0-9]*/main");
    let past = directory(&lab, &replica, &data);

    let reclone = operator.write("reclone.toml", &RECLONE.replace("REPLICA", &replica));
    operator.flow(&["run", &reclone, "--confirm", "demo"]).ended(0);
    let clone = directory(&lab, &replica, &data);
    assert_ne!(clone, past);
    // The leader's WAL goes on by more than is read of it at a time.
    lab.sql(&leader, "insert into accounts select n, 'later' from generate_series(2000, 3000) n");
    let copy = lab.on(&replica, &format!("ls -d {data}.set-aside-* | grep -v json"));
    let listed = operator.flow(&["run", "set-aside.toml"]).ended(0);
    listed.says(&[
        &format!("{replica}:{copy}: "),
        healthy.system_identifier(),
        "user data",
        "with /var/lib/postgresql/extra.set-aside-",
    ]);

    let (host, path) = (format!("host={replica}"), format!("copy={copy}"));
    let put_back = ["run", "put-back.toml", "--set", &host, "--set", &path, "--confirm", "demo"];
    operator
        .flow(&[
            "run",
            "put-back.toml",
            "--set",
            &format!("host={leader}"),
            "--set",
            &path,
            "--confirm",
            "demo",
        ])
        .ended(1)
        .says(&["there is no"]);
    operator.flow(&put_back).ended(0).says(&["streams from the leader"]);
    assert_eq!(directory(&lab, &replica, &data), past, "the very directory, and its tablespace in its place");
    lab.wait_healthy();
    until("all rows on the copy", || match (rows(&lab, &replica), rows(&lab, &leader)) {
        (here, there) if here == there => Ok(()),
        differ => Err(format!("{differ:?}")),
    });

    // And back again: the clone is what it was, the copy is a copy.
    operator.flow(&["undo", "--yes"]).ended(0);
    assert_eq!(directory(&lab, &replica, &data), clone);
    assert_eq!(lab.on(&replica, &format!("ls -d {data}.set-aside-* | grep -v json")), copy);
    lab.wait_healthy();

    let remove = |named: &str| {
        operator.flow(&["run", "set-aside.toml", "--set", &format!("remove={named}"), "--confirm", "demo"])
    };
    operator
        .flow(&["run", "set-aside.toml", "--set", &format!("remove={replica}:{copy}")])
        .ended(3)
        .says(&["--confirm demo"]);
    lab.on(&replica, &format!("ln -s {data} {data}.set-aside-20260102T030405Z-0123456789ab"));
    let before = lab.footprint(None);
    for (named, words) in [
        (format!("{replica}:{data}"), "the present data directory"),
        (format!("{replica}:{data}.set-aside-20260102T030405Z-0123456789ab"), "is a symbolic link to"),
        (format!("{replica}:{copy}/../main"), "no copy that was set aside here"),
        (format!("{replica}:/etc/patroni"), "no copy that was set aside here"),
        (format!("nobody:{copy}"), "names no copy on a host"),
        (format!("{replica}:{copy},{replica}:{data}"), "the present data directory"),
    ] {
        remove(&named).ended(1).says(&[words]);
    }
    // A PostgreSQL on somebody's own copy of the copy, that still uses its tablespace.
    let look = format!(
        "cp -a {copy} /var/tmp/look; rm -f /var/tmp/look/postmaster.pid /var/tmp/look/standby.signal; cd /; \
        pg() {{ runuser -u postgres -- $(ls -d /usr/lib/postgresql/*/bin)/pg_ctl -D /var/tmp/look -s -w -l /dev/null \"$@\"; }}"
    );
    lab.on(
        &replica,
        &format!(
            "{look}; pg -o '-p 5499 -c listen_addresses= -c archive_mode=off' start && \
        runuser -u postgres -- psql -XqAt -p 5499 -c 'select count(*) from elsewhere'"
        ),
    );
    remove(&format!("{replica}:{copy}"))
        .ended(1)
        .says(&["is in use", "uses /var/lib/postgresql/extra.set-aside-"]);
    lab.on(&replica, "cd /; runuser -u postgres -- $(ls -d /usr/lib/postgresql/*/bin)/pg_ctl -D /var/tmp/look -s -m immediate stop; rm -rf /var/tmp/look");
    assert_eq!(lab.footprint(None), before, "nothing was removed");

    remove(&format!("{replica}:{copy}")).ended(0).says(&["room given back", "together: "]);
    let left = lab.on(&replica, "ls -d /var/lib/postgresql/*/main* /var/lib/postgresql/extra*");
    let data_and_link =
        format!("{data}\n{data}.set-aside-20260102T030405Z-0123456789ab\n/var/lib/postgresql/extra");
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    let mut expected: Vec<&str> = data_and_link.lines().collect();
    expected.sort_unstable();
    assert_eq!(left, expected, "the copy, its tablespace and its note are gone, and nothing else is");
    assert_eq!(directory(&lab, &replica, &data), clone);
    remove(&format!("{replica}:{copy}")).ended(0).says(&["nothing to do"]);
    lab.assert_healthy();
}
