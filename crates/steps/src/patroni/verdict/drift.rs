//! What has changed on a host since a judgement was made of it: a pure comparison of two looks.
//!
//! A judgement is true of the moment of its looks. A run that is gone on with an hour later must not act on it.

use super::evidence::{Cluster, Configuration, Data, Keys, Node, Store};

/// What the judgement rested on and isn't so any more; nothing where all of it holds.
///
/// `leader` is the member that led when it was judged: it must still hold the leader's key, with a lease. Without one nobody
/// else may have taken it. `set_aside`: the run itself may have taken the data directory away by now.
pub(in crate::patroni) fn drift(
    seen: &Node,
    now: &Node,
    leader: Option<&str>,
    set_aside: bool,
) -> Vec<String> {
    let mut found = Vec::new();
    configuration(&seen.configuration, &now.configuration, &mut found);
    match (seen.leads(), now.leads()) {
        (true, false) => found.push("its member doesn't lead any more".to_owned()),
        (false, true) => found.push("its member leads now".to_owned()),
        _ => {}
    }
    if !(set_aside && now.data == Data::Nothing) {
        data(&seen.data, &now.data, &mut found);
    }
    match (&seen.store, &now.store) {
        (Store::Keys(seen), Store::Keys(now)) => keys(seen, now, leader, &mut found),
        (Store::Unknown(why) | Store::Silent(_, why), _)
        | (_, Store::Unknown(why) | Store::Silent(_, why)) => {
            found.push(format!("the cluster's keys can't be compared: {why}"));
        }
    }
    found
}

fn configuration(seen: &Configuration, now: &Configuration, found: &mut Vec<String>) {
    match (seen, now) {
        (Configuration::Of(seen), Configuration::Of(now)) => {
            let place = |of: &crate::patroni::settings::Settings| {
                (of.prefix.clone(), of.name.clone(), of.data_dir.clone(), of.endpoints.clone())
            };
            if place(seen) != place(now) {
                found.push("Patroni's configuration names another member, place or store".to_owned());
            }
        }
        _ => found.push("Patroni's configuration can't be read".to_owned()),
    }
}

fn data(seen: &Data, now: &Data, found: &mut Vec<String>) {
    match (seen, now) {
        (Data::Nothing, Data::Nothing) | (Data::Unreadable(_), Data::Unreadable(_)) => {}
        (Data::Cluster(seen), Data::Cluster(now)) => found.extend(cluster(seen, now)),
        (_, Data::Nothing) => found.push("its data directory is gone".to_owned()),
        (Data::Nothing, _) => found.push("it has data now".to_owned()),
        (_, Data::Unknown(why) | Data::Unreadable(why)) => {
            found.push(format!("its data can't be read any more: {why}"));
        }
        _ => found.push("there is other data now".to_owned()),
    }
}

/// A stopped data directory stays as it is to the last record; of a running one only whose it is.
fn cluster(seen: &Cluster, now: &Cluster) -> Option<String> {
    if seen.identifier != now.identifier {
        return Some(format!("its data belongs to {} now, it was {}", now.identifier, seen.identifier));
    }
    if seen.running != Some(false) {
        return None;
    }
    if now.running != Some(false) {
        return Some("a PostgreSQL may run on its data now".to_owned());
    }
    // Every start of PostgreSQL writes the control file.
    let control = |of: &Cluster| (of.state.clone(), of.redo, of.minimum_recovery, of.major.clone());
    if control(seen) != control(now) {
        return Some("a PostgreSQL ran on its data since".to_owned());
    }
    if seen.user_data != now.user_data {
        return Some(match now.user_data {
            Some(true) => "there are relations, tablespaces or databases of users in its data now".to_owned(),
            _ => "the files in its data directory are others than before".to_owned(),
        });
    }
    // A WAL that an attempt of this run has renamed already, and not linked again yet, can't be read.
    let read = |of: &Cluster| (of.timeline, of.records.last().map(|last| (last.at, last.digest.clone())));
    (!now.records.is_empty() && read(seen) != read(now))
        .then(|| "its WAL ends elsewhere than before".to_owned())
}

fn keys(seen: &Keys, now: &Keys, leader: Option<&str>, found: &mut Vec<String>) {
    if seen.initialize.as_ref().map(|key| (&key.value, key.revision))
        != now.initialize.as_ref().map(|key| (&key.value, key.revision))
    {
        let now = now.initialize.as_ref().map_or("absent", |key| key.value.as_str());
        found.push(format!("the key `initialize` was written since: it is {now} now"));
    }
    let holder = now.leader.as_ref().map(|key| key.value.as_str());
    match (leader, &now.leader) {
        (Some(leader), Some(key)) if key.value == leader && key.lease != 0 => {}
        (Some(leader), Some(key)) if key.value == leader => {
            found.push(format!("the leader's key of {leader} has no lease any more"));
        }
        (Some(leader), _) => found.push(format!(
            "{leader} doesn't hold the leader's key any more: {} does",
            holder.unwrap_or("nobody")
        )),
        (None, None) => {}
        (None, Some(key)) => {
            if seen.leader.as_ref().map(|key| &key.value) != Some(&key.value) {
                found.push(format!("{} has taken the leader's key", key.value));
            }
        }
    }
    let new: Vec<&str> =
        now.members.keys().filter(|name| !seen.members.contains_key(*name)).map(String::as_str).collect();
    if !new.is_empty() {
        found.push(format!("etcd names members that it didn't before: {}", new.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::super::tests::{OURS, cluster, key, node, report};
    use super::*;
    use crate::postgres::Lsn;

    fn judged() -> Node {
        let keys = Keys { initialize: key(OURS, 0), leader: key("p1", 7), ..Keys::default() };
        node("p3", Data::Cluster(Box::new(cluster("8"))), &keys)
    }

    fn data_of(node: &mut Node) -> &mut Cluster {
        match &mut node.data {
            Data::Cluster(cluster) => cluster,
            other => panic!("{other:?}"),
        }
    }

    fn keys_of(node: &mut Node) -> &mut Keys {
        match &mut node.store {
            Store::Keys(keys) => keys,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_as_it_was_judged_holds() {
        assert_eq!(drift(&judged(), &judged(), Some("p1"), false), Vec::<String>::new());
        // The run's own work is no change; somebody else's would be.
        let moved = Node { data: Data::Nothing, ..judged() };
        assert_eq!(drift(&judged(), &moved, Some("p1"), true), Vec::<String>::new());
        // An attempt that was cut short between a rename and its link: the WAL isn't found for a moment.
        let mut now = judged();
        data_of(&mut now).records.clear();
        assert_eq!(drift(&judged(), &now, Some("p1"), false), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_a_judgement_rests_on_is_seen_to_change() {
        type Change = fn(&mut Node);
        let cases: [(&str, Change); 14] = [
            ("p2 does", |now| keys_of(now).leader = key("p2", 7)),
            ("nobody does", |now| keys_of(now).leader = None),
            ("has no lease", |now| keys_of(now).leader = key("p1", 0)),
            ("`initialize` was written since: it is 9 now", |now| keys_of(now).initialize = key("9", 0)),
            ("it is absent now", |now| keys_of(now).initialize = None),
            ("members that it didn't before: theirs", |now| {
                keys_of(now).members.insert("theirs".into(), None);
            }),
            ("can't be compared", |now| now.store = Store::Unknown("no quorum".into())),
            ("leads now", |now| now.report = report("leader", &[])),
            ("belongs to 9 now", |now| data_of(now).identifier = "9".into()),
            ("may run on its data now", |now| data_of(now).running = Some(true)),
            ("ran on its data since", |now| data_of(now).redo = Some(Lsn(99))),
            ("databases of users", |now| data_of(now).user_data = Some(false)),
            ("WAL ends elsewhere", |now| {
                data_of(now).records.push(Record { at: Lsn(10), digest: "a row".into(), idle: false });
            }),
            ("data directory is gone", |now| now.data = Data::Nothing),
        ];
        for (words, change) in cases {
            let (mut seen, mut now) = (judged(), judged());
            change(&mut now);
            if words == "databases of users" {
                std::mem::swap(&mut seen, &mut now);
            }
            let found = drift(&seen, &now, Some("p1"), false);
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
    }

    #[test]
    fn where_nobody_led_nobody_may_have_begun_to() {
        let mut seen = judged();
        keys_of(&mut seen).leader = None;
        assert_eq!(drift(&seen, &seen, None, false), Vec::<String>::new());
        assert_eq!(drift(&seen, &judged(), None, false), ["p1 has taken the leader's key"]);
    }
}
