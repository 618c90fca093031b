//! Runs one task: condition, arguments, check, guards, and what [`super::attempt`] does; or, for an intent that was
//! found without a result, settles what became of it. Decides nothing about other tasks.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures_util::FutureExt;
use jiff::Timestamp;
use petgraph::graph::NodeIndex;
use tokio::sync::{mpsc, oneshot};

use super::ahead::Ahead;
use super::control::Message;
use super::held::HeldTo;
use super::notices::Notifier;
use super::{Fleet, Notice, SharedPlan};
use crate::plan::{Mode, Outputs, Plan, Scope, Task};
use crate::run::{NodeId, RunId, TaskName};
use crate::step::{
    Attempt, Change, Check, Context, ContextParts, Outcome, Output, Progress, Resources, Step, StepError,
};
use crate::workflow::expr;

/// What every executor of a run shares.
pub(super) struct Env {
    pub(super) plan: SharedPlan,
    pub(super) outputs: Arc<Outputs>,
    pub(super) resources: Arc<Resources>,
    pub(super) fleet: Option<Arc<dyn Fleet>>,
    pub(super) run: RunId,
    pub(super) started: Timestamp,
    pub(super) epoch: u64,
    /// Hosts that could not be met; their tasks fail with this.
    pub(super) unreachable: Unreachable,
    pub(super) notices: Notifier,
    pub(super) planning: bool,
    /// The run does what a saved plan showed, and nothing else.
    pub(super) held_to: Option<HeldTo>,
    /// What was looked at before its turn.
    pub(super) ahead: Ahead,
}

/// Hosts that could not be met, and why. A preview learns of them while it looks at others.
#[derive(Default)]
pub(super) struct Unreachable(RwLock<HashMap<String, StepError>>);

impl Unreachable {
    pub(super) fn insert(&self, host: &str, why: StepError) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), why);
    }

    fn get(&self, host: &str) -> Option<StepError> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }
}

impl From<HashMap<String, StepError>> for Unreachable {
    fn from(hosts: HashMap<String, StepError>) -> Self {
        Self(RwLock::new(hosts))
    }
}

/// What a task's texts see of others: their outputs, and where it is told that one was missing.
type Known = (Arc<Outputs>, Option<Arc<OnceLock<usize>>>);

/// How an executor's work on a task ended.
#[derive(Debug)]
pub(super) enum End {
    Skipped(String),
    Satisfied(Output),
    /// A choice of hosts was made.
    Chosen(Vec<String>),
    Done(Output),
    Failed(StepError),
    Unknown(StepError),
    /// Settled: the attempt had no effect.
    NotDone,
    /// A person is to decide.
    Asks(String),
    /// The scheduler gave no leave to apply, or to take back.
    NotStarted,
    Undone,
    UndoFailed(StepError),
    /// The answer was lost, and the undo must be made again.
    UndoLost(StepError),
    UndoUnknown(StepError),
    /// Settled: the attempt left something to take back.
    UndoNotDone,
    Kept(String),
}

/// A task as an executor sees it, ready to be checked.
pub(super) struct Prepared {
    pub(super) step: Box<dyn Step>,
    pub(super) cx: Context,
    /// Its host can't be reached, and this is what the step tells of that.
    pub(super) unseen: Option<Output>,
}

impl Prepared {
    /// Looks, where there is a host to look at.
    pub(super) async fn check(&self) -> Result<Check, StepError> {
        if let Some(output) = &self.unseen {
            return Ok(Check::Satisfied(output.clone()));
        }
        let seen = self.step.check(&self.cx).await;
        seen.or_else(|error| self.step.unseen(&error).map(Check::Satisfied).ok_or(error))
    }
}

/// What came of preparing a task.
pub(super) enum Preparation {
    Skip(String),
    Go(Prepared),
}

/// Why no hosts were chosen.
pub(super) enum Unchosen {
    /// The step isn't run at all.
    Skip(String),
    Failed(StepError),
}

/// Runs a task from its condition to its end. A panic of a step is that task's failure.
pub(super) async fn run(
    env: Arc<Env>,
    node: NodeId,
    attempt: u32,
    scheduler: mpsc::UnboundedSender<Message>,
) {
    let work = AssertUnwindSafe(env.attempt(node, attempt, &scheduler)).catch_unwind();
    let end = work.await.unwrap_or_else(|panic| End::Failed(panicked(&*panic)));
    if !matches!(end, End::Satisfied(_) | End::Skipped(_) | End::Chosen(_)) {
        env.ahead.end();
    }
    let _ = scheduler.send(Message::Finished { node, attempt, end });
}

/// Settles an attempt that was found without a result.
pub(super) async fn settle(
    env: Arc<Env>,
    node: NodeId,
    attempt: u32,
    change: Change,
    scheduler: mpsc::UnboundedSender<Message>,
) {
    let work = AssertUnwindSafe(async {
        match env.prepare(node, attempt) {
            Ok(Preparation::Go(prepared)) => {
                let lost =
                    StepError::lost("the process that worked on it ended before its result was recorded");
                env.settle(node, &prepared, &change, lost, true).await
            }
            Ok(Preparation::Skip(why)) => End::Unknown(StepError::failed(format!(
                "it was begun, but its condition is false now: {why}"
            ))),
            Err(error) => End::Unknown(error),
        }
    })
    .catch_unwind();
    let end = work.await.unwrap_or_else(|panic| End::Unknown(panicked(&*panic)));
    let _ = scheduler.send(Message::Finished { node, attempt, end });
}

pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> StepError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    StepError::permanent(format!("the step broke: {text}"))
        .with_hint("this is a defect of the step type; report it")
}

impl Env {
    /// The task of a node. Joins are never given to an executor.
    pub(super) fn task(&self, node: NodeId) -> Option<&Task> {
        self.plan.node(node).task()
    }

    /// Whether a person decides on the task.
    pub(super) fn is_gate(&self, node: NodeId) -> bool {
        let step = self.task(node).map(|task| &self.plan.steps[task.step].def);
        step.and_then(|step| self.plan.registry.get(&step.uses.value)).is_some_and(|info| info.gate)
    }

    /// Whether the task was filtered out and is only looked at, since what is run needs it. What only waits is waited for:
    /// it may not be so for a moment, after what was changed before it.
    pub(super) fn must_hold(&self, node: NodeId) -> bool {
        self.task(node).is_some_and(|task| task.mode == Mode::MustHold) && !self.waits(node)
    }

    fn scope(&self, task: &Task) -> Scope {
        self.scope_by(task, (Arc::clone(&self.outputs), None))
    }

    fn scope_by(&self, task: &Task, (outputs, missed): Known) -> Scope {
        Scope {
            plan: Arc::clone(&self.plan),
            frame: self.plan.steps[task.step].frame,
            host: task.host.clone(),
            item: task.item.clone(),
            outputs,
            run: self.run.clone(),
            started: self.started,
            missed,
        }
    }

    /// Evaluates the conditions, its own and those of the steps that lead to it, and its arguments.
    pub(super) fn prepare(&self, node: NodeId, attempt: u32) -> Result<Preparation, StepError> {
        self.prepare_by(node, attempt, (Arc::clone(&self.outputs), None))
    }

    /// The same by these outputs.
    pub(super) fn prepare_by(
        &self,
        node: NodeId,
        attempt: u32,
        known: Known,
    ) -> Result<Preparation, StepError> {
        let Some(task) = self.task(node) else { return Err(StepError::permanent("it is no task")) };
        if let Some(why) = self.plan.not_chosen(task, &known.0) {
            return Ok(Preparation::Skip(why));
        }
        if self.away(task).is_some() {
            self.prepare_scoped(task, attempt, self.scope_by(task, known.clone()))?;
        }
        if let Some(why) = self.false_condition(task, &self.scope_by(task, known.clone()))? {
            return Ok(Preparation::Skip(why));
        }
        self.prepare_scoped(task, attempt, self.scope_by(task, known)).map(Preparation::Go)
    }

    /// Why the task's host can't be reached.
    fn away(&self, task: &Task) -> Option<StepError> {
        task.host.as_ref().and_then(|host| self.unreachable.get(&host.name))
    }

    /// Evaluates the arguments alone. On a host that can't be reached only a step is that can tell so.
    pub(super) fn prepare_unconditionally(&self, node: NodeId, attempt: u32) -> Result<Prepared, StepError> {
        let Some(task) = self.task(node) else { return Err(StepError::permanent("it is no task")) };
        self.prepare_scoped(task, attempt, self.scope(task))
    }

    fn prepare_scoped(&self, task: &Task, attempt: u32, scope: Scope) -> Result<Prepared, StepError> {
        let made = self.make(task, &scope);
        let unseen = match self.away(task) {
            None => None,
            Some(why) => {
                let told = made.as_ref().ok().and_then(|step| step.unseen(&why));
                Some(told.ok_or(why)?)
            }
        };
        let step = made?;
        let cx = Context::new(ContextParts {
            attempt: Attempt {
                run: self.run.clone(),
                task: task.name.clone(),
                number: attempt,
                epoch: self.epoch,
            },
            host: task.host.clone(),
            resources: Arc::clone(&self.resources),
            progress: Arc::new(Teller {
                task: task.name.clone(),
                notices: self.notices.clone(),
                plan: Arc::clone(&self.plan),
            }),
            renderer: Arc::new(scope),
            run_started: self.started,
            planning: self.planning,
        });
        Ok(Prepared { step, cx, unseen })
    }

    /// The step with its arguments.
    fn make(&self, task: &Task, scope: &Scope) -> Result<Box<dyn Step>, StepError> {
        let def = &self.plan.steps[task.step].def;
        let mut arguments = serde_json::Map::new();
        for (name, argument) in &def.with.value {
            let value = argument.render(&mut |text| scope.text(text)).map_err(|e| {
                StepError::permanent(format!("the argument `{name}` can't be evaluated: {e}"))
            })?;
            arguments.insert(name.clone(), value);
        }
        let info = self
            .plan
            .registry
            .get(&def.uses.value)
            .ok_or_else(|| StepError::permanent(format!("there is no step type `{}`", def.uses.value)))?;
        let step = info.make(arguments.into()).map_err(|e| {
            StepError::permanent(format!("the arguments of `{}` are wrong: {e}", def.uses.value))
        })?;
        Ok(step)
    }

    /// Chooses the hosts of a task's step, where the task is for that.
    pub(super) fn choose(&self, task: &Task) -> Option<Result<Vec<String>, Unchosen>> {
        let (choosing, from) = self.plan.chooses_by(task)?;
        let scope = self.scope(task);
        Some(match self.false_condition(task, &scope) {
            Ok(Some(why)) => Err(Unchosen::Skip(why)),
            Err(error) => Err(Unchosen::Failed(error)),
            Ok(None) => scope
                .text(from)
                .map_err(|e| StepError::permanent(format!("the hosts can't be chosen: {e}")))
                .and_then(|value| choosing.accept(&value))
                .map_err(Unchosen::Failed),
        })
    }

    /// The first condition that is false, outermost first.
    fn false_condition(&self, task: &Task, scope: &Scope) -> Result<Option<String>, StepError> {
        let mut conditions = Vec::new();
        let mut inner = Some((scope.clone(), self.plan.steps[task.step].def.clone()));
        while let Some((scope, def)) = inner {
            inner = scope.caller().and_then(|outer| {
                let caller = self.plan.frames[scope.frame].caller.as_ref()?;
                Some((outer, Arc::clone(&self.plan.steps[caller.step].def)))
            });
            conditions.push((scope, def));
        }
        for (scope, def) in conditions.iter().rev() {
            let Some(condition) = &def.condition else { continue };
            if task.mode == Mode::Choose && scope.host.is_none() && self.is_of_host(&condition.value) {
                continue; // It is for each host to say, once it was chosen.
            }
            let value = scope
                .expression(&condition.value)
                .and_then(|value| expr::as_condition(&value))
                .map_err(|e| StepError::permanent(format!("the condition `{}`: {e}", condition.value)))?;
            if !value {
                return Ok(Some(format!("{} is false", condition.value)));
            }
        }
        Ok(None)
    }

    /// Whether a condition can't be evaluated without a host or an item.
    fn is_of_host(&self, condition: &str) -> bool {
        let names = self.plan.evaluator.expression_names(condition).unwrap_or_default();
        names.iter().any(|name| {
            ["host", "vars", "item", "item_index"].contains(&name.split('.').next().unwrap_or_default())
        })
    }

    async fn attempt(&self, node: NodeId, attempt: u32, scheduler: &mpsc::UnboundedSender<Message>) -> End {
        match self.task(node).and_then(|task| self.choose(task)) {
            None => {}
            Some(Ok(hosts)) => {
                let held = self.held_to.as_ref();
                return match held.and_then(|_| HeldTo::forbids_choice(self, node, &hosts)) {
                    Some(error) => End::Failed(error),
                    None => End::Chosen(hosts),
                };
            }
            Some(Err(Unchosen::Skip(why))) => return End::Skipped(why),
            Some(Err(Unchosen::Failed(error))) => return End::Failed(error),
        }
        if let Some(output) = self.ahead.found(node).await {
            return End::Satisfied(output);
        }
        let prepared = match self.prepare(node, attempt) {
            Ok(Preparation::Skip(why)) => return End::Skipped(why),
            Ok(Preparation::Go(prepared)) => prepared,
            Err(error) => return End::Failed(error),
        };
        let change = match prepared.check().await {
            Ok(Check::Satisfied(output)) => return End::Satisfied(output),
            Ok(Check::Pending(change)) => change,
            Ok(Check::Deferred(why)) => return End::Failed(StepError::failed(why)),
            Ok(Check::Refused(why)) => return End::Failed(StepError::permanent(why)),
            Err(error) => return End::Failed(StepError { outcome: Outcome::Failed, ..error }),
        };
        // Also where it was filtered out: what needs it isn't done without the approval.
        if self.is_gate(node) {
            return End::Asks(change.summary);
        }
        if self.must_hold(node) {
            return End::Failed(filtered_out(&self.plan, node, &change));
        }
        if let Some(error) =
            self.held_to.as_ref().and_then(|held| held.forbids(self, node, &prepared, &change))
        {
            return End::Failed(error);
        }
        if let Err(error) = self.check_guards(node).await {
            return End::Failed(error);
        }
        self.ahead.end();
        let (leave, granted) = oneshot::channel();
        let _ = scheduler.send(Message::Pending { node, attempt, change: change.clone(), leave });
        if granted.await.is_err() {
            return End::NotStarted;
        }
        if let Some(held) = &self.held_to {
            held.begun(node);
        }
        self.apply(node, &prepared, &change).await
    }

    /// Checks the guards again: on this task's host where its step works on all hosts of the guard, or
    /// waits for it per host, else wherever the guard ran, since this one task is then for all of them.
    async fn check_guards(&self, node: NodeId) -> Result<(), StepError> {
        let Some(task) = self.task(node) else { return Ok(()) };
        let step = &self.plan.steps[task.step];
        let host_of = |n: &NodeIndex| self.plan.graph[*n].task().and_then(|task| task.host.as_ref());
        for guard in &step.def.guards {
            let Some(&index) = self.plan.frames[step.frame].steps.get(&guard.value) else { continue };
            let nodes = &self.plan.steps[index].tasks;
            let per_host = step.def.needs_per_host.iter().any(|need| need.value == guard.value);
            let own: HashSet<_> = step.tasks.iter().filter_map(host_of).map(|host| &host.name).collect();
            let each_its_own =
                per_host || nodes.iter().all(|n| host_of(n).is_some_and(|host| own.contains(&host.name)));
            let here = |n: &&NodeIndex| !each_its_own || host_of(n) == task.host.as_ref();
            let checks = nodes.iter().filter(here).map(|guard| self.check_guard(guard.index() as NodeId));
            futures_util::future::try_join_all(checks).await?;
        }
        Ok(())
    }

    async fn check_guard(&self, guard: NodeId) -> Result<(), StepError> {
        let Some(task) = self.task(guard) else { return Ok(()) };
        let gone = |why: String| {
            StepError::permanent(format!("{} no longer holds: {why}", task.name))
                .with_hint("nothing was changed by this task; see what changed on the host, then resume")
        };
        match self.prepare(guard, 1)? {
            Preparation::Skip(_) => Ok(()),
            Preparation::Go(prepared) => match prepared.check().await? {
                Check::Satisfied(_) => Ok(()),
                Check::Pending(change) => Err(gone(change.summary)),
                Check::Deferred(why) | Check::Refused(why) => Err(gone(why)),
            },
        }
    }
}

/// Why what was filtered out stops what needs it.
pub(super) fn filtered_out(plan: &Plan, node: NodeId, change: &Change) -> StepError {
    let included = plan.node(node).task().and_then(|task| plan.left_out_of(task));
    let hint = match included.filter(|_| plan.definition.filter.is_empty()) {
        Some((file, tags)) => {
            format!("run `{file}` first; here only its steps with the tags {} are run", tags.join(", "))
        }
        None => "run it first, with wider --limit and --tags or without them".to_owned(),
    };
    StepError::permanent(format!("it was filtered out, but is needed and isn't so yet: {}", change.summary))
        .with_hint(hint)
}

/// Tells what a task waits for, with secrets masked.
struct Teller {
    task: TaskName,
    notices: Notifier,
    plan: SharedPlan,
}

impl Progress for Teller {
    fn say(&self, text: &str) {
        let text = self.plan.redactor.text(text).into_owned();
        self.notices.tell(Notice::Progress { task: self.task.clone(), text });
    }
}
