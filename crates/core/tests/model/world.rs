//! What there is: stores with runs, processes that work on them, and one host with its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use flow_core::run::{Event, NodeId, RunState, Shape, TaskName, TaskState};

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
        (self.run, state.status(), state.epoch()).hash(hasher);
        (0..state.shape().len() as NodeId).for_each(|n| (state.task(n), state.attempt(n)).hash(hasher));
    }
}

/// A process: one of those that the world allows.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Process {
    pub(crate) store: Number,
    pub(crate) life: Life,
    pub(crate) epoch: u64,
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
    /// A command began before what its task needs was there.
    TooEarly,
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
}

/// How often things may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    pub(crate) kills: u8,
    pub(crate) losses: u8,
    pub(crate) naps: u8,
    pub(crate) unlocks: u8,
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
        self.host.effects.contains_key(&task)
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
    /// Nothing can be looked at: what became of a lost attempt only a person can tell.
    pub(crate) bare: bool,
    /// The run that each store has at the start; a store without one gets a copy of the first.
    pub(crate) stores: Vec<Option<Number>>,
    /// The store that each process will work with.
    pub(crate) processes: Vec<Number>,
    pub(crate) budget: Budget,
    pub(crate) rules: Rules,
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
