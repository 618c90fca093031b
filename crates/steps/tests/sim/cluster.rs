//! etcd and Patroni: what was seen on real hosts happens here too.

use flow_steps::clients::{Condition, SqlTarget};
use flow_steps::host::sim::{CannedSql, Release, ScriptMatch};
use flow_steps::host::{HostChange, HostError, ProcessQuery, UnitVerb};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn three_bare_nodes_become_one_healthy_cluster() {
    for (release, role, state) in
        [(Release::Bookworm, "master", "running"), (Release::Trixie, "primary", "streaming")]
    {
        let (_directory, world, hosts) = deployed(release).await;
        let expected = [
            "patroni1 leader running".to_owned(),
            format!("patroni2 replica {state}"),
            format!("patroni3 replica {state}"),
        ];
        for host in &hosts {
            assert_eq!(members(host).await, expected);
            assert_eq!(identifier(host).await, identifier(&hosts[0]).await);
        }
        assert_eq!(get(&hosts[0], "/patroni").await.1["role"], role);
        assert_eq!(get(&hosts[0], "/config").await.1["postgresql"]["use_pg_rewind"], true);
        for (host, path, status) in [
            (0, "/primary", 200),
            (0, "/replica", 503),
            (1, "/primary", 503),
            (1, "/replica?lag=1MB", 200),
            (1, "/health", 200),
            (1, "/readiness", 200),
            (1, "/nonsense", 503),
        ] {
            assert_eq!(get(&hosts[host], path).await.0, status, "{path}");
        }
        let state = world.state().unwrap();
        assert_eq!(state.etcd.get("/service/demo/initialize"), Some(identifier(&hosts[0]).await.as_str()));
        assert_eq!(state.etcd.get("/service/demo/leader"), Some("patroni1"));
    }
}

#[tokio::test]
async fn looking_at_everything_changes_nothing() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    let before = std::fs::read(world.path()).unwrap();
    for host in &hosts {
        members(host).await;
        host.unit("patroni").await.unwrap();
        host.processes(&ProcessQuery::default()).await.unwrap();
        host.etcd(&endpoint("127.0.0.1")).await.unwrap().members().await.unwrap();
    }
    assert_eq!(std::fs::read(world.path()).unwrap(), before);
}

#[tokio::test]
async fn a_replica_with_a_new_initdb_restarts_in_a_loop_and_says_why() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    let good = identifier(&hosts[0]).await;
    unit(&hosts[2], "patroni", UnitVerb::Stop).await;
    world.initdb("patroni3", DATA).unwrap();
    unit(&hosts[2], "patroni", UnitVerb::Start).await;
    let state = hosts[2].unit("patroni").await.unwrap();
    assert_eq!((state.active.as_str(), state.sub.as_str()), ("activating", "auto-restart"));
    let log = hosts[2].probe("journalctl -u patroni").await.unwrap().text();
    let line =
        format!("CRITICAL: system ID mismatch, node patroni3 belongs to a different cluster: {good} != ");
    assert!(log.contains(&line), "{log}");
    assert!(hosts[2].http(&request(&hosts[2], "GET", "/patroni", None)).await.is_err());
    assert_eq!(members(&hosts[0]).await.len(), 2);
}

#[tokio::test]
async fn a_cluster_that_is_reset_comes_back_empty_beside_its_old_data() {
    let (_directory, _world, hosts) = deployed(Release::Bookworm).await;
    let old = identifier(&hosts[0]).await;
    let (status, patched) = call(&hosts[0], "PATCH", "/config", Some(json!({ "ttl": 45 }))).await;
    assert_eq!((status, &patched["ttl"]), (200, &json!(45)));
    let mut kept = Vec::new();
    for host in hosts.iter().rev() {
        unit(host, "patroni", UnitVerb::Stop).await;
        unit(host, "patroni", UnitVerb::Mask).await;
        let query = ProcessQuery { directory: Some(DATA.into()), ..ProcessQuery::default() };
        assert_eq!(host.processes(&query).await.unwrap(), []);
        assert_eq!(host.unit("patroni").await.unwrap().processes, [] as [u32; 0]);
        kept.push(host.stat(DATA).await.unwrap().unwrap().inode);
        let aside = HostChange::Rename { from: DATA.into(), to: format!("{DATA}.aside") };
        host.change(&by(), &aside).await.unwrap();
    }
    let etcd = hosts[0].etcd(&endpoint("198.18.0.12")).await.unwrap();
    let keys = etcd.keys("/service/demo/").await.unwrap();
    assert!(keys.iter().any(|key| key.key == "/service/demo/initialize" && key.value == old));
    assert!(keys.iter().all(|key| !key.key.contains("members")), "leases end with their Patroni: {keys:?}");
    let count = i64::try_from(keys.len()).unwrap();
    assert_eq!(etcd.delete_prefix("/service/demo/", &keys).await.unwrap(), Condition::Held(count));
    for host in &hosts {
        unit(host, "patroni", UnitVerb::Unmask).await;
        unit(host, "patroni", UnitVerb::Start).await;
    }
    let new = identifier(&hosts[0]).await;
    assert_ne!(new, old);
    for (host, inode) in hosts.iter().rev().zip(kept) {
        assert_eq!(identifier(host).await, new);
        assert_eq!(host.stat(&format!("{DATA}.aside")).await.unwrap().unwrap().inode, inode);
        let control = host.probe(&format!("pg_controldata {DATA}.aside")).await.unwrap().text();
        assert!(control.contains(&old), "{control}");
    }
    assert_eq!(members(&hosts[1]).await.len(), 3);
    assert_eq!(get(&hosts[1], "/config").await.1["ttl"], 30, "the patch was in the old data only");
}

#[tokio::test]
async fn queries_about_the_server_are_answered_and_others_only_from_the_table() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    let target = |address: &str| SqlTarget {
        address: address.to_owned(),
        port: 5432,
        user: "postgres".into(),
        password: None,
        database: "postgres".into(),
        tls: None,
    };
    let primary = hosts[1].sql(&target("198.18.0.11")).await.unwrap();
    let replica = hosts[1].sql(&target("/var/run/postgresql")).await.unwrap();
    assert_eq!(primary.query("SELECT count(*) FROM pg_stat_replication;").await.unwrap()[0]["count"], "2");
    let rows = primary.query("select system_identifier from pg_control_system()").await.unwrap();
    assert_eq!(rows[0]["system_identifier"], identifier(&hosts[0]).await);
    for (connection, expected) in [(&primary, "f"), (&replica, "t")] {
        assert_eq!(connection.query("select pg_is_in_recovery() as r").await.unwrap()[0]["r"], expected);
    }
    assert!(primary.query("select now()").await.unwrap_err().to_string().contains("no answer"));
    let query = ScriptMatch::Exact("select now()".into());
    world.rows(CannedSql { host: None, query, result: Ok(vec![]) }).unwrap();
    assert!(primary.query("select now()").await.unwrap().is_empty());
    unit(&hosts[0], "patroni", UnitVerb::Stop).await;
    assert!(primary.query("select 1").await.unwrap_err().to_string().contains("refused"));
}

#[tokio::test]
async fn after_a_purge_the_first_to_start_decides_whose_data_is_the_cluster() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    let good = identifier(&hosts[0]).await;
    for host in hosts.iter().rev() {
        unit(host, "patroni", UnitVerb::Stop).await;
    }
    world.initdb("patroni3", DATA).unwrap();
    let etcd = hosts[0].etcd(&endpoint("127.0.0.1")).await.unwrap();
    etcd.delete_prefix("/service/demo/", &[]).await.unwrap();
    for host in hosts.iter().rev() {
        unit(host, "patroni", UnitVerb::Start).await;
    }
    assert_ne!(identifier(&hosts[2]).await, good);
    assert_eq!(hosts[0].unit("patroni").await.unwrap().sub, "auto-restart");
}

#[tokio::test]
async fn a_purge_under_a_live_leader_is_written_back_from_its_data_directory() {
    let (_directory, _world, hosts) = deployed(Release::Bookworm).await;
    let good = identifier(&hosts[0]).await;
    call(&hosts[0], "PATCH", "/config", Some(json!({ "ttl": 45 }))).await;
    let etcd = hosts[0].etcd(&endpoint("127.0.0.1")).await.unwrap();
    etcd.delete_prefix("/service/demo/", &[]).await.unwrap();
    assert_eq!(identifier(&hosts[0]).await, good);
    assert_eq!(get(&hosts[2], "/config").await.1["ttl"], 45);
    assert_eq!(members(&hosts[0]).await.len(), 3);
}

#[tokio::test]
async fn a_wrong_initialize_key_ends_every_member_and_the_right_one_brings_them_back() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    let good = identifier(&hosts[0]).await;
    world.edit(|state| state.etcd.put("/service/demo/initialize", "7", 0)).unwrap();
    for host in &hosts {
        assert_eq!(host.unit("patroni").await.unwrap().sub, "auto-restart");
    }
    let etcd = hosts[0].etcd(&endpoint("127.0.0.1")).await.unwrap();
    let key = "/service/demo/initialize";
    let revision = etcd.keys(key).await.unwrap()[0].mod_revision;
    assert_eq!(etcd.put_if(key, &good, revision - 1, &[]).await.unwrap(), Condition::Broken);
    assert_eq!(etcd.put_if(key, &good, revision, &[]).await.unwrap(), Condition::Held(1));
    assert_eq!(identifier(&hosts[0]).await, good);
    assert_eq!(members(&hosts[0]).await.len(), 3);
}

#[tokio::test]
async fn when_the_leader_stops_or_is_cut_off_a_replica_takes_over() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    unit(&hosts[0], "patroni", UnitVerb::Stop).await;
    assert_eq!(members(&hosts[1]).await[0], "patroni2 leader running");
    assert_eq!(get(&hosts[1], "/patroni").await.1["timeline"], 2);
    unit(&hosts[0], "patroni", UnitVerb::Start).await;
    world.cut("patroni2").unwrap();
    assert!(matches!(hosts[1].stat("/").await, Err(HostError::Unreachable { .. })));
    assert_eq!(get(&hosts[0], "/leader").await.0, 200);
    world.heal("patroni2").unwrap();
    assert_eq!(get(&hosts[1], "/replica").await.0, 200);
    let body = json!({ "leader": "patroni1", "candidate": "patroni3" });
    assert_eq!(call(&hosts[0], "POST", "/switchover", Some(body)).await.0, 200);
    assert_eq!(get(&hosts[2], "/primary").await.0, 200);
}

#[tokio::test]
async fn without_a_majority_of_etcd_no_key_is_read_and_no_primary_is_left() {
    let (_directory, world, hosts) = deployed(Release::Bookworm).await;
    for name in ["patroni2", "patroni3"] {
        world.kill(name).unwrap();
    }
    let etcd = hosts[0].etcd(&endpoint("127.0.0.1")).await.unwrap();
    assert!(etcd.keys("/service/demo/").await.unwrap_err().to_string().contains("timed out"));
    let status = etcd.status().await.unwrap();
    assert_eq!((status.leader, status.errors.len()), (0, 1));
    assert_eq!(get(&hosts[0], "/primary").await.0, 503);
    world.boot("patroni2").unwrap();
    assert_eq!(get(&hosts[0], "/primary").await.0, 200);
    assert_eq!(etcd.status().await.unwrap().leader, etcd.members().await.unwrap()[0].id);
}

#[tokio::test]
async fn a_data_directory_moved_away_under_a_live_patroni_is_cloned_again() {
    let (_directory, _world, hosts) = deployed(Release::Bookworm).await;
    let rename = HostChange::Rename { from: DATA.into(), to: format!("{DATA}.aside") };
    hosts[1].change(&by(), &rename).await.unwrap();
    assert!(hosts[1].stat(&format!("{DATA}/PG_VERSION")).await.unwrap().is_some());
    assert_eq!(identifier(&hosts[1]).await, identifier(&hosts[0]).await);
}

#[tokio::test]
async fn a_paused_patroni_leaves_postgresql_running_when_it_stops() {
    let (_directory, _world, hosts) = deployed(Release::Bookworm).await;
    call(&hosts[0], "PATCH", "/config", Some(json!({ "pause": true }))).await;
    unit(&hosts[2], "patroni", UnitVerb::Stop).await;
    let state = hosts[2].unit("patroni").await.unwrap();
    assert_eq!(state.active, "inactive");
    assert!(!state.processes.is_empty(), "the unit's control group still holds PostgreSQL");
    let query = ProcessQuery { directory: Some(DATA.into()), ..ProcessQuery::default() };
    assert!(!hosts[2].processes(&query).await.unwrap().is_empty());
}
