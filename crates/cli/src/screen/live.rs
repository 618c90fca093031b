//! A run as it goes on: on a terminal a line for each task at work below the lines of what is done;
//! elsewhere plain lines; with `--output json` each event as a line on standard output.

mod ended;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use flow_core::engine::{Notice, UndoTask};
use flow_core::plan::Plan;
use flow_core::run::{Asked, Event, Record, RunId, RunState, TaskName, TaskState};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{duration, tasks, tell};
use crate::args::Format;
use crate::commands::runs::Next;

/// Between two lines on what one task waits for.
const PROGRESS_PAUSE: Duration = Duration::from_secs(10);

/// Shows one run.
pub struct Screen {
    json: bool,
    workflow: String,
    total: usize,
    width: usize,
    names: Vec<TaskName>,
    /// The points of no return.
    pivots: Vec<TaskName>,
    bars: MultiProgress,
    live: bool,
    bars_at_work: HashMap<TaskName, ProgressBar>,
    /// When each task at work began, and what it is to change.
    at_work: HashMap<TaskName, (Instant, String)>,
    /// Tasks that had passed before this process.
    passed_before: Option<usize>,
    /// Where nothing can be overwritten: when each task last said what it waits for.
    progress_told: HashMap<TaskName, (Instant, String)>,
    began: Instant,
    changed: usize,
    ok: usize,
    skipped: usize,
    /// What was asked for is to take the run back.
    undo: bool,
    undone: usize,
    kept: Vec<(TaskName, String)>,
    /// What was changed by each task that may be taken back.
    changes: HashMap<TaskName, String>,
    /// A question that stands below what is told, while it waits for its answer.
    prompt: Option<String>,
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
            pivots: plan.tasks().iter().filter(|task| task.pivot).map(|task| task.name.clone()).collect(),
            names,
            bars: MultiProgress::with_draw_target(target),
            live,
            bars_at_work: HashMap::new(),
            at_work: HashMap::new(),
            passed_before: None,
            progress_told: HashMap::new(),
            began: Instant::now(),
            changed: 0,
            ok: 0,
            skipped: 0,
            undo: false,
            undone: 0,
            kept: Vec::new(),
            changes: HashMap::new(),
            prompt: None,
        }
    }

    /// Takes in that the run is to be taken back, and what it has changed.
    pub fn takes_back(&mut self, tasks: &[UndoTask]) {
        self.undo = true;
        self.changes = tasks.iter().map(|task| (task.name.clone(), task.summary.clone())).collect();
    }

    /// Whether what was asked for is to take the run back.
    pub fn is_undo(&self) -> bool {
        self.undo
    }

    /// Whether it is for people.
    pub fn is_text(&self) -> bool {
        !self.json
    }

    /// Says that a task waits for approval, and how to give it where nobody can be asked here.
    pub fn asks(&mut self, asked: &Asked, next: &Next) {
        let task = asked.task.as_str();
        let width = self.width;
        self.show_at_work(&asked.task, "waits for approval");
        self.say(&format!("approval {task:width$}  {}", asked.message));
        let approve = next.command("approve", task);
        self.say(&format!("{:8} {:width$}  answer with: {approve} (--reject to refuse)", "", ""));
    }

    /// Pauses the live display and puts a question below what was told.
    pub fn prompt(&mut self, text: &str) {
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
        self.prompt = Some(text.to_owned());
        self.show_prompt();
    }

    /// Ends the question.
    pub fn unprompt(&mut self) {
        if self.prompt.take().is_some() && self.live {
            self.bars.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
    }

    fn show_prompt(&self) {
        let mut stderr = std::io::stderr();
        let _ = write!(stderr, "{}", self.prompt.as_deref().unwrap_or_default());
        let _ = stderr.flush();
    }

    /// Says which run begins.
    pub fn started(&self, id: &RunId) {
        if !self.json {
            if self.undo {
                return self.say(&format!("run {id}: taking back {}", self.workflow));
            }
            let before = match self.passed_before {
                Some(passed) => format!(", going on: {passed} done before"),
                None => String::new(),
            };
            self.say(&format!("run {id}: {}, {}{before}", self.workflow, tasks(self.total)));
        }
    }

    /// Takes in how much of a resumed run is behind it.
    pub fn so_far(&mut self, state: &RunState) {
        let passed = [TaskState::Done, TaskState::Satisfied, TaskState::Skipped]
            .iter()
            .map(|s| state.in_state(*s).count())
            .sum::<usize>();
        self.passed_before = Some(passed);
    }

    /// Shows an event.
    pub fn event(&mut self, record: &Record) {
        if self.json {
            super::line(&json!({ "type": "event", "event": record }).to_string());
        }
        let Some(task) = record.event.task().cloned() else {
            if matches!(record.event, Event::UndoStarted { .. }) && !self.undo {
                self.say("the run has failed; what it did is taken back");
            }
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
                self.done(&task, &console::style("skipped").dim(), why);
            }
            Event::TaskSatisfied { .. } => {
                self.ok += 1;
                self.done(&task, &console::style("ok").green(), "");
            }
            Event::HostsChosen { hosts, .. } => {
                self.ok += 1;
                let hosts = if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") };
                self.done(&task, &console::style("ok").green(), &format!("in this order: {hosts}"));
            }
            Event::TaskIntended { change, .. } => self.intended(&task, &change.summary),
            Event::TaskDone { .. } => {
                self.changed += 1;
                let what = self.at_work.get(&task).map(|(_, what)| what.clone()).unwrap_or_default();
                self.done(&task, &console::style("changed").yellow(), &what);
            }
            Event::TaskApproved { by, .. } => {
                self.ok += 1;
                self.done(&task, &console::style("approved").green(), &format!("by {by}"));
            }
            Event::TaskRejected { by, reason, .. } => {
                let why = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
                self.done(&task, &console::style("rejected").red(), &format!("by {by}{why}"));
            }
            Event::TaskFailed { error, retry_in_ms: Some(wait), .. } => {
                let text = format!("{error}; again in {}", duration(*wait as f64 / 1000.0));
                self.done(&task, &console::style("retrying").magenta(), &text);
            }
            Event::TaskFailed { error, .. } => {
                self.done(&task, &console::style("failed").red(), &error.message);
            }
            Event::TaskUnknown { error, .. } => {
                self.done(&task, &console::style("unknown").red().bold(), &error.message);
            }
            Event::TaskNotDone { .. } => {
                self.done(
                    &task,
                    &console::style("not done").dim(),
                    "the earlier attempt had no effect; again",
                );
            }
            event => self.undo_event(&task, event),
        }
    }

    fn undo_event(&mut self, task: &TaskName, event: &Event) {
        match event {
            Event::UndoIntended { .. } => {
                let what = self.changes.get(task).cloned().unwrap_or_default();
                self.intended(task, &what);
            }
            Event::TaskUndone { .. } => {
                self.undone += 1;
                let what = self.at_work.get(task).map(|(_, what)| what.clone()).unwrap_or_default();
                self.done(task, &console::style("undone").yellow(), &what);
            }
            Event::UndoFailed { error, retry_in_ms: Some(wait), .. } => {
                let text = format!("{error}; again in {}", duration(*wait as f64 / 1000.0));
                self.done(task, &console::style("retrying").magenta(), &text);
            }
            Event::UndoFailed { error, .. } => {
                self.done(task, &console::style("failed").red(), &error.message);
            }
            Event::UndoUnknown { error, .. } => {
                self.done(task, &console::style("unknown").red().bold(), &error.message);
            }
            Event::UndoNotDone { .. } => {
                let text = "the earlier undo was cut short; again";
                self.done(task, &console::style("not done").dim(), text);
            }
            Event::TaskKept { why, .. } => {
                self.kept.push((task.clone(), why.clone()));
                self.done(task, &console::style("kept").dim(), why);
            }
            _ => {}
        }
    }

    /// Shows what is no event.
    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Started { task, attempt: 1 } => self.show_at_work(task, "checking"),
            Notice::Started { task, attempt } => self.show_at_work(task, &format!("attempt {attempt}")),
            Notice::Progress { task, text } => {
                if self.json {
                    super::line(&json!({ "type": "progress", "task": task, "text": text }).to_string());
                }
                self.tell_progress(task, text);
                self.show_at_work(task, text);
            }
            Notice::Note(text) => self.say(&format!("note: {text}")),
            Notice::Event(_) | Notice::Asks(_) => {}
        }
    }

    /// Removes the lines of tasks at work.
    pub fn clear(&mut self) {
        let _ = self.bars.clear();
    }

    fn intended(&mut self, task: &TaskName, what: &str) {
        self.changes.insert(task.clone(), what.to_owned());
        self.at_work.insert(task.clone(), (Instant::now(), what.to_owned()));
        self.show_at_work(task, what);
    }

    /// In plain lines: what a task waits for, where it is news, and not more often than every 10 s.
    fn tell_progress(&mut self, task: &TaskName, text: &str) {
        if self.live {
            return;
        }
        let told = self.progress_told.get(task);
        if told.is_some_and(|(at, before)| before == text || at.elapsed() < PROGRESS_PAUSE) {
            return;
        }
        self.progress_told.insert(task.clone(), (Instant::now(), text.to_owned()));
        let width = self.width;
        self.say(&format!("waiting  {:width$}  {text}", task.as_str()));
    }

    fn show_at_work(&mut self, task: &TaskName, text: &str) {
        if !self.live {
            return;
        }
        let bars = &self.bars;
        let width = self.width;
        let bar = self.bars_at_work.entry(task.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner}        {prefix}  {elapsed:>4} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = bars.add(ProgressBar::new_spinner().with_style(style));
            bar.set_prefix(format!("{:width$}", task.as_str()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if !text.is_empty() {
            bar.set_message(text.to_owned());
        }
    }

    /// One line for what became of a task; how long it took is said where a person would have noticed.
    fn done(&mut self, task: &TaskName, mark: &console::StyledObject<&str>, text: &str) {
        if let Some(bar) = self.bars_at_work.remove(task) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        let took = self.at_work.remove(task).map(|(began, _)| began.elapsed().as_secs_f64());
        let took = match took.filter(|seconds| *seconds >= 1.0) {
            Some(seconds) => format!("  ({})", duration(seconds)),
            None => String::new(),
        };
        let width = self.width;
        // Padded by hand: a styled text's escape codes would count.
        let pad = " ".repeat(8usize.saturating_sub(console::measure_text_width(&mark.to_string())));
        let begin = format!("{mark}{pad} {:width$}  ", task.as_str());
        let text = self.fitting(text, &begin, &took);
        self.say(&format!("{begin}{text}{took}"));
    }

    /// A text cut so that its line fits the terminal. Errors are told whole again at the end.
    fn fitting<'t>(&self, text: &'t str, begin: &str, end: &str) -> Cow<'t, str> {
        if !self.live {
            return text.into();
        }
        let around = console::measure_text_width(begin) + end.len();
        let columns = usize::from(console::Term::stderr().size().1);
        console::truncate_str(text, columns.saturating_sub(around).max(20), "…")
    }

    fn say(&self, text: &str) {
        if self.prompt.is_some() {
            // Over the question, which is put again below.
            tell(&format!("\r\x1b[K{}", text.trim_end()));
            self.show_prompt();
        } else if self.live {
            let _ = self.bars.println(text.trim_end());
        } else if !self.json {
            tell(&console::strip_ansi_codes(text));
        }
    }
}
