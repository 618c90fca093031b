//! Thousands of generated worlds in which each member's rows are known: whatever befell the members, the judgement never keeps
//! one, and never gives one up, while another has a row that the kept one lacks.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::tests::{key, node, report};
use super::{Cluster, Configuration, Data, Keys, Node, Record, Store, Verdict, Wish, judge, judge_for};
use crate::postgres::{Fork, Lsn};

const WORLDS: u64 = 20_000;

/// A data directory as it is, known to nobody but the test. A record's number is the same wherever it was copied to.
#[derive(Clone, PartialEq)]
struct Truth {
    identifier: u64,
    timeline: u32,
    forks: Vec<(u32, usize)>,
    wal: Vec<(u64, bool)>,
    primary: bool,
    crashed: bool,
}

impl Truth {
    fn rows(&self) -> BTreeSet<u64> {
        self.wal.iter().filter(|(_, row)| *row).map(|(number, _)| *number).collect()
    }

    /// All of it is a part of the other, on the same way.
    fn is_behind(&self, other: &Self) -> bool {
        other.identifier == self.identifier && other.wal.starts_with(&self.wal)
    }
}

struct World {
    random: StdRng,
    members: Vec<Option<Truth>>,
    numbers: u64,
    clusters: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world =
            Self { random: StdRng::seed_from_u64(seed), members: Vec::new(), numbers: 0, clusters: 0 };
        let first = world.initdb(100);
        let count = world.random.random_range(2..=4);
        world.members = vec![Some(first); count];
        for _ in 0..world.random.random_range(0..14) {
            world.something_happens();
        }
        world
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn record(&mut self, row: bool) -> (u64, bool) {
        self.numbers += 1;
        (self.numbers, row)
    }

    fn initdb(&mut self, made: u64) -> Truth {
        self.clusters += 1;
        let wal = (0..3).map(|_| self.record(false)).collect();
        let identifier = (made << 32) | self.clusters;
        Truth { identifier, timeline: 1, forks: Vec::new(), wal, primary: true, crashed: false }
    }

    fn something_happens(&mut self) {
        let index = self.random.random_range(0..self.members.len());
        let other = self.random.random_range(0..self.members.len());
        match self.random.random_range(0..10) {
            // A clock may be wrong: the new cluster's may be older by its identifier.
            0 => {
                let made = if self.chance(75) { 200 } else { 50 };
                self.members[index] = Some(self.initdb(made));
            }
            1 if self.chance(30) => self.members[index] = None,
            2 => self.promote(index),
            3 | 4 => self.replicate(other, index),
            5 => {
                self.members[index] =
                    self.members[other].clone().map(|copy| Truth { primary: false, ..copy });
            }
            6 => {
                if let Some(member) = &mut self.members[index] {
                    member.crashed = !member.crashed;
                }
            }
            _ => self.write(index),
        }
    }

    fn promote(&mut self, index: usize) {
        let further = self.random.random_range(1..=2);
        let began = self.record(false);
        if let Some(member) = &mut self.members[index] {
            member.forks.push((member.timeline, member.wal.len()));
            member.timeline += further;
            member.wal.push(began);
            member.primary = true;
        }
    }

    fn write(&mut self, index: usize) {
        let Some(member) = &self.members[index] else { return };
        // Somebody may take `standby.signal` away: it then writes on the timeline that it had.
        if !member.primary && self.chance(80) {
            self.promote(index);
        }
        let count = self.random.random_range(1..=3);
        let rows: Vec<_> = (0..count)
            .map(|_| {
                let row = self.chance(50);
                self.record(row)
            })
            .collect();
        if let Some(member) = &mut self.members[index] {
            member.primary = true;
            member.wal.extend(rows);
        }
    }

    /// `to` receives what `from` has, all or a part of it.
    fn replicate(&mut self, from: usize, to: usize) {
        let (Some(source), Some(target)) = (self.members[from].clone(), self.members[to].clone()) else {
            return;
        };
        if !target.is_behind(&source) {
            return;
        }
        let least = target.wal.len().max(source.forks.last().map_or(0, |fork| fork.1 + 1));
        let length = self.random.random_range(least..=source.wal.len());
        let wal = source.wal[..length].to_vec();
        self.members[to] = Some(Truth { wal, primary: false, crashed: false, ..source });
    }

    /// What can be seen of it: less than there is, never more.
    fn seen(&mut self, truth: &Truth) -> Cluster {
        let window = *[usize::MAX, usize::MAX, 6, 3, 0].choose(&mut self.random).unwrap();
        let records = truth.wal.iter().enumerate();
        let mut records: Vec<Record> = records
            .map(|(at, (number, row))| Record {
                at: Lsn(at as u64),
                digest: number.to_string(),
                idle: !row && number % 4 != 0,
            })
            .collect();
        records.drain(..records.len().saturating_sub(window));
        // A crashed member's newest relations may be in its WAL alone.
        let on_disk = !truth.crashed || self.chance(50);
        let user_data = on_disk && !truth.rows().is_empty();
        let forks = truth.forks.iter().map(|&(timeline, at)| Fork { timeline, at: Lsn(at as u64) }).collect();
        Cluster {
            identifier: truth.identifier.to_string(),
            state: match (truth.primary, truth.crashed) {
                (true, true) => "in production",
                (true, false) => "shut down",
                (false, true) => "in archive recovery",
                (false, false) => "shut down in recovery",
            }
            .to_owned(),
            running: if self.chance(95) { Some(false) } else { None },
            timeline: truth.timeline,
            history: if self.chance(95) { Some(forks) } else { None },
            records,
            user_data: if self.chance(95) { Some(user_data) } else { None },
            ..super::tests::cluster("0")
        }
    }

    fn evidence(&mut self) -> IndexMap<String, Node> {
        let hosts: Vec<String> = (1..=self.members.len()).map(|number| format!("p{number}")).collect();
        let leaders: Vec<usize> = match self.random.random_range(0..10) {
            0..4 => Vec::new(),
            4 => (0..2).collect(),
            _ => vec![self.random.random_range(0..self.members.len())],
        };
        let leaders: Vec<usize> =
            leaders.into_iter().filter(|leader| self.members[*leader].is_some()).collect();
        let keys = self.keys(&hosts, &leaders);
        let mut nodes = IndexMap::new();
        let mut streaming = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let truth = self.members[index].clone();
            let mut data = match &truth {
                None => Data::Nothing,
                Some(truth) => Data::Cluster(Box::new(self.seen(truth))),
            };
            let leads = leaders.contains(&index);
            let leader = leaders.first().and_then(|leader| self.members[*leader].clone());
            let follows = !leads
                && truth.as_ref().zip(leader.as_ref()).is_some_and(|(own, leader)| own.is_behind(leader))
                && self.chance(80);
            if let (Data::Cluster(seen), true) = (&mut data, leads || follows) {
                seen.running = Some(true);
                seen.state = if leads { "in production" } else { "in archive recovery" }.to_owned();
            }
            let mut one = node(host, data, &keys);
            if leads {
                one.report = report("leader", &[]);
            } else if follows {
                one.report = report("replica", &[]);
                streaming.push(host.as_str());
            }
            nodes.insert(host.clone(), one);
        }
        for leader in &leaders {
            nodes[hosts[*leader].as_str()].report = report("leader", &streaming);
        }
        for host in &hosts {
            self.hide(&mut nodes[host.as_str()]);
        }
        nodes
    }

    fn keys(&mut self, hosts: &[String], leaders: &[usize]) -> Keys {
        let some = self.members.choose(&mut self.random).unwrap().clone();
        let right = leaders.first().and_then(|leader| self.members[*leader].clone()).or(some);
        let right = right.map(|truth| truth.identifier.to_string());
        let initialize = match self.random.random_range(0..6) {
            0 => None,
            1 => key("", 0),
            2 => key("12345", 0),
            _ => right.and_then(|right| key(&right, 0)),
        };
        let mut members: BTreeMap<String, Option<String>> =
            hosts.iter().map(|host| (host.clone(), None)).collect();
        if self.chance(3) {
            members.insert("stranger".into(), None);
        }
        let leader = leaders.first().filter(|_| self.chance(95)).and_then(|leader| key(&hosts[*leader], 7));
        let sync = if self.chance(10) { vec![hosts[0].clone()] } else { Vec::new() };
        Keys { initialize, leader, members, sync, ..Keys::default() }
    }

    fn hide(&mut self, node: &mut Node) {
        if self.chance(4) {
            *node = Node::unreachable("no route to host");
        } else if self.chance(3) {
            node.configuration = Configuration::Unknown("no such file".into());
        } else if self.chance(3) {
            node.data = Data::Unknown("permission denied".into());
        } else if self.chance(3) {
            node.data = Data::Unreadable("no control file".into());
        }
        if self.chance(5) {
            node.store = Store::Unknown("no quorum".into());
        }
    }

    fn rows(&self, host: &str) -> BTreeSet<u64> {
        let index: usize = host[1..].parse().unwrap();
        self.members[index - 1].as_ref().map(Truth::rows).unwrap_or_default()
    }
}

/// The member whose data the verdict takes for the cluster's.
fn kept(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Healthy { leader }
        | Verdict::KeyGoneLeaderAlive { leader, .. }
        | Verdict::Disposable { leader, .. } => Some(leader),
        Verdict::KeyWrong { keeper, .. } | Verdict::NoMismatch { keeper } => Some(keeper),
        Verdict::Kept { .. } => unreachable!("nobody asked for it"),
        Verdict::Undecided | Verdict::TwoClusters | Verdict::NotSupported => None,
    }
}

#[test]
fn nobody_is_kept_or_given_up_while_another_has_a_row_that_the_kept_one_lacks() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..WORLDS {
        let mut world = World::new(seed);
        let nodes = world.evidence();
        let judgement = judge(&nodes);
        if let Some(kept) = kept(&judgement.verdict) {
            let has = world.rows(kept);
            for host in nodes.keys() {
                let lost: Vec<_> = world.rows(host).difference(&has).copied().collect();
                assert!(lost.is_empty(), "world {seed}: {kept} is kept, {host} has {lost:?}: {judgement:#?}");
            }
        }
        if let Verdict::Disposable { members, .. } = &judgement.verdict {
            for host in members {
                assert!(world.rows(host).is_empty(), "world {seed}: {host} is given up: {judgement:#?}");
            }
        }
        let mut order: Vec<_> = nodes.into_iter().collect();
        order.shuffle(&mut world.random);
        assert_eq!(judge(&order.into_iter().collect()), judgement, "world {seed}: the order of hosts counts");
        *seen.entry(judgement.verdict.name()).or_default() += 1;
    }
    // A judgement that never decides would hold to all that, too.
    for (verdict, least) in [
        ("healthy", 100),
        ("key-gone-leader-alive", 100),
        ("key-wrong", 100),
        ("disposable", 50),
        ("no-mismatch", 100),
        ("two-clusters", 100),
        ("undecided", 1_000),
    ] {
        assert!(seen.get(verdict).is_some_and(|count| *count >= least), "{verdict}: {seen:?}");
    }
}

#[test]
fn whatever_is_kept_each_row_that_it_lacks_is_set_aside_and_none_of_its_own_is() {
    let (mut kept, mut goes_on) = (0, 0);
    for seed in 0..WORLDS / 2 {
        let mut world = World::new(seed);
        let nodes = world.evidence();
        let hosts: Vec<String> = nodes.keys().cloned().collect();
        let host = hosts.choose(&mut world.random).unwrap();
        for again in [false, true] {
            let judgement = judge_for(&nodes, Wish::Keep { host, again });
            let surgery = &judgement.surgery;
            let Verdict::Kept { keeper } = &judgement.verdict else {
                assert!(
                    again || *surgery == judge(&nodes).surgery || surgery.stop.is_empty(),
                    "world {seed}"
                );
                continue;
            };
            kept += 1;
            goes_on += usize::from(surgery.start_first.is_none());
            assert_eq!(keeper, host);
            assert!(!surgery.set_aside.contains(host), "world {seed}: {judgement:#?}");
            let has = world.rows(host);
            for other in hosts.iter().filter(|other| !surgery.set_aside.contains(other)) {
                let lost: Vec<_> = world.rows(other).difference(&has).copied().collect();
                assert!(
                    lost.is_empty(),
                    "world {seed}: {other} stays in place with {lost:?}: {judgement:#?}"
                );
            }
            for other in surgery.set_aside.iter().chain(&surgery.start_first) {
                assert!(surgery.stop.contains(other), "world {seed}: {other} isn't stopped: {judgement:#?}");
            }
            let all_seen = nodes.values().all(|node| node.unreachable.is_none());
            assert!(all_seen, "world {seed}: a host that isn't seen may be writing");
        }
    }
    assert!(kept > 1_000 && goes_on > 100, "{kept} {goes_on}");
}
