//! The hosts of one process's work on a run: met and locked before it, given back after it.

use std::collections::HashMap;
use std::sync::Arc;

use super::notices::Notifier;
use super::session::{OPEN, Session};
use super::undo::begun_pivot;
use super::{EngineError, Fleet, Holder, Notice};
use crate::inventory::Host;
use crate::plan::Plan;
use crate::run::{Event, Identity, Outcome, RunState, TaskState};
use crate::step::StepError;
use crate::workflow::Code;

impl Session {
    /// Meets all hosts at once, compares them with those met before, and locks them in order.
    /// Gives the hosts that can't be reached: their tasks will fail.
    pub(super) async fn take_hosts(
        &mut self,
        fleet: &dyn Fleet,
        hosts: &[Arc<Host>],
        holder: &Holder,
    ) -> Result<HashMap<String, StepError>, Taking> {
        let met = futures_util::future::join_all(hosts.iter().map(|host| fleet.meet(host))).await;
        let mut unreachable = HashMap::new();
        let mut events = Vec::new();
        let mut here = Vec::new();
        for (host, identity) in hosts.iter().zip(met) {
            match identity {
                Ok(identity) => {
                    self.refuse_other_machine(&host.name, &identity).map_err(Taking::Host)?;
                    if !self.journal.state.hosts().contains_key(&host.name) {
                        events.push(Event::HostMet { host: host.name.clone(), identity });
                    }
                    here.push(host);
                }
                // A workflow that is only right as a whole is not begun where a host is missing.
                Err(error) if self.plan.workflow.whole => {
                    return Err(Taking::Host(self.without_it(host, error)));
                }
                Err(error) => {
                    unreachable.insert(host.name.clone(), error);
                }
            }
        }
        self.journal.commit(events, &mut Vec::new()).map_err(Taking::Engine)?;
        self.journal.notifier.hand_over();
        for (taken, host) in here.iter().enumerate() {
            if let Err(error) = fleet.lock(host, holder).await {
                if self.fresh {
                    // This one too: its answer may have been lost. Another run's lock is left alone.
                    let back = here[..=taken].iter().map(|host| fleet.unlock(host, holder));
                    futures_util::future::join_all(back).await;
                }
                return Err(Taking::Host(error));
            }
        }
        Ok(unreachable)
    }

    /// What can be done while a host of a workflow that is only right as a whole doesn't answer.
    fn without_it(&self, host: &Host, error: StepError) -> StepError {
        let run = &self.journal.run;
        let changed = self.state().in_state(TaskState::Done).next().is_some();
        if self.fresh || !changed || begun_pivot(&self.plan, self.state()).is_some() {
            return error;
        }
        let before = error.hint.as_ref().map(|hint| format!("{hint}; ")).unwrap_or_default();
        error.with_hint(format!(
            "{before}once it answers, the same command goes on; to put the other hosts back as they were before the run, \
             now: flow undo {run} --keep-host {}",
            host.name
        ))
    }

    pub(super) fn refuse_other_machine(&self, host: &str, now: &Identity) -> Result<(), StepError> {
        // Before the run has met it, a saved plan may have.
        let shown = self.plan.definition.shown.as_ref().and_then(|shown| shown.hosts.get(host));
        match self.journal.state.hosts().get(host).or(shown) {
            Some(then) if then != now => Err(StepError::permanent(format!(
                "{host} is another machine than when the run began (machine-id {} then, {} now)",
                then.machine_id, now.machine_id
            ))
            .with_hint("what was recorded for it is void; start a new run")
            .with_code(Code::OTHER_MACHINE)),
            _ => Ok(()),
        }
    }
}

/// Hosts that this process didn't lock, but an earlier one met: they may have the run's lock still.
pub(super) fn tell_of_others(hosts: &[Arc<Host>], why: &str, state: &RunState, notices: &Notifier) {
    for host in hosts.iter().filter(|host| state.hosts().contains_key(&host.name)) {
        notices.tell(Notice::Note(format!("{} {why}", host.name)));
    }
}

pub(super) enum Taking {
    Host(StepError),
    Engine(EngineError),
}

/// Gives the locks back, unless the run must be gone on with before anyone else works on the hosts.
pub(super) async fn give_back(
    fleet: &dyn Fleet,
    plan: &Plan,
    hosts: &[Arc<Host>],
    holder: &Holder,
    state: &RunState,
    outcome: Outcome,
    notices: &Notifier,
) -> Vec<String> {
    let any = |wanted| state.in_state(wanted).next().is_some();
    let unsettled = OPEN.into_iter().any(any);
    let half_done = plan.workflow.whole
        && !matches!(outcome, Outcome::Succeeded | Outcome::Undone)
        && (any(TaskState::Done) || any(TaskState::UndoFailed));
    let mut kept = Vec::new();
    if half_done || unsettled {
        kept.extend(hosts.iter().map(|host| host.name.clone()));
    } else {
        let back = futures_util::future::join_all(hosts.iter().map(|host| fleet.unlock(host, holder))).await;
        for (host, result) in hosts.iter().zip(back) {
            if let Err(error) = result {
                notices.tell(Notice::Note(format!("the lock on {} is kept: {error}", host.name)));
                kept.push(host.name.clone());
            }
        }
    }
    fleet.close().await;
    kept
}
