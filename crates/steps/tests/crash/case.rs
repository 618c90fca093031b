//! A case: a world, a store and an inventory in a folder of their own, and the processes that work there.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use flow_core::run::{Event, Outcome, RunId};
use flow_core::store::Store;
use flow_steps::host::sim::{Release, SimWorld};
use tempfile::TempDir;

use crate::child::{Job, VARIABLE};
use crate::killing_store::Kill;

pub(crate) const NODES: [&str; 3] = ["patroni1", "patroni2", "patroni3"];
pub(crate) const DATA: &str = "/var/lib/postgresql/15/main";

const BALANCERS: [&str; 2] = ["lb1", "lb2"];

const INVENTORY: &str = "[promoters]\npatroni1 ansible_host=198.18.0.11\npatroni2 ansible_host=198.18.0.12\n\
    patroni3 ansible_host=198.18.0.13\n[etcd]\npatroni1\npatroni2\npatroni3\n\
    [haproxy]\nlb1 ansible_host=198.18.0.14\nlb2 ansible_host=198.18.0.15\n[keepalived]\nlb1\nlb2\n";
const VARIABLES: &str = "patroni_scope: demo\npostgresql_version: 15\n\
    postgresql_superuser_password: one-of-the-tests\npostgresql_replication_password: two-of-the-tests\n";

/// Whether every case is wanted (`make test-full`) or a sample of them, always the same.
pub(crate) fn in_full() -> bool {
    std::env::var("FLOW_TEST_FULL").is_ok_and(|full| full == "1")
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By a signal, in the midst of its work.
    Killed,
    /// By itself, its work on the run so.
    With(Outcome),
    /// By itself; it was refused, or something in it broke.
    Error,
}

/// What is compared: the hosts' state, and how often each change was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    outline: String,
    any_leader: String,
    effects: BTreeMap<String, usize>,
}

pub(crate) struct Case {
    folder: TempDir,
    pub(crate) job: Job,
}

impl Case {
    /// Bare hosts, three and two balancers, to be deployed on.
    pub(crate) fn bare() -> Self {
        let case = Self::empty("deploy.toml", &[]);
        let hosts = NODES.into_iter().chain(BALANCERS);
        SimWorld::create(case.folder.path().join("world.json"), Release::Bookworm, hosts).unwrap();
        case
    }

    /// Hosts as another world has them, to be recovered.
    pub(crate) fn recovery(world: &Path) -> Self {
        let case = Self::empty("system-id-recovery.toml", &[("mode", "reset")]);
        std::fs::copy(world, case.folder.path().join("world.json")).unwrap();
        case
    }

    /// The same, to be repaired with nothing lost.
    pub(crate) fn repair(world: &Path) -> Self {
        let case = Self::empty("system-id-recovery.toml", &[]);
        std::fs::copy(world, case.folder.path().join("world.json")).unwrap();
        case
    }

    /// Another operator's place: the same hosts, a store of its own.
    pub(crate) fn beside(other: &Self) -> Self {
        let set: Vec<_> = other.job.set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut case = Self::empty(&other.job.workflow, &set);
        case.job.world.clone_from(&other.job.world);
        case
    }

    /// Another place with the same hosts and the same store, as they are now.
    pub(crate) fn copy(other: &Self) -> Self {
        let set: Vec<_> = other.job.set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let case = Self::empty(&other.job.workflow, &set);
        std::fs::copy(&other.job.world, &case.job.world).unwrap();
        case.copy_store(other);
        case
    }

    /// Puts another's store in the place of its own.
    pub(crate) fn copy_store(&self, other: &Self) {
        for file in ["runs.db", "runs.db-wal", "runs.db.key"] {
            let from = other.path().join(file);
            // A process that has ended by itself leaves no WAL.
            if from.exists() {
                std::fs::copy(from, self.path().join(file)).unwrap();
            }
        }
    }

    fn empty(workflow: &str, set: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("inventory.ini"), INVENTORY).unwrap();
        std::fs::create_dir(folder.path().join("group_vars")).unwrap();
        std::fs::write(folder.path().join("group_vars/promoters.yml"), VARIABLES).unwrap();
        let address = "keepalived_vip: 198.18.0.100\n";
        std::fs::write(folder.path().join("group_vars/keepalived.yml"), address).unwrap();
        let job = Job {
            folder: folder.path().to_owned(),
            world: folder.path().join("world.json"),
            workflow: workflow.to_owned(),
            set: set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            edit: None,
            resume: false,
            undo: false,
            kill: None,
            concurrency: 64,
        };
        Self { folder, job }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn world(&self) -> SimWorld {
        self.job.world()
    }

    /// Starts a process that starts the run or, where there is one, resumes it.
    pub(crate) fn spawn(&self, kill: Option<&Kill>) -> Child {
        let job = Job { resume: self.run().is_some(), kill: kill.cloned(), ..self.job.clone() };
        let log = File::options().create(true).append(true).open(self.path().join("log")).unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::work", "--ignored", "--nocapture"])
            .env(VARIABLE, serde_json::to_string(&job).unwrap())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Lets a process work until it ends.
    pub(crate) fn work(&self, kill: Option<&Kill>) -> Ended {
        self.wait(self.spawn(kill))
    }

    pub(crate) fn wait(&self, mut child: Child) -> Ended {
        let status = child.wait().unwrap();
        match self.events().pop() {
            _ if status.signal().is_some() => Ended::Killed,
            Some(Event::RunEnded { outcome, .. }) if status.success() => Ended::With(outcome),
            _ => Ended::Error,
        }
    }

    /// Goes on until the run has ended well; anything else fails the test.
    pub(crate) fn finish(&self, story: &str) {
        let ended = self.work(None);
        assert_eq!(ended, Ended::With(Outcome::Succeeded), "{story}:\n{}", self.log());
    }

    /// From here on the run is taken back.
    pub(crate) fn turn_round(&mut self) {
        self.job.undo = true;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn run(&self) -> Option<RunId> {
        self.job.store().runs().unwrap().pop().map(|row| row.id)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let Some(run) = self.run() else { return Vec::new() };
        self.job.store().events(&run).unwrap().into_iter().map(|record| record.event).collect()
    }

    /// The tasks that changed something, in the order of their intents.
    pub(crate) fn intended(&self) -> Vec<String> {
        let intended = |event: &Event| match event {
            Event::TaskIntended { task, .. } => Some(task.to_string()),
            _ => None,
        };
        self.events().iter().filter_map(intended).collect()
    }

    /// How often anything was changed.
    pub(crate) fn effects(&self) -> usize {
        self.world().effects().unwrap().len()
    }

    /// As `flow unlock` does: the run is given up on every host, where no attempt of it is alive.
    pub(crate) async fn unlock(&self) {
        let world = self.world();
        for host in NODES.into_iter().chain(BALANCERS) {
            let host = world.host(host);
            if let Some(claim) = host.lock_holder().await.unwrap() {
                host.unlock(&claim, true).await.unwrap();
            }
        }
    }

    /// The hosts' state and the effects, with the run's id and time masked.
    pub(crate) fn end(&self) -> End {
        self.end_of(&[self])
    }

    /// The same where others' runs have worked on the hosts too.
    pub(crate) fn end_of(&self, cases: &[&Self]) -> End {
        let rows: Vec<_> = cases.iter().map(|case| case.job.store().runs().unwrap().remove(0)).collect();
        let mask = |text: &str| {
            rows.iter().fold(text.to_owned(), |text, row| {
                text.replace(row.id.as_str(), "RUN")
                    .replace(&row.started.strftime("%Y%m%dT%H%M%SZ").to_string(), "TIME")
                    .replace(&row.started.to_string(), "TIME")
            })
        };
        let state = self.world().state().unwrap();
        let effects = state.effect_counts().iter().map(|(text, count)| (mask(text), *count)).collect();
        End { outline: mask(&state.outline()), any_leader: mask(&state.outline_without_roles()), effects }
    }
}

impl End {
    /// The same without who leads: where Patroni starts on all hosts at once, that is left to chance.
    pub(crate) fn without_roles(mut self) -> Self {
        self.outline.clone_from(&self.any_leader);
        self
    }

    /// The same without timelines and how PostgreSQL was shut down: who leads when all are stopped at once is
    /// left to chance.
    pub(crate) fn without_control(mut self) -> Self {
        let lines = self.outline.lines().filter(|line| !line.contains("/global/pg_control "));
        self.outline = lines.map(|line| format!("{line}\n")).collect();
        self
    }

    /// The same without what any boot starts: Debian's `postgresql.service`, which has no cluster to run.
    pub(crate) fn without_boot(mut self) -> Self {
        let of_boot =
            |line: &&str| !line.contains("postgresql.service") && !line.ends_with("/usr/sbin/postgresql");
        self.outline = self.outline.lines().filter(of_boot).map(|line| format!("{line}\n")).collect();
        self
    }

    /// The lines of the hosts' state that hold a text.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        self.outline.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Fails with the lines that differ.
    pub(crate) fn assert_equal(&self, reference: &Self, case: &Case, story: &str) {
        let effects = |end: &Self| -> String {
            end.effects.iter().map(|(text, count)| format!("{count} x {text}\n")).collect()
        };
        let differences = |before: &str, after: &str| -> String {
            similar::TextDiff::from_lines(before, after).unified_diff().context_radius(0).to_string()
        };
        let state = differences(&reference.outline, &self.outline);
        let effects = differences(&effects(reference), &effects(self));
        assert!(
            state.is_empty() && effects.is_empty(),
            "{story}: not the end of an undisturbed run\nhosts:\n{state}\neffects:\n{effects}\nlog:\n{}",
            case.log()
        );
    }
}

/// Runs every case, some at once.
pub(crate) fn each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
            check(case);
        }
    };
    // The scope fails where a thread did.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(worker);
        }
    });
}
