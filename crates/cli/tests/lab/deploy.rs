//! From bare hosts to a healthy cluster, and again.

use crate::harness::{ETCDCTL, Lab, Operator, PROMOTERS, until};

#[test]
fn short_bare_hosts_become_a_healthy_cluster_and_a_second_run_changes_nothing() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    operator.flow(&["plan", "deploy.toml"]).ended(2);
    operator.flow(&["run", "deploy.toml"]).ended(0);
    lab.assert_healthy();

    let before = lab.footprint(None);
    operator.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
    operator.flow(&["plan", "deploy.toml"]).ended(0);
    assert_eq!(lab.footprint(None), before, "nothing was restarted, written or locked");

    lab.fill_and_save();
}

#[test]
fn etcd_without_tls_is_deployed_where_it_is_asked_for_and_passwords_that_nobody_gave_are_made_and_kept() {
    let lab = Lab::bare();
    let inventory = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let without_passwords = || {
        let operator = Operator::with_inventory(&lab, &inventory);
        operator.edit_variables(|text| {
            let given =
                |line: &&str| !line.starts_with("patroni_restapi_password") && !line.contains("rewind");
            let kept: Vec<&str> = text.lines().filter(given).collect();
            kept.join("\n") + "\n"
        });
        operator
    };
    let operator = without_passwords();
    let plain = ["run", "deploy.toml", "--set", "etcd_tls=false"];
    operator.flow(&plain).ended(0).says(&[
        "made a password for `rewind_password`, kept in ",
        "made a password for `restapi_password`, kept in ",
        ".config/flow/demo/restapi_password",
    ]);
    operator.flow(&plain).ended(0).says(&["nothing to do"]);
    operator.flow(&["run", "verify.toml", "--set", "etcd_tls=false"]).ended(0);
    let kept = std::fs::read_to_string(operator.folder().join(".config/flow/demo/restapi_password")).unwrap();
    let configured = lab.on("patroni1", "cat /etc/patroni/config.yml");
    assert!(kept.trim_end().len() == 32 && configured.contains(kept.trim_end()));
    operator.flow(&["run", "deploy.toml"]).ended(1).says(&["etcd here has data and serves without TLS"]);

    // A second operator, who has the inventory and not the passwords that were made.
    let second = without_passwords();
    let place = second.folder().join(".config/flow/demo");
    std::fs::create_dir_all(&place).unwrap();
    second
        .flow(&plain)
        .ended(1)
        .says(&["rewind-password@patroni1", "the password of `rewind_user` isn't the one"]);
    std::fs::copy(operator.folder().join(".config/flow/demo/rewind_password"), place.join("rewind_password"))
        .unwrap();
    second.flow(&plain).ended(1).says(&["has another password in restapi.authentication", "copied here"]);
    assert_eq!(lab.on("patroni1", "cat /etc/patroni/config.yml"), configured);
}

#[test]
fn one_part_after_another_comes_to_what_one_run_does() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    for part in ["certificates", "etcd", "patroni", "haproxy", "keepalived"] {
        operator.flow(&["run", "deploy.toml", "--tags", part]).ended(0);
    }
    operator.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
    operator.flow(&["run", "verify.toml"]).ended(0);
}

#[test]
fn what_would_go_wrong_later_is_told_before_anything_is_changed() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    // Connections of an earlier test's cluster may still wait on this port for their end.
    lab.on(
        "patroni3",
        "systemd-run -q --unit=squatter perl -MIO::Socket::INET -e \
         '@listens = IO::Socket::INET->new(Listen => 1, ReuseAddr => 1, LocalPort => 5432); sleep 1000'",
    );
    until("the squatter to listen", || lab.try_on("patroni3", "ss -Hltn | grep -q :5432"));
    lab.on(
        "patroni2",
        "mv /usr/bin/date /usr/bin/date.real; \
         printf '#!/bin/sh\\necho $(($(date.real +%%s) + 90)).0\\n' >/usr/bin/date; chmod 755 /usr/bin/date",
    );
    let untouched = "test ! -e /etc/postgresql-common && test ! -e /etc/etcd && echo untouched";
    let is_untouched = || lab.on_all(untouched).values().all(|text| text == "untouched");
    for verb in ["plan", "run"] {
        operator.flow(&[verb, "deploy.toml"]).ended(1).says(&[
            "clocks@patroni2",
            "s ahead of the operator's",
            "patroni-ports@patroni3",
            "perl (squatter.service, process ",
            "listens on port 5432, where patroni.service is to listen",
        ]);
    }
    assert!(is_untouched());
    lab.on("patroni3", "systemctl stop squatter.service");
    lab.on("patroni2", "mv /usr/bin/date.real /usr/bin/date");

    // Who may log in, and may not become root.
    let made = lab.each(
        &["patroni1", "patroni2", "patroni3", "lb1", "lb2"],
        "useradd --create-home plain && cp -a /home/ops/.ssh /home/plain/ && chown -R plain: /home/plain/.ssh && echo plain:who-may-not | chpasswd",
    );
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let plain = crate::login::logged_in_as(&lab, "plain", "ansible_become_password=who-may-not\n");
    for verb in ["plan", "run"] {
        plain.flow(&[verb, "deploy.toml"]).ended(1).says(&["patroni1", "plain is not in the sudoers file"]);
    }
    assert!(is_untouched());

    let missing = operator.flow(&["run", "deploy.toml", "--set", "postgresql_version=99"]).ended(1);
    missing.says(&["packages@patroni1", "postgresql-99"]);
    lab.on_all("test ! -e /etc/patroni/config.yml");
    operator.flow(&["run", "deploy.toml"]).ended(0);

    // A password that isn't the cluster's any more doesn't get into its configuration.
    let inventory = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let other = Operator::with_inventory(&lab, &inventory);
    other.edit_variables(|text| {
        text.replace(&lab.variable("postgresql_replication_password"), "another one that nobody knows")
    });
    let configured = lab.on_all("sha256sum /etc/patroni/config.yml");
    other.flow(&["run", "deploy.toml"]).ended(1).says(&[
        "replication-password@patroni1",
        "the password of `replicator` isn't the one that PostgreSQL at 198.18.0.11:5432 knows",
    ]);
    assert_eq!(lab.on_all("sha256sum /etc/patroni/config.yml"), configured);
}

#[test]
fn data_of_which_etcd_knows_no_cluster_is_taken_over_with_all_its_rows() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let healthy = lab.assert_healthy();
    for host in healthy.replicas().iter().map(String::as_str).chain([healthy.leader()]) {
        lab.on(host, "systemctl stop patroni");
    }
    lab.on("patroni1", &format!("{} del --prefix /service/", ETCDCTL));
    for host in healthy.replicas() {
        lab.on(&host, "rm -rf /var/lib/postgresql/[0-9]*/main");
    }
    let inode = lab.on(healthy.leader(), "stat -c %i /var/lib/postgresql/[0-9]*/main");

    operator.flow(&["run", "deploy.toml"]).ended(1).says(&[
        &format!("data-matches@{}", healthy.leader()),
        "etcd has no cluster at /service/demo/",
        "flow run system-id-recovery.toml",
    ]);
    operator.flow(&["run", "system-id-recovery.toml", "--confirm", "demo"]).ended(0);
    operator.flow(&["run", "deploy.toml"]).ended(0);
    let again = lab.wait_healthy();
    assert_eq!((again.leader(), again.system_identifier()), (healthy.leader(), healthy.system_identifier()));
    assert_eq!(lab.on(healthy.leader(), "stat -c %i /var/lib/postgresql/[0-9]*/main"), inode);
    for host in PROMOTERS {
        assert_eq!(lab.sql(host, "select count(*) from accounts"), "1000");
    }
}

#[test]
fn an_old_data_directory_is_refused_and_set_aside_only_where_that_is_asked_for_and_nobody_works_on_it() {
    let lab = Lab::deployed();
    let inventory = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let operator = Operator::with_inventory(&lab, &inventory);
    let healthy = lab.assert_healthy();
    let (odd, before) = (healthy.replicas()[0].clone(), lab.footprint(None));
    let asked = |clean: bool| {
        let (old, new) = (format!("clean_data: {}", !clean), format!("clean_data: {clean}"));
        operator.edit_variables(|text| text.replace(&old, &new));
    };
    asked(true);
    let clean = ["run", "deploy.toml", "--confirm", "demo"];
    operator.flow(&["run", "deploy.toml"]).ended(3).says(&["--confirm demo"]);
    operator.flow(&clean).ended(0).says(&["nothing to do"]);
    assert_eq!(lab.footprint(None), before, "a healthy cluster stays as it is");

    // An old cluster of somebody else's, which its Patroni doesn't take.
    lab.break_system_id(&odd);
    operator.flow(&clean).ended(1).says(&["isn't the cluster's", "is in use by", "flow diagnose"]);
    lab.on(&odd, "systemctl stop patroni.service");
    let identifier = "cd /usr/lib/postgresql/*/bin && ./pg_controldata -D $DIR | sed -n 's/^Database system identifier: *//p'";
    let old = lab.on(&odd, &identifier.replace("$DIR", "/var/lib/postgresql/[0-9]*/main"));
    asked(false);
    operator.flow(&["run", "deploy.toml"]).ended(1).says(&["belongs to another cluster", &old]);
    asked(true);
    operator.flow(&clean).ended(0).says(&["the old data lies in", &odd, "main.set-aside-"]);

    assert_eq!(lab.wait_healthy().system_identifier(), healthy.system_identifier());
    assert_eq!(
        lab.on(&odd, &identifier.replace("$DIR", "/var/lib/postgresql/[0-9]*/main.set-aside-*/.")),
        old
    );
}
