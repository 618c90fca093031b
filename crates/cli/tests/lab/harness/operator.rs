//! flow as an operator runs it: a store of their own, the lab's inventory, the lab's network.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::lab::{self, Lab};
use super::{PATIENCE, until};

/// Someone with a laptop.
pub struct Operator {
    folder: TempDir,
    inventory: PathBuf,
}

impl Operator {
    pub fn new(lab: &Lab) -> Self {
        Self { folder: TempDir::new().unwrap(), inventory: lab.file("inventory.ini") }
    }

    /// With another inventory, and group_vars as the lab's.
    pub fn with_inventory(lab: &Lab, text: &str) -> Self {
        let mut operator = Self::new(lab);
        let vars = lab.file("group_vars/promoters.yml");
        let folder = operator.folder.path().join("inventory");
        std::fs::create_dir_all(folder.join("group_vars")).unwrap();
        std::fs::copy(vars, folder.join("group_vars/promoters.yml")).unwrap();
        operator.inventory = folder.join("inventory.ini");
        std::fs::write(&operator.inventory, text).unwrap();
        operator
    }

    /// Changes the variables that [`Self::with_inventory`] copied.
    pub fn edit_variables(&self, edit: impl FnOnce(&str) -> String) {
        let path = self.folder.path().join("inventory/group_vars/promoters.yml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, edit(&text)).unwrap();
    }

    /// A file of the operator's own, such as a workflow; gives its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Where the operator's files are, the store's among them.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = lab::command(&["run", env!("CARGO_BIN_EXE_flow")]);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("FLOW_STORE", format!("sqlite:{}", self.folder.path().join("runs.db").display()))
            .env("FLOW_INVENTORY", &self.inventory)
            .env("HOME", self.folder.path())
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `flow ARGUMENTS`, until it ends.
    pub fn flow(&self, arguments: &[&str]) -> Done {
        self.start(arguments).wait()
    }

    /// `flow ARGUMENTS`, begun. With `--output json` its events can be waited for.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(arguments), arguments)
    }

    /// The reset recovery, confirmed, with its events.
    pub fn recover(&self) -> Running {
        self.start(&RECOVER)
    }

    /// Waits until the cluster is called healthy: balancers find a leader some seconds after it leads.
    pub fn diagnosed_healthy(&self) -> Done {
        let healthy = until("a healthy cluster to be called so", || {
            let done = self.flow(&["diagnose"]);
            if done.code() == Some(0) { Ok(done) } else { Err(done.text()) }
        });
        healthy.says(&["healthy: "])
    }

    /// Goes on with the newest run, with its events.
    pub fn resume(&self) -> Running {
        self.start(&["resume", "--output", "json"])
    }

    /// The runs of the store: `(id, status)`, newest first.
    pub fn runs(&self) -> Vec<(String, String)> {
        let text = self.flow(&["runs", "--output", "json"]).ended(0).stdout;
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let rows = value.as_array().cloned().unwrap_or_default();
        let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        rows.iter().map(|row| (word(row, "id"), word(row, "status"))).collect()
    }
}

/// The recovery's command line, also for a cluster that is healthy.
pub const RECOVER: [&str; 10] = [
    "run",
    "system-id-recovery.toml",
    "--set",
    "mode=reset",
    "--set",
    "even_if_healthy=true",
    "--confirm",
    "demo",
    "--output",
    "json",
];

/// A flow at work. Dropped, it is killed.
pub struct Running {
    child: Child,
    what: String,
    lines: Receiver<(bool, String)>,
    stdout: String,
    stderr: String,
    events: Vec<Value>,
}

impl Running {
    fn new(mut command: Command, arguments: &[&str]) -> Self {
        // `lab run` becomes flow: it is its process id that signals go to.
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        forward(child.stdout.take().unwrap(), true, sender.clone());
        forward(child.stderr.take().unwrap(), false, sender);
        let what = format!("flow {}", arguments.join(" "));
        Self { child, what, lines, stdout: String::new(), stderr: String::new(), events: Vec::new() }
    }

    fn take(&mut self, (out, line): (bool, String)) {
        let text = if out { &mut self.stdout } else { &mut self.stderr };
        text.push_str(&line);
        text.push('\n');
        if out
            && let Ok(value) = serde_json::from_str::<Value>(&line)
            && value["type"] == "event"
        {
            self.events.push(value["event"].clone());
        }
    }

    /// Waits until a line satisfies `wanted`, on either stream.
    pub fn wait_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let began = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = wanted(&line.1);
                    self.take(line);
                    if found {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain for {what}: {}", self.told()),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before {what}: {}", self.told()),
            }
        }
    }

    /// Waits for an event of a step, such as `task_done` of `purge`; gives the task's name.
    pub fn wait_event(&mut self, event: &str, step: &str) -> String {
        self.wait_events(event, step, 1).pop().unwrap()
    }

    /// Waits until something happens to a step.
    pub fn wait_step(&mut self, step: &str) {
        let at = format!("\"{step}@");
        self.wait_line(&format!("step {step}"), |line| line.contains("\"event\"") && line.contains(&at));
    }

    /// Waits for so many events of a step's tasks in all; gives the tasks' names.
    pub fn wait_events(&mut self, event: &str, step: &str, count: usize) -> Vec<String> {
        let is_it = |one: &Value| {
            let task = one["task"].as_str().unwrap_or_default();
            one["event"] == event && task.split('@').next() == Some(step)
        };
        loop {
            let found: Vec<String> = self
                .events
                .iter()
                .filter(|one| is_it(one))
                .filter_map(|one| one["task"].as_str().map(str::to_owned))
                .collect();
            if found.len() >= count {
                return found;
            }
            self.wait_line(&format!("{event} of {step}"), |line| line.contains("\"event\""));
        }
    }

    /// Sends a signal, such as `INT`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success(), "no {signal} to {}", self.what);
    }

    /// SIGKILL, at once.
    pub fn kill(mut self) -> Done {
        self.child.kill().unwrap();
        self.finish()
    }

    /// Gives it so long to end by itself.
    pub fn leave(&mut self, patience: Duration) {
        let began = Instant::now();
        while began.elapsed() < patience && self.child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Done {
        let began = Instant::now();
        until_ended(&mut self.child, began, &self.what);
        self.finish()
    }

    fn finish(&mut self) -> Done {
        let status = self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv() {
            self.take(line);
        }
        Done {
            status,
            what: self.what.clone(),
            stdout: std::mem::take(&mut self.stdout),
            stderr: std::mem::take(&mut self.stderr),
            events: std::mem::take(&mut self.events),
        }
    }

    fn told(&self) -> String {
        format!("{}\n{}{}", self.what, self.stdout, self.stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until_ended(child: &mut Child, began: Instant, what: &str) {
    until(&format!("the end of {what}"), || match child.try_wait().unwrap() {
        Some(_) => Ok(()),
        None => Err(format!("it is still at work after {} s", began.elapsed().as_secs())),
    });
}

fn forward(stream: impl Read + Send + 'static, out: bool, sender: Sender<(bool, String)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send((out, String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    });
}

/// A flow that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    status: ExitStatus,
    what: String,
    pub stdout: String,
    pub stderr: String,
    pub events: Vec<Value>,
}

impl Done {
    /// Asserts the exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "exit code of {}\n{}", self.what, self.told());
        self
    }

    /// Asserts that each of these is said somewhere.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        // Messages are wrapped to the width of a terminal.
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = flat(&self.text());
        for part in parts {
            assert!(text.contains(&flat(part)), "{} does not say `{part}`:\n{}", self.what, self.told());
        }
        self
    }

    /// Whether it says why it ended so, in one of the ways that docs/json.md gives.
    pub fn gives_a_reason(&self) -> bool {
        let told = self.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut reasons = told.flat_map(|value| match value["type"].as_str() {
            Some("error") => value["errors"].as_array().cloned().unwrap_or_default(),
            Some("result") => value["failures"].as_array().cloned().unwrap_or_default(),
            _ => Vec::new(),
        });
        reasons.next().is_some()
    }

    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Both streams, less the hundred tasks of which there is nothing to tell.
    fn told(&self) -> String {
        self.text().lines().filter(|line| !line.starts_with("ok  ")).collect::<Vec<_>>().join("\n")
    }

    /// Both streams.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Whether anything on a host was meant to be changed.
    pub fn changed_nothing(&self) -> bool {
        !self.events.iter().any(|event| event["event"] == "task_intended")
    }

    /// The run's id, from its result.
    pub fn result(&self) -> Value {
        self.stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|value| value["type"] == "result")
            .unwrap_or_else(|| panic!("no result: {}", self.text()))
    }

    /// A task's output, from its last event.
    pub fn output(&self, task: &str) -> Value {
        let mut of_task = self.events.iter().rev().filter(|event| event["task"] == task);
        let found = of_task.find(|event| event["event"] == "task_done" || event["event"] == "task_satisfied");
        found.map_or(Value::Null, |event| event["output"].clone())
    }
}
