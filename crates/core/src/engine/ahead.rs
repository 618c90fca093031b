//! Looks taken ahead of their turn.
//!
//! As long as a run has changed nothing, it doesn't matter in which order it looks: what a check finds now it would
//! have found a moment later in its turn. So the checks of steps that allow it ([`Step::early`]) are made at once, from
//! the run's beginning on, many to a round trip; where each task's turn comes, what was found counts, if it is
//! [`Check::Satisfied`]. Everything else is looked at in its turn, as if nobody had looked before. Conditions, needs,
//! events and their order are the same.
//!
//! It ends for good with the first thing that isn't as it should be: before a change is even asked for, at a
//! failure, at a question. What was found more than [`COUNTS_FOR`] ago doesn't count either.
//!
//! Looks that are taken ahead may share an answer where they ask one host the same
//! ([`is_early`](crate::step::is_early)).
//!
//! A look sees the outputs that are recorded and those that other looks have found. One that asks for an output that
//! isn't there yet is made again once it is.
//!
//! [`Step::early`]: crate::step::Step::early

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Options;
use super::executor::{Env, Preparation};
use crate::plan::{Outputs, Plan};
use crate::run::NodeId;
use crate::step::{Check, Output, early};

/// How long what a look found counts.
const COUNTS_FOR: Duration = Duration::from_secs(10);

/// What looks that were taken ahead have found.
pub(super) struct Ahead {
    outputs: Arc<Outputs>,
    /// A node whose turn has come has none any more, and gets none.
    looks: Mutex<HashMap<NodeId, Option<watch::Receiver<Look>>>>,
    over: AtomicBool,
    told: mpsc::UnboundedSender<Told>,
}

#[derive(Debug)]
enum Look {
    Underway,
    Found(Instant, Output),
}

enum Told {
    /// An output is known.
    Known(NodeId),
    Over,
}

/// What is to be looked at ahead, and what is told of it.
pub(super) struct Looking {
    order: VecDeque<NodeId>,
    told: mpsc::UnboundedReceiver<Told>,
}

/// How a look ended.
enum Looked {
    Over,
    /// It asked for this node's output, which isn't there.
    Missed(NodeId, usize),
    /// The node's output is known now.
    Found(NodeId),
}

impl Ahead {
    /// No looks.
    pub(super) fn none() -> Self {
        let (told, _) = mpsc::unbounded_channel();
        Self {
            outputs: Arc::new(Outputs::new(0)),
            looks: Mutex::default(),
            over: AtomicBool::new(true),
            told,
        }
    }

    /// Looks at the tasks of a plan, where that is worth it: not where something is to be destroyed or is only right as a
    /// whole, nor where it is limited how many tasks are at work; `room` is how many over all hosts.
    pub(super) fn of(plan: &Plan, room: usize) -> (Self, Option<Looking>) {
        let destructive = !matches!(plan.confirmation(), Ok(None));
        let limited = plan.is_limited() || room < Options::default().concurrency;
        if plan.workflow.whole || destructive || limited {
            return (Self::none(), None);
        }
        let (told, hear) = mpsc::unbounded_channel();
        let early = plan
            .order()
            .into_iter()
            .filter(|node| plan.graph[*node].task().is_some_and(|task| !plan.depends_on_choice(task)));
        let order = early.map(|node| node.index() as NodeId).collect();
        let outputs = Arc::new(Outputs::new(plan.shape().len()));
        let ahead = Self { outputs, looks: Mutex::default(), over: AtomicBool::new(false), told };
        (ahead, Some(Looking { order, told: hear }))
    }

    fn looks(&self) -> MutexGuard<'_, HashMap<NodeId, Option<watch::Receiver<Look>>>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Something isn't as it should be: what was found counts no more.
    pub(super) fn end(&self) {
        if !self.over.swap(true, Ordering::SeqCst) {
            let _ = self.told.send(Told::Over);
        }
    }

    /// A recorded output, for the looks that wait for it.
    pub(super) fn known(&self, node: NodeId, output: &Output) {
        if !self.is_over() {
            // Looked at again in its turn, and it is otherwise: what others have found by it counts no more.
            if self.outputs.get(node as usize).is_some_and(|found| found.0 != output.0) {
                self.end();
                return;
            }
            self.outputs.set(node, output.clone());
            let _ = self.told.send(Told::Known(node));
        }
    }

    /// What a look at the task found, whose turn has come: waits for one that is under way. None where the task is to be
    /// looked at now.
    pub(super) async fn found(&self, node: NodeId) -> Option<Output> {
        if self.is_over() {
            return None;
        }
        let mut look = self.looks().insert(node, None).flatten()?;
        let found = look.wait_for(|look| !matches!(look, Look::Underway)).await.ok()?;
        match &*found {
            Look::Found(at, output) if !self.is_over() && at.elapsed() < COUNTS_FOR => Some(output.clone()),
            _ => None,
        }
    }

    /// Begins a look, unless the task's turn has come.
    fn begin(&self, node: NodeId) -> Option<watch::Sender<Look>> {
        let (sender, receiver) = watch::channel(Look::Underway);
        let mut looks = self.looks();
        if matches!(looks.get(&node), Some(None)) {
            return None;
        }
        looks.insert(node, Some(receiver));
        Some(sender)
    }
}

/// Takes looks ahead until all are taken or the first thing isn't as it should be; `room` at once.
pub(super) async fn look_ahead(env: Arc<Env>, looking: Looking, room: usize) {
    let Looking { mut order, mut told } = looking;
    let mut waiting: HashMap<usize, Vec<NodeId>> = HashMap::new();
    // Dropped with this task, and all of its looks with it.
    let mut at_work = JoinSet::new();
    loop {
        while at_work.len() < room
            && let Some(node) = order.pop_front()
        {
            if let Some(sender) = env.ahead.begin(node) {
                at_work.spawn(look(Arc::clone(&env), node, sender));
            }
        }
        let known = tokio::select! {
            Some(looked) = at_work.join_next() => match looked {
                Ok(Looked::Found(node)) => node,
                Ok(Looked::Missed(node, output)) if env.ahead.outputs.is_unset(output) => {
                    waiting.entry(output).or_default().push(node);
                    continue;
                }
                Ok(Looked::Missed(node, _)) => {
                    order.push_front(node);
                    continue;
                }
                Ok(Looked::Over) | Err(_) => continue,
            },
            told = told.recv() => match told {
                Some(Told::Known(node)) => node,
                Some(Told::Over) | None => return,
            },
        };
        order.extend(waiting.remove(&(known as usize)).unwrap_or_default());
    }
}

async fn look(env: Arc<Env>, node: NodeId, sender: watch::Sender<Look>) -> Looked {
    let (missed, began) = (Arc::new(OnceLock::new()), Instant::now());
    // A panic is the task's failure in its turn.
    let found = AssertUnwindSafe(look_at(&env, node, &missed)).catch_unwind().await.unwrap_or_default();
    if let Some(output) = missed.get() {
        return Looked::Missed(node, *output);
    }
    let Some(mut output) = found else { return Looked::Over };
    // As it will be stored.
    output.0.values_mut().for_each(|value| env.plan.redactor.value(value));
    env.ahead.outputs.set(node, output.clone());
    sender.send_replace(Look::Found(began, output));
    Looked::Found(node)
}

async fn look_at(env: &Env, node: NodeId, missed: &Arc<OnceLock<usize>>) -> Option<Output> {
    let outputs = (Arc::clone(&env.ahead.outputs), Some(Arc::clone(missed)));
    let Ok(Preparation::Go(prepared)) = env.prepare_by(node, 1, outputs) else { return None };
    if prepared.unseen.is_some() || !prepared.step.early() || missed.get().is_some() {
        return None;
    }
    match early(prepared.step.check(&prepared.cx)).await {
        Ok(Check::Satisfied(output)) => Some(output),
        _ => None,
    }
}
