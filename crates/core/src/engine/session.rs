//! One process's work on a run, from start or resume to its end: claims the run, has the hosts met and
//! locked, hands over to the scheduler, has the locks given back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Map;
use tokio::sync::mpsc;

use super::ahead::{Ahead, look_ahead};
use super::asking::{self, Asking};
use super::clock::Clock;
use super::control::{Control, Message, Stop};
use super::executor::Env;
use super::held::HeldTo;
use super::history;
use super::hosts::{Taking, give_back, tell_of_others};
use super::notices::{self, Notices};
use super::queue::Queue;
use super::scheduler::{Journal, Scheduler};
use super::undo::Undo;
use super::{Engine, EngineError, Holder, Report, RunHandle, read_definition};
use crate::inventory::{Host, Inventory};
use crate::plan::{Outputs, Plan, Scope, chosen_output};
use crate::run::{Asked, Event, NodeId, Outcome, Record, RunId, RunState, RunStatus, TaskState};
use crate::step::{Change, StepError};
use crate::store::{Claim, NewRun, Store, StoreError};

/// States of tasks of which it isn't known what became of the last attempt.
pub(super) const OPEN: [TaskState; 4] =
    [TaskState::Unknown, TaskState::Intended, TaskState::Undoing, TaskState::UndoUnknown];

/// A run that is claimed by this process and not at work yet.
pub struct Session {
    pub(super) engine: Engine,
    pub(super) plan: Arc<Plan>,
    pub(super) journal: Journal,
    claim: Box<dyn Claim>,
    pub(super) outputs: Arc<Outputs>,
    pub(super) started: Timestamp,
    /// The change of each attempt of which it isn't known what became of it.
    pub(super) changes: HashMap<NodeId, Change>,
    /// What waits for approval.
    asked: BTreeMap<NodeId, Asked>,
    pub(super) ready: Vec<NodeId>,
    as_found: bool,
    notices: Notices,
    pub(super) fresh: bool,
    /// Where it is taken back.
    pub(super) undo: Option<Undo>,
}

impl Engine {
    /// Starts a run: creates it in the store and sets to work. Needs a tokio runtime.
    ///
    /// A plan with destructive steps wants `confirmed` to be [`Plan::confirmation`]'s name.
    /// A plan that was saved has its id from then, and is run once in a store.
    pub fn start(
        &self,
        plan: impl Into<Arc<Plan>>,
        mut store: Box<dyn Store>,
        confirmed: Option<&str>,
    ) -> Result<RunHandle, EngineError> {
        let plan = plan.into();
        if let Some(name) = plan.confirmation()?
            && confirmed != Some(name.as_str())
        {
            return Err(EngineError::Unconfirmed { name });
        }
        let started = Timestamp::now();
        let id = match &plan.definition.shown {
            Some(shown) => shown.run.clone(),
            None => RunId::new(started.as_second(), rand::random()),
        };
        let claim = store.claim(&id, &self.options.owner)?;
        let definition = serde_json::to_string(&plan.definition)
            .map_err(|e| EngineError::Broken(format!("the plan can't be written: {e}")))?;
        store.create(&NewRun {
            id: id.clone(),
            workflow: plan.workflow.name.value.clone(),
            started,
            definition,
        })?;
        let (notifier, notices) = notices::channel();
        let mut ready = Vec::new();
        let state = RunState::new(Arc::clone(plan.shape()), &mut ready);
        let outputs = Arc::new(Outputs::new(plan.shape().len()));
        let redactor = Arc::clone(&plan.redactor);
        let mut session = Session {
            engine: self.clone(),
            plan,
            journal: Journal { store, state, seq: 0, clock: Clock::after(None), notifier, redactor, run: id },
            claim,
            outputs,
            started,
            changes: HashMap::new(),
            asked: BTreeMap::new(),
            ready,
            as_found: false,
            notices,
            fresh: true,
            undo: None,
        };
        let begin = Event::RunStarted { owner: self.options.owner.clone(), epoch: 1 };
        session.journal.commit(vec![begin], &mut Vec::new())?;
        Ok(session.work())
    }

    /// Takes up a run that was interrupted, failed or killed. `inventory` is the one of now, from
    /// which secrets are read again; the rest is as it was pinned.
    pub fn open(
        &self,
        mut store: Box<dyn Store>,
        run: &RunId,
        inventory: Option<&Inventory>,
    ) -> Result<Session, EngineError> {
        if store.is_imported(run)? {
            return Err(StoreError::Imported { run: run.clone() }.into());
        }
        let claim = store.claim(run, &self.options.owner)?;
        let definition = read_definition(run, &store.definition(run)?)?;
        let key = store.fingerprint_key()?;
        let make = || Ok(Past::of(Plan::pinned(definition, inventory, &self.registry, key)?));
        let Past { plan, state, outputs, changes, asked, seq, at } =
            history::replay(&mut *store, run, make, |past, record| past.take(run, record))?;
        let (notifier, notices) = notices::channel();
        // The time that the run was created with: names that steps make of it stay the same.
        let started = store.find(run.as_str())?.started;
        let redactor = Arc::clone(&plan.redactor);
        Ok(Session {
            engine: self.clone(),
            plan: Arc::new(plan),
            journal: Journal {
                store,
                state,
                seq,
                clock: Clock::after(at),
                notifier,
                redactor,
                run: run.clone(),
            },
            claim,
            outputs,
            started,
            changes,
            asked,
            ready: Vec::new(),
            as_found: false,
            notices,
            fresh: false,
            undo: None,
        })
    }
}

/// A run as its events leave it.
pub(super) struct Past {
    pub(super) plan: Plan,
    state: RunState,
    pub(super) outputs: Arc<Outputs>,
    changes: HashMap<NodeId, Change>,
    asked: BTreeMap<NodeId, Asked>,
    /// The number of the last event.
    seq: u64,
    /// Its time.
    at: Option<Timestamp>,
}

impl Past {
    pub(super) fn of(plan: Plan) -> Self {
        let state = RunState::new(Arc::clone(plan.shape()), &mut Vec::new());
        let outputs = Arc::new(Outputs::new(plan.shape().len()));
        Self { plan, state, outputs, changes: HashMap::new(), asked: BTreeMap::new(), seq: 0, at: None }
    }

    pub(super) fn take(&mut self, run: &RunId, record: Record) -> Result<(), EngineError> {
        let Record { seq, at, event } = record;
        self.seq = seq;
        self.at = Some(at);
        let node = self.state.apply(&event, &mut Vec::new()).map_err(|source| EngineError::History {
            run: run.clone(),
            seq,
            source,
        })?;
        if let Some(node) = node.filter(|_| !self.asked.is_empty()) {
            self.asked.remove(&node);
        }
        match (event, node) {
            (Event::TaskAsked { task, attempt, message }, Some(node)) => {
                self.asked.insert(node, Asked { task, attempt, message, since: at });
            }
            (Event::TaskApproved { by, when, .. }, Some(node)) => {
                self.outputs.set(node, asking::approval(&by, when));
            }
            (Event::TaskSatisfied { output, .. }, Some(node)) => self.outputs.set(node, output),
            (Event::TaskDone { output, .. }, Some(node)) => {
                self.changes.remove(&node);
                self.outputs.set(node, output);
            }
            (Event::HostsChosen { hosts, .. }, Some(node)) => self.outputs.set(node, chosen_output(&hosts)),
            (Event::TaskIntended { change, .. }, Some(node)) => {
                self.changes.insert(node, change);
            }
            (Event::TaskFailed { .. } | Event::TaskNotDone { .. }, Some(node)) => {
                self.changes.remove(&node);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Session {
    /// The plan as it was pinned.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where the run stands.
    pub fn state(&self) -> &RunState {
        &self.journal.state
    }

    /// For rehearsals: no wait between two attempts in this process, and so long at most for each
    /// attempt at that task, whatever the workflow says.
    pub fn hurry(&mut self, timeout: Option<(&str, std::time::Duration)>) {
        if let Some(plan) = Arc::get_mut(&mut self.plan) {
            plan.hurry(timeout);
        }
    }

    /// From here on changes are made as they are found, also where a saved plan showed others.
    pub fn as_found(&mut self) {
        self.as_found = true;
    }

    /// Goes on with the run. One that has ended well is refused.
    pub fn resume(mut self) -> Result<RunHandle, EngineError> {
        if let RunStatus::Ended(outcome @ (Outcome::Succeeded | Outcome::Undone)) =
            self.journal.state.status()
        {
            return Err(EngineError::Ended { run: self.journal.run.clone(), outcome });
        }
        if self.journal.state.turned_back() {
            return Err(EngineError::TurnedBack { run: self.journal.run.clone() });
        }
        let epoch = self.journal.state.epoch() + 1;
        let owner = self.engine.options.owner.clone();
        let begin = match self.journal.state.status() {
            // Killed between the creation of the run and its first event.
            RunStatus::New => Event::RunStarted { owner, epoch },
            _ => Event::RunResumed { owner, epoch },
        };
        self.journal.commit(vec![begin], &mut Vec::new())?;
        self.ready = self.journal.state.in_state(TaskState::Ready).collect();
        Ok(self.work())
    }

    pub(super) fn work(mut self) -> RunHandle {
        let (sender, inbox) = mpsc::unbounded_channel();
        let control = Control::new(sender.clone());
        let (_, empty) = notices::channel();
        let notices = std::mem::replace(&mut self.notices, empty);
        self.journal.notifier.hand_over();
        let id = self.journal.run.clone();
        let work = tokio::spawn(self.run_to_end(control.clone(), sender, inbox));
        RunHandle { id, notices, control, work }
    }

    async fn run_to_end(
        mut self,
        control: Control,
        sender: mpsc::UnboundedSender<Message>,
        inbox: mpsc::UnboundedReceiver<Message>,
    ) -> Result<Report, EngineError> {
        let (left_alone, hosts): (Vec<Arc<Host>>, Vec<Arc<Host>>) =
            self.plan.hosts().into_iter().partition(|host| {
                self.undo.as_ref().is_some_and(|undo| undo.keep_hosts.contains(&host.name))
            });
        let holder = Holder {
            run: self.journal.run.clone(),
            workflow: self.plan.workflow.name.value.clone(),
            owner: self.engine.options.owner.clone(),
            epoch: self.journal.state.epoch(),
            since: self.started,
        };
        let fleet = self.engine.fleet.clone();
        let unreachable = match &fleet {
            None => HashMap::new(),
            Some(fleet) => match self.take_hosts(&**fleet, &hosts, &holder).await {
                Ok(unreachable) => unreachable,
                Err(error) => {
                    let outcome = if self.fresh { Outcome::Refused } else { Outcome::Failed };
                    let run = self.journal.run.clone();
                    let (why, error) = match error {
                        Taking::Host(error) => {
                            let error = self.journal.masked_error(error);
                            (Some(error.clone()), EngineError::Host { run, error: Box::new(error) })
                        }
                        Taking::Engine(error) => (None, error),
                    };
                    let ended = Event::RunEnded { outcome, error: why };
                    self.journal.commit(vec![ended], &mut Vec::new())?;
                    fleet.close().await;
                    return Err(error);
                }
            },
        };
        let mut unreachable = unreachable;
        for host in &left_alone {
            let why = format!("{} is left as it is, so it isn't asked either", host.name);
            unreachable.insert(host.name.clone(), StepError::permanent(why));
        }
        let (held, away): (Vec<Arc<Host>>, Vec<Arc<Host>>) =
            hosts.into_iter().partition(|host| !unreachable.contains_key(&host.name));
        let Self {
            engine,
            plan,
            journal,
            claim,
            outputs,
            started,
            changes,
            asked,
            ready,
            as_found,
            fresh,
            undo,
            ..
        } = self;
        let state = &journal.state;
        let unsettled = OPEN.into_iter().flat_map(|s| state.in_state(s));
        let held_to = match &plan.definition.shown {
            Some(_) if !as_found => {
                let all = 0..state.shape().len() as NodeId;
                Some(HeldTo::new(all.filter(|&node| state.begun(node))))
            }
            _ => None,
        };
        let unsettled: Vec<(NodeId, Change)> =
            unsettled.map(|node| (node, changes.get(&node).cloned().unwrap_or_default())).collect();
        let notices = journal.notifier.clone();
        let whole = Scope {
            plan: Arc::clone(&plan),
            frame: 0,
            host: None,
            item: None,
            outputs: Arc::clone(&outputs),
            run: journal.run.clone(),
            started,
            missed: None,
        };
        let room = engine.options.concurrency.max(1);
        let (ahead, looking) =
            if fresh && undo.is_none() { Ahead::of(&plan, room) } else { (Ahead::none(), None) };
        let env = Arc::new(Env {
            plan: Arc::clone(&plan),
            outputs,
            resources: Arc::clone(&engine.resources),
            fleet: fleet.clone(),
            run: journal.run.clone(),
            started,
            epoch: holder.epoch,
            unreachable: unreachable.into(),
            notices: notices.clone(),
            planning: false,
            held_to,
            ahead,
        });
        let mut queue = Queue::of(&plan, room);
        ready.into_iter().for_each(|node| queue.push(node));
        let scheduler = Scheduler {
            journal,
            env,
            runtime: tokio::runtime::Handle::current(),
            control,
            sender,
            inbox,
            queue,
            delays: HashMap::new(),
            sleeping: HashSet::new(),
            unsettled,
            working: HashMap::new(),
            errors: HashMap::new(),
            stop_told: None::<Stop>,
            max_failures: plan.limits().max_failures,
            failures: 0,
            // On the way back nobody is asked.
            asking: if undo.is_some() { Asking::default() } else { Asking::of(asked) },
            settling: HashSet::new(),
            owner: engine.options.owner.clone(),
            undo,
            not_unwound: None,
        };
        let looks =
            looking.map(|looking| tokio::spawn(look_ahead(Arc::clone(&scheduler.env), looking, room)));
        let ended = tokio::task::spawn_blocking(move || scheduler.work()).await;
        if let Some(looks) = looks {
            looks.abort();
        }
        let ended = ended.map_err(|e| EngineError::Broken(e.to_string()))??;
        let mut journal = ended.journal;
        let locks_kept = match &fleet {
            Some(fleet) => {
                let why = "can't be reached; it may still be locked for this run";
                tell_of_others(&away, why, &journal.state, &notices);
                let run = &journal.run;
                let why =
                    format!("is left as the run left it, and locked for it; `flow unlock {run}` frees it");
                tell_of_others(&left_alone, &why, &journal.state, &notices);
                give_back(&**fleet, &plan, &held, &holder, &journal.state, ended.outcome, &notices).await
            }
            None => Vec::new(),
        };
        if let Some(error) = ended.store_error {
            return Err(error.into());
        }
        journal.commit(vec![Event::ended(ended.outcome)], &mut Vec::new())?;
        let mut failures: Vec<(NodeId, StepError)> = ended.errors.into_iter().collect();
        failures.retain(|(node, _)| !journal.state.task(*node).passes());
        failures.sort_by_key(|(node, _)| *node);
        drop(claim);
        Ok(Report {
            run: journal.run.clone(),
            outcome: ended.outcome,
            failures: failures
                .into_iter()
                .filter_map(|(node, error)| Some((plan.shape().name(node)?.clone(), error)))
                .collect(),
            outputs: if ended.outcome == Outcome::Succeeded { whole.outputs() } else { Map::new() },
            not_unwound: ended.not_unwound,
            state: journal.state,
            locks_kept,
        })
    }
}
