//! etcd: which hosts serve the keyspace, its keys, and a client of it.
//!
//! One keyspace for the world. A host is a member once its etcd was started with an
//! `initial-cluster`; as with the real one, what its data directory says wins over the file from then
//! on. An etcd started without one, as a package does, is a cluster of its own without keys.

use async_trait::async_trait;

use super::error::failed;
use super::state::{EtcdState, Release, StoredKey, WorldState};
use super::world::SimWorld;
use crate::clients::{Condition, Etcd, EtcdEndpoint, EtcdError, EtcdKey, EtcdMember, EtcdStatus, NoEtcd};
use crate::host::Ownership;

/// etcd's unit.
pub(super) const UNIT: &str = "etcd.service";
const MEMBER_ID: u64 = 0x8e9e_05c5_2164_694d;

/// A setting, from wherever Debian's unit or a drop-in has it: `ETCD_X=v`, or `x: v` of a YAML file.
fn setting(world: &WorldState, host: &str, name: &str) -> Option<String> {
    let files = &world.host(host).ok()?.files;
    let mut paths = vec!["/etc/default/etcd".to_owned()];
    for directory in ["/etc/etcd", "/etc/systemd/system/etcd.service.d"] {
        paths.extend(files.list(directory).into_iter().flatten().map(|file| format!("{directory}/{file}")));
    }
    paths.push("/etc/systemd/system/etcd.service".to_owned());
    let variable = format!("ETCD_{}=", name.replace('-', "_").to_uppercase());
    let yaml = format!("{name}:");
    let value = |line: &str| {
        let line = line.trim().trim_start_matches("Environment=").trim_matches(['"', '\'']);
        let value = line.strip_prefix(&variable).or_else(|| line.strip_prefix(&yaml))?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    };
    paths.iter().filter_map(|path| files.text(path)).find_map(|text| text.lines().find_map(value))
}

/// The file that stands for the data of a member: the names of its cluster's hosts.
fn data_file(world: &WorldState, host: &str) -> String {
    let directory = setting(world, host, "data-dir").unwrap_or_else(|| "/var/lib/etcd/default".to_owned());
    format!("{directory}/member/cluster")
}

/// The hosts of the cluster that this host's data belongs to.
fn cluster_of(world: &WorldState, host: &str) -> Vec<String> {
    let text = world.host(host).ok().and_then(|state| state.files.text(&data_file(world, host)));
    text.into_iter().flat_map(|text| text.split(',')).map(str::to_owned).collect()
}

/// The unit has started: without data, its settings decide which cluster it is of.
pub(super) fn started(world: &mut WorldState, host: &str) -> Result<(), String> {
    let path = data_file(world, host);
    if world.host(host)?.files.exists(&path) {
        return Ok(());
    }
    let initial = setting(world, host, "initial-cluster").unwrap_or_default();
    let member = |entry: &str| {
        let url = entry.split_once('=')?.1;
        let address = url.split("//").nth(1)?.rsplit_once(':')?.0;
        let known = world.hosts.iter().find(|(name, h)| h.address == address || name.as_str() == address);
        known.map(|(name, _)| name.clone())
    };
    let mut cluster: Vec<String> = initial.split(',').filter_map(member).collect();
    if cluster.is_empty() {
        cluster.push(host.to_owned());
    }
    let has_data = |name: &String| world.host(name).is_ok_and(|h| h.files.exists(&data_file(world, name)));
    if cluster.len() > 1 && !cluster.iter().any(has_data) {
        world.etcd.keys.clear();
        world.etcd.leases.clear();
    }
    let directory = path.trim_end_matches("/cluster").to_owned();
    let files = &mut world.host_mut(host)?.files;
    let owner = |mode| Ownership { owner: Some("etcd".into()), group: Some("etcd".into()), mode: Some(mode) };
    files.make_directory(directory.trim_end_matches("/member"), &owner(0o700))?;
    files.make_directory(&directory, &owner(0o700))?;
    files.write(&path, cluster.join(","), &owner(0o600))
}

/// Whether an etcd answers on this host.
fn up(world: &WorldState, host: &str) -> bool {
    world.host(host).is_ok_and(|h| h.powered && h.units.get(UNIT).is_some_and(|unit| unit.running()))
}

/// Whether more than half of the host's cluster is up and can talk to each other.
pub(super) fn quorum(world: &WorldState, host: &str) -> bool {
    let cluster = cluster_of(world, host);
    let alive = |name: &&String| {
        up(world, name)
            && cluster_of(world, name) == cluster
            && (name.as_str() == host || world.host(name).is_ok_and(|h| h.connected()))
    };
    let connected = world.host(host).is_ok_and(|h| h.connected());
    let alive = if connected { cluster.iter().filter(alive).count() } else { 1 };
    up(world, host) && cluster.len() > 1 && alive * 2 > cluster.len()
}

/// Whether the keyspace can be read and written by way of this endpoint.
pub(super) fn serves(world: &WorldState, from: &str, address: &str) -> bool {
    world.reach(from, address).is_some_and(|host| quorum(world, host))
}

/// Leases whose holder is gone end, and their keys with them. True: something changed.
pub(super) fn settle(world: &mut WorldState) -> bool {
    let ended: Vec<i64> = world
        .etcd
        .leases
        .iter()
        .filter(|(_, host)| !super::patroni::alive(world, host))
        .map(|(id, _)| *id)
        .collect();
    if ended.is_empty() || !world.hosts.keys().any(|host| quorum(world, host)) {
        return false;
    }
    world.etcd.leases.retain(|id, _| !ended.contains(id));
    world.etcd.revision += 1;
    world.etcd.keys.retain(|_, key| !ended.contains(&key.lease));
    true
}

impl EtcdState {
    /// A key's text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(|stored| stored.value.as_str())
    }

    /// Writes a key.
    pub fn put(&mut self, key: &str, value: &str, lease: i64) {
        self.revision += 1;
        let stored = StoredKey { value: value.to_owned(), mod_revision: self.revision, lease };
        self.keys.insert(key.to_owned(), stored);
    }

    /// Deletes a key. False: it wasn't there.
    pub fn delete(&mut self, key: &str) -> bool {
        let there = self.keys.remove(key).is_some();
        self.revision += i64::from(there);
        there
    }

    /// The lease of a host's Patroni, granted where it has none.
    pub(super) fn lease(&mut self, host: &str) -> i64 {
        if let Some((id, _)) = self.leases.iter().find(|(_, holder)| holder.as_str() == host) {
            return *id;
        }
        self.revision += 1;
        let id = 0x6946_0000_0000 + self.revision;
        self.leases.insert(id, host.to_owned());
        id
    }

    fn list(&self, prefix: &str) -> Vec<EtcdKey> {
        let range = self.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let key = |(key, stored): (&String, &StoredKey)| EtcdKey {
            key: key.clone(),
            value: stored.value.clone(),
            mod_revision: stored.mod_revision,
            lease: stored.lease,
        };
        range.map(key).collect()
    }
}

/// A client of one member.
pub(super) struct SimEtcd {
    pub(super) world: SimWorld,
    pub(super) from: String,
    pub(super) endpoint: EtcdEndpoint,
}

impl SimEtcd {
    /// The host that answers there.
    fn member(&self, world: &WorldState) -> Result<String, EtcdError> {
        let refused = || {
            let place = format!("{}:{}", self.endpoint.address, self.endpoint.port);
            EtcdError::new(NoEtcd::Silent, failed(&self.from, format!("etcd {place}: connection refused")))
        };
        let host = world.reach(&self.from, &self.endpoint.address).filter(|host| up(world, host));
        host.filter(|_| self.endpoint.port == 2379).map(str::to_owned).ok_or_else(refused)
    }

    /// The keyspace, where that member can serve it.
    fn keyspace(&self, world: &WorldState) -> Result<String, EtcdError> {
        let host = self.member(world)?;
        if cluster_of(world, &host).len() > 1 && !quorum(world, &host) {
            let why = failed(&self.from, format!("etcd {}: request timed out", self.endpoint.address));
            return Err(EtcdError::new(NoEtcd::NoQuorum, why));
        }
        Ok(host)
    }
}

#[async_trait]
impl Etcd for SimEtcd {
    async fn keys(&self, prefix: &str) -> Result<Vec<EtcdKey>, EtcdError> {
        let look = |world: &WorldState| {
            let host = self.keyspace(world)?;
            Ok(if quorum(world, &host) { world.etcd.list(prefix) } else { Vec::new() })
        };
        self.world.look(&self.from, &format!("etcd keys {prefix}"), look).await
    }

    async fn delete_prefix(&self, prefix: &str, expected: &[EtcdKey]) -> Result<Condition, EtcdError> {
        let text = format!("etcd delete-prefix {prefix}");
        let act = |world: &mut WorldState| {
            self.keyspace(world)?;
            let now = |key: &EtcdKey| world.etcd.keys.get(&key.key).map(|stored| stored.mod_revision);
            if expected.iter().any(|key| now(key) != Some(key.mod_revision)) {
                return Ok(Condition::Broken);
            }
            let doomed = world.etcd.list(prefix);
            for key in &doomed {
                world.etcd.keys.remove(&key.key);
            }
            if !doomed.is_empty() {
                world.etcd.revision += 1;
                world.count(&self.from, "etcd", &text, None);
            }
            Ok(Condition::Held(i64::try_from(doomed.len()).unwrap_or(i64::MAX)))
        };
        self.world.act(&self.from, &text, act).await
    }

    async fn put_if(
        &self,
        key: &str,
        value: &str,
        mod_revision: i64,
        forget: &[String],
    ) -> Result<Condition, EtcdError> {
        let text = format!("etcd put {key}");
        let act = |world: &mut WorldState| {
            self.keyspace(world)?;
            if world.etcd.keys.get(key).map_or(0, |stored| stored.mod_revision) != mod_revision {
                return Ok(Condition::Broken);
            }
            world.etcd.put(key, value, 0);
            for forgotten in forget {
                world.etcd.delete(forgotten);
            }
            world.count(&self.from, "etcd", &text, None);
            Ok(Condition::Held(1))
        };
        self.world.act(&self.from, &text, act).await
    }

    async fn put_all_if_absent(
        &self,
        prefix: &str,
        keys: &[(String, String)],
    ) -> Result<Condition, EtcdError> {
        let text = format!("etcd put-all {prefix}");
        let act = |world: &mut WorldState| {
            self.keyspace(world)?;
            if !world.etcd.list(prefix).is_empty() {
                return Ok(Condition::Broken);
            }
            for (key, value) in keys {
                world.etcd.put(key, value, 0);
            }
            world.count(&self.from, "etcd", &text, None);
            Ok(Condition::Held(i64::try_from(keys.len()).unwrap_or(i64::MAX)))
        };
        self.world.act(&self.from, &text, act).await
    }

    async fn status(&self) -> Result<EtcdStatus, EtcdError> {
        let look = |world: &WorldState| {
            let host = self.member(world)?;
            let cluster = cluster_of(world, &host);
            let solo = cluster.len() == 1;
            let leader = cluster.iter().find(|name| solo || quorum(world, name));
            let has_leader = solo || quorum(world, &host);
            let version = match world.settings.release {
                Release::Bookworm => "3.4.23",
                Release::Trixie => "3.5.16",
            };
            let mut errors = world.etcd.alarms.clone();
            if !has_leader {
                errors.push("etcdserver: no leader".to_owned());
            }
            Ok(EtcdStatus {
                version: version.to_owned(),
                leader: leader.filter(|_| has_leader).map_or(0, |name| member_id(world, name)),
                member: member_id(world, &host),
                db_size: 20480,
                errors,
            })
        };
        self.world.look(&self.from, "etcd status", look).await
    }

    async fn members(&self) -> Result<Vec<EtcdMember>, EtcdError> {
        let look = |world: &WorldState| {
            let host = self.keyspace(world)?;
            let member = |name: String| {
                let address = world.hosts.get(&name).map_or(name.as_str(), |h| &h.address);
                let started = world.host(&name).is_ok_and(|h| h.files.exists(&data_file(world, &name)));
                EtcdMember {
                    id: member_id(world, &name),
                    peer_urls: vec![format!("http://{address}:2380")],
                    client_urls: if started { vec![format!("http://{address}:2379")] } else { Vec::new() },
                    name: if started { setting(world, &name, "name").unwrap_or(name) } else { String::new() },
                }
            };
            Ok(cluster_of(world, &host).into_iter().map(member).collect())
        };
        self.world.look(&self.from, "etcd members", look).await
    }
}

fn member_id(world: &WorldState, host: &str) -> u64 {
    MEMBER_ID + world.hosts.get_index_of(host).unwrap_or_default() as u64
}
