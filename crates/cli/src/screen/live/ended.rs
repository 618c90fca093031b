//! How a run ended: what failed, what is left, what its workflow gives, and the next action.

use flow_core::engine::Report;
use flow_core::plan::NOT_AS_PLANNED;
use flow_core::run::{Outcome, RunId, TaskName, TaskState};
use flow_core::step::StepError;
use serde_json::json;

use super::Screen;
use crate::codes;
use crate::commands::runs::{Next, outcome_word};
use crate::screen::{self, duration, tasks, tell};

impl Screen {
    /// Says how a run that broke off can be gone on with.
    pub fn broke_off(&self, id: &RunId, next: &Next) {
        let go_on = if self.undo { next.undo() } else { next.resume() };
        tell(&format!("run {id} broke off; once the cause below is mended, go on with: {go_on}\n"));
    }

    /// Says how the run ended, what failed, what was not started, and how to go on.
    pub fn ended(&self, report: &Report, next: &Next) {
        let undoing = report.state.undoing();
        let moved = report.failures.iter().any(|(_, error)| error.message.starts_with(NOT_AS_PLANNED));
        let go_on = match (undoing, moved) {
            (true, _) => next.undo(),
            // By itself a resume would meet the same.
            (false, true) => format!("{} --as-found", next.resume()),
            (false, false) => next.resume(),
        };
        let in_state = |states: &[TaskState]| -> Vec<&TaskName> {
            self.names.iter().filter(|name| states.contains(&state_of(report, name))).collect()
        };
        let unless_undoing = |states| if undoing { Vec::new() } else { in_state(states) };
        let not_started = unless_undoing(&[TaskState::Waiting, TaskState::Ready]);
        let left = in_state(&[TaskState::Intended, TaskState::Undoing]);
        let unknown = in_state(&[TaskState::Unknown, TaskState::UndoUnknown]);
        let to_take_back = if undoing { in_state(&[TaskState::Done]) } else { Vec::new() };
        let asked = unless_undoing(&[TaskState::Asked]);
        if self.json {
            let failures: Vec<_> =
                report.failures.iter().map(|(task, error)| json!({ "task": task, "error": error })).collect();
            let result = json!({
                "type": "result", "run": report.run, "workflow": self.workflow,
                "outcome": outcome_word(report.outcome), "changed": self.changed, "ok": self.ok,
                "skipped": self.skipped, "failures": failures, "left_at_work": left, "not_started": not_started,
                "undone": self.undone, "kept": self.kept.iter().map(|(task, _)| task).collect::<Vec<_>>(),
                "to_take_back": to_take_back, "not_unwound": report.not_unwound,
                "waits_for_approval": asked, "outputs": report.outputs, "locks_kept": report.locks_kept,
            });
            screen::line(&result.to_string());
            return;
        }
        for (unknown, tasks, error) in alike(report) {
            let mark = if unknown { "unknown" } else { "failed" };
            show_failure(&format!("{mark}[{}]:", codes::of_task(error, unknown)), &list(&tasks), error);
        }
        let rest = [&left, &not_started, &to_take_back, &asked];
        if !report.failures.is_empty() || rest.iter().any(|tasks| !tasks.is_empty()) {
            tell("");
        }
        if !left.is_empty() {
            let next = if undoing { "the next undo" } else { "a resume" };
            tell(&format!("left at work: {}; {next} finds out what became of it", list(&left)));
        }
        if !to_take_back.is_empty() {
            tell(&format!("not taken back yet: {}", list(&to_take_back)));
        }
        if !asked.is_empty() {
            tell(&format!("waits for approval: {}", list(&asked)));
            tell(&format!("  {}", next.command("approve", asked[0].as_str())));
        }
        if !not_started.is_empty() {
            tell(&format!("not started: {}", list(&not_started)));
        }
        if !report.locks_kept.is_empty() {
            tell(&format!("still locked for this run: {}", report.locks_kept.join(", ")));
        }
        // Hosts that stay locked are in the middle of something.
        let half_done =
            if report.locks_kept.is_empty() { Vec::new() } else { unless_undoing(&[TaskState::Done]) };
        if !half_done.is_empty() {
            tell(&format!("done, and left so until it is gone on with: {}", list(&half_done)));
        }
        let begun =
            |name: &&TaskName| report.state.shape().node(name).is_some_and(|node| report.state.begun(node));
        let can_go_back = !half_done.is_empty() && !self.pivots.iter().any(|name| begun(&name));
        screen::line(&self.summary(report));
        let says_something =
            |value: &serde_json::Value| value.as_str().is_none_or(|text| !text.trim().is_empty());
        for (name, value) in report.outputs.iter().filter(|(_, value)| says_something(value)) {
            screen::line(&format!("{}:", name.replace('_', " ")));
            screen::indented(&value.as_str().map_or_else(|| format!("{value:#}"), str::to_owned), 2);
        }
        match report.outcome {
            Outcome::Failed if !undoing && !self.names.iter().any(|name| begun(&name)) => {
                tell(&format!("nothing was changed; to look again: {go_on}"));
            }
            Outcome::Failed | Outcome::Interrupted => {
                tell(&format!("go on with: {go_on}"));
                if can_go_back {
                    tell(&format!("or put things back as they were: {}", next.undo()));
                }
            }
            Outcome::Undecided => {
                tell("see what is known, then say --done, or --not-done to run it again:");
                for task in &unknown {
                    tell(&format!("  {}", next.command("resolve", task.as_str())));
                }
                tell(&format!("go on with: {go_on}"));
            }
            Outcome::Succeeded | Outcome::Refused | Outcome::Undone => {}
        }
    }

    fn summary(&self, report: &Report) -> String {
        let time = duration(self.began.elapsed().as_secs_f64());
        let name = &self.workflow;
        if report.state.undoing() {
            return self.undo_summary(report, &time);
        }
        if report.outcome == Outcome::Succeeded && self.changed == 0 {
            return format!(
                "{name}: nothing to do: all {} are as they should be ({time})",
                tasks(self.ok + self.skipped)
            );
        }
        let failed = report.failures.iter().filter(|(task, _)| state_of(report, task) == TaskState::Failed);
        let failed = failed.count();
        let unknown = report.failures.len() - failed;
        let mut parts = vec![format!("{} changed", self.changed), format!("{} ok", self.ok)];
        if self.skipped > 0 {
            parts.push(format!("{} skipped", self.skipped));
        }
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        if unknown > 0 {
            parts.push(format!("{unknown} unknown"));
        }
        format!("{name} {} in {time}: {}", outcome_word(report.outcome), parts.join(", "))
    }

    fn undo_summary(&self, report: &Report, time: &str) -> String {
        let mut parts = vec![format!("{} undone", self.undone)];
        if !self.kept.is_empty() {
            parts.push(format!("{} kept", self.kept.len()));
        }
        let failed = |state| report.state.in_state(state).count();
        for (count, word) in [
            (failed(TaskState::UndoFailed), "failed"),
            (failed(TaskState::Unknown) + failed(TaskState::UndoUnknown), "unknown"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        let how = match (report.outcome, self.undo) {
            (Outcome::Undone, true) => "taken back".to_owned(),
            (Outcome::Undone, false) => "failed and was taken back".to_owned(),
            (outcome, _) => format!("not taken back, {}", outcome_word(outcome)),
        };
        format!("{} {how} in {time}: {}", self.workflow, parts.join(", "))
    }
}

fn state_of(report: &Report, name: &TaskName) -> TaskState {
    let state = &report.state;
    state.shape().node(name).map_or(TaskState::Waiting, |node| state.task(node))
}

/// The failures, those of one cause together: whether it is unknown what became of them, the tasks, the cause.
fn alike(report: &Report) -> Vec<(bool, Vec<&TaskName>, &StepError)> {
    let mut groups: Vec<(bool, Vec<&TaskName>, &StepError)> = Vec::new();
    for (task, error) in &report.failures {
        let unknown = matches!(state_of(report, task), TaskState::Unknown | TaskState::UndoUnknown);
        match groups.iter_mut().find(|(of, _, known)| (*of, *known) == (unknown, error)) {
            Some((_, tasks, _)) => tasks.push(task),
            None => groups.push((unknown, vec![task], error)),
        }
    }
    groups
}

fn show_failure(mark: &str, tasks: &str, error: &StepError) {
    tell(&format!("\n{} {tasks}: {error}", console::style(mark).for_stderr().red().bold()));
    // One line of it is in the message already.
    if let Some(detail) = error.detail.as_ref().filter(|detail| !error.message.ends_with(detail.trim())) {
        for line in detail.trim().lines() {
            tell(&format!("    {line}"));
        }
    }
    if let Some(hint) = &error.hint {
        tell(&format!("{} {hint}", console::style("hint:").for_stderr().cyan()));
    }
}

fn list(names: &[&TaskName]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
