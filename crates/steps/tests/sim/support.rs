//! Worlds, and short forms of calls.

use std::sync::Arc;
use std::time::Duration;

use flow_core::run::{RunId, TaskName};
use flow_core::step::Attempt;
use flow_steps::clients::{EtcdEndpoint, HttpRequest};
use flow_steps::host::sim::{Release, SimWorld};
use flow_steps::host::{Command, Content, Host, HostChange, LockClaim, Ownership, UnitVerb};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const NODES: [&str; 3] = ["patroni1", "patroni2", "patroni3"];
pub(crate) const DATA: &str = "/var/lib/postgresql/15/main";

pub(crate) fn attempt(number: u32, epoch: u64) -> Attempt {
    Attempt { run: RunId::from_text("run1"), task: TaskName::from_text("step@host"), number, epoch }
}

pub(crate) fn by() -> Attempt {
    attempt(1, 1)
}

pub(crate) fn claim(run: &str, owner: &str, epoch: u64) -> LockClaim {
    LockClaim {
        run: run.to_owned(),
        workflow: "test".to_owned(),
        owner: owner.to_owned(),
        epoch,
        since: jiff::Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn bare(release: Release) -> (TempDir, SimWorld) {
    let directory = TempDir::new().unwrap();
    let world = SimWorld::create(directory.path().join("world.json"), release, NODES).unwrap();
    (directory, world)
}

pub(crate) async fn locked(world: &SimWorld, name: &str) -> Arc<dyn Host> {
    let host = world.host(name);
    host.lock(&claim("run1", "me", 1)).await.unwrap();
    host
}

pub(crate) fn write(path: &str, text: &str) -> HostChange {
    HostChange::WriteFile {
        path: path.to_owned(),
        content: Content(text.as_bytes().to_vec()),
        ownership: Ownership::default(),
    }
}

pub(crate) fn directory(path: &str) -> HostChange {
    HostChange::MakeDirectory { path: path.to_owned(), ownership: Ownership::default() }
}

pub(crate) async fn unit(host: &Arc<dyn Host>, unit: &str, verb: UnitVerb) {
    host.change(&by(), &HostChange::Unit { unit: unit.to_owned(), verb }).await.unwrap();
}

/// Three nodes, deployed by the verbs that a workflow uses.
pub(crate) async fn deployed(release: Release) -> (TempDir, SimWorld, Vec<Arc<dyn Host>>) {
    let (directory, world) = bare(release);
    let hosts = deploy(&world, release).await;
    (directory, world, hosts)
}

pub(crate) async fn deploy(world: &SimWorld, release: Release) -> Vec<Arc<dyn Host>> {
    let mut hosts = Vec::new();
    for name in NODES {
        let host = locked(world, name).await;
        install(&host, release).await;
        hosts.push(host);
    }
    for service in ["etcd", "patroni"] {
        for host in &hosts {
            for verb in [UnitVerb::Unmask, UnitVerb::Enable, UnitVerb::Start] {
                unit(host, service, verb).await;
            }
        }
    }
    hosts
}

async fn install(host: &Arc<dyn Host>, release: Release) {
    let major = if release == Release::Bookworm { 15 } else { 17 };
    let (name, address) = (host.name(), host.address());
    host.change(&by(), &directory(&format!("/var/lib/postgresql/{major}"))).await.unwrap();
    host.change(&by(), &directory("/etc/postgresql-common")).await.unwrap();
    let no_cluster = write("/etc/postgresql-common/createcluster.conf", "create_main_cluster = false\n");
    host.change(&by(), &no_cluster).await.unwrap();
    unit(host, "etcd", UnitVerb::Mask).await;
    let packages =
        format!("DEBIAN_FRONTEND=noninteractive apt-get install -y etcd-server patroni postgresql-{major}");
    assert_eq!(host.run(&by(), &Command::new(packages)).await.unwrap().code, 0);
    let peer = |(i, name): (usize, &&str)| format!("{name}=http://198.18.0.{}:2380", 11 + i);
    let peers: Vec<String> = NODES.iter().enumerate().map(peer).collect();
    let etcd = format!("ETCD_NAME={name}\nETCD_INITIAL_CLUSTER=\"{}\"\n", peers.join(","));
    host.change(&by(), &write("/etc/default/etcd", &etcd)).await.unwrap();
    let patroni = format!(
        "scope: demo\nname: {name}\nrestapi:\n  listen: 0.0.0.0:8008\n  connect_address: {address}:8008\n\
         etcd3:\n  hosts: 198.18.0.11:2379,198.18.0.12:2379,198.18.0.13:2379\n\
         bootstrap:\n  dcs:\n    ttl: 30\n    postgresql:\n      use_pg_rewind: true\n\
         postgresql:\n  listen: 0.0.0.0:5432\n  connect_address: {address}:5432\n  \
         data_dir: /var/lib/postgresql/{major}/main\n  bin_dir: /usr/lib/postgresql/{major}/bin\n"
    );
    host.change(&by(), &write("/etc/patroni/config.yml", &patroni)).await.unwrap();
}

pub(crate) async fn get(host: &Arc<dyn Host>, path: &str) -> (u16, Value) {
    call(host, "GET", path, None).await
}

pub(crate) async fn call(
    host: &Arc<dyn Host>,
    method: &'static str,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let reply = host.http(&request(host, method, path, body)).await.unwrap();
    (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
}

pub(crate) fn request(
    host: &Arc<dyn Host>,
    method: &'static str,
    path: &str,
    body: Option<Value>,
) -> HttpRequest {
    let (address, path) = (host.address().to_owned(), path.to_owned());
    HttpRequest {
        method,
        address,
        port: 8008,
        path,
        body,
        basic_auth: None,
        tls: None,
        timeout: Duration::from_secs(5),
    }
}

pub(crate) async fn identifier(host: &Arc<dyn Host>) -> String {
    get(host, "/patroni").await.1["database_system_identifier"].as_str().unwrap().to_owned()
}

/// `name role state` of each member that a host's Patroni sees.
pub(crate) async fn members(host: &Arc<dyn Host>) -> Vec<String> {
    let cluster = get(host, "/cluster").await.1;
    let member =
        |m: &Value| ["name", "role", "state"].map(|field| m[field].as_str().unwrap().to_owned()).join(" ");
    cluster["members"].as_array().unwrap().iter().map(member).collect()
}

pub(crate) fn endpoint(address: &str) -> EtcdEndpoint {
    EtcdEndpoint { address: address.to_owned(), port: 2379, tls: None }
}
