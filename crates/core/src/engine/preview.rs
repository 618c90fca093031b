//! `check` on every task, changing nothing: what a run would do, as far as it can be known now.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::executor::{Env, Preparation};
use super::{Engine, Notice};
use crate::plan::{Outputs, Plan, Task};
use crate::run::{NodeId, RunId, TaskName};
use crate::step::{Change, Check, StepError, Undoability};
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
    /// Its condition is false.
    Skipped(String),
    /// It can't be known before these steps have run.
    KnownAfter(String),
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
}

/// What a run would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Every task, each after what it needs.
    pub tasks: Vec<PreviewTask>,
}

impl Preview {
    /// True where a run would change something, or where that can't be known.
    pub fn has_changes(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.finding, Finding::Pending(_) | Finding::KnownAfter(_)))
    }

    /// True where something is refused or could not be checked.
    pub fn has_errors(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.finding, Finding::Refused(_) | Finding::Failed(_)))
    }
}

impl Engine {
    /// Looks at every task. Takes no lock and stores nothing.
    pub async fn preview(&self, plan: Plan) -> Preview {
        let plan = Arc::new(plan);
        let hosts = plan.hosts();
        let mut unreachable = HashMap::new();
        if let Some(fleet) = &self.fleet {
            let met = futures_util::future::join_all(hosts.iter().map(|host| fleet.meet(host))).await;
            for (host, identity) in hosts.iter().zip(met) {
                if let Err(error) = identity {
                    unreachable.insert(host.name.clone(), error);
                }
            }
        }
        let (notices, _) = mpsc::unbounded_channel::<Notice>();
        let env = Env {
            outputs: Arc::new(Outputs::new(plan.shape().len())),
            resources: Arc::clone(&self.resources),
            fleet: None,
            run: RunId::from_text("plan"),
            started: Timestamp::now(),
            epoch: 0,
            unreachable,
            notices,
            planning: true,
            verdicts: HashMap::new(),
            plan: Arc::clone(&plan),
        };
        let found = look_at_all(&env, self.options.concurrency.max(1)).await;
        if let Some(fleet) = &self.fleet {
            fleet.close().await;
        }
        let tasks = plan.order().into_iter().filter_map(|node| {
            let task = plan.graph[node].task()?;
            let finding = found.get(&(node.index() as NodeId))?.clone();
            let (undo, pivot) = (plan.undoability(task), plan.is_pivot(task));
            Some(PreviewTask { name: task.name.clone(), finding: masked(&plan, finding), undo, pivot })
        });
        Preview { tasks: tasks.collect() }
    }
}

/// Every task's finding, each looked at after what it needs.
async fn look_at_all(env: &Env, concurrency: usize) -> HashMap<NodeId, Finding> {
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
                    looking.push(async move { (node, look(env, node, &before).await) });
                }
                None => passed.push(node),
            }
        }
        if passed.is_empty() {
            let Some((node, finding)) = looking.next().await else { break };
            if !matches!(finding, Finding::Satisfied | Finding::SatisfiedNow | Finding::Skipped(_))
                && let Some(task) = env.task(node)
            {
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

async fn look(env: &Env, node: NodeId, moving: &BTreeSet<String>) -> Finding {
    let known_after = || moving.iter().cloned().collect::<Vec<_>>().join(", ");
    if let Some(task) = env.task(node)
        && !moving.is_empty()
        && let Some(step) = unknown_output(env, task)
    {
        return Finding::KnownAfter(step);
    }
    let prepared = match env.prepare(node, 1) {
        Ok(Preparation::Skip(why)) => return Finding::Skipped(why),
        Ok(Preparation::Go(prepared)) => prepared,
        Err(error) => return Finding::Failed(error),
    };
    match prepared.step.check(&prepared.cx).await {
        Ok(Check::Satisfied(output)) => {
            env.outputs.set(node, output);
            if moving.is_empty() { Finding::Satisfied } else { Finding::SatisfiedNow }
        }
        Ok(Check::Pending(change)) => Finding::Pending(change),
        // What isn't so yet may be so once the steps before it have run.
        Ok(Check::Deferred(_) | Check::Refused(_)) | Err(_) if !moving.is_empty() => {
            Finding::KnownAfter(known_after())
        }
        Ok(Check::Deferred(why) | Check::Refused(why)) => Finding::Refused(why),
        Err(error) => Finding::Failed(error),
    }
}

/// The step whose output this task's arguments or conditions need and that has none yet.
fn unknown_output(env: &Env, task: &Task) -> Option<String> {
    let plan = &env.plan;
    let mut texts: Vec<(usize, String, bool)> = Vec::new();
    let mut step = task.step;
    loop {
        let def = &plan.steps[step].def;
        let frame = plan.steps[step].frame;
        for argument in def.with.value.values() {
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
        ..error
    };
    match finding {
        Finding::Pending(mut change) => {
            change.summary = mask(change.summary);
            change.diff = change.diff.map(mask);
            plan.redactor.value(&mut change.data);
            Finding::Pending(change)
        }
        Finding::Refused(why) => Finding::Refused(mask(why)),
        Finding::Failed(error) => Finding::Failed(mask_error(error)),
        other => other,
    }
}
