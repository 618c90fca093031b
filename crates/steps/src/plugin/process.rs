//! One process of a plugin for one request: started, spoken with, and ended with its process group
//! whatever happens.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::StepError;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::mpsc;

use super::wire::{self, Call, Failure, Lines, Nonsense, PROTOCOL, Reply, Request, Says, Work};
use crate::support::tail;

/// What a plugin may write in one call, standard error included, in bytes.
const VOLUME: usize = 64 * 1024 * 1024;
/// What is kept of its standard error, in bytes.
const STDERR_KEPT: usize = 16 * 1024;
/// How long a plugin may take to end after its answer.
const GRACE: Duration = Duration::from_secs(2);
/// What a plugin sees of flow's environment.
const ENVIRONMENT: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// The variable that names the attempt in the environment of whatever a plugin starts.
pub(super) const ATTEMPT: &str = "FLOW_ATTEMPT";

/// What is asked of a plugin.
pub(super) struct Question<'q> {
    pub(super) executable: &'q Path,
    pub(super) verb: &'static str,
    pub(super) work: Option<Work<'q>>,
    /// How long it may take.
    pub(super) limit: Duration,
    /// Set where it may change something.
    pub(super) attempt: Option<&'q str>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It could not be started.
    NotStarted(String),
    /// It misbehaved; a fragment that begins with "it".
    Misbehaved {
        message: String,
        detail: Option<String>,
        /// It would do so again.
        always: bool,
    },
    /// It says that it failed.
    Failed(Failure),
    /// The host did not answer, or is another run's.
    Host(StepError),
}

impl From<Nonsense> for Trouble {
    fn from(nonsense: Nonsense) -> Self {
        Self::Misbehaved { message: nonsense.to_string(), detail: None, always: true }
    }
}

/// What a plugin is given while it works.
#[async_trait]
pub(super) trait Serve: Send + Sync {
    /// Does something on the task's host.
    async fn call(&self, call: Call) -> Result<Reply, Trouble>;

    /// Tells what the plugin waits for.
    fn progress(&self, text: &str);
}

/// Asks and waits for the answer.
pub(super) async fn ask(question: Question<'_>, serve: &dyn Serve) -> Result<Value, Trouble> {
    // A number that can't be known without reading the request.
    let id = u64::from(rand::random::<u32>());
    let request = Request { flow: PROTOCOL, id, verb: question.verb, work: question.work.clone() };
    let mut line = serde_json::to_vec(&request).map_err(|error| Trouble::NotStarted(error.to_string()))?;
    line.push(b'\n');
    let mut process = Process::start(&question)?;
    process.send(line);
    let limit = question.limit;
    let answer = match tokio::time::timeout(limit, process.dialogue(id, serve)).await {
        Ok(answer) => answer,
        Err(_) => Err(Trouble::Misbehaved {
            message: format!("it took longer than {} s", limit.as_secs_f64()),
            detail: None,
            always: false,
        }),
    };
    process.end(answer).await
}

/// Kills a process group when it is dropped: also where the future that waits for it is given up.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // No such group: all of it has ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Process {
    // Dropped first: the child is still there to be killed.
    group: Group,
    child: Child,
    /// None once nothing more is sent.
    input: Option<mpsc::UnboundedSender<Vec<u8>>>,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    lines: Lines,
    said: Vec<u8>,
    volume: usize,
}

/// Something that came from a plugin.
enum Came {
    Out,
    Err,
    /// Its standard output has ended.
    Eof,
}

impl Process {
    fn start(question: &Question<'_>) -> Result<Self, Trouble> {
        let mut command = Command::new(question.executable);
        command.arg0(question.executable).current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_clear().env("FLOW_PROTOCOL", PROTOCOL.to_string());
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(question.attempt.map(|attempt| (ATTEMPT, attempt)));
        let not_started = |why: &str| Trouble::NotStarted(format!("it can't be started: {why}"));
        let mut child = command.spawn().map_err(|error| not_started(&error.to_string()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = Group(Some(pid.ok_or_else(|| not_started("it has no process id"))?));
        let (Some(mut stdin), out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(not_started("it has no standard input"));
        };
        let (input, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
        // Apart from the reading: a plugin that doesn't read must not keep flow from hearing it. Ends
        // with the channel, or with the plugin.
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                if stdin.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        let (lines, said) = (Lines::default(), Vec::new());
        Ok(Self { group, child, input: Some(input), out, err, lines, said, volume: 0 })
    }

    fn send(&self, line: Vec<u8>) {
        if let Some(input) = &self.input {
            let _ = input.send(line);
        }
    }

    async fn dialogue(&mut self, id: u64, serve: &dyn Serve) -> Result<Value, Trouble> {
        let mut told = 0;
        loop {
            while let Some(line) = self.lines.next_line()? {
                let message = wire::read(&line)?;
                if message.id != id {
                    return Err(Nonsense::WrongId { said: message.id, asked: id }.into());
                }
                match message.says {
                    Says::Progress(text) => serve.progress(first_line(&text)),
                    Says::Call(call) => self.reply(&serve.call(call).await?)?,
                    Says::Answer(answer) => return self.last(Ok(answer)).await,
                    Says::Error(failure) => return self.last(Err(Trouble::Failed(failure))).await,
                }
            }
            match self.more().await? {
                Came::Out => {}
                Came::Err => told = self.tell(told, serve),
                Came::Eof => return Err(self.closed().await),
            }
        }
    }

    fn reply(&self, reply: &Reply) -> Result<(), Trouble> {
        let mut line = serde_json::to_vec(reply).map_err(|error| Nonsense::NoMessage(error.to_string()))?;
        line.push(b'\n');
        self.send(line);
        Ok(())
    }

    /// Waits for more of either output.
    async fn more(&mut self) -> Result<Came, Trouble> {
        loop {
            let (bytes, out) = tokio::select! {
                bytes = piece(&mut self.out), if self.out.is_some() => (bytes, true),
                bytes = piece(&mut self.err), if self.err.is_some() => (bytes, false),
                else => return Ok(Came::Eof),
            };
            self.volume += bytes.as_ref().map_or(0, Vec::len);
            if self.volume > VOLUME {
                let message = format!("it wrote more than {} MiB in one call", VOLUME / 1024 / 1024);
                return Err(Trouble::Misbehaved { message, detail: None, always: true });
            }
            match (bytes, out) {
                (Some(bytes), true) => {
                    self.lines.push(&bytes);
                    return Ok(Came::Out);
                }
                (Some(bytes), false) => {
                    self.said.extend(bytes);
                    return Ok(Came::Err);
                }
                (None, true) => {
                    self.out = None;
                    return Ok(Came::Eof);
                }
                (None, false) => self.err = None,
            }
        }
    }

    /// Tells the last whole line of standard error that was not told yet.
    fn tell(&mut self, told: usize, serve: &dyn Serve) -> usize {
        let surplus = self.said.len().saturating_sub(STDERR_KEPT);
        self.said.drain(..surplus);
        let told = told.saturating_sub(surplus);
        let Some(end) = self.said.iter().rposition(|&byte| byte == b'\n').filter(|end| *end >= told) else {
            return told;
        };
        let text = String::from_utf8_lossy(&self.said[told..end]);
        if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) {
            serve.progress(line.trim());
        }
        end + 1
    }

    /// After the last message: nothing more is said, and the plugin has a moment to end by itself.
    async fn last(&mut self, answer: Result<Value, Trouble>) -> Result<Value, Trouble> {
        self.input = None;
        let quiet = async {
            while !matches!(self.more().await?, Came::Eof) {}
            Ok::<_, Trouble>(())
        };
        if let Ok(ended) = tokio::time::timeout(GRACE, quiet).await {
            ended?;
        }
        if !self.lines.rest().trim_ascii().is_empty() {
            return Err(Nonsense::WentOn.into());
        }
        answer
    }

    /// Its output has ended before its answer.
    async fn closed(&mut self) -> Trouble {
        let status = tokio::time::timeout(GRACE, self.child.wait()).await;
        let cut =
            if self.lines.rest().is_empty() { "without an answer" } else { "in the middle of a message" };
        let message = match status {
            Ok(Ok(status)) => format!("it ended {cut} ({status})"),
            Ok(Err(_)) | Err(_) => format!("it closed its output {cut}"),
        };
        Trouble::Misbehaved { message, detail: None, always: false }
    }

    /// Ends whatever is left of it. Misbehaviour is told with the end of its standard error.
    async fn end(mut self, answer: Result<Value, Trouble>) -> Result<Value, Trouble> {
        self.group.kill();
        let _ = self.child.wait().await;
        if let Err(Trouble::Misbehaved { message, always, .. }) = answer {
            // What it said last may still lie in the pipe; who holds that open is gone, or left the group.
            let _ = tokio::time::timeout(GRACE / 4, async {
                while let Some(bytes) =
                    piece(&mut self.err).await.filter(|_| self.said.len() < 2 * STDERR_KEPT)
                {
                    self.said.extend(bytes);
                }
            })
            .await;
            let text = tail(&String::from_utf8_lossy(&self.said));
            let detail = (!text.trim().is_empty()).then_some(text);
            return Err(Trouble::Misbehaved { message, detail, always });
        }
        answer
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What a pipe has now; `None` at its end, or where there is none.
async fn piece<R: AsyncRead + Unpin>(pipe: &mut Option<R>) -> Option<Vec<u8>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    match pipe.as_mut()?.read_buf(&mut buffer).await {
        Ok(1..) => Some(buffer),
        Ok(0) | Err(_) => None,
    }
}
