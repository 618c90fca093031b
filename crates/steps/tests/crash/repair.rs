//! The repairs that lose nothing, killed at every point of every task; and a world that changed before the run was
//! gone on with.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flow_core::run::Outcome;
use flow_steps::host::Ownership;
use flow_steps::host::sim::{Fault, FaultKind, WorldState};

use crate::answers::{changes, finish};
use crate::case::{Case, DATA, End, Ended, NODES, each, in_full};
use crate::killing_store::{Kill, POINTS, Point};
use crate::recovery::{deployed, reference};

const INITIALIZE: &str = "/service/demo/initialize";
/// An identifier that is nobody's.
const NOBODYS: &str = "7700000000000000001";

/// A fault, and what an undisturbed repair makes of it.
struct Repair {
    /// The world with the fault.
    broken: PathBuf,
    keep: Option<&'static str>,
    end: End,
    tasks: Vec<String>,
    /// The calls that change something: host, and the beginning of the call.
    changes: Vec<(String, String)>,
    _case: Case,
}

impl Repair {
    fn of(broken: &Path) -> Self {
        Self::with(broken, None)
    }

    fn keeping(broken: &Path, host: &'static str) -> Self {
        Self::with(broken, Some(host))
    }

    fn with(broken: &Path, keep: Option<&'static str>) -> Self {
        let case = Self::case(broken, keep);
        case.finish("the repair");
        let (end, tasks, changes) = (case.end(), case.intended(), changes(&case));
        Self { keep, end, tasks, changes, broken: broken.to_owned(), _case: case }
    }

    fn case(broken: &Path, keep: Option<&str>) -> Case {
        let mut case = Case::repair(broken);
        case.job.set.extend(keep.map(|host| ("keep".to_owned(), host.to_owned())));
        case
    }

    /// The same fault once more.
    fn again(&self) -> Case {
        Self::case(&self.broken, self.keep)
    }

    /// At each change an answer or a request is lost, or the host is away for a moment: the same end.
    fn disturbed_anywhere(&self) {
        let kinds = [FaultKind::LoseAnswer, FaultKind::LoseRequest, FaultKind::Unreachable];
        let at = |(host, text): &(String, String)| kinds.clone().map(|kind| Fault::at(host, text, kind));
        let faults: Vec<Fault> = sample(self.changes.iter().flat_map(at).collect());
        assert!(faults.len() > 3, "{:?}", self.changes);
        each(&faults, |fault| {
            let case = self.again();
            let story = format!("the repair with {fault:?}");
            case.world().inject(fault.clone()).unwrap();
            finish(&case, &story);
            assert!(case.world().state().unwrap().faults.is_empty(), "{story}: it never came to that call");
            case.end().assert_equal(&self.end, &case, &story);
        });
    }

    /// The host of each task, once Patroni was stopped for good, ends in the midst of it and boots: the same end, but for
    /// what a boot starts and who led meanwhile.
    fn rebooted_anywhere(&self) {
        let stopped =
            self.tasks.iter().rposition(|task| task.starts_with("stop-")).map_or(0, |last| last + 1);
        let points = [Point::AfterIntent, Point::AfterEffect];
        let kills: Vec<(&String, Point)> =
            sample(self.tasks[stopped..].iter().flat_map(|task| points.map(|point| (task, point))).collect());
        assert!(!kills.is_empty(), "{:?}", self.tasks);
        let plain = |end: End| end.without_roles().without_boot().without_control();
        each(&kills, |(task, point)| {
            let case = self.again();
            let story = format!("the repair, its host rebooted at {task}, {point:?}");
            assert_eq!(case.work(Some(&Kill::at(task, *point))), Ended::Killed, "{story}: {}", case.log());
            case.world().reboot(task.split_once('@').unwrap().1).unwrap();
            case.finish(&story);
            plain(case.end()).assert_equal(&plain(self.end.clone()), &case, &story);
        });
    }

    /// Killed at every point of every task, and gone on with: the same end.
    fn killed_anywhere(&self) {
        let kills: Vec<Kill> =
            self.tasks.iter().flat_map(|task| POINTS.map(|point| Kill::at(task, point))).collect();
        each(&kills, |kill| {
            let case = self.again();
            let story = format!("the repair, killed at {kill:?}");
            assert_eq!(case.work(Some(kill)), Ended::Killed, "{story}: {}", case.log());
            case.finish(&story);
            case.end().assert_equal(&self.end, &case, &story);
        });
    }
}

/// Every fourth of them, or in full all.
fn sample<T>(cases: Vec<T>) -> Vec<T> {
    let step = if in_full() { 1 } else { 4 };
    cases.into_iter().step_by(step).collect()
}

/// patroni3 was initialised anew, the others serve.
fn disposable() -> &'static Repair {
    static REPAIR: OnceLock<Repair> = OnceLock::new();
    REPAIR.get_or_init(|| Repair::of(&reference().broken))
}

/// Somebody wrote another identifier to the key, and every Patroni ended.
fn key_wrong() -> &'static Repair {
    static REPAIR: OnceLock<(Case, Repair)> = OnceLock::new();
    let made = REPAIR.get_or_init(|| {
        let case = Case::repair(deployed());
        let world = case.world();
        world.edit(|state| state.etcd.put(INITIALIZE, NOBODYS, 0)).unwrap();
        world.edit(|state| state.effects.clear()).unwrap();
        let repair = Repair::of(&case.job.world);
        (case, repair)
    });
    &made.1
}

/// patroni3 belongs to another cluster and has rows; it is to be kept.
fn kept() -> &'static Repair {
    static REPAIR: OnceLock<(Case, Repair)> = OnceLock::new();
    let made = REPAIR.get_or_init(|| {
        let case = Case::repair(&reference().broken);
        case.world().edit(|state| rows(state, "patroni3")).unwrap();
        let repair = Repair::keeping(&case.job.world, "patroni3");
        (case, repair)
    });
    &made.1
}

/// A table in the data directory.
fn rows(state: &mut WorldState, host: &str) {
    let files = &mut state.hosts[host].files;
    files.make_directory(&format!("{DATA}/base/5"), &Ownership::default()).unwrap();
    files.write(&format!("{DATA}/base/5/16385"), "rows".to_owned(), &Ownership::default()).unwrap();
}

fn data_directories(state: &WorldState) -> Vec<Option<u64>> {
    NODES.iter().map(|host| state.hosts[*host].files.stat(DATA).map(|stat| stat.inode)).collect()
}

#[test]
fn setting_a_disposable_member_aside_killed_at_any_point_comes_to_the_same_end() {
    let repair = disposable();
    let names: Vec<&str> = repair.tasks.iter().filter_map(|task| task.split('@').next()).collect();
    assert!(names.contains(&"set-aside") && names.contains(&"start-others"), "{names:?}");
    assert!(repair.tasks.iter().all(|task| task.ends_with("@patroni3")), "{:?}", repair.tasks);
    repair.killed_anywhere();
}

#[test]
fn a_key_that_is_gone_and_a_member_that_was_initialised_anew_are_mended_by_one_run() {
    let case = Case::repair(&reference().broken);
    let identifier = case.world().state().unwrap().etcd.get(INITIALIZE).unwrap().to_owned();
    case.world().edit(|state| state.etcd.keys.remove(INITIALIZE)).unwrap();
    case.finish("the repair of both");
    let end = case.world().state().unwrap();
    assert_eq!(end.etcd.get(INITIALIZE), Some(&*identifier));
    let tasks = case.intended();
    assert!(tasks.contains(&"set-aside@patroni3".to_owned()), "{tasks:?}");
    assert!(tasks.iter().all(|task| task.ends_with("@patroni3")), "{tasks:?}");
}

#[test]
fn mending_a_wrong_key_killed_at_any_point_comes_to_the_same_end() {
    let repair = key_wrong();
    let names: Vec<&str> = repair.tasks.iter().filter_map(|task| task.split('@').next()).collect();
    assert!(names.contains(&"key") && !names.contains(&"set-aside"), "{names:?}");
    let before = repair.again().world().state().unwrap();
    let after = repair._case.world().state().unwrap();
    assert_eq!(data_directories(&after), data_directories(&before), "no data directory was touched");
    repair.killed_anywhere();
}

#[test]
fn keeping_a_member_against_a_living_leader_killed_at_any_point_comes_to_the_same_end() {
    let repair = kept();
    let state = repair._case.world().state().unwrap();
    assert_eq!(state.etcd.get("/service/demo/leader"), Some("patroni3"));
    let before = repair.again().world().state().unwrap();
    assert_eq!(data_directories(&state)[2], data_directories(&before)[2], "the kept data stays where it is");
    let task = |name: &str| repair.tasks.iter().position(|task| task == name).unwrap();
    assert!(task("stop-replicas@patroni2") < task("stop-leader@patroni1"), "{:?}", repair.tasks);
    assert!(task("start-first@patroni3") < task("start-others@patroni1"), "{:?}", repair.tasks);
    repair.killed_anywhere();
}

#[test]
fn lost_answers_requests_and_hosts_make_no_difference_to_any_repair() {
    for repair in [disposable(), key_wrong(), kept()] {
        repair.disturbed_anywhere();
    }
}

#[test]
fn a_host_that_ends_in_the_midst_makes_no_difference_to_any_repair() {
    for repair in [disposable(), key_wrong(), kept()] {
        repair.rebooted_anywhere();
    }
}

#[test]
fn a_kept_member_to_which_something_came_meanwhile_stops_the_run_before_the_others_are_set_aside() {
    let repair = kept();
    let somebody_leads = |state: &mut WorldState| state.etcd.put("/service/demo/leader", "patroni2", 0);
    changed_meanwhile(repair, "set-aside@patroni1", somebody_leads, "has taken the leader's key");
    let new_cluster = |state: &mut WorldState| state.etcd.put(INITIALIZE, NOBODYS, 0);
    changed_meanwhile(repair, "key@patroni1", new_cluster, "was written since");
}

/// Killed when a destructive task is about to begin; the world changes; gone on with, it stops with the reason.
fn changed_meanwhile(repair: &Repair, task: &str, change: impl FnOnce(&mut WorldState), reason: &str) {
    let case = repair.again();
    assert_eq!(case.work(Some(&Kill::at(task, Point::AfterIntent))), Ended::Killed);
    case.world().edit(change).unwrap();
    let before = (case.effects(), data_directories(&case.world().state().unwrap()));
    assert_eq!(case.work(None), Ended::With(Outcome::Failed), "{reason}: {}", case.log());
    assert!(case.log().contains(reason), "{reason}: {}", case.log());
    assert_eq!((case.effects(), data_directories(&case.world().state().unwrap())), before, "{reason}");
}

#[test]
fn a_judgement_that_the_world_has_left_behind_sets_nothing_aside() {
    let repair = disposable();
    let task = "set-aside@patroni3";
    changed_meanwhile(
        repair,
        task,
        |state| rows(state, "patroni3"),
        "relations, tablespaces or databases of users",
    );
    let another_leader = |state: &mut WorldState| {
        let lease = state.etcd.keys["/service/demo/members/patroni2"].lease;
        state.etcd.put("/service/demo/leader", "patroni2", lease);
    };
    changed_meanwhile(
        repair,
        task,
        another_leader,
        "patroni1 doesn't hold the leader's key any more: patroni2 does",
    );
    let another_cluster = |state: &mut WorldState| state.etcd.put(INITIALIZE, NOBODYS, 0);
    changed_meanwhile(repair, task, another_cluster, "the key `initialize` was written since");
}

#[test]
fn a_judgement_that_the_world_has_left_behind_writes_no_key() {
    let repair = key_wrong();
    let task = "key@patroni1";
    let keeper_gone = |state: &mut WorldState| {
        let files = &mut state.hosts["patroni1"].files;
        files.remove_tree(DATA);
    };
    changed_meanwhile(repair, task, keeper_gone, "data directory is gone");
    let somebody_wrote = |state: &mut WorldState| state.etcd.put(INITIALIZE, "7700000000000000002", 0);
    changed_meanwhile(repair, task, somebody_wrote, "was written since");
    let somebody_leads = |state: &mut WorldState| state.etcd.put("/service/demo/leader", "patroni2", 0);
    changed_meanwhile(repair, task, somebody_leads, "patroni2 has taken the leader's key");
}
