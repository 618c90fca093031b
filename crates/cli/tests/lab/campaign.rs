//! Repairs that are disturbed: flow is killed, a cable is pulled, a host ends, each at a point on the way. Gone on
//! with, every one must end well or stop with the reason; and no row of anybody may be gone.
//!
//! `make campaign` takes the twelve points; `FLOW_CAMPAIGN=every make campaign` every step's beginning and end.
//! Of CI they get a sample, `make test-full` takes all twelve.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::{Done, Lab, Operator, PROMOTERS, until};
use crate::repair::{REPAIR, ROWS_OF, broken_with_rows, of_a_copy, rows};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A replica was initialised anew and holds nothing: it alone is set aside, and clones.
    Disposable,
    /// A replica of another cluster, with rows, is kept against the living leader: the others are set aside.
    Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Violence {
    /// SIGKILL of flow.
    Kill,
    /// The cable of a host is pulled, until flow has given up, or for [`AWAY`].
    Cut(Whose),
    /// A host ends at once, its page cache with it, and boots once flow has given up, or after [`AWAY`].
    End(Whose),
}
use Violence::{Cut, End, Kill};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Odd,
    Leader,
    Other,
}
use Whose::{Leader, Odd, Other};

#[derive(Debug, Clone)]
struct Point {
    fault: Fault,
    event: &'static str,
    step: String,
    violence: Violence,
}

/// The point, and whether it is of the sample.
fn twelve() -> Vec<(Point, bool)> {
    let point = |fault, event, step: &str, violence, sample| {
        (Point { fault, event, step: step.to_owned(), violence }, sample)
    };
    let (begins, done) = ("task_intended", "task_done");
    vec![
        point(Fault::Disposable, begins, "stop-replicas", Cut(Odd), false),
        point(Fault::Disposable, done, "stop-replicas", Kill, false),
        point(Fault::Disposable, begins, "set-aside", End(Odd), true),
        point(Fault::Disposable, done, "set-aside", End(Leader), false),
        point(Fault::Disposable, begins, "start-others", Kill, false),
        point(Fault::Disposable, done, "start-others", End(Odd), false),
        point(Fault::Kept, begins, "stop-leader", End(Leader), false),
        point(Fault::Kept, done, "stop-leader", Kill, false),
        point(Fault::Kept, begins, "set-aside", Kill, false),
        point(Fault::Kept, begins, "key", Cut(Other), false),
        point(Fault::Kept, done, "key", Kill, true),
        point(Fault::Kept, begins, "start-others", End(Odd), true),
    ]
}

/// Long enough for another leader: Patroni's `ttl` of 30 s, and some seconds more.
const AWAY: Duration = Duration::from_secs(40);

fn wanted() -> String {
    let full = std::env::var("FLOW_TEST_FULL").is_ok_and(|full| full == "1");
    std::env::var("FLOW_CAMPAIGN").unwrap_or_else(|_| if full { "all" } else { "sample" }.to_owned())
}

#[test]
fn a_repair_that_is_disturbed_on_its_way_ends_well_and_every_row_is_found() {
    let points: Vec<Point> = match &*wanted() {
        "sample" => twelve().into_iter().filter(|(_, sample)| *sample).map(|(point, _)| point).collect(),
        "all" => twelve().into_iter().map(|(point, _)| point).collect(),
        "every" => [Fault::Disposable, Fault::Kept].into_iter().flat_map(every).collect(),
        // Some of the twelve, by their numbers.
        some => {
            let number = |nth: &str| nth.parse::<usize>().ok().and_then(|nth| nth.checked_sub(1));
            let chosen = some.split(',').map(|nth| number(nth).and_then(|nth| twelve().into_iter().nth(nth)));
            let chosen: Option<Vec<_>> = chosen.collect();
            let usage = format!("FLOW_CAMPAIGN={some}: it is sample, all, every, or numbers such as 3,12");
            chosen.expect(&usage).into_iter().map(|(point, _)| point).collect()
        }
    };
    for (nth, point) in points.iter().enumerate() {
        println!("{} of {}: {point:?}", nth + 1, points.len());
        disturbed(point);
    }
}

/// Each step's beginning and end, as an undisturbed repair tells them, times each violence.
fn every(fault: Fault) -> Vec<Point> {
    let scene = Scene::new(fault);
    let done = scene.flow(&scene.repair()).ended(0);
    let mut points = Vec::new();
    let mut seen = Vec::new();
    for event in &done.events {
        let name = event["event"].as_str().unwrap_or_default();
        let Some(name) = ["task_intended", "task_done"].into_iter().find(|one| *one == name) else {
            continue;
        };
        let step =
            event["task"].as_str().unwrap_or_default().split('@').next().unwrap_or_default().to_owned();
        if seen.contains(&(name, step.clone())) {
            continue;
        }
        seen.push((name, step.clone()));
        for violence in [Kill, Cut(Odd), Cut(Leader), Cut(Other), End(Odd), End(Leader), End(Other)] {
            points.push(Point { fault, event: name, step: step.clone(), violence });
        }
    }
    points
}

/// A cluster with a fault, and what must be found again.
struct Scene {
    lab: Lab,
    operator: Operator,
    fault: Fault,
    odd: String,
    leader: String,
    /// The cluster's rows.
    rows: String,
    /// The identifier in etcd.
    identifier: String,
    /// The inode of each host's data directory: a rename keeps it.
    directories: BTreeMap<String, String>,
    /// What the odd member's directory holds, file by file.
    tree: String,
}

const DATA: &str = "/var/lib/postgresql/[0-9]*/main";

/// A checksum over all files of a directory, but what Patroni and PostgreSQL write at each start.
fn tree(lab: &Lab, host: &str, directory: &str) -> String {
    lab.on(
        host,
        &format!(
            "cd {directory} && find . -type f -not -name 'postmaster.*' -not -name 'patroni.dynamic.json*' -print0 \
             | sort -z | xargs -0 sha256sum | sha256sum"
        ),
    )
}

impl Scene {
    fn new(fault: Fault) -> Self {
        let (lab, odd) = match fault {
            Fault::Disposable => Lab::broken(),
            Fault::Kept => broken_with_rows(),
        };
        let leader = lab.key("/service/demo/leader");
        Self {
            operator: Operator::new(&lab),
            fault,
            rows: rows(&lab, &leader),
            identifier: lab.key("/service/demo/initialize"),
            directories: lab.on_all(&format!("stat -c %i {DATA}")),
            tree: tree(&lab, &odd, DATA),
            odd,
            leader,
            lab,
        }
    }

    fn host(&self, whose: Whose) -> &str {
        match whose {
            Odd => &self.odd,
            Leader => &self.leader,
            Other => PROMOTERS.into_iter().find(|host| *host != self.odd && *host != self.leader).unwrap(),
        }
    }

    /// Whose data directory is to be set aside.
    fn set_aside(&self) -> Vec<&'static str> {
        PROMOTERS
            .into_iter()
            .filter(|host| (*host == self.odd) == (self.fault == Fault::Disposable))
            .collect()
    }

    fn repair(&self) -> Vec<String> {
        let mut words: Vec<String> = REPAIR.iter().map(|word| (*word).to_owned()).collect();
        if self.fault == Fault::Kept {
            words.extend(["--set".to_owned(), format!("keep={}", self.odd)]);
        }
        words.extend(["--output".to_owned(), "json".to_owned()]);
        words
    }

    fn flow(&self, words: &[String]) -> Done {
        self.operator.flow(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn disturbed(point: &Point) {
    let scene = Scene::new(point.fault);
    let (lab, operator) = (&scene.lab, &scene.operator);
    let words = scene.repair();
    let mut running = operator.start(&words.iter().map(String::as_str).collect::<Vec<_>>());
    running.wait_event(point.event, &point.step);
    let mut done = match point.violence {
        Kill => running.kill(),
        Cut(whose) => {
            let host = scene.host(whose);
            lab.must(&["cut", host]);
            running.leave(AWAY);
            lab.must(&["heal", host]);
            running.wait()
        }
        End(whose) => {
            let host = scene.host(whose);
            lab.must(&["kill", host]);
            running.leave(AWAY);
            lab.must(&["boot", host]);
            running.wait()
        }
    };
    // As its operator would: gone on with; where that stops with a reason, taken back, and run again.
    for what in ["resume", "resume", "undo", "run"] {
        scene.assert_nothing_lost(point);
        if done.code() == Some(0) && what != "run" {
            break;
        }
        assert!(
            what == "resume" && point.violence == Kill || done.gives_a_reason(),
            "{point:?}: {}",
            done.text()
        );
        done = match what {
            "run" => scene.flow(&words),
            verb => operator.flow(&[verb, "--output", "json"]),
        };
    }
    let done = done.ended(0);
    scene.assert_nothing_lost(point);
    scene.assert_mended(point, &done);
}

impl Scene {
    /// At most the old identifier or the kept one is in etcd, and each host's directory is there, under some name.
    fn assert_nothing_lost(&self, point: &Point) {
        let found =
            self.lab.on_all(&format!("stat -c '%i %n' {DATA} {DATA}.set-aside-* 2>/dev/null || true"));
        for (host, inode) in &self.directories {
            let there = found[host].lines().any(|line| line.split(' ').next() == Some(inode));
            assert!(there, "{point:?}: the directory {inode} of {host} is gone: {}", found[host]);
        }
        let key = until("etcd", || self.lab.key_if("/service/demo/initialize"));
        let kept = self.lab.on(
            &self.odd,
            &format!(
                "cd /usr/lib/postgresql/[0-9]*/bin; for each in {DATA} {DATA}.set-aside-*; do \
                 ./pg_controldata -D $each 2>/dev/null | sed -n 's/^Database system identifier: *//p'; done"
            ),
        );
        let known = key.is_empty() || key == self.identifier || kept.lines().any(|one| one == key);
        assert!(known, "{point:?}: etcd names {key}, which is nobody's: {}, {kept}", self.identifier);
    }

    fn assert_mended(&self, point: &Point, done: &Done) {
        let (lab, operator) = (&self.lab, &self.operator);
        let healthy = lab.wait_healthy();
        let told: String = operator
            .runs()
            .iter()
            .map(|(run, _)| operator.flow(&["show", "--verbose", run]).ended(0).text())
            .chain([done.text()])
            .collect();
        for host in PROMOTERS {
            let copies =
                lab.on(host, &format!("ls -d {DATA}.set-aside-* 2>/dev/null | grep -v json || true"));
            let expected = usize::from(self.set_aside().contains(&host));
            assert_eq!(copies.lines().count(), expected, "{point:?}: copies on {host}: {copies}");
            assert!(
                copies.is_empty() || told.contains(&*copies),
                "{point:?}: {copies} on {host} isn't told: {told}"
            );
            match self.fault {
                Fault::Disposable => {
                    assert_eq!(rows(lab, host), self.rows, "{point:?}: {host}");
                    if expected == 1 {
                        assert_eq!(tree(lab, host, &copies), self.tree, "{point:?}: the copy on {host}");
                    }
                }
                Fault::Kept => {
                    assert_eq!(lab.sql(host, "select count(*) from theirs"), "7", "{point:?}: {host}");
                    if expected == 1 {
                        assert_eq!(of_a_copy(lab, host, ROWS_OF), self.rows, "{point:?}: the copy on {host}");
                    }
                }
            }
        }
        if self.fault == Fault::Kept {
            assert_eq!(healthy.leader(), self.odd, "{point:?}");
        }
        let locks = lab.on_all("cat /var/lib/flow/lock 2>/dev/null || true");
        assert!(locks.values().all(String::is_empty), "{point:?}: locks are left: {locks:?}");
        operator.diagnosed_healthy();
    }
}
