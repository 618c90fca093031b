//! What there is: stores with runs, processes that work on them, and one host with its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use flow_core::run::{Choice, ChoicePart, Event, NodeId, RunState, Shape, TaskName, TaskState};
use flow_core::workflow::Serial;

/// Numbers of runs, stores and processes.
pub(crate) type Number = usize;

/// A run in a store: the real state machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ledger {
    pub(crate) run: Number,
    pub(crate) state: RunState,
}

impl Hash for Ledger {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let state = &self.state;
        (self.run, state.status(), state.epoch(), state.undoing(), state.turned_back()).hash(hasher);
        (0..state.shape().len() as NodeId).for_each(|n| {
            (state.task(n), state.attempt(n), state.begun(n), state.can_undo(n)).hash(hasher);
            state.shape().after(n).hash(hasher);
        });
    }
}

/// A process: one of those that the world allows.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Process {
    pub(crate) store: Number,
    pub(crate) life: Life,
    pub(crate) epoch: u64,
    /// It takes the run back.
    pub(crate) back: bool,
    /// Of an undo something failed or is unknown: nothing new is begun.
    pub(crate) stopped: bool,
    /// Where it stands with each task.
    pub(crate) work: BTreeMap<NodeId, Work>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    /// Not started yet.
    Unborn,
    /// It has claimed the run, and wants the host's lock.
    Locking,
    Working,
    /// It has given the lock back, and will say how the run ended.
    Leaving,
    /// It ended, or was killed.
    Over,
}

/// Where a process stands with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Work {
    /// The intent is durable, the command not sent.
    Leave,
    /// The command was sent.
    Sent,
    /// The answer was lost, in this process or with an earlier one.
    Settling { after_crash: bool },
}

/// A command that changes something, named as an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Command {
    pub(crate) run: Number,
    pub(crate) epoch: u64,
    pub(crate) task: NodeId,
    pub(crate) attempt: u32,
    /// It takes the effect away.
    pub(crate) back: bool,
    /// Who waits for the answer.
    pub(crate) by: Number,
}

impl Command {
    /// The name of its attempt: without the epoch, as on the host.
    pub(crate) fn name(&self) -> (Number, NodeId, u32) {
        (self.run, self.task, self.attempt)
    }
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Default, Hash)]
pub(crate) struct Host {
    /// Run and epoch.
    pub(crate) lock: Option<(Number, u64)>,
    /// Past the guard, the effect not there yet.
    pub(crate) alive: BTreeSet<Command>,
    /// How often each task's effect was brought about.
    pub(crate) effects: BTreeMap<NodeId, u8>,
    /// The effects that are there.
    pub(crate) there: BTreeSet<NodeId>,
    /// Attempts that were found ended.
    pub(crate) closed: BTreeSet<(Number, NodeId, u32)>,
}

/// What must never happen, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// The state machine refused what the engine was to record.
    Refused,
    /// Two commands of one task at work at once, or an effect brought about twice.
    Twice,
    /// A command began before what its task needs was there, or took away what another one still needs.
    TooEarly,
    /// Two attempts at a task, one of them to take it back, have the same number.
    Number,
    /// A change while another run held the host, or by a process whose lock was taken over or away.
    WithoutLock,
    /// A result was recorded of something that isn't there, or was recorded and is no more.
    Lost,
}

/// What should be seen at least once, or the model shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Seen {
    /// A late request was turned away.
    Fenced,
    /// A lock was taken away by force.
    Unlocked,
    /// A resumed process found an attempt of an earlier one alive.
    FoundAlive,
    /// An attempt was settled as done, and as not done.
    SettledDone,
    SettledNotDone,
    /// What became of an attempt could not be told.
    Unknown,
    /// Something was taken back.
    Undone,
    /// An undo was cut short, and made again.
    UndoneAgain,
    /// A task was approved by another process than the one that asked.
    ApprovedLater,
    /// Hosts were chosen in another order than the inventory's.
    Reordered,
}

/// How often things may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    pub(crate) kills: u8,
    pub(crate) losses: u8,
    pub(crate) naps: u8,
    pub(crate) unlocks: u8,
    /// How often an operator takes a run back who might have gone on with it.
    pub(crate) turns: u8,
}

/// One state of everything.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct World {
    pub(crate) stores: Vec<Option<Ledger>>,
    pub(crate) processes: Vec<Process>,
    pub(crate) asleep: BTreeSet<Number>,
    pub(crate) host: Host,
    /// Commands on their way to the host.
    pub(crate) requests: BTreeSet<Command>,
    /// Answers on their way back: true where the effect is there, false where it was turned away.
    pub(crate) answers: BTreeMap<Command, bool>,
    /// What was sent under each attempt's name: whether it was to take back.
    pub(crate) names: BTreeMap<(Number, NodeId, u32), bool>,
    /// Approvals that somebody has left in a store: the task, and the time that it was asked.
    pub(crate) signals: BTreeSet<(Number, NodeId, u32)>,
    /// Who asked for the approval of a task.
    pub(crate) askers: BTreeMap<NodeId, Number>,
    /// Tasks that change nothing on the host and have passed: approvals, choices of hosts.
    pub(crate) decided: BTreeSet<NodeId>,
    pub(crate) budget: Budget,
    pub(crate) harm: BTreeSet<Harm>,
    pub(crate) seen: BTreeSet<Seen>,
}

impl World {
    pub(crate) fn ledger(&self, process: Number) -> Option<&Ledger> {
        self.stores[self.processes[process].store].as_ref()
    }

    /// Records an event, durably.
    pub(crate) fn commit(&mut self, process: Number, event: &Event) {
        let store = self.processes[process].store;
        let Some(ledger) = &mut self.stores[store] else { return };
        if ledger.state.apply(event, &mut Vec::new()).is_err() {
            self.harm.insert(Harm::Refused);
        }
    }

    pub(crate) fn there(&self, task: NodeId) -> bool {
        self.host.there.contains(&task) || self.decided.contains(&task)
    }

    /// Whether the first store was copied.
    pub(crate) fn copied(&self, small: &Small) -> bool {
        small.stores.iter().zip(&self.stores).any(|(then, now)| then.is_none() && now.is_some())
    }

    pub(crate) fn awake(&self, process: Number) -> bool {
        !self.asleep.contains(&process)
    }
}

/// The rules that keep harm away. All hold, but where a test takes one away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// A change verifies that the lock is its run's.
    pub(crate) lock: bool,
    /// And its epoch's.
    pub(crate) epoch: bool,
    /// An attempt that was found ended begins no more.
    pub(crate) closing: bool,
    /// An attempt that is alive is waited for.
    pub(crate) waiting: bool,
    /// A lock is taken away by force only where no attempt of its run is alive.
    pub(crate) proof: bool,
}

pub(crate) const ALL: Rules = Rules { lock: true, epoch: true, closing: true, waiting: true, proof: true };

/// A small world to go through.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    pub(crate) shape: Arc<Shape>,
    /// These want a person's approval.
    pub(crate) gates: BTreeSet<NodeId>,
    /// A run that fails takes itself back, in the same process. Nothing is tried again.
    pub(crate) unwinds: bool,
    /// Nothing can be looked at: what became of a lost attempt only a person can tell.
    pub(crate) bare: bool,
    /// The run that each store has at the start; a store without one gets a copy of the first.
    pub(crate) stores: Vec<Option<Number>>,
    /// The store that each process will work with.
    pub(crate) processes: Vec<Number>,
    pub(crate) budget: Budget,
    pub(crate) rules: Rules,
}

/// Task 0 chooses from two hosts, on which 1 and 2 work, one after the other.
pub(crate) fn choosing() -> Arc<Shape> {
    let part = |host: &str, node| ChoicePart { host: host.to_owned(), nodes: Some((node, node)) };
    let parts = vec![part("a", 1), part("b", 2)];
    let choice = Choice { parts, serial: Some(Serial::Count(1)), max_failures: None };
    let names = (0..3).map(|n| Some(name(n))).collect();
    Arc::new(Shape::new(names, &[(0, 1), (0, 2)]).with_choices([(0, choice)].into()))
}

/// All that comes before, or after, a node, directly or through others.
pub(crate) fn reach(shape: &Shape, node: NodeId, after: bool) -> BTreeSet<NodeId> {
    let count = shape.len() as NodeId;
    let next = |node: NodeId| -> Vec<NodeId> {
        if after {
            return shape.after(node).to_vec();
        }
        (0..count).filter(|before| shape.after(*before).contains(&node)).collect()
    };
    let (mut found, mut open) = (BTreeSet::new(), vec![node]);
    while let Some(node) = open.pop() {
        open.extend(next(node).into_iter().filter(|node| found.insert(*node)));
    }
    found.retain(|node| shape.name(*node).is_some());
    found
}

/// Tasks 0 to `count`, and what comes before what.
pub(crate) fn shape(count: u32, edges: &[(NodeId, NodeId)]) -> Arc<Shape> {
    Arc::new(Shape::new((0..count).map(|n| Some(name(n))).collect(), edges))
}

pub(crate) fn name(task: NodeId) -> TaskName {
    TaskName::from_text(&format!("t{task}"))
}

/// The tasks in one of these states.
pub(crate) fn in_states(state: &RunState, wanted: &[TaskState]) -> Vec<NodeId> {
    wanted.iter().flat_map(|wanted| state.in_state(*wanted)).collect()
}
