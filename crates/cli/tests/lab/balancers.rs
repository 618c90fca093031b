//! HAProxy and keepalived: where clients come in. And configurations that were changed by hand.

use crate::harness::lab::Lab;
use crate::harness::{Operator, PROMOTERS, until};

const VIP: &str = "198.18.0.100";
const BALANCERS: [&str; 2] = ["lb1", "lb2"];

/// What a client gets that connects through the virtual address: the server's address, and whether it is a replica.
fn client(lab: &Lab, port: u16) -> Result<(String, bool), String> {
    let password = lab.variable("postgresql_superuser_password");
    let row = lab.try_on(
        "patroni1",
        &format!(
            "PGPASSWORD={password} PGCONNECT_TIMEOUT=3 PGSSLMODE=verify-full \
             PGSSLROOTCERT=/etc/postgresql/certs/root.crt psql -X -A -t -h {VIP} -p {port} -U postgres \
             -c 'select host(inet_server_addr()), pg_is_in_recovery()'"
        ),
    )?;
    let (server, replica) = row.split_once('|').ok_or_else(|| row.clone())?;
    Ok((server.to_owned(), replica == "t"))
}

/// Who holds the virtual address; it must be one.
fn holder(lab: &Lab) -> Result<&'static str, String> {
    let held = lab.each(&BALANCERS, &format!("ip -o addr show to {VIP}"));
    let holds = |held: &Result<String, String>| held.as_ref().is_ok_and(|text| text.contains(VIP));
    let holders: Vec<_> =
        BALANCERS.into_iter().zip(&held).filter(|(_, held)| holds(held)).map(|(b, _)| b).collect();
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
    lab.on("patroni2", "sed -i 's/500ms/700ms/' /etc/patroni/config.yml");
    lab.on("patroni3", "echo ETCD_LOG_LEVEL=debug >>/etc/default/etcd");
    let planned = operator.flow(&["plan", "deploy.toml"]).ended(2).says(&[
        "-    maxconn 1500",
        "+    maxconn 2000",
        "haproxy-running@lb2",
        "patroni-configuration@patroni2",
        "-ETCD_LOG_LEVEL=debug",
    ]);
    let changes = planned.text().lines().filter(|line| line.starts_with("change ")).count();
    assert_eq!(changes, 6, "each file, and its unit: {}", planned.text());

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
