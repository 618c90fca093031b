//! etcd: which hosts serve the keyspace, its keys, and a client of it.
//!
//! One keyspace for the world. Who its members are is `etcd_members`' business.

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::error::failed;
use super::etcd_members::{self, Cluster, has_data, host_of_url, setting};
use super::state::{EtcdState, Release, StoredKey, WorldState};
use super::world::SimWorld;
use crate::clients::{
    Condition, Etcd, EtcdAlarm, EtcdAlarmKind, EtcdEndpoint, EtcdError, EtcdKey, EtcdMember, EtcdStatus,
    NoEtcd,
};

/// etcd's unit.
pub(super) const UNIT: &str = "etcd.service";
const MEMBER_ID: u64 = 0x8e9e_05c5_2164_694d;

/// Whether an etcd answers on this host.
pub(super) fn up(world: &WorldState, host: &str) -> bool {
    world.host(host).is_ok_and(|h| h.powered && h.units.get(UNIT).is_some_and(|unit| unit.running()))
}

/// Whether more than half of those who vote in the host's cluster are up and can talk to each other.
pub(super) fn quorum(world: &WorldState, host: &str) -> bool {
    let cluster = Cluster::of(world, host);
    let alive = |name: &&String| {
        up(world, name)
            && Cluster::of(world, name) == cluster
            && (name.as_str() == host || world.host(name).is_ok_and(|h| h.connected()))
    };
    let connected = world.host(host).is_ok_and(|h| h.connected());
    let alive = if connected { cluster.voters.iter().filter(alive).count() } else { 1 };
    up(world, host) && !cluster.alone && alive * 2 > cluster.voters.len()
}

/// Whether the keyspace can be read and written by way of this endpoint.
pub(super) fn serves(world: &WorldState, from: &str, address: &str) -> bool {
    world.reach(from, address).is_some_and(|host| quorum(world, host))
}

/// Members catch up. Leases whose holder is gone end, and their keys with them. True: something changed.
pub(super) fn settle(world: &mut WorldState) -> bool {
    let caught_up = etcd_members::settle(world);
    let ended: Vec<i64> = world
        .etcd
        .leases
        .iter()
        .filter(|(_, host)| !super::patroni::alive(world, host))
        .map(|(id, _)| *id)
        .collect();
    if ended.is_empty() || !world.hosts.keys().any(|host| quorum(world, host)) {
        return caught_up;
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

    /// One change of the members, which all of them learn.
    async fn change_members<T: Send>(
        &self,
        text: &str,
        change: impl FnOnce(&WorldState, &mut Cluster) -> Result<T, String> + Send,
    ) -> Result<T, EtcdError> {
        let act = |world: &mut WorldState| {
            let host = self.keyspace(world)?;
            let mut cluster = Cluster::of(world, &host);
            let done = change(world, &mut cluster).map_err(|why| failed(&self.from, why))?;
            cluster.replicate(world).map_err(|why| failed(&self.from, why))?;
            world.count(&self.from, "etcd", text, None);
            Ok(done)
        };
        self.world.act(&self.from, text, act).await
    }

    /// The keyspace, where that member can serve it.
    fn keyspace(&self, world: &WorldState) -> Result<String, EtcdError> {
        let host = self.member(world)?;
        if !Cluster::of(world, &host).alone && !quorum(world, &host) {
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
            let cluster = Cluster::of(world, &host);
            let leader = cluster.voters.iter().find(|name| cluster.alone || quorum(world, name));
            let has_leader = cluster.alone || quorum(world, &host);
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
                revision: world.etcd.revision,
                learner: cluster.learners.contains(&host),
                errors,
            })
        };
        self.world.look(&self.from, "etcd status", look).await
    }

    async fn alarms(&self) -> Result<Vec<EtcdAlarm>, EtcdError> {
        let look = |world: &WorldState| {
            let host = self.keyspace(world)?;
            let kind = |name: &String| match name.as_str() {
                "NOSPACE" => EtcdAlarmKind::NoSpace,
                "CORRUPT" => EtcdAlarmKind::Corrupt,
                _ => EtcdAlarmKind::Other,
            };
            let alarm = |name| EtcdAlarm { member: member_id(world, &host), kind: kind(name) };
            Ok(world.etcd.alarms.iter().map(alarm).collect())
        };
        self.world.look(&self.from, "etcd alarms", look).await
    }

    async fn snapshot(&self, _limit: u64) -> Result<Vec<u8>, EtcdError> {
        let look = |world: &WorldState| {
            self.keyspace(world)?;
            // A page as bbolt begins with one, the keys in some form, and the sum at the end.
            let mut bytes = vec![0; 16];
            bytes.extend(0xED0C_DAED_u32.to_le_bytes());
            bytes.extend(serde_json::to_vec(&world.etcd.keys).unwrap_or_default());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            let sum = Sha256::digest(&bytes);
            bytes.extend(sum);
            Ok(bytes)
        };
        self.world.look(&self.from, "etcd snapshot", look).await
    }

    async fn members(&self) -> Result<Vec<EtcdMember>, EtcdError> {
        let look = |world: &WorldState| {
            let host = self.keyspace(world)?;
            let cluster = Cluster::of(world, &host);
            let member = |name: &String| {
                let address = world.hosts.get(name).map_or(name.as_str(), |h| &h.address);
                let started = has_data(world, name);
                // One that was added is like the member that tells of it.
                let of = if started { name } else { &host };
                let urls = setting(world, of, "advertise-client-urls").unwrap_or_default();
                let scheme = if urls.starts_with("https://") { "https" } else { "http" };
                EtcdMember {
                    id: member_id(world, name),
                    peer_urls: vec![format!("{scheme}://{address}:2380")],
                    client_urls: if started {
                        vec![format!("{scheme}://{address}:2379")]
                    } else {
                        Vec::new()
                    },
                    // Of one that was added the name is known once it has started.
                    name: if started || !cluster.learners.contains(name) {
                        setting(world, name, "name").unwrap_or_else(|| name.clone())
                    } else {
                        String::new()
                    },
                    learner: cluster.learners.contains(name),
                }
            };
            Ok(cluster.hosts().map(member).collect())
        };
        self.world.look(&self.from, "etcd members", look).await
    }

    async fn member_add_learner(&self, peer_url: &str) -> Result<u64, EtcdError> {
        let change = |world: &WorldState, cluster: &mut Cluster| {
            let host = host_of_url(world, peer_url).ok_or("no such host")?;
            if cluster.has(&host) {
                return Err("etcdserver: Peer URLs already exists".to_owned());
            }
            if !cluster.learners.is_empty() {
                return Err("etcdserver: too many learner members in cluster".to_owned());
            }
            cluster.learners.push(host.clone());
            Ok(member_id(world, &host))
        };
        self.change_members(&format!("etcd member-add {peer_url}"), change).await
    }

    async fn member_promote(&self, id: u64) -> Result<(), EtcdError> {
        let change = |world: &WorldState, cluster: &mut Cluster| {
            let at = cluster.learners.iter().position(|name| member_id(world, name) == id);
            let at = at.ok_or("etcdserver: can only promote a learner member")?;
            if !up(world, &cluster.learners[at]) || Cluster::of(world, &cluster.learners[at]) != *cluster {
                return Err(
                    "etcdserver: can only promote a learner member which is in sync with leader".to_owned()
                );
            }
            let promoted = cluster.learners.remove(at);
            cluster.voters.push(promoted);
            Ok(())
        };
        self.change_members("etcd member-promote", change).await
    }

    async fn member_remove(&self, id: u64) -> Result<(), EtcdError> {
        let change = |world: &WorldState, cluster: &mut Cluster| {
            let stays = |name: &String| member_id(world, name) != id;
            let before = cluster.hosts().count();
            cluster.voters.retain(stays);
            cluster.learners.retain(stays);
            let found = cluster.hosts().count() < before;
            found.then_some(()).ok_or_else(|| "etcdserver: member not found".to_owned())
        };
        self.change_members("etcd member-remove", change).await
    }
}

fn member_id(world: &WorldState, host: &str) -> u64 {
    MEMBER_ID + world.hosts.get_index_of(host).unwrap_or_default() as u64
}
