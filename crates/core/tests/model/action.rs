//! What can happen, and what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow_core::run::{Event, NodeId, Outcome, RunState, RunStatus, Settler, TaskName, TaskState};
use flow_core::step::{Change, Output, StepError};
use stateright::{Model, Property};

use crate::world::{
    Command, Harm, Host, Ledger, Life, Number, Process, Seen, Small, Work, World, in_states, name, reach,
};

/// Something of it is at work or unknown.
const OPEN: [TaskState; 4] =
    [TaskState::Intended, TaskState::Unknown, TaskState::Undoing, TaskState::UndoUnknown];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Action {
    /// While a process sleeps, its store, the first, is copied to one that is empty.
    Copy(Number),
    /// A process claims its store's run.
    Begin(Number),
    /// The same, to take it back.
    Turn(Number),
    Lock(Number),
    /// A process takes up a ready task: looks, and records what it found or the intent.
    Check(Number, NodeId),
    /// A process chooses hosts, in the inventory's order or the other way round.
    Choose(Number, NodeId, bool),
    /// A person approves what was asked in a store.
    Post(Number, NodeId),
    /// A process takes an approval in.
    Approve(Number, NodeId),
    /// A process takes up a task that can be taken back, and records the intent.
    CheckBack(Number, NodeId),
    Send(Number, NodeId),
    /// A command meets the guard on the host.
    Arrive(Command),
    /// A command that got past the guard brings its effect about, and ends.
    Effect(Command),
    Answer(Command),
    /// The connection ends: no answer will come, wherever the command is.
    Lose(Number, NodeId),
    Settle(Number, NodeId),
    /// The run has failed and turns round by itself.
    Unwind(Number),
    /// Nothing is left to do: the lock is given back.
    Leave(Number),
    End(Number),
    Kill(Number),
    Sleep(Number),
    Wake(Number),
    /// The operator takes the lock away.
    Unlock,
}

impl Small {
    fn may_act(&self, world: &World, n: Number, actions: &mut Vec<Action>) {
        let process = &world.processes[n];
        let Some(ledger) = world.ledger(n) else { return };
        match process.life {
            Life::Unborn => {
                let claimed = |other: &Process| {
                    other.store == process.store && !matches!(other.life, Life::Unborn | Life::Over)
                };
                let (status, turned) = (ledger.state.status(), ledger.state.turned_back());
                // Of a store and its copy only one is gone on with: two would count the same epochs.
                let left_for_a_copy = process.store == 0 && world.copied(self);
                if left_for_a_copy || world.processes.iter().any(claimed) {
                    return;
                }
                let over = matches!(status, RunStatus::Ended(Outcome::Succeeded | Outcome::Undone));
                if !over && !turned {
                    actions.push(Action::Begin(n));
                }
                let something = (0..ledger.state.shape().len() as NodeId).any(|n| ledger.state.begun(n));
                let may = turned || (world.budget.turns > 0 && something);
                if may && status != RunStatus::Ended(Outcome::Undone) {
                    actions.push(Action::Turn(n));
                }
            }
            // Refused for another run's lock and begun again later is the same as begun later.
            Life::Locking if world.host.lock.is_none_or(|(run, _)| run == ledger.run) => {
                actions.push(Action::Lock(n));
            }
            Life::Locking => {}
            Life::Leaving => actions.push(Action::End(n)),
            Life::Over => {}
            Life::Working => {
                if process.back {
                    self.may_take_back(process, &ledger.state, n, actions);
                } else {
                    self.may_start(world, n, ledger, actions);
                }
                for (&task, work) in &process.work {
                    match work {
                        Work::Leave => actions.push(Action::Send(n, task)),
                        Work::Sent if world.budget.losses > 0 => actions.push(Action::Lose(n, task)),
                        Work::Settling { .. } if self.may_settle(world, n, task) => {
                            actions.push(Action::Settle(n, task));
                        }
                        _ => {}
                    }
                }
                let waits = if process.back {
                    !process.stopped
                        && (0..ledger.state.shape().len() as NodeId).any(|n| ledger.state.can_undo(n))
                } else {
                    !in_states(&ledger.state, &[TaskState::Ready, TaskState::Asked]).is_empty()
                };
                let failed = !process.back && ledger.state.in_state(TaskState::Failed).next().is_some();
                if process.work.is_empty() && !waits {
                    actions.push(if self.unwinds && failed { Action::Unwind(n) } else { Action::Leave(n) });
                }
            }
        }
    }

    /// Of the tasks that are ready each is taken up in its own way.
    fn may_start(&self, world: &World, n: Number, ledger: &Ledger, actions: &mut Vec<Action>) {
        let process = &world.processes[n];
        let ready = ledger.state.in_state(TaskState::Ready);
        for task in ready.filter(|task| !process.work.contains_key(task)) {
            if ledger.state.shape().choice(task).is_some() {
                actions.extend([false, true].map(|turned| Action::Choose(n, task, turned)));
            } else {
                actions.push(Action::Check(n, task));
            }
        }
        let answered =
            |task: &NodeId| world.signals.contains(&(process.store, *task, ledger.state.attempt(*task)));
        let asked = ledger.state.in_state(TaskState::Asked).filter(answered);
        actions.extend(asked.map(|task| Action::Approve(n, task)));
    }

    fn may_take_back(&self, process: &Process, state: &RunState, n: Number, actions: &mut Vec<Action>) {
        let all = 0..state.shape().len() as NodeId;
        let free = all.filter(|task| state.can_undo(*task) && !process.work.contains_key(task));
        if !process.stopped {
            actions.extend(free.map(|task| Action::CheckBack(n, task)));
        }
    }

    /// An attempt that is alive is waited for.
    fn may_settle(&self, world: &World, n: Number, task: NodeId) -> bool {
        let Some(ledger) = world.ledger(n) else { return false };
        let attempt = (ledger.run, task, ledger.state.attempt(task));
        !self.rules.waiting || world.host.alive.iter().all(|command| command.name() != attempt)
    }

    fn begin(&self, world: &mut World, n: Number, back: bool) {
        let Some(ledger) = world.ledger(n) else { return };
        let state = &ledger.state;
        let (run, owner, epoch) = (ledger.run, String::new(), state.epoch() + 1);
        let free = back && !state.turned_back();
        let event = match state.status() {
            _ if back => Event::UndoStarted { owner, epoch },
            RunStatus::New => Event::RunStarted { owner, epoch },
            _ => Event::RunResumed { owner, epoch },
        };
        let unsettled = in_states(state, &OPEN);
        if unsettled.iter().any(|task| world.host.alive.iter().any(|c| (c.run, c.task) == (run, *task))) {
            world.seen.insert(Seen::FoundAlive);
        }
        world.commit(n, &event);
        let process = &mut world.processes[n];
        process.work = unsettled.into_iter().map(|n| (n, Work::Settling { after_crash: true })).collect();
        (process.life, process.epoch, process.back) = (Life::Locking, epoch, back);
        world.budget.turns -= u8::from(free);
    }

    fn lock(&self, world: &mut World, n: Number) {
        let Some(run) = world.ledger(n).map(|ledger| ledger.run) else { return };
        let epoch = world.processes[n].epoch;
        if world.host.lock.is_none_or(|(_, held)| epoch > held) {
            world.host.lock = Some((run, epoch));
            world.processes[n].life = Life::Working;
        } else {
            world.commit(n, &Event::ended(Outcome::Refused));
            world.processes[n].life = Life::Over;
        }
    }

    fn check(&self, world: &mut World, n: Number, node: NodeId) {
        let (task, output) = (name(node), Output::empty());
        if world.there(node) && !self.bare {
            world.commit(n, &Event::TaskSatisfied { task, output });
            return;
        }
        let attempt = world.ledger(n).map_or(0, |ledger| ledger.state.attempt(node)) + 1;
        if self.gates.contains(&node) {
            world.askers.insert(node, n);
            return world.commit(n, &Event::TaskAsked { task, attempt, message: String::new() });
        }
        world.commit(n, &Event::TaskIntended { task, attempt, change: Change::default() });
        world.processes[n].work.insert(node, Work::Leave);
    }

    fn check_back(&self, world: &mut World, n: Number, node: NodeId) {
        let attempt = world.ledger(n).map_or(0, |ledger| ledger.state.attempt(node)) + 1;
        world.commit(n, &Event::UndoIntended { task: name(node), attempt });
        world.processes[n].work.insert(node, Work::Leave);
    }

    fn choose(&self, world: &mut World, n: Number, node: NodeId, turned: bool) {
        let choice = world.ledger(n).and_then(|ledger| ledger.state.shape().choice(node).cloned());
        let mut hosts: Vec<String> =
            choice.into_iter().flat_map(|choice| choice.parts).map(|part| part.host).collect();
        if turned {
            hosts.reverse();
            world.seen.insert(Seen::Reordered);
        }
        world.commit(n, &Event::HostsChosen { task: name(node), hosts });
        world.decided.insert(node);
    }

    fn approve(&self, world: &mut World, n: Number, node: NodeId) {
        let attempt = world.ledger(n).map_or(0, |ledger| ledger.state.attempt(node));
        world.signals.remove(&(world.processes[n].store, node, attempt));
        if world.askers.get(&node) != Some(&n) {
            world.seen.insert(Seen::ApprovedLater);
        }
        let when = jiff::Timestamp::UNIX_EPOCH;
        world.commit(n, &Event::TaskApproved { task: name(node), attempt, by: String::new(), when });
        world.decided.insert(node);
    }

    fn send(&self, world: &mut World, n: Number, task: NodeId) {
        let Some(ledger) = world.ledger(n) else { return };
        let (run, epoch) = (ledger.run, world.processes[n].epoch);
        let back = ledger.state.task(task) == TaskState::Undoing;
        let command = Command { run, epoch, task, attempt: ledger.state.attempt(task), back, by: n };
        if world.names.insert(command.name(), back).is_some_and(|other| other != back) {
            world.harm.insert(Harm::Number);
        }
        world.requests.insert(command);
        world.processes[n].work.insert(task, Work::Sent);
    }

    fn arrive(&self, world: &mut World, command: Command) {
        world.requests.remove(&command);
        let own = Some((command.run, command.epoch));
        let held = world.host.lock;
        let lock = !self.rules.lock || held.is_some_and(|(run, _)| run == command.run);
        let epoch = !self.rules.epoch || held.is_none_or(|(_, epoch)| epoch == command.epoch);
        let closed = self.rules.closing && world.host.closed.contains(&command.name());
        let flocked = world.host.alive.iter().any(|other| other.name() == command.name());
        if !lock || !epoch || closed || flocked {
            world.seen.insert(Seen::Fenced);
            world.answers.insert(command, false);
            return;
        }
        if held != own {
            world.harm.insert(Harm::WithoutLock);
        }
        if world.host.alive.iter().any(|other| other.task == command.task) {
            world.harm.insert(Harm::Twice);
        }
        // The run's own DAG: hosts that were chosen have their order in it.
        let shape = world.ledger(command.by).map(|ledger| Arc::clone(ledger.state.shape()));
        let others = shape.map(|shape| reach(&shape, command.task, command.back)).unwrap_or_default();
        let in_order = |other: &NodeId| match command.back {
            true => !world.host.there.contains(other),
            false => world.there(*other),
        };
        if !others.iter().all(in_order) {
            world.harm.insert(Harm::TooEarly);
        }
        world.host.alive.insert(command);
    }

    fn effect(&self, world: &mut World, command: Command) {
        world.host.alive.remove(&command);
        // A later process of the same run may have the lock by now: it waits for this one's end.
        if world.host.lock.is_none_or(|(run, _)| run != command.run) {
            world.harm.insert(Harm::WithoutLock);
        }
        if command.back {
            world.host.there.remove(&command.task);
            world.answers.insert(command, true);
            return;
        }
        world.host.there.insert(command.task);
        let count = world.host.effects.entry(command.task).or_default();
        *count += 1;
        // Two runs may do the same one after the other, where no one can see that it is there.
        if *count > 1 && !self.bare {
            world.harm.insert(Harm::Twice);
        }
        world.answers.insert(command, true);
    }

    fn answer(&self, world: &mut World, command: Command) {
        let Some(done) = world.answers.remove(&command) else { return };
        let (n, attempt) = (command.by, command.attempt);
        let (task, output) = (name(command.task), Output::empty());
        world.processes[n].work.remove(&command.task);
        let event = if command.back {
            self.answer_back(world, command, done)
        } else if done {
            Event::TaskDone { task, attempt, output, by: None }
        } else {
            Event::TaskFailed { task, attempt, error: StepError::permanent("fenced"), retry_in_ms: None }
        };
        world.commit(n, &event);
    }

    fn answer_back(&self, world: &mut World, command: Command, done: bool) -> Event {
        let (task, attempt) = (name(command.task), command.attempt);
        if done {
            world.seen.insert(Seen::Undone);
            return Event::TaskUndone { task, attempt, by: None };
        }
        world.processes[command.by].stopped = true;
        Event::UndoFailed { task, attempt, error: StepError::permanent("fenced"), retry_in_ms: None }
    }

    /// An undo that was cut short is made again: it can be, from wherever it was.
    fn settle_back(&self, world: &mut World, n: Number, task: TaskName, attempt: u32, after_crash: bool) {
        world.seen.insert(Seen::UndoneAgain);
        let event = match after_crash {
            true => Event::UndoNotDone { task, attempt, by: Settler::Step },
            false => {
                let error = StepError::lost("lost");
                Event::UndoFailed { task, attempt, error, retry_in_ms: Some(0) }
            }
        };
        world.commit(n, &event);
    }

    /// What became of an attempt, by what is to be seen on the host.
    fn settle(&self, world: &mut World, n: Number, node: NodeId) {
        let Some(Work::Settling { after_crash }) = world.processes[n].work.remove(&node) else { return };
        let Some(ledger) = world.ledger(n) else { return };
        let (run, attempt, state) = (ledger.run, ledger.state.attempt(node), ledger.state.task(node));
        world.host.closed.insert((run, node, attempt));
        let (task, output, error) = (name(node), Output::empty(), StepError::lost("lost"));
        if matches!(state, TaskState::Undoing | TaskState::UndoUnknown) {
            return self.settle_back(world, n, task, attempt, after_crash);
        }
        // Of a bare command a person tells when the run is gone on with, and tells the truth.
        if self.bare && !(after_crash && state == TaskState::Unknown) {
            world.seen.insert(Seen::Unknown);
            return world.commit(n, &Event::TaskUnknown { task, attempt, error });
        }
        let by = if self.bare { Settler::Operator(String::new()) } else { Settler::Step };
        let event = if world.there(node) {
            world.seen.insert(Seen::SettledDone);
            Event::TaskDone { task, attempt, output, by: Some(by) }
        } else {
            world.seen.insert(Seen::SettledNotDone);
            if after_crash {
                Event::TaskNotDone { task, attempt, by }
            } else {
                Event::TaskFailed { task, attempt, error, retry_in_ms: (!self.unwinds).then_some(0) }
            }
        };
        world.commit(n, &event);
    }

    fn leave(&self, world: &mut World, n: Number) {
        let Some(ledger) = world.ledger(n) else { return };
        let unsettled = !in_states(&ledger.state, &OPEN).is_empty();
        let (run, epoch) = (ledger.run, world.processes[n].epoch);
        if !unsettled && world.host.lock.is_some_and(|(holder, held)| holder == run && held <= epoch) {
            world.host.lock = None;
        }
        world.processes[n].life = Life::Leaving;
    }

    fn end(&self, world: &mut World, n: Number) {
        let Some(ledger) = world.ledger(n) else { return };
        let unknown = ledger.state.in_state(TaskState::Unknown).next().is_some();
        let outcome = if ledger.state.all_undone() {
            Outcome::Undone
        } else if ledger.state.all_passed() && !ledger.state.undoing() {
            Outcome::Succeeded
        } else if unknown {
            Outcome::Undecided
        } else {
            Outcome::Failed
        };
        world.commit(n, &Event::ended(outcome));
        world.processes[n].life = Life::Over;
    }

    /// What is recorded is there, and what was taken back isn't; nothing that was recorded is gone.
    fn compare(&self, before: &World, after: &mut World) {
        let of = |ledger: &Option<Ledger>, states: &[TaskState]| -> BTreeSet<NodeId> {
            ledger.iter().flat_map(|ledger| in_states(&ledger.state, states)).collect()
        };
        let done = [TaskState::Done, TaskState::Satisfied];
        let back = [TaskState::Undoing, TaskState::UndoFailed, TaskState::UndoUnknown, TaskState::Undone];
        for (old, new) in before.stores.iter().zip(&after.stores) {
            let known: BTreeSet<NodeId> = &of(new, &done) | &of(new, &back);
            let there = of(new, &done).iter().all(|task| after.there(*task));
            let gone = of(new, &[TaskState::Undone]).iter().all(|task| !after.there(*task));
            if !of(old, &done).is_subset(&known) || !there || !gone {
                after.harm.insert(Harm::Lost);
            }
        }
    }
}

impl Model for Small {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let ledger = |run| Ledger { run, state: RunState::new(Arc::clone(&self.shape), &mut Vec::new()) };
        let process = |store: &Number| Process {
            store: *store,
            life: Life::Unborn,
            epoch: 0,
            back: false,
            stopped: false,
            work: BTreeMap::new(),
        };
        vec![World {
            stores: self.stores.iter().map(|run| run.map(ledger)).collect(),
            processes: self.processes.iter().map(process).collect(),
            asleep: BTreeSet::new(),
            host: Host::default(),
            requests: BTreeSet::new(),
            answers: BTreeMap::new(),
            names: BTreeMap::new(),
            signals: BTreeSet::new(),
            askers: BTreeMap::new(),
            decided: BTreeSet::new(),
            budget: self.budget,
            harm: BTreeSet::new(),
            seen: BTreeSet::new(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for n in 0..world.processes.len() {
            let at_work = !matches!(world.processes[n].life, Life::Unborn | Life::Over);
            if !world.awake(n) {
                // A copy is taken of what the sleeper knows, and has the lock before it wakes up.
                let took_over = |p: &Process| p.store != 0 && !matches!(p.life, Life::Unborn | Life::Locking);
                if !world.copied(self) || world.processes.iter().any(took_over) {
                    actions.push(Action::Wake(n));
                }
            } else {
                self.may_act(world, n, actions);
                if at_work && world.budget.naps > 0 {
                    actions.push(Action::Sleep(n));
                }
            }
            if at_work && world.budget.kills > 0 {
                actions.push(Action::Kill(n));
            }
        }
        for (store, ledger) in world.stores.iter().enumerate() {
            let Some(ledger) = ledger else { continue };
            let open = |task: &NodeId| !world.signals.contains(&(store, *task, ledger.state.attempt(*task)));
            let asked = ledger.state.in_state(TaskState::Asked).filter(open);
            actions.extend(asked.map(|task| Action::Post(store, task)));
        }
        let begun = world.stores[0].as_ref().is_some_and(|ledger| ledger.state.status() != RunStatus::New);
        let asleep = begun && !world.asleep.is_empty();
        let empty = (0..world.stores.len()).filter(|n| asleep && world.stores[*n].is_none());
        actions.extend(empty.map(Action::Copy));
        actions.extend(world.requests.iter().copied().map(Action::Arrive));
        actions.extend(world.host.alive.iter().copied().map(Action::Effect));
        let awaited = |command: &&Command| {
            let process = &world.processes[command.by];
            world.awake(command.by)
                && process.life == Life::Working
                && process.work.get(&command.task) == Some(&Work::Sent)
                && world.ledger(command.by).is_some_and(|l| l.state.attempt(command.task) == command.attempt)
        };
        actions.extend(world.answers.keys().filter(awaited).copied().map(Action::Answer));
        if let Some((run, _)) = world.host.lock.filter(|_| world.budget.unlocks > 0) {
            let alive = world.host.alive.iter().any(|command| command.run == run);
            if !alive || !self.rules.proof {
                actions.push(Action::Unlock);
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Copy(store) => world.stores[store] = world.stores[0].clone(),
            Action::Begin(n) => self.begin(&mut world, n, false),
            Action::Turn(n) => self.begin(&mut world, n, true),
            Action::Choose(n, task, turned) => self.choose(&mut world, n, task, turned),
            Action::Post(store, task) => {
                let attempt = world.stores[store].as_ref().map_or(0, |ledger| ledger.state.attempt(task));
                world.signals.insert((store, task, attempt));
            }
            Action::Approve(n, task) => self.approve(&mut world, n, task),
            Action::CheckBack(n, task) => self.check_back(&mut world, n, task),
            Action::Lock(n) => self.lock(&mut world, n),
            Action::Check(n, task) => self.check(&mut world, n, task),
            Action::Send(n, task) => self.send(&mut world, n, task),
            Action::Arrive(command) => self.arrive(&mut world, command),
            Action::Effect(command) => self.effect(&mut world, command),
            Action::Answer(command) => self.answer(&mut world, command),
            Action::Lose(n, task) => {
                world.budget.losses -= 1;
                world.processes[n].work.insert(task, Work::Settling { after_crash: false });
            }
            Action::Settle(n, task) => self.settle(&mut world, n, task),
            Action::Unwind(n) => {
                let (owner, epoch) = (String::new(), world.processes[n].epoch);
                world.commit(n, &Event::UndoStarted { owner, epoch });
                world.processes[n].back = true;
            }
            Action::Leave(n) => self.leave(&mut world, n),
            Action::End(n) => self.end(&mut world, n),
            Action::Kill(n) => {
                world.budget.kills -= 1;
                world.asleep.remove(&n);
                world.processes[n].life = Life::Over;
                world.processes[n].work.clear();
                world.answers.retain(|command, _| command.by != n);
            }
            Action::Sleep(n) => {
                world.budget.naps -= 1;
                world.asleep.insert(n);
            }
            Action::Wake(n) => {
                world.asleep.remove(&n);
            }
            Action::Unlock => {
                world.budget.unlocks -= 1;
                world.host.lock = None;
                world.seen.insert(Seen::Unlocked);
            }
        }
        self.compare(before, &mut world);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every event is one that the state allows", |_, w: &World| {
                !w.harm.contains(&Harm::Refused)
            }),
            Property::always("no effect is brought about twice", |_, w: &World| {
                !w.harm.contains(&Harm::Twice)
            }),
            Property::always(
                "nothing begins before what it needs, or is taken from under it",
                |_, w: &World| !w.harm.contains(&Harm::TooEarly),
            ),
            Property::always("nothing is changed without the lock", |_, w: &World| {
                !w.harm.contains(&Harm::WithoutLock)
            }),
            Property::always("no result is lost, and none is recorded that isn't there", |_, w: &World| {
                !w.harm.contains(&Harm::Lost)
            }),
            Property::always("no two attempts of a task share a number", |_, w: &World| {
                !w.harm.contains(&Harm::Number)
            }),
            Property::always("every run comes to a good end", |model: &Self, w: &World| {
                let mut actions = Vec::new();
                model.actions(w, &mut actions);
                let good = |ledger: &Option<Ledger>| {
                    ledger.as_ref().is_none_or(|ledger| {
                        let status = ledger.state.status();
                        matches!(status, RunStatus::Ended(Outcome::Succeeded | Outcome::Undone))
                    })
                };
                // A store that was left for its copy may stay as it is.
                let left = usize::from(w.copied(model));
                !actions.is_empty() || w.stores.iter().skip(left).all(good)
            }),
        ]
    }
}
