//! A run as it goes on: on a terminal a line for each task at work below the lines of what is done;
//! elsewhere plain lines; with `--output json` each event as a line on standard output.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flow_core::engine::{Notice, Report};
use flow_core::plan::Plan;
use flow_core::run::{Event, Outcome, Record, RunId, RunState, TaskName, TaskState};
use flow_core::step::StepError;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{duration, tasks, tell};
use crate::args::Format;
use crate::commands::runs::outcome_word;

/// Shows one run.
pub struct Screen {
    json: bool,
    workflow: String,
    total: usize,
    width: usize,
    names: Vec<TaskName>,
    bars: MultiProgress,
    live: bool,
    at_work: HashMap<TaskName, (Instant, ProgressBar)>,
    began: Instant,
    changed: usize,
    ok: usize,
    skipped: usize,
}

impl Screen {
    /// A screen for a run of this plan.
    pub fn new(format: Format, plan: &Plan) -> Self {
        let names: Vec<TaskName> = plan.tasks().iter().map(|task| task.name.clone()).collect();
        let live = format == Format::Text && console::user_attended_stderr();
        let target = if live { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self {
            json: format == Format::Json,
            workflow: plan.workflow.name.value.clone(),
            total: names.len(),
            width: names.iter().map(|name| name.as_str().len()).max().unwrap_or(0).min(48),
            names,
            bars: MultiProgress::with_draw_target(target),
            live,
            at_work: HashMap::new(),
            began: Instant::now(),
            changed: 0,
            ok: 0,
            skipped: 0,
        }
    }

    /// Says which run begins.
    pub fn started(&self, id: &RunId) {
        if !self.json {
            self.say(&format!("run {id}: {}, {}", self.workflow, tasks(self.total)));
        }
    }

    /// Says how much of a resumed run is behind it.
    pub fn so_far(&mut self, state: &RunState) {
        let passed = [TaskState::Done, TaskState::Satisfied, TaskState::Skipped]
            .iter()
            .map(|s| state.in_state(*s).count())
            .sum::<usize>();
        if !self.json {
            self.say(&format!("going on: {passed} of {} are done already", tasks(self.total)));
        }
    }

    /// Shows an event.
    pub fn event(&mut self, record: &Record) {
        if self.json {
            super::line(&json!({ "type": "event", "event": record }).to_string());
        }
        let Some(task) = record.event.task().cloned() else {
            if let Event::RunInterrupted { at_once } = record.event {
                self.say(if at_once {
                    "stopping at once: what runs is left as it is"
                } else {
                    "stopping: nothing new is started, what runs may finish; Ctrl-C again stops at once"
                });
            }
            return;
        };
        match &record.event {
            Event::TaskSkipped { why, .. } => {
                self.skipped += 1;
                self.done(&task, console::style("skipped").dim(), why);
            }
            Event::TaskSatisfied { .. } => {
                self.ok += 1;
                self.done(&task, console::style("ok").green(), "");
            }
            Event::TaskIntended { change, .. } => self.at_work(&task, &change.summary),
            Event::TaskDone { .. } => {
                self.changed += 1;
                self.done(&task, console::style("changed").yellow(), "");
            }
            Event::TaskFailed { error, retry_in_ms: Some(wait), .. } => {
                let text = format!("{error}; again in {}", duration(*wait as f64 / 1000.0));
                self.done(&task, console::style("retrying").magenta(), &text);
            }
            Event::TaskFailed { error, .. } => {
                self.done(&task, console::style("failed").red(), &error.message)
            }
            Event::TaskUnknown { error, .. } => {
                self.done(&task, console::style("unknown").red().bold(), &error.message);
            }
            Event::TaskNotDone { .. } => {
                self.done(
                    &task,
                    console::style("not done").dim(),
                    "the earlier attempt had no effect; again",
                );
            }
            _ => {}
        }
    }

    /// Shows what is no event.
    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Started { task, .. } => self.at_work(task, ""),
            Notice::Progress { task, text } => {
                if self.json {
                    super::line(&json!({ "type": "progress", "task": task, "text": text }).to_string());
                }
                self.at_work(task, text);
            }
            Notice::Note(text) => self.say(&format!("note: {text}")),
            Notice::Event(_) => {}
        }
    }

    /// Removes the lines of tasks at work.
    pub fn clear(&mut self) {
        let _ = self.bars.clear();
    }

    /// Says how a run that broke off can be gone on with.
    pub fn go_on_hint(&self, id: &RunId) {
        tell(&format!("`flow show {id}` tells its state"));
    }

    /// Says how the run ended, what failed, what was not started, and how to go on.
    pub fn ended(&self, report: &Report, format: Format) {
        let not_started: Vec<&TaskName> =
            self.names.iter().filter(|name| not_started(report, name)).collect();
        if format == Format::Json {
            let failures: Vec<_> =
                report.failures.iter().map(|(task, error)| json!({ "task": task, "error": error })).collect();
            let result = json!({
                "type": "result", "run": report.run, "workflow": self.workflow,
                "outcome": outcome_word(report.outcome), "changed": self.changed, "ok": self.ok,
                "skipped": self.skipped, "failures": failures, "not_started": not_started,
                "locks_kept": report.locks_kept,
            });
            super::line(&result.to_string());
            return;
        }
        for (task, error) in &report.failures {
            show_failure(task, error);
        }
        if !not_started.is_empty() {
            tell(&format!("\nnot started: {}", list(&not_started)));
        }
        if !report.locks_kept.is_empty() {
            tell(&format!("still locked for this run: {}", report.locks_kept.join(", ")));
        }
        super::line(&self.summary(report));
        if matches!(report.outcome, Outcome::Failed | Outcome::Interrupted | Outcome::Undecided) {
            tell(&format!("go on with: flow resume {}", &report.run.as_str()[..6]));
        }
    }

    fn summary(&self, report: &Report) -> String {
        let time = duration(self.began.elapsed().as_secs_f64());
        let name = &self.workflow;
        if report.outcome == Outcome::Succeeded && self.changed == 0 {
            return format!(
                "{name}: nothing to do: all {} are as they should be ({time})",
                tasks(self.ok + self.skipped)
            );
        }
        let mut parts = vec![format!("{} changed", self.changed), format!("{} ok", self.ok)];
        if self.skipped > 0 {
            parts.push(format!("{} skipped", self.skipped));
        }
        if !report.failures.is_empty() {
            parts.push(format!("{} failed", report.failures.len()));
        }
        format!("{name} {} in {time}: {}", outcome_word(report.outcome), parts.join(", "))
    }

    fn at_work(&mut self, task: &TaskName, text: &str) {
        if !self.live {
            return;
        }
        let bars = &self.bars;
        let width = self.width;
        let (_, bar) = self.at_work.entry(task.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed:>4} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = bars.add(ProgressBar::new_spinner().with_style(style));
            bar.set_prefix(format!("{:width$}", task.as_str()));
            bar.enable_steady_tick(Duration::from_millis(120));
            (Instant::now(), bar)
        });
        if !text.is_empty() {
            bar.set_message(text.to_owned());
        }
    }

    fn done(&mut self, task: &TaskName, mark: console::StyledObject<&str>, text: &str) {
        let mut took = String::new();
        if let Some((began, bar)) = self.at_work.remove(task) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
            if began.elapsed() > Duration::from_millis(500) {
                took = duration(began.elapsed().as_secs_f64());
            }
        }
        let width = self.width;
        // Padded by hand: a styled text's escape codes would count.
        let pad = " ".repeat(8usize.saturating_sub(console::measure_text_width(&mark.to_string())));
        self.say(&format!("{mark}{pad} {:width$}  {took:>8}  {text}", task.as_str()));
    }

    fn say(&self, text: &str) {
        if self.live {
            let _ = self.bars.println(text.trim_end());
        } else if !self.json {
            tell(&console::strip_ansi_codes(text));
        }
    }
}

fn not_started(report: &Report, name: &TaskName) -> bool {
    let state = &report.state;
    state
        .shape()
        .node(name)
        .is_some_and(|node| matches!(state.task(node), TaskState::Waiting | TaskState::Ready))
}

fn show_failure(task: &TaskName, error: &StepError) {
    tell(&format!("\n{} {task}: {error}", console::style("failed:").for_stderr().red().bold()));
    if let Some(detail) = &error.detail {
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
