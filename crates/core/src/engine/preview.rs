//! `check` on every task, changing nothing: what a run would do, as far as it can be known now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use serde_json::Value;

use super::Engine;
use super::ahead::Ahead;
use super::executor::{Env, Preparation, Unchosen, Unreachable, filtered_out};
use super::notices;
use crate::plan::{Mode, Moved, Outputs, Plan, Shown, ShownTask, Task, chosen_output, without_time};
use crate::run::{Identity, NodeId, RunId, TaskName};
use crate::step::{Change, Check, Output, StepError, Undoability};
use crate::workflow::expr;

/// What was found of a task.
#[derive(Debug, Clone)]
pub enum Finding {
    /// It is as it should be, and nothing before it will change anything.
    Satisfied,
    /// It is as it should be now; something before it will change something, so it is looked at
    /// again in its turn.
    SatisfiedNow,
    /// This would be done.
    Pending(Change),
    /// The run would wait for an approval; this is asked.
    Asks(String),
    /// Its condition is false.
    Skipped(String),
    /// It can't be known before these steps have run.
    KnownAfter(String),
    /// These hosts would be chosen, in this order.
    Hosts(Vec<String>),
    /// Which hosts are chosen, and their order, can't be known before this step has run.
    HostsKnownAfter {
        /// The step.
        step: String,
        /// The set that they are chosen from.
        within: Vec<String>,
    },
    /// It must not be done.
    Refused(String),
    /// It could not be checked.
    Failed(StepError),
}

/// One task of a preview.
#[derive(Debug, Clone)]
pub struct PreviewTask {
    /// The task.
    pub name: TaskName,
    /// What was found.
    pub finding: Finding,
    /// Whether it could be taken back afterwards.
    pub undo: Undoability,
    /// Once it has begun, the run is not taken back any more.
    pub pivot: bool,
    /// It was filtered out, but something that is run needs it: it is only looked at.
    pub must_hold: bool,
    /// Of a change, what must be the same again: [`Step::invariant`](crate::step::Step::invariant).
    pub invariant: Value,
    /// What it leaves to later steps, where that is known already; secrets are masked.
    pub output: Option<Output>,
}

/// What a run would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Every task, each after what it needs.
    pub tasks: Vec<PreviewTask>,
    /// Who the hosts are; one that can't be reached is missing.
    pub hosts: BTreeMap<String, Identity>,
}

impl Preview {
    /// True where a run would change something, or where that can't be known.
    pub fn has_changes(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.finding, Finding::Pending(_) | Finding::KnownAfter(_)))
    }

    /// What a plan file keeps of it, for a run of that id. None where something is refused or could not be
    /// checked: such a plan can't be run.
    pub fn shown(&self, run: RunId, by: &str) -> Option<Shown> {
        let tasks = self.tasks.iter().map(|task| Some((task.name.clone(), task.shown()?)));
        Some(Shown {
            run,
            made: Timestamp::now(),
            by: by.to_owned(),
            hosts: self.hosts.clone(),
            tasks: tasks.collect::<Option<_>>()?,
        })
    }

    /// Everything that isn't as it was shown: hosts that are other machines, then tasks.
    pub fn moved(&self, shown: &Shown) -> Vec<Moved> {
        let mut moved = Vec::new();
        for (host, then) in &shown.hosts {
            if let Some(now) = self.hosts.get(host).filter(|now| *now != then) {
                moved.push(Moved {
                    task: TaskName::from_text(host),
                    words: format!(
                        "another machine than the plan was made for (machine-id {} then, {} now; key {} then, {} now)",
                        then.machine_id, now.machine_id, then.key_fingerprint, now.key_fingerprint
                    ),
                    detail: None,
                });
            }
        }
        for task in &self.tasks {
            let name = &task.name;
            match (shown.tasks.get(name), task.shown()) {
                (Some(then), Some(now)) => moved.extend(then.moved(name, &now)),
                (then, _) => moved.push(Moved {
                    task: name.clone(),
                    words: format!(
                        "shown: {}; now: {}",
                        then.map_or_else(|| "nothing".to_owned(), ShownTask::words),
                        task.trouble()
                    ),
                    detail: None,
                }),
            }
        }
        moved
    }

    /// True where something is refused or could not be checked.
    pub fn has_errors(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.finding, Finding::Refused(_) | Finding::Failed(_)))
    }
}

impl PreviewTask {
    /// What a plan file keeps of it; none where it can't go ahead.
    fn shown(&self) -> Option<ShownTask> {
        Some(match &self.finding {
            Finding::Satisfied => ShownTask::Ok,
            Finding::SatisfiedNow => ShownTask::OkNow,
            Finding::Pending(Change { summary, diff, .. }) => ShownTask::Change {
                summary: summary.clone(),
                diff: diff.clone(),
                invariant: self.invariant.clone(),
            },
            Finding::Asks(message) => ShownTask::Asks { message: message.clone() },
            Finding::Skipped(why) => ShownTask::Skip { why: why.clone() },
            Finding::KnownAfter(after) => ShownTask::Later { after: after.clone() },
            Finding::Hosts(hosts) => ShownTask::Hosts { hosts: hosts.clone() },
            Finding::HostsKnownAfter { step, .. } => ShownTask::Later { after: step.clone() },
            Finding::Refused(_) | Finding::Failed(_) => return None,
        })
    }

    /// Why it can't go ahead.
    fn trouble(&self) -> &str {
        match &self.finding {
            Finding::Refused(why) => why,
            Finding::Failed(error) => &error.message,
            _ => "a task that the plan doesn't know",
        }
    }
}

/// What was found of a task, with the invariant of a change.
type Found = (Finding, Value);

impl Engine {
    /// Looks at every task. Takes no lock and stores nothing.
    pub async fn preview(&self, plan: impl Into<Arc<Plan>>) -> Preview {
        self.preview_of(plan.into(), RunId::from_text("plan")).await
    }

    /// The same, with the id that a run of the plan will have.
    pub async fn preview_of(&self, plan: Arc<Plan>, run: RunId) -> Preview {
        let hosts = plan.hosts();
        let mut meetings = Meetings::new();
        if let Some(fleet) = &self.fleet {
            meetings.extend(hosts.iter().map(|host| (host.name.clone(), fleet.meet(host).shared())));
        }
        let (notices, _) = notices::channel();
        let env = Env {
            outputs: Arc::new(Outputs::new(plan.shape().len())),
            resources: Arc::clone(&self.resources),
            fleet: None,
            run,
            started: Timestamp::now(),
            epoch: 0,
            unreachable: Unreachable::default(),
            notices,
            planning: true,
            held_to: None,
            ahead: Ahead::none(),
            plan: Arc::clone(&plan),
        };
        let looks = look_at_all(&env, &meetings, self.options.concurrency.max(1));
        let (found, met) = tokio::join!(looks, join_all(meetings.values().cloned()));
        let met = meetings.keys().zip(met);
        let identities = met.filter_map(|(host, met)| Some((host.clone(), met.ok()?))).collect();
        if let Some(fleet) = &self.fleet {
            fleet.close().await;
        }
        let tasks = plan.order().into_iter().filter_map(|node| {
            let task = plan.graph[node].task()?;
            let (finding, mut invariant) = found.get(&(node.index() as NodeId))?.clone();
            plan.redactor.value(&mut invariant);
            let invariant = without_time(invariant, env.started);
            let (undo, pivot) = (plan.undoability(task), plan.is_pivot(task));
            let (name, finding) = (task.name.clone(), masked(&plan, finding));
            let must_hold = task.mode == Mode::MustHold;
            let output = env.outputs.get(node.index()).cloned().map(|mut output| {
                output.0.values_mut().for_each(|value| plan.redactor.value(value));
                output
            });
            Some(PreviewTask { name, finding, undo, pivot, must_hold, invariant, output })
        });
        Preview { tasks: tasks.collect(), hosts: identities }
    }
}

/// The first contact with each host. All are under way at once: one that takes its time, or is down, keeps no
/// look at another from being made.
type Meetings<'a> = BTreeMap<String, Shared<BoxFuture<'a, Result<Identity, StepError>>>>;

/// Every task's finding, each looked at after what it needs.
async fn look_at_all(env: &Env, meetings: &Meetings<'_>, concurrency: usize) -> HashMap<NodeId, Found> {
    let shape = env.plan.shape();
    let count = shape.len() as NodeId;
    let mut missing: Vec<u32> = (0..count).map(|n| shape.incoming(n)).collect();
    // The nearest steps before each node that will change something, or that nobody knows of.
    let mut moving: Vec<BTreeSet<String>> = vec![BTreeSet::new(); shape.len()];
    let mut ready: Vec<NodeId> = (0..count).filter(|&n| missing[n as usize] == 0).rev().collect();
    let mut found = HashMap::new();
    let mut looking = FuturesUnordered::new();
    loop {
        let mut passed = Vec::new();
        while looking.len() < concurrency
            && let Some(node) = ready.pop()
        {
            match env.task(node) {
                Some(_) => {
                    let before = moving[node as usize].clone();
                    looking.push(async move {
                        meet(env, meetings, node).await;
                        (node, look(env, node, &before).await)
                    });
                }
                None => passed.push(node),
            }
        }
        if passed.is_empty() {
            let Some((node, finding)) = looking.next().await else { break };
            let passes_on = matches!(
                finding.0,
                Finding::Satisfied
                    | Finding::SatisfiedNow
                    | Finding::Skipped(_)
                    | Finding::Hosts(_)
                    | Finding::HostsKnownAfter { .. }
            );
            if !passes_on && let Some(task) = env.task(node) {
                moving[node as usize] = BTreeSet::from([env.plan.steps[task.step].path.clone()]);
            }
            found.insert(node, finding);
            passed.push(node);
        }
        for node in passed {
            let before = moving[node as usize].clone();
            for &after in shape.after(node) {
                moving[after as usize].extend(before.iter().cloned());
                missing[after as usize] -= 1;
                if missing[after as usize] == 0 {
                    ready.push(after);
                }
            }
        }
    }
    found
}

/// Waits for the first contact with a task's host.
async fn meet(env: &Env, meetings: &Meetings<'_>, node: NodeId) {
    let Some(host) = env.task(node).and_then(|task| task.host.as_ref()) else { return };
    if let Some(meeting) = meetings.get(&host.name)
        && let Err(why) = meeting.clone().await
    {
        env.unreachable.insert(&host.name, why);
    }
}

async fn look(env: &Env, node: NodeId, moving: &BTreeSet<String>) -> Found {
    if let Some(task) = env.task(node)
        && let Some(choice) = env.choose(task)
    {
        return (look_at_choice(env, node, task, choice, moving), Value::Null);
    }
    let known_after = || moving.iter().cloned().collect::<Vec<_>>().join(", ");
    if let Some(task) = env.task(node)
        && !moving.is_empty()
        && let Some(step) = unknown_output(env, task)
    {
        return (Finding::KnownAfter(step), Value::Null);
    }
    let prepared = match env.prepare(node, 1) {
        Ok(Preparation::Skip(why)) => return (Finding::Skipped(why), Value::Null),
        Ok(Preparation::Go(prepared)) => prepared,
        Err(error) => return (Finding::Failed(error), Value::Null),
    };
    let mut invariant = Value::Null;
    let finding = match prepared.check().await {
        Ok(Check::Satisfied(output)) => {
            env.outputs.set(node, output);
            if moving.is_empty() { Finding::Satisfied } else { Finding::SatisfiedNow }
        }
        Ok(Check::Pending(change)) if env.is_gate(node) => Finding::Asks(change.summary),
        Ok(Check::Pending(change)) if env.must_hold(node) && moving.is_empty() => {
            Finding::Failed(filtered_out(&env.plan, node, &change))
        }
        Ok(Check::Pending(_)) if env.must_hold(node) => Finding::KnownAfter(known_after()),
        Ok(Check::Pending(change)) => {
            invariant = prepared.step.invariant(&change);
            Finding::Pending(change)
        }
        // What isn't so yet may be so once the steps before it have run.
        Ok(Check::Deferred(_) | Check::Refused(_)) | Err(_) if !moving.is_empty() => {
            Finding::KnownAfter(known_after())
        }
        Ok(Check::Deferred(why) | Check::Refused(why)) => Finding::Refused(why),
        Err(error) => Finding::Failed(error),
    };
    (finding, invariant)
}

/// Which hosts would be chosen, as far as that can be known.
fn look_at_choice(
    env: &Env,
    node: NodeId,
    task: &Task,
    choice: Result<Vec<String>, Unchosen>,
    moving: &BTreeSet<String>,
) -> Finding {
    let within = || env.plan.chooses_by(task).map(|(choosing, _)| choosing.within()).unwrap_or_default();
    if !moving.is_empty()
        && let Some(step) = unknown_output(env, task)
    {
        return Finding::HostsKnownAfter { step, within: within() };
    }
    match choice {
        Ok(hosts) => {
            env.outputs.set(node, chosen_output(&hosts));
            Finding::Hosts(hosts)
        }
        Err(Unchosen::Skip(why)) => Finding::Skipped(why),
        Err(Unchosen::Failed(_)) if !moving.is_empty() => {
            let step = moving.iter().cloned().collect::<Vec<_>>().join(", ");
            Finding::HostsKnownAfter { step, within: within() }
        }
        Err(Unchosen::Failed(error)) => Finding::Failed(error),
    }
}

/// The step whose output this task's arguments or conditions need and that has none yet.
fn unknown_output(env: &Env, task: &Task) -> Option<String> {
    let plan = &env.plan;
    let mut texts: Vec<(usize, String, bool)> = Vec::new();
    let mut step = task.step;
    if let Some((_, from)) = plan.chooses_by(task) {
        texts.push((plan.steps[step].frame, from.to_owned(), false));
    }
    loop {
        let def = &plan.steps[step].def;
        let frame = plan.steps[step].frame;
        let arguments = def.with.value.values().filter(|_| task.mode != Mode::Choose || step != task.step);
        for argument in arguments {
            argument.texts(&mut |text, _| texts.push((frame, text.to_owned(), false)));
        }
        if let Some(condition) = &def.condition {
            texts.push((frame, condition.value.clone(), true));
        }
        match &plan.frames[frame].caller {
            Some(caller) => step = caller.step,
            None => break,
        }
    }
    for (frame, text, bare) in texts {
        let names = if bare {
            plan.evaluator.expression_names(&text)
        } else if expr::is_template(&text) {
            plan.evaluator.names(&text)
        } else {
            continue;
        };
        for name in names.unwrap_or_default() {
            let Some(name) = name.strip_prefix("steps.") else { continue };
            let name = name.split('.').next().unwrap_or(name);
            let steps = &plan.frames[frame].steps;
            let index = steps.get(name).or_else(|| {
                steps.iter().find(|(id, _)| id.replace('-', "_") == name).map(|(_, index)| index)
            });
            if let Some(&index) = index
                && has_no_output(env, index)
            {
                return Some(plan.steps[index].path.clone());
            }
        }
    }
    None
}

/// True where a task of the step, or of the workflow that it uses, has no output yet.
fn has_no_output(env: &Env, step: usize) -> bool {
    let plan = &env.plan;
    let step = &plan.steps[step];
    step.tasks.iter().any(|node| env.outputs.is_unset(node.index()))
        || step
            .frames
            .iter()
            .any(|(_, frame)| plan.frames[*frame].steps.values().any(|&inner| has_no_output(env, inner)))
}

fn masked(plan: &Plan, finding: Finding) -> Finding {
    let mask = |text: String| plan.redactor.text(&text).into_owned();
    let mask_error = |error: StepError| StepError {
        message: plan.redactor.text(&error.message).into_owned(),
        detail: error.detail.map(|text| plan.redactor.text(&text).into_owned()),
        hint: error.hint.map(|text| plan.redactor.text(&text).into_owned()),
        ..error
    };
    match finding {
        Finding::Pending(mut change) => {
            change.summary = mask(change.summary);
            change.diff = change.diff.map(mask);
            plan.redactor.value(&mut change.data);
            Finding::Pending(change)
        }
        Finding::Asks(message) => Finding::Asks(mask(message)),
        Finding::Refused(why) => Finding::Refused(mask(why)),
        Finding::Failed(error) => Finding::Failed(mask_error(error)),
        Finding::Skipped(why) => Finding::Skipped(mask(why)),
        other => other,
    }
}
