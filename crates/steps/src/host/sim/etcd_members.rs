//! etcd's members: what a host's data says of its cluster, and how that changes.
//!
//! A host is a member once its etcd was started with an `initial-cluster`; as with the real one, what its data
//! directory says wins over the file from then on. One that was stopped while the members changed catches up
//! once it is back, and one that was removed meanwhile ends. An etcd started without a cluster, as a package does, is one
//! of its own without keys.

use super::etcd::{quorum, up};
use super::state::WorldState;
use super::{etcd, units};
use crate::host::Ownership;

/// A setting, from wherever Debian's unit or a drop-in has it: `ETCD_X=v`, or `x: v` of a YAML file. What is
/// given for a single boot goes first.
pub(super) fn setting(world: &WorldState, host: &str, name: &str) -> Option<String> {
    let files = &world.host(host).ok()?.files;
    let variable = format!("ETCD_{}=", name.replace('-', "_").to_uppercase());
    let yaml = format!("{name}:");
    let value = |line: &str| {
        let line = line.trim().trim_start_matches("Environment=").trim_matches(['"', '\'']);
        let value = line.strip_prefix(&variable).or_else(|| line.strip_prefix(&yaml))?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let in_text = |text: &str| text.lines().find_map(value);
    let below = |directory: &str| {
        let names = files.list(directory).into_iter().flatten();
        names.map(|file| format!("{directory}/{file}")).collect::<Vec<_>>()
    };
    // A drop-in may name a file of variables, which goes before it.
    let in_drop_in = |path: String| {
        let text = files.text(&path)?;
        let named = text
            .lines()
            .find_map(|line| line.strip_prefix("EnvironmentFile="))
            .and_then(|path| files.text(path));
        named.and_then(in_text).or_else(|| in_text(text))
    };
    let once = below("/run/systemd/system/etcd.service.d").into_iter().find_map(in_drop_in);
    let file = |path: &str| in_text(files.text(path)?);
    once.or_else(|| file("/etc/default/etcd"))
        .or_else(|| below("/etc/etcd").iter().find_map(|path| file(path)))
        .or_else(|| below("/etc/systemd/system/etcd.service.d").into_iter().find_map(in_drop_in))
        .or_else(|| file("/etc/systemd/system/etcd.service"))
}

/// The file that stands for a member's data.
fn data_file(world: &WorldState, host: &str) -> String {
    let directory = setting(world, host, "data-dir").unwrap_or_else(|| "/var/lib/etcd/default".to_owned());
    format!("{directory}/member/cluster")
}

/// A cluster, as a member's data has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cluster {
    /// One of its own, as an etcd makes it that was told of no other.
    pub(super) alone: bool,
    /// Hosts that vote.
    pub(super) voters: Vec<String>,
    /// Hosts that only follow.
    pub(super) learners: Vec<String>,
}

const ALONE: &str = "alone:";
const LEARNER: char = '+';

impl Cluster {
    /// What a host's data says; empty where it has none.
    pub(super) fn of(world: &WorldState, host: &str) -> Self {
        let text = world.host(host).ok().and_then(|state| state.files.text(&data_file(world, host)));
        let Some(text) = text else { return Self::default() };
        let (alone, names) = text.strip_prefix(ALONE).map_or((false, text), |names| (true, names));
        let mut cluster = Self { alone, ..Self::default() };
        for name in names.split(',').filter(|name| !name.is_empty()) {
            match name.strip_prefix(LEARNER) {
                Some(learner) => cluster.learners.push(learner.to_owned()),
                None => cluster.voters.push(name.to_owned()),
            }
        }
        cluster
    }

    fn text(&self) -> String {
        let learners = self.learners.iter().map(|name| format!("{LEARNER}{name}"));
        let names: Vec<String> = self.voters.iter().cloned().chain(learners).collect();
        format!("{}{}", if self.alone { ALONE } else { "" }, names.join(","))
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.voters.iter().chain(&self.learners)
    }

    pub(super) fn has(&self, host: &str) -> bool {
        self.hosts().any(|name| name == host)
    }

    /// Makes it the cluster of all its members that are up and have data.
    pub(super) fn replicate(&self, world: &mut WorldState) -> Result<(), String> {
        for name in self.hosts() {
            if up(world, name) && has_data(world, name) {
                self.write(world, name)?;
            }
        }
        Ok(())
    }

    fn write(&self, world: &mut WorldState, host: &str) -> Result<(), String> {
        let path = data_file(world, host);
        let directory = path.trim_end_matches("/cluster").to_owned();
        let files = &mut world.host_mut(host)?.files;
        let owner =
            |mode| Ownership { owner: Some("etcd".into()), group: Some("etcd".into()), mode: Some(mode) };
        files.make_directory(directory.trim_end_matches("/member"), &owner(0o700))?;
        files.make_directory(&directory, &owner(0o700))?;
        files.write(&path, self.text(), &owner(0o600))
    }
}

/// Whether a member was started there and its data is still in place.
pub(super) fn has_data(world: &WorldState, host: &str) -> bool {
    world.host(host).is_ok_and(|state| state.files.exists(&data_file(world, host)))
}

/// The host that a peer's URL leads to.
pub(super) fn host_of_url(world: &WorldState, url: &str) -> Option<String> {
    let address = url.split("//").nth(1)?.rsplit_once(':')?.0;
    let known = world.hosts.iter().find(|(name, host)| host.address == address || name.as_str() == address);
    known.map(|(name, _)| name.clone())
}

/// The unit has started: without data, its settings decide which cluster it is of.
pub(super) fn started(world: &mut WorldState, host: &str) -> Result<(), String> {
    if has_data(world, host) {
        return Ok(());
    }
    let initial = setting(world, host, "initial-cluster").unwrap_or_default();
    let named = |entry: &str| host_of_url(world, entry.split_once('=')?.1);
    let mut voters: Vec<String> = initial.split(',').filter_map(named).collect();
    if setting(world, host, "initial-cluster-state").as_deref() == Some("existing") {
        return joined(world, host, voters);
    }
    let alone = voters.is_empty();
    if alone {
        voters.push(host.to_owned());
    }
    if !alone && !voters.iter().any(|name| has_data(world, name)) {
        world.etcd.keys.clear();
        world.etcd.leases.clear();
    }
    Cluster { alone, voters, learners: Vec::new() }.write(world, host)
}

/// A member that was added before is started for the first time.
fn joined(world: &mut WorldState, host: &str, mut named: Vec<String>) -> Result<(), String> {
    let found =
        named.iter().filter(|name| *name != host && quorum(world, name)).map(|name| Cluster::of(world, name));
    let Some(cluster) = found.into_iter().next() else {
        return Err("cannot fetch cluster info from peer urls".to_owned());
    };
    let mut members: Vec<String> = cluster.hosts().cloned().collect();
    members.sort();
    named.sort();
    if members != named {
        return Err("error validating peerURLs: member count is unequal".to_owned());
    }
    cluster.write(world, host)
}

/// Members that missed a change catch up, and one that was removed ends. True: something changed.
pub(super) fn settle(world: &mut WorldState) -> bool {
    let clusters = || world.hosts.keys().filter(|host| up(world, host)).map(|host| Cluster::of(world, host));
    let mut known = clusters().filter(|cluster| !cluster.alone);
    let Some(first) = known.next() else { return false };
    if known.all(|cluster| cluster == first) && first.hosts().count() == clusters().count() {
        return false;
    }
    let mut changed = false;
    for host in world.host_names() {
        let own = Cluster::of(world, &host);
        if !up(world, &host)
            || own.alone
            || !world.host(&host).is_ok_and(|h| h.connected())
            || quorum(world, &host)
        {
            continue;
        }
        let others = own.hosts().filter(|name| **name != host && quorum(world, name));
        let Some(now) = others.map(|name| Cluster::of(world, name)).find(|now| *now != own) else { continue };
        changed |= match now.has(&host) {
            true => now.write(world, &host).is_ok(),
            false => {
                if let Ok(state) = world.host_mut(&host) {
                    state.log(etcd::UNIT, "the member has been permanently removed from the cluster");
                }
                units::end(world, &host, etcd::UNIT).is_ok()
            }
        };
    }
    changed
}
