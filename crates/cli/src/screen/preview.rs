//! What a run would do.

use flow_core::engine::{Finding, Preview, PreviewTask};
use flow_core::step::{StepError, Undoability};
use serde_json::{Value, json};

use super::{indented, line, tasks, tell};
use crate::args::Format;

/// Shows a preview on standard output.
pub fn show(workflow: &str, preview: &Preview, confirmation: Option<&str>, format: Format) {
    if format == Format::Json {
        super::json(&as_json(workflow, preview, confirmation));
        return;
    }
    let refused = preview.has_errors();
    let width = preview.tasks.iter().map(|task| task.name.as_str().len()).max().unwrap_or(0);
    let mut told = Vec::new();
    for task in &preview.tasks {
        let name = &task.name;
        // A host that can't be reached fails all of its tasks alike: that is said once.
        let alike = match failed_on(task) {
            Some(why) if told.contains(&why) => continue,
            Some(why) => {
                told.push(why);
                preview.tasks.iter().filter(|other| failed_on(other) == Some(why)).count() - 1
            }
            None => 0,
        };
        let (mark, text) = match &task.finding {
            Finding::Satisfied | Finding::SatisfiedNow if task.must_hold => {
                ("ok", "filtered out, so only looked at".to_owned())
            }
            Finding::Satisfied => ("ok", String::new()),
            // Where something is refused, it has no turn.
            Finding::SatisfiedNow if refused => ("ok now", String::new()),
            Finding::SatisfiedNow => ("ok now", "looked at again in its turn".to_owned()),
            Finding::Pending(change) => ("change", change.summary.clone()),
            Finding::Asks(message) => ("gate", format!("waits for approval: {message}")),
            Finding::Skipped(why) => ("skip", why.clone()),
            Finding::KnownAfter(step) => ("later", format!("known after {step}")),
            Finding::Hosts(hosts) => ("ok", format!("in this order: {}", list(hosts))),
            Finding::HostsKnownAfter { step, within } => {
                ("later", format!("order known after {step}, within {}", list(within)))
            }
            Finding::Refused(why) => ("refused", why.clone()),
            Finding::Failed(error) if alike > 0 => {
                ("error", format!("{} (and so {alike} more of its tasks)", error.message))
            }
            Finding::Failed(error) => ("error", error.message.clone()),
        };
        let mark = console::style(format!("{mark:8}"));
        let mark = match &task.finding {
            Finding::Satisfied | Finding::SatisfiedNow | Finding::Hosts(_) => mark.green(),
            Finding::Pending(_) | Finding::Asks(_) => mark.yellow(),
            Finding::Skipped(_) | Finding::KnownAfter(_) | Finding::HostsKnownAfter { .. } => mark.dim(),
            Finding::Refused(_) | Finding::Failed(_) => mark.red(),
        };
        line(&format!("{mark} {:width$}  {text}", name.as_str()));
        match &task.finding {
            Finding::Pending(change) => indented(change.diff.as_deref().unwrap_or_default(), 11),
            Finding::Failed(error) => {
                indented(error.detail.as_deref().unwrap_or_default(), 11);
                if let Some(hint) = &error.hint {
                    indented(&format!("hint: {hint}"), 11);
                }
            }
            _ => {}
        }
    }
    let count = |pick: fn(&Finding) -> bool| preview.tasks.iter().filter(|task| pick(&task.finding)).count();
    let changes = count(|finding| matches!(finding, Finding::Pending(_)));
    let later = count(|finding| matches!(finding, Finding::KnownAfter(_)));
    let wrong = count(|finding| matches!(finding, Finding::Refused(_) | Finding::Failed(_)));
    let summary = if wrong > 0 {
        format!("{wrong} of {} can't go ahead as things are; nothing was changed", tasks(preview.tasks.len()))
    } else if changes + later == 0 {
        format!("nothing to do: all {} are as they should be", tasks(preview.tasks.len()))
    } else if later == 0 {
        format!("{} to change; nothing was changed yet", tasks(changes))
    } else {
        format!("{} to change, {} known only later; nothing was changed yet", tasks(changes), later)
    };
    tell(&format!("\n{workflow}: {summary}"));
    if changes + later > 0 && wrong == 0 {
        tell_of_undo(preview);
    }
    if let (Some(name), true) = (confirmation, changes + later > 0 && wrong == 0) {
        tell(&format!("the run will ask for --confirm {name}"));
    }
}

/// The host and the error of a task on it that can't be looked at.
fn failed_on(task: &PreviewTask) -> Option<(&str, &StepError)> {
    match (&task.finding, task.name.host()) {
        (Finding::Failed(error), Some(host)) => Some((host, error)),
        _ => None,
    }
}

/// Hosts in their order; none is said too.
fn list(hosts: &[String]) -> String {
    if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") }
}

/// Which of the changes could not be taken back, by step, and the points of no return.
fn tell_of_undo(preview: &Preview) {
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for task in preview.tasks.iter().filter(|task| may_change(&task.finding)) {
        let why = match (&task.undo, task.pivot) {
            (_, true) => "the point of no return",
            (Undoability::Impossible(why), _) => why,
            _ => continue,
        };
        let step = task.name.step();
        if !shown.iter().any(|(known, _)| *known == step) {
            shown.push((step, why));
        }
    }
    for (step, why) in shown {
        tell(&format!("can't be taken back: {step}: {why}"));
    }
}

fn may_change(finding: &Finding) -> bool {
    matches!(finding, Finding::Pending(_) | Finding::KnownAfter(_) | Finding::SatisfiedNow)
}

fn as_json(workflow: &str, preview: &Preview, confirmation: Option<&str>) -> Value {
    let finding = |task: &PreviewTask| match &task.finding {
        Finding::Satisfied => json!({ "task": task.name, "finding": "ok" }),
        Finding::SatisfiedNow => json!({ "task": task.name, "finding": "ok_now" }),
        Finding::Pending(change) => json!({ "task": task.name, "finding": "change", "change": change }),
        Finding::Asks(message) => json!({ "task": task.name, "finding": "gate", "message": message }),
        Finding::Skipped(why) => json!({ "task": task.name, "finding": "skip", "why": why }),
        Finding::KnownAfter(step) => json!({ "task": task.name, "finding": "later", "after": step }),
        Finding::Hosts(hosts) => json!({ "task": task.name, "finding": "hosts", "hosts": hosts }),
        Finding::HostsKnownAfter { step, within } => {
            json!({ "task": task.name, "finding": "hosts_later", "after": step, "within": within })
        }
        Finding::Refused(why) => json!({ "task": task.name, "finding": "refused", "why": why }),
        Finding::Failed(error) => json!({ "task": task.name, "finding": "error", "error": error }),
    };
    let with_undo = |task: &PreviewTask| {
        let mut value = finding(task);
        let (word, why) = super::undo::words(&task.undo);
        value["undo"] = word.into();
        value["not_undoable"] = why.into();
        value["pivot"] = task.pivot.into();
        value["filtered_out"] = task.must_hold.into();
        value
    };
    let tasks: Vec<Value> = preview.tasks.iter().map(with_undo).collect();
    json!({
        "workflow": workflow, "changes": preview.has_changes(), "errors": preview.has_errors(),
        "confirm": confirmation, "tasks": tasks,
    })
}
