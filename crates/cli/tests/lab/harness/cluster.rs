//! The cluster as it is, asked of PostgreSQL, etcd and the file system themselves, not of flow.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::lab::ROWS;
use super::{Done, Lab, until};

/// The hosts of Patroni and etcd.
pub const PROMOTERS: [&str; 3] = ["patroni1", "patroni2", "patroni3"];

/// etcdctl on a host, as whoever has the host's certificate.
pub const ETCDCTL: &str = "ETCDCTL_API=3 ETCDCTL_ENDPOINTS=https://127.0.0.1:2379 \
     ETCDCTL_CACERT=/etc/etcd/certs/ca.crt ETCDCTL_CERT=/etc/etcd/certs/server.crt \
     ETCDCTL_KEY=/etc/etcd/certs/server.key etcdctl";

/// The data directory, on either release.
const DATA: &str = "/var/lib/postgresql/[0-9]*/main";

/// A member as its PostgreSQL tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub host: String,
    pub replica: bool,
    pub system_identifier: String,
    /// State of its WAL receiver.
    receives: String,
    /// How many replicas stream from it.
    senders: u32,
}

/// All members; made only where they are one healthy cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthy(Vec<Member>);

impl Healthy {
    pub fn leader(&self) -> &str {
        &self.0.iter().find(|member| !member.replica).unwrap().host
    }

    pub fn replicas(&self) -> Vec<String> {
        self.0.iter().filter(|member| member.replica).map(|member| member.host.clone()).collect()
    }

    pub fn system_identifier(&self) -> &str {
        &self.0[0].system_identifier
    }
}

/// What a recovery must keep.
#[derive(Debug, Clone)]
pub struct Before {
    /// The system identifier in each host's data directory.
    pub identifiers: BTreeMap<String, String>,
    /// The table's file, below the data directory.
    pub table: String,
    /// The replica that doesn't belong to the cluster.
    pub broken: Option<String>,
}

impl Lab {
    /// One leader, two replicas that stream from it, one system identifier, and etcd says the same.
    pub fn healthy(&self) -> Result<Healthy, String> {
        let script = "cd / && runuser -u postgres -- psql -X -q -A -t -F ' ' -c \"select pg_is_in_recovery(), \
             (select system_identifier from pg_control_system()), \
             coalesce((select status from pg_stat_wal_receiver), '-'), \
             (select count(*) from pg_stat_replication where state = 'streaming' and application_name like 'patroni%')\"";
        let mut members = Vec::new();
        for (host, answer) in PROMOTERS.iter().zip(self.each(&PROMOTERS, script)) {
            let answer = answer.map_err(|error| format!("{host}: {error}"))?;
            let [replica, identifier, receives, senders] = answer.split(' ').collect::<Vec<_>>()[..] else {
                return Err(format!("{host}: {answer}"));
            };
            members.push(Member {
                host: (*host).to_owned(),
                replica: replica == "t",
                system_identifier: identifier.to_owned(),
                receives: receives.to_owned(),
                senders: senders.parse().map_err(|error| format!("{host}: {error}"))?,
            });
        }
        let leaders: Vec<&Member> = members.iter().filter(|member| !member.replica).collect();
        let [leader] = leaders[..] else { return Err(format!("not one leader: {members:?}")) };
        let streaming =
            members.iter().filter(|member| member.replica && member.receives == "streaming").count();
        if streaming != 2 || leader.senders != 2 {
            return Err(format!("not two streaming replicas: {members:?}"));
        }
        if members.iter().any(|member| member.system_identifier != leader.system_identifier) {
            return Err(format!("several system identifiers: {members:?}"));
        }
        let initialize = self.key("/service/demo/initialize");
        if initialize != leader.system_identifier {
            return Err(format!("etcd names {initialize}, the members are {members:?}"));
        }
        let key = self.key("/service/demo/leader");
        if key != leader.host {
            return Err(format!("etcd's leader is {key}, PostgreSQL's {}", leader.host));
        }
        Ok(Healthy(members))
    }

    /// Asserts that the cluster is healthy now.
    #[track_caller]
    pub fn assert_healthy(&self) -> Healthy {
        self.healthy().unwrap_or_else(|why| panic!("not healthy: {why}"))
    }

    /// Waits until a cluster that was just booted is healthy.
    pub fn wait_healthy(&self) -> Healthy {
        until("a healthy cluster", || self.healthy())
    }

    /// Waits until etcd's members and both balancers serve, and Patroni's members tell one timeline: a cluster can be healthy
    /// before, where booting has moved the lead.
    pub fn wait_served(&self) {
        let members = &format!("{ETCDCTL} endpoint health 2>&1");
        let virtual_address = "timeout 2 bash -c 'exec 3<>/dev/tcp/198.18.0.100/5000'";
        until("etcd's members and the balancers", || {
            let answers = self.each(&PROMOTERS, members).into_iter();
            answers.chain(self.each(&["lb1", "lb2"], virtual_address)).try_for_each(|answer| answer.map(drop))
        });
        // The keys may still tell what was true when they were saved: each Patroni is asked itself.
        let told = |host: &&str| {
            let own: Value =
                serde_json::from_str(&self.rest(host, "GET", "/patroni", "")?).unwrap_or_default();
            own["timeline"].as_u64().ok_or_else(|| format!("{host}: {own}"))
        };
        until("one timeline", || {
            let told: Vec<u64> = PROMOTERS.iter().map(told).collect::<Result<_, _>>()?;
            if told.iter().all(|own| *own == told[0]) {
                return Ok(());
            }
            // Patroni looks at its next turn, up to 10 s later; asking starts three Pythons.
            std::thread::sleep(Duration::from_secs(1));
            Err(format!("{told:?}"))
        });
    }

    /// Waits until a broken cluster that was just booted has its leader; gives the broken replica's name.
    pub fn wait_broken(&self) -> String {
        let odd = self.on_all(&format!("test -d {DATA}.before-break && hostname || true"));
        until("the leader", || {
            let leader = self.key_if("/service/demo/leader").unwrap_or_default();
            let recovery = "cd / && runuser -u postgres -- psql -XqAtc 'select pg_is_in_recovery()'";
            let serves = !leader.is_empty() && self.try_on(&leader, recovery) == Ok("f".to_owned());
            if serves { Ok(()) } else { Err(format!("leader `{leader}`")) }
        });
        odd.into_values().find(|name| !name.is_empty()).unwrap()
    }

    /// A script on each of the cluster's hosts.
    pub fn on_all(&self, script: &str) -> BTreeMap<String, String> {
        let answers = self.each(&PROMOTERS, script);
        let told = |(host, answer): (&&str, Result<String, String>)| {
            ((*host).to_owned(), answer.unwrap_or_else(|error| panic!("on {host}: {script}\n{error}")))
        };
        PROMOTERS.iter().zip(answers).map(told).collect()
    }

    /// A key's value in etcd; empty where it isn't there.
    pub fn key(&self, key: &str) -> String {
        self.on("patroni1", &format!("{ETCDCTL} get --print-value-only {key}"))
    }

    pub fn key_if(&self, key: &str) -> Result<String, String> {
        self.try_on("patroni1", &format!("{ETCDCTL} get --print-value-only {key}"))
    }

    pub fn put_key(&self, key: &str, value: &str) {
        self.on("patroni1", &format!("{ETCDCTL} put {key} {value}"));
    }

    /// What stands on the hosts and in etcd before a recovery.
    pub fn before(&self, broken: Option<&str>) -> Before {
        let leader = self.key("/service/demo/leader");
        Before {
            identifiers: self.identifiers(DATA),
            table: self.sql(&leader, "select pg_relation_filepath('accounts')"),
            broken: broken.map(str::to_owned),
        }
    }

    /// The system identifier in each host's directory, by pg_controldata.
    fn identifiers(&self, directory: &str) -> BTreeMap<String, String> {
        self.on_all(&format!(
            "cd /usr/lib/postgresql/[0-9]*/bin && ./pg_controldata -D {directory} | sed -n 's/^Database system identifier: *//p'"
        ))
    }

    /// Where each host's old data directory is. Fails unless there is exactly one.
    #[track_caller]
    pub fn set_aside(&self) -> BTreeMap<String, String> {
        let all = self.on_all(&format!("ls -d {DATA}.set-aside-* | grep -v '[.]json$' || true"));
        for (host, found) in &all {
            assert_eq!(found.lines().count(), 1, "old data directories on {host}: {found}");
        }
        all
    }

    /// Asserts the end that every recovery must come to, however often it was interrupted: a healthy
    /// cluster under a new identifier, and every old data directory beside it, once, whole.
    #[track_caller]
    pub fn assert_recovered(&self, before: &Before) -> Healthy {
        let healthy = self.assert_healthy();
        self.set_aside();
        assert_eq!(self.identifiers(&format!("{DATA}.set-aside-*/.")), before.identifiers);
        assert!(!before.identifiers.values().any(|old| old == healthy.system_identifier()));
        let last_row = format!("grep -acF 'customer {ROWS}' {DATA}.set-aside-*/{} || true", before.table);
        for (host, lines) in self.on_all(&last_row) {
            let has_rows = lines.parse::<u32>().is_ok_and(|lines| lines > 0);
            assert_eq!(
                has_rows,
                before.broken.as_ref() != Some(&host),
                "rows in the old directory on {host}: {lines}"
            );
        }
        let units = self.on_all("systemctl is-enabled patroni.service; systemctl is-active patroni.service");
        assert!(units.values().all(|unit| unit == "enabled\nactive"), "{units:?}");
        let locks = self.on_all("cat /var/lib/flow/lock 2>/dev/null || true");
        assert!(locks.values().all(String::is_empty), "locks are left: {locks:?}");
        healthy
    }

    /// What must be as it was where something was refused: processes, data, keys, configuration, locks.
    /// Of a broken replica, whose Patroni is started again and again, only what lies on its disk.
    pub fn footprint(&self, broken: Option<&str>) -> Footprint {
        let script = format!(
            "systemctl show -p MainPID,InvocationID,UnitFileState patroni.service etcd.service; \
             head -n1 {DATA}/postmaster.pid; ls -d {DATA}*; \
             stat -c '%n %i %y' /etc/patroni/config.yml /etc/default/etcd /etc/systemd/system/patroni.service \
                 /etc/postgresql-common/createcluster.conf 2>&1; stat -c %i {DATA}; \
             test ! -e /var/lib/flow/lock || echo locked"
        );
        let mut hosts = self.on_all(&script);
        let keys = self.on("patroni1", &format!("{ETCDCTL} get --prefix / --keys-only"));
        // Patroni writes `history` in a turn of its own some time after it came up, whoever looks.
        let counts = |key: &&str| !key.is_empty() && !key.ends_with("/history");
        let mut keys: Vec<String> = keys.lines().filter(counts).map(str::to_owned).collect();
        if let Some(broken) = broken
            && let Some(seen) = hosts.get_mut(broken)
        {
            let on_disk = |line: &&str| !line.contains("MainPID") && !line.contains("InvocationID");
            *seen = seen.lines().filter(on_disk).collect::<Vec<_>>().join("\n");
            keys.retain(|key| !key.ends_with(&format!("/members/{broken}")));
        }
        Footprint { hosts, keys }
    }

    /// Patroni's dynamic configuration, from the leader's REST API.
    pub fn dynamic_configuration(&self, host: &str) -> Value {
        let body = self.rest(host, "GET", "/config", "").unwrap();
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Goes on with an operator's run until it ends well.
    #[track_caller]
    pub fn assert_resumes(&self, operator: &super::Operator, before: &Before) -> Done {
        let done = operator.resume().wait().ended(0);
        self.assert_recovered(before);
        done
    }
}

/// What [`Lab::footprint`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    hosts: BTreeMap<String, String>,
    keys: Vec<String>,
}
