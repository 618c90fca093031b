//! HAProxy and keepalived: where clients come in. And configurations that were changed by hand.

use crate::harness::lab::Lab;
use crate::harness::{Done, Operator, PROMOTERS, until};

const VIP: &str = "198.18.0.100";
pub const BALANCERS: [&str; 2] = ["lb1", "lb2"];

/// What a client gets that connects through the virtual address: the server's address, and whether it is a replica.
pub fn client(lab: &Lab, port: u16) -> Result<(String, bool), String> {
    client_of(lab, VIP, port)
}

/// The same through any address, for which the server must show a certificate.
fn client_of(lab: &Lab, address: &str, port: u16) -> Result<(String, bool), String> {
    let password = lab.variable("postgresql_superuser_password");
    let row = lab.try_on(
        "patroni1",
        &format!(
            "PGPASSWORD={password} PGCONNECT_TIMEOUT=3 PGSSLMODE=verify-full \
             PGSSLROOTCERT=/etc/postgresql/certs/root.crt psql -X -A -t -h {address} -p {port} -U postgres \
             -c 'select host(inet_server_addr()), pg_is_in_recovery()'"
        ),
    )?;
    let (server, replica) = row.split_once('|').ok_or_else(|| row.clone())?;
    Ok((server.to_owned(), replica == "t"))
}

/// Who holds the virtual address; it must be one.
pub fn holder(lab: &Lab) -> Result<&'static str, String> {
    holder_of(lab, &BALANCERS)
}

fn holder_of(lab: &Lab, balancers: &[&'static str]) -> Result<&'static str, String> {
    let held = lab.each(balancers, &format!("ip -o addr show to {VIP}"));
    let holds = |held: &Result<String, String>| held.as_ref().is_ok_and(|text| text.contains(VIP));
    let holders: Vec<_> =
        balancers.iter().zip(&held).filter(|(_, held)| holds(held)).map(|(b, _)| *b).collect();
    match holders.as_slice() {
        [one] => Ok(one),
        several => Err(format!("{several:?} hold the address")),
    }
}

#[test]
fn clients_find_leader_and_replicas_and_the_address_leaves_a_balancer_without_haproxy() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let members = lab.assert_healthy();
    let leader = crate::harness::lab::address(members.leader());
    let at_leader = |lab: &Lab| {
        until("the leader behind port 5000", || match client(lab, 5000)? {
            (server, false) if server == leader => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    at_leader(&lab);
    until("a replica behind port 5001", || match client(&lab, 5001)? {
        (server, true) if server != leader => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let moves_away_from = |first: &str| {
        until("the other balancer to hold the address", || match holder(&lab)? {
            now if now != first => Ok(()),
            _ => Err(format!("{first} still has it")),
        });
        at_leader(&lab);
    };
    // One that hangs still runs, and its port takes connections.
    let hangs = until("a holder of the address", || holder(&lab));
    lab.on(hangs, "systemctl kill --signal=STOP haproxy.service");
    moves_away_from(hangs);
    lab.on(hangs, "systemctl kill --signal=CONT haproxy.service");

    let first = until("a holder of the address", || holder(&lab));
    until("the other one to be ready", || lab.try_on(hangs, "/etc/keepalived/haproxy-answers"));
    lab.on(first, "systemctl stop haproxy.service");
    moves_away_from(first);

    let dead = format!("haproxy-running@{first}");
    operator.flow(&["plan", "deploy.toml"]).ended(2).says(&[&dead, "inactive (dead) -> running"]);
    operator.flow(&["run", "deploy.toml"]).ended(0);
    assert_ne!(until("one holder", || holder(&lab)), first, "the address moved back without need");
}

#[test]
fn what_was_changed_by_hand_is_shown_and_mended_and_services_read_it_without_more_than_that_takes() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    until("one holder of the address", || holder(&lab));
    let unit =
        |host: &str, unit: &str| lab.on(host, &format!("systemctl show -p MainPID -p InvocationID {unit}"));
    let postmasters = || lab.each(&PROMOTERS, "head -1 /var/lib/postgresql/*/main/postmaster.pid");
    let (haproxy, patroni, etcd) =
        (unit("lb2", "haproxy"), unit("patroni2", "patroni"), unit("patroni3", "etcd"));
    let (untouched, postgres) = (unit("patroni1", "etcd"), postmasters());

    lab.on("lb2", "sed -i 's/maxconn 2000/maxconn 1500/' /etc/haproxy/haproxy.cfg");
    lab.on("patroni2", "sed -i 's/500ms/700ms/; 1i # password: planted-by-hand' /etc/patroni/config.yml");
    lab.on("patroni3", "echo ETCD_LOG_LEVEL=debug >>/etc/default/etcd");
    let planned = operator.flow(&["plan", "deploy.toml"]).ended(2).says(&[
        "-    maxconn 1500",
        "+    maxconn 2000",
        "haproxy-running@lb2",
        "patroni-configuration@patroni2",
        "-    wal_retrieve_retry_interval: 700ms",
        "+    wal_retrieve_retry_interval: 500ms",
        "-# password: ••••••",
        "-ETCD_LOG_LEVEL=debug",
    ]);
    let changes = planned.text().lines().filter(|line| line.starts_with("change ")).count();
    assert_eq!(changes, 6, "each file, and its unit: {}", planned.text());
    let passwords = ["planted-by-hand".to_owned(), lab.variable("postgresql_superuser_password")];
    assert!(!passwords.iter().any(|password| planned.text().contains(password)), "{}", planned.text());

    let ran = operator.flow(&["run", "deploy.toml"]).ended(0);
    assert!(ran.text().contains("6 changed"), "{}", ran.text());
    let shows =
        |path: &str, host: &str, text: &str| assert!(lab.on(host, &format!("cat {path}")).contains(text));
    shows("/etc/haproxy/haproxy.cfg", "lb2", "maxconn 2000");
    shows("/etc/patroni/config.yml", "patroni2", "500ms");
    assert_eq!(unit("lb2", "haproxy"), haproxy, "reloaded, not restarted");
    assert_eq!(unit("patroni2", "patroni"), patroni, "reloaded, not restarted");
    assert_ne!(unit("patroni3", "etcd"), etcd, "etcd reads its configuration at a start only");
    assert_eq!(unit("patroni1", "etcd"), untouched);
    assert_eq!(postmasters(), postgres);
    operator.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
    lab.assert_healthy();
}

#[test]
fn services_that_were_stopped_are_shown_and_started_and_nothing_else_is() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    until("one holder of the address", || holder(&lab));
    let replica = lab.assert_healthy().replicas()[0].clone();
    let units = "systemctl show -p MainPID -p InvocationID patroni etcd haproxy keepalived";
    let all = || lab.each(&[PROMOTERS.as_slice(), &["lb1", "lb2"]].concat(), units);
    let before = all();
    let stop = |host: &str, unit: &str| lab.on(host, &format!("systemctl stop {unit}"));
    stop(&replica, "patroni");
    stop("patroni3", "etcd");
    stop("lb2", "keepalived");
    let planned = operator.flow(&["plan", "deploy.toml"]).ended(2);
    let changes = |done: &Done, word: &str| {
        let lines = done.text();
        let tasks = lines
            .lines()
            .filter_map(|line| line.strip_prefix(word)?.split_whitespace().next().map(str::to_owned));
        tasks.collect::<std::collections::BTreeSet<String>>()
    };
    let started = [
        format!("patroni-running@{replica}"),
        "etcd-running@patroni3".to_owned(),
        "keepalived-running@lb2".to_owned(),
    ];
    // By another task the same start is looked at again: after it no member runs with an older configuration.
    let shown = started.iter().cloned().chain(["etcd-current@patroni3".to_owned()]).collect();
    assert_eq!(changes(&planned, "change "), shown, "{}", planned.text());

    let ran = operator.flow(&["run", "deploy.toml"]).ended(0);
    let changed = changes(&ran, "changed ");
    assert!(started.iter().all(|task| changed.contains(task)), "{}", ran.text());
    for task in changed.iter().filter(|task| !started.contains(task)) {
        let text = ran.text();
        let line =
            text.lines().find(|line| line.starts_with("changed ") && line.contains(task.as_str())).unwrap();
        assert!(line.contains(" wait: "), "more than a wait: {line}");
    }
    for (host, (was, is)) in PROMOTERS.iter().chain(&["lb1", "lb2"]).zip(before.into_iter().zip(all())) {
        let (was, is) = (was.unwrap(), is.unwrap());
        let units = ["patroni", "etcd", "haproxy", "keepalived"]
            .into_iter()
            .zip(was.split("\n\n").zip(is.split("\n\n")));
        for (unit, (was, is)) in units {
            let stopped = [(replica.as_str(), "patroni"), ("patroni3", "etcd"), ("lb2", "keepalived")];
            assert_eq!(was != is, stopped.contains(&(*host, unit)), "{unit} on {host}: {was} {is}");
        }
    }
    lab.assert_healthy();
}

#[test]
fn a_balancer_joins_while_connections_by_the_others_stand_and_goes_again() {
    const ALL: [&str; 3] = ["lb1", "lb2", "lb3"];
    const NEW: &str = "198.18.0.23";
    let lab = Lab::deployed();
    lab.must(&["boot", "lb3"]);
    // Before the others, so that it would be preferred.
    let inventory = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let inventory = inventory.replace("[haproxy]\n", "[haproxy]\nlb3 ansible_host=198.18.0.23\n");
    let operator =
        Operator::with_inventory(&lab, &inventory.replace("[keepalived]\n", "[keepalived]\nlb3\n"));
    let members = lab.assert_healthy();
    let leader = crate::harness::lab::address(members.leader());
    let first = until("a holder of the address", || holder(&lab));

    // Clients that stay connected: their servers' processes are asked for again and again.
    let password = lab.variable("postgresql_superuser_password");
    for at in [VIP, "198.18.0.21", "198.18.0.22"] {
        let session =
            format!("exec 3<>{at}; exec psql -XAtq -h {at} -p 5000 -U postgres <{at} >{at}.out 2>&1");
        let start = format!(
            "mkdir -p /run/clients && cd /run/clients && mkfifo {at} && \
             systemd-run -q --unit=client-{at} --setenv=PGPASSWORD={password} --working-directory=/run/clients sh -c '{session}'"
        );
        lab.on("patroni1", &start);
    }
    let servers = |asked: usize| {
        // Opened for both, a pipe that nobody reads any more doesn't hold the question up.
        let ask = "cd /run/clients; for at in *.out; do echo 'select pg_backend_pid();' 1<>${at%.out}; done";
        lab.on("patroni1", ask);
        until("the clients' answers", || {
            let told = lab.on(
                "patroni1",
                "cd /run/clients; grep -cxE '[0-9]+' *.out | xargs; tail -qn 1 *.out | xargs",
            );
            let answers = format!(":{asked}");
            let (counts, servers) = told.split_once('\n').unwrap_or_default();
            let all = counts.split(' ').all(|count| count.ends_with(&answers));
            if all { Ok(servers.to_owned()) } else { Err(told) }
        })
    };
    let untouched = || {
        let balancers =
            lab.each(&BALANCERS, "systemctl show -P MainPID haproxy keepalived; sha256sum /etc/haproxy/*");
        let members = "systemctl show -P MainPID etcd patroni; head -1 /var/lib/postgresql/*/main/postmaster.pid; \
             sha256sum /etc/default/etcd /etc/etcd/certs/* /etc/patroni/config.yml /etc/postgresql/certs/server.key";
        (balancers, lab.on_all(members))
    };
    let (connected, before) = (servers(1), untouched());
    assert_eq!(connected.split(' ').count(), 3, "{connected}");

    let add = || operator.flow(&["run", "add-balancer.toml", "--set", "node=lb3"]);
    add().ended(0).says(&["certificate@patroni1", "keepalived-reloaded@lb1"]);
    assert_eq!(untouched(), before, "reloaded, not restarted, and etcd and HAProxy left alone");
    assert_eq!(servers(2), connected, "nobody lost a connection");
    assert_eq!(holder_of(&lab, &ALL), Ok(first), "the address did not move");
    assert_eq!(client_of(&lab, NEW, 5000), Ok((leader.to_owned(), false)));
    let (server, replica) = client_of(&lab, NEW, 5001).unwrap();
    assert!(replica && server != leader, "{server}");
    add().ended(0).says(&["nothing to do"]);

    lab.on(first, "systemctl stop haproxy.service");
    until("the new one to hold the address", || match holder_of(&lab, &ALL)? {
        "lb3" => Ok(()),
        other => Err(format!("{other} has it")),
    });
    assert_eq!(client(&lab, 5000), Ok((leader.to_owned(), false)));
    lab.on(first, "systemctl start haproxy.service");
    operator.flow(&["run", "remove-balancer.toml", "--set", "node=lb3"]).ended(0).says(&["keepalived.conf"]);
    assert_ne!(holder_of(&lab, &ALL), Ok("lb3"));
    assert_eq!(lab.on("lb3", "systemctl is-enabled haproxy keepalived || true"), "masked\nmasked");
    lab.assert_healthy();
}
