//! Where a run stands: a fold over its events. An event that the state does not allow is an error,
//! also when it is read back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::backward::Backward;
use super::{Event, Identity, NodeId, Outcome, Shape, TaskName};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Something before it isn't done.
    Waiting,
    /// Everything before it is done.
    Ready,
    /// Its condition was false. Satisfies what needs it.
    Skipped,
    /// It was found as it should be.
    Satisfied,
    /// `apply` was about to be called; there is no result yet.
    Intended,
    /// It was applied.
    Done,
    /// It waits for a person's approval.
    Asked,
    /// It failed.
    Failed,
    /// Nobody knows whether it was applied.
    Unknown,
    /// `undo` was about to be called; there is no result yet.
    Undoing,
    /// It was taken back.
    Undone,
    /// It isn't taken back: an attempt at that failed, or had no effect.
    UndoFailed,
    /// Nobody knows whether it was taken back.
    UndoUnknown,
    /// It is left as it is, though what stands before it is taken back.
    Kept,
}

impl TaskState {
    /// What needs this task may go on.
    pub fn passes(self) -> bool {
        matches!(self, Self::Skipped | Self::Satisfied | Self::Done)
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// No event yet.
    New,
    /// A process works on it, or was killed while it did.
    Open,
    /// The last process that worked on it ended so.
    Ended(Outcome),
}

/// An event that the state does not allow.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Illegal {
    /// The plan has no task of that name.
    #[error("the plan has no task `{0}`")]
    NoTask(TaskName),
    /// The task isn't in a state in which this can happen.
    #[error("task `{task}` is {state:?} (attempt {attempt}), so {event} can't follow")]
    Task {
        /// The task.
        task: TaskName,
        /// Where it stands.
        state: TaskState,
        /// Its last attempt.
        attempt: u32,
        /// What was to happen.
        event: &'static str,
    },
    /// The run isn't in a state in which this can happen.
    #[error("the run is {status:?}, so {event} can't follow")]
    Run {
        /// Where it stands.
        status: RunStatus,
        /// What was to happen.
        event: &'static str,
    },
    /// What goes forward, after something was taken back.
    #[error("something of the run was taken back, so {event} can't follow")]
    Turned {
        /// What was to happen.
        event: &'static str,
    },
    /// A choice of a host that is not of the set, or is chosen twice.
    #[error("task `{task}` can't choose {host} here")]
    Host {
        /// The task.
        task: TaskName,
        /// The host.
        host: String,
    },
    /// Two machines under one name.
    #[error("host `{0}` was met before as another machine")]
    OtherMachine(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) state: TaskState,
    pub(super) attempt: u32,
    pub(super) missing: u32,
    /// An attempt at it was begun: something of it may be there.
    pub(super) begun: bool,
}

/// What an event does to a task: in words, whether it may, the state after it, and its attempt.
pub(super) struct Step {
    pub(super) what: &'static str,
    pub(super) allowed: bool,
    pub(super) next: TaskState,
    pub(super) attempt: u32,
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    pub(super) shape: Arc<Shape>,
    pub(super) cells: Vec<Cell>,
    /// Where it is being taken back: what is in the way of each task.
    pub(super) back: Option<Backward>,
    status: RunStatus,
    epoch: u64,
    hosts: BTreeMap<String, Identity>,
    passed: usize,
    /// How many of those before a node can't pass any more. Kept only where there are gates.
    dead: HashMap<NodeId, u32>,
    /// The failures that a gate has to let by.
    failures: HashMap<NodeId, u32>,
}

impl RunState {
    /// A run of which nothing has happened yet. `ready` gets the nodes that wait for nothing.
    pub fn new(shape: Arc<Shape>, ready: &mut Vec<NodeId>) -> Self {
        let cells = (0..shape.len() as NodeId)
            .map(|n| Cell { state: TaskState::Waiting, attempt: 0, missing: shape.incoming(n), begun: false })
            .collect();
        let mut state = Self {
            shape,
            cells,
            back: None,
            status: RunStatus::New,
            epoch: 0,
            hosts: BTreeMap::new(),
            passed: 0,
            dead: HashMap::new(),
            failures: HashMap::new(),
        };
        state.arrive_at_roots(ready);
        state
    }

    /// The state after all these events.
    pub fn replay<'a>(
        shape: Arc<Shape>,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, Illegal> {
        let mut ready = Vec::new();
        let mut state = Self::new(shape, &mut ready);
        for event in events {
            ready.clear();
            state.apply(event, &mut ready)?;
        }
        Ok(state)
    }

    /// The DAG.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// Where a node stands. A join is `Waiting` or `Done`.
    pub fn task(&self, node: NodeId) -> TaskState {
        self.cells[node as usize].state
    }

    /// The number of a task's last attempt; 0 for none.
    pub fn attempt(&self, node: NodeId) -> u32 {
        self.cells[node as usize].attempt
    }

    /// Where the run stands.
    pub fn status(&self) -> RunStatus {
        self.status
    }

    /// How many processes have worked on it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The machines met so far.
    pub fn hosts(&self) -> &BTreeMap<String, Identity> {
        &self.hosts
    }

    /// True where every task is done, satisfied or skipped.
    pub fn all_passed(&self) -> bool {
        self.passed == self.shape.tasks()
    }

    /// Whether tasks that pass together leave another one with nothing to wait for.
    pub fn would_free(&self, nodes: impl IntoIterator<Item = NodeId>) -> bool {
        let mut passed: HashMap<NodeId, u32> = HashMap::new();
        let mut frees = |after: NodeId| {
            let count = passed.entry(after).or_default();
            *count += 1;
            *count + self.dead_before(after) >= self.cells[after as usize].missing
        };
        nodes.into_iter().any(|node| self.shape.after(node).iter().any(|&after| frees(after)))
    }

    /// The nodes in that state.
    pub fn in_state(&self, state: TaskState) -> impl Iterator<Item = NodeId> + '_ {
        let named = |n: &NodeId| self.shape.name(*n).is_some();
        (0..self.cells.len() as NodeId).filter(named).filter(move |&n| self.task(n) == state)
    }

    /// Takes in one event, and gives the task that it is about. `ready` gets the tasks that it makes
    /// ready; on the way back, those that it makes free to be taken back. On an error nothing changes.
    pub fn apply(&mut self, event: &Event, ready: &mut Vec<NodeId>) -> Result<Option<NodeId>, Illegal> {
        match event {
            Event::RunStarted { epoch, .. } => {
                self.expect_run(self.status == RunStatus::New && *epoch == 1, "the start of the run")?;
                self.status = RunStatus::Open;
                self.epoch = *epoch;
            }
            Event::RunResumed { epoch, .. } => {
                let ended_well = matches!(
                    self.status,
                    RunStatus::New | RunStatus::Ended(Outcome::Succeeded | Outcome::Undone)
                );
                self.expect_run(!ended_well && *epoch == self.epoch + 1, "a resume")?;
                self.expect_forward("a resume")?;
                self.back = None;
                self.status = RunStatus::Open;
                self.epoch = *epoch;
                self.take_up(ready);
            }
            Event::UndoStarted { epoch, .. } => {
                let open = !matches!(self.status, RunStatus::New | RunStatus::Ended(Outcome::Undone));
                let same_process = self.status == RunStatus::Open && *epoch == self.epoch;
                self.expect_run(open && (same_process || *epoch == self.epoch + 1), "an undo")?;
                self.status = RunStatus::Open;
                self.epoch = *epoch;
                self.turn(ready);
            }
            Event::HostMet { host, identity } => {
                self.expect_run(self.status == RunStatus::Open, "meeting a host")?;
                if self.hosts.get(host).is_some_and(|known| known != identity) {
                    return Err(Illegal::OtherMachine(host.clone()));
                }
                self.hosts.insert(host.clone(), identity.clone());
            }
            Event::RunInterrupted { .. } => {
                self.expect_run(self.status == RunStatus::Open, "an interruption")?;
            }
            Event::RunEnded { outcome, .. } => {
                let right = match outcome {
                    Outcome::Succeeded => !self.undoing() && self.all_passed(),
                    Outcome::Undone => self.all_undone(),
                    _ => true,
                };
                self.expect_run(self.status == RunStatus::Open && right, "the end of the run")?;
                self.status = RunStatus::Ended(*outcome);
            }
            Event::HostsChosen { task, hosts } => return self.choose(task, hosts, ready).map(Some),
            _ => return self.apply_task(event, ready),
        }
        Ok(None)
    }

    /// Hosts were chosen: the order among them becomes a part of the DAG.
    fn choose(
        &mut self,
        task: &TaskName,
        hosts: &[String],
        ready: &mut Vec<NodeId>,
    ) -> Result<NodeId, Illegal> {
        self.expect_run(self.status == RunStatus::Open, "work on a task")?;
        let node = self.shape.node(task).ok_or_else(|| Illegal::NoTask(task.clone()))?;
        let Cell { state, attempt, .. } = self.cells[node as usize];
        let choice = self.shape.choice(node).filter(|_| state == TaskState::Ready && !self.undoing());
        let Some(choice) = choice else {
            return Err(Illegal::Task { task: task.clone(), state, attempt, event: "a choice of hosts" });
        };
        let order = choice
            .order(hosts, self.shape.len() as NodeId)
            .map_err(|host| Illegal::Host { task: task.clone(), host })?;
        if !order.edges.is_empty() {
            self.shape = Arc::new(self.shape.ordered(&order));
            let first = self.cells.len() as NodeId;
            for join in first..self.shape.len() as NodeId {
                let missing = self.shape.incoming(join);
                self.cells.push(Cell { state: TaskState::Waiting, attempt: 0, missing, begun: false });
            }
            for &(_, to) in order.edges.iter().filter(|(_, to)| *to < first) {
                self.cells[to as usize].missing += 1;
            }
        }
        self.cells[node as usize].state = TaskState::Satisfied;
        self.end(node, true, ready);
        Ok(node)
    }

    fn apply_task(&mut self, event: &Event, ready: &mut Vec<NodeId>) -> Result<Option<NodeId>, Illegal> {
        use TaskState::{Ready, Waiting};
        self.expect_run(self.status == RunStatus::Open, "work on a task")?;
        let Some(task) = event.task() else { return Ok(None) };
        let node = self.shape.node(task).ok_or_else(|| Illegal::NoTask(task.clone()))?;
        let Cell { state, attempt: last, .. } = self.cells[node as usize];
        let step = if event.is_of_undo() { self.step_back(event, node) } else { self.step(event, node) };
        if !step.allowed {
            return Err(Illegal::Task { task: task.clone(), state, attempt: last, event: step.what });
        }
        let missing = self.cells[node as usize].missing;
        // After a resume an attempt may be settled while a gate before it waits again.
        let next = if step.next == Ready && missing > 0 { Waiting } else { step.next };
        let cell = &mut self.cells[node as usize];
        cell.state = next;
        cell.attempt = step.attempt;
        cell.begun |= matches!(event, Event::TaskIntended { .. });
        if state.passes() && !next.passes() {
            self.passed -= 1;
        }
        if self.undoing() {
            // What it makes ready is never started.
            self.go_on(node, next, &mut Vec::new());
            self.after_step_back(event, node, ready);
        } else {
            self.go_on(node, next, ready);
        }
        Ok(Some(node))
    }

    /// What follows from where a task stands now for those behind it.
    fn go_on(&mut self, node: NodeId, next: TaskState, ready: &mut Vec<NodeId>) {
        use TaskState::{Failed, Ready, Waiting};
        match next {
            Ready => ready.push(node),
            _ if next.passes() => self.end(node, true, ready),
            Failed if self.shape.has_gates() => self.end(node, false, ready),
            Waiting if self.cells[node as usize].missing == self.dead_before(node) => {
                self.end(node, false, ready);
            }
            _ => {}
        }
    }

    /// What an event of the way forward does to a task. On the way back, only what was begun before is
    /// settled.
    fn step(&self, event: &Event, node: NodeId) -> Step {
        use TaskState::{Asked, Done, Failed, Intended, Ready, Satisfied, Skipped, Unknown};
        let Cell { state, attempt: last, .. } = self.cells[node as usize];
        let ready = state == Ready && !self.undoing();
        let chooses = self.shape.choice(node).is_some();
        let under_way = |attempt: &u32| matches!(state, Intended | Unknown) && *attempt == last;
        // On the way back nobody is asked any more.
        let asked = |attempt: &u32| state == Asked && !self.undoing() && *attempt == last;
        let (what, allowed, next, attempt) = match event {
            Event::TaskSkipped { .. } => ("skipping it", ready, Skipped, last),
            Event::TaskSatisfied { .. } => ("finding it satisfied", ready && !chooses, Satisfied, last),
            Event::TaskIntended { attempt, .. } => {
                ("an intent", ready && !chooses && *attempt == last + 1, Intended, *attempt)
            }
            Event::TaskDone { attempt, .. } => ("its result", under_way(attempt), Done, last),
            Event::TaskAsked { attempt, .. } => {
                ("asking for approval", ready && *attempt == last + 1, Asked, *attempt)
            }
            // Nothing was changed, so there is nothing to take back.
            Event::TaskApproved { attempt, .. } => ("its approval", asked(attempt), Satisfied, last),
            Event::TaskRejected { attempt, .. } => ("its refusal", asked(attempt), Failed, last),
            Event::TaskFailed { attempt, retry_in_ms, .. } => {
                let of_check = ready && *attempt == last + 1;
                let next = if retry_in_ms.is_some() { Ready } else { Failed };
                ("its failure", under_way(attempt) || asked(attempt) || of_check, next, *attempt)
            }
            Event::TaskUnknown { attempt, .. } => ("losing sight of it", under_way(attempt), Unknown, last),
            _ => {
                let right = matches!(event, Event::TaskNotDone { attempt, .. } if under_way(attempt));
                ("settling it", right, Ready, last)
            }
        };
        Step { what, allowed, next, attempt }
    }

    fn expect_run(&self, allowed: bool, event: &'static str) -> Result<(), Illegal> {
        if allowed { Ok(()) } else { Err(Illegal::Run { status: self.status, event }) }
    }

    /// A later process takes the run up: what had failed is ready again.
    fn take_up(&mut self, ready: &mut Vec<NodeId>) {
        let failed: Vec<NodeId> = self.in_state(TaskState::Failed).collect();
        if !self.shape.has_gates() {
            for node in failed {
                self.cells[node as usize].state = TaskState::Ready;
                ready.push(node);
            }
            return;
        }
        // What the gates let by is tried again, so they wait again, and with them what had not begun
        // yet behind them. Only what ended well or may be at work stands as it is.
        self.dead.clear();
        self.failures.clear();
        self.passed = 0;
        let mut passed = Vec::new();
        for node in 0..self.cells.len() as NodeId {
            let cell = &mut self.cells[node as usize];
            cell.missing = self.shape.incoming(node);
            let named = self.shape.name(node).is_some();
            match cell.state {
                state if named && state.passes() => passed.push(node),
                TaskState::Failed | TaskState::Ready | TaskState::Done => cell.state = TaskState::Waiting,
                _ => {}
            }
        }
        self.arrive_at_roots(ready);
        for node in passed {
            self.end(node, true, ready);
        }
    }

    /// Whatever waits for nothing is ready.
    fn arrive_at_roots(&mut self, ready: &mut Vec<NodeId>) {
        let shape = Arc::clone(&self.shape);
        for node in (0..self.cells.len() as NodeId).filter(|&node| shape.incoming(node) == 0) {
            self.arrive(node, ready);
        }
    }

    /// A node has ended: it passed, or it can't pass any more before the next resume. Whoever waits for
    /// it waits for one less. Each edge is followed once until the next resume.
    fn end(&mut self, node: NodeId, passed: bool, ready: &mut Vec<NodeId>) {
        let shape = Arc::clone(&self.shape);
        let mut ended = vec![(node, passed)];
        while let Some((node, passed)) = ended.pop() {
            self.passed += usize::from(passed && shape.name(node).is_some());
            // What a gate let by, or what closed it, counts on; anything else counts for itself.
            let failures = match shape.gate(node) {
                Some(_) => self.failures.get(&node).copied().unwrap_or(0),
                None => u32::from(!passed),
            };
            for &after in shape.after(node) {
                if passed {
                    self.cells[after as usize].missing -= 1;
                } else {
                    *self.dead.entry(after).or_default() += 1;
                }
                if shape.gate(after).is_some() {
                    *self.failures.entry(after).or_default() += failures;
                }
                let Cell { missing, state, .. } = self.cells[after as usize];
                let dead = self.dead_before(after);
                if missing != dead || state != TaskState::Waiting {
                    continue;
                }
                let open = match shape.gate(after) {
                    Some(limit) => self.failures.get(&after).copied().unwrap_or(0) < limit,
                    None => dead == 0,
                };
                if !open {
                    ended.push((after, false));
                } else if shape.name(after).is_some() {
                    self.cells[after as usize].state = TaskState::Ready;
                    ready.push(after);
                } else {
                    self.cells[after as usize].state = TaskState::Done;
                    ended.push((after, true));
                }
            }
        }
    }

    /// How many of those that a node waits for can't pass any more.
    fn dead_before(&self, node: NodeId) -> u32 {
        if self.dead.is_empty() { 0 } else { self.dead.get(&node).copied().unwrap_or(0) }
    }

    /// A node that waits for nothing.
    fn arrive(&mut self, node: NodeId, ready: &mut Vec<NodeId>) {
        if self.cells[node as usize].state != TaskState::Waiting {
            return;
        }
        if self.shape.name(node).is_some() {
            self.cells[node as usize].state = TaskState::Ready;
            ready.push(node);
        } else {
            self.cells[node as usize].state = TaskState::Done;
            self.end(node, true, ready);
        }
    }
}
