//! The kept-open shell: one `sh` on a host that reads commands from its standard input.
//!
//! Commands that are asked for together are written in one go and answered in order, so that many
//! share a round trip, and one costs a round trip and a fork. When the shell is lost, those without an
//! answer are sent again on a new one, so they must change nothing; but for those that are sent once only.
//! It knows nothing of what they ask.

mod frame;
mod quote;

pub use quote::quote;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use frame::OUTPUT_LIMIT;
pub(crate) use frame::{Frames, find};

use super::Reply;
use super::posix::Login;
use super::transport::{Event, Failure, Output, Transport};

/// How long one command may take, by default.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// How long a shell may take to say its first word.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How often a command is sent before its loss is reported.
const TRIES: u8 = 2;

/// A nonce of 128 random bits, as hexadecimal digits.
pub(crate) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A shell on a host; started when first asked, and started anew when lost.
#[derive(Debug)]
pub(crate) struct Shell {
    transport: Arc<dyn Transport>,
    login: Login,
    jobs: OnceLock<mpsc::UnboundedSender<Job>>,
}

#[derive(Debug)]
struct Job {
    script: String,
    limit: Duration,
    reply: oneshot::Sender<Result<Reply, Failure>>,
    sent: u8,
    tries: u8,
}

impl Job {
    fn lose(self) {
        // Nobody waits any more: nothing to tell.
        let _ = self.reply.send(Err(Failure::Lost("the shell ended before it answered".into())));
    }
}

impl Shell {
    pub(crate) fn new(transport: Arc<dyn Transport>, login: Login) -> Self {
        Self { transport, login, jobs: OnceLock::new() }
    }

    /// Runs a script and waits for its reply. The time limit counts from when its turn comes.
    pub(crate) async fn run(&self, script: &str, limit: Duration) -> Result<Reply, Failure> {
        self.send(script, limit, TRIES).await
    }

    /// The same, sent once: what was lost with the shell may have been done.
    pub(crate) async fn run_once(&self, script: &str, limit: Duration) -> Result<Reply, Failure> {
        self.send(script, limit, 1).await
    }

    async fn send(&self, script: &str, limit: Duration, tries: u8) -> Result<Reply, Failure> {
        if script.contains('\0') {
            return Err(Failure::Refused("a script can't hold a NUL character".into()));
        }
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.get_or_init(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(work(self.transport.clone(), self.login.clone(), receiver));
            sender
        });
        let gone = || Failure::Lost("the shell's task has ended".into());
        jobs.send(Job { script: script.to_owned(), limit, reply, sent: 0, tries }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Keeps a shell open for as long as commands may come.
async fn work(transport: Arc<dyn Transport>, login: Login, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut queue = VecDeque::new();
    loop {
        if queue.is_empty() {
            match jobs.recv().await {
                Some(job) => queue.push_back(job),
                None => return,
            }
        }
        match Session::open(&*transport, &login).await {
            Ok(session) => session.serve(&mut jobs, &mut queue).await,
            Err(failure) => {
                queue.extend(std::iter::from_fn(|| jobs.try_recv().ok()));
                for job in queue.drain(..) {
                    // Nobody waits any more: nothing to tell.
                    let _ = job.reply.send(Err(failure.clone()));
                }
            }
        }
    }
}

/// One running shell.
struct Session {
    nonce: String,
    frames: Frames,
    output: Box<dyn Output>,
    input: mpsc::UnboundedSender<Bytes>,
    next_number: u64,
    flying: VecDeque<Job>,
    /// When the turn of the first of `flying` came.
    since: Instant,
}

/// Why a shell is served no more.
enum End {
    /// Nobody can ask any more.
    Idle,
    /// It ended, or its connection did.
    Gone,
    /// The command whose turn it is took too long.
    Late,
}

impl Session {
    /// Starts a shell and waits for its first word, past whatever the login printed.
    async fn open(transport: &dyn Transport, login: &Login) -> Result<Self, Failure> {
        let mut lost = Failure::Lost("the connection ended before the shell answered".into());
        for _ in 0..TRIES {
            let started = tokio::time::timeout(START_LIMIT, Self::start(transport, login));
            match started.await {
                Ok(Err(failure @ Failure::Lost(_))) => lost = failure,
                Ok(started) => return started,
                Err(_) => return Err(Failure::Lost(format!("no shell within {} s", START_LIMIT.as_secs()))),
            }
        }
        Err(lost)
    }

    async fn start(transport: &dyn Transport, login: &Login) -> Result<Self, Failure> {
        let nonce = nonce();
        let process = login.start(transport, "exec sh", &nonce).await?;
        let (input, queued) = mpsc::unbounded_channel();
        tokio::spawn(write_all(process.input, queued));
        let mut session = Self {
            frames: Frames::new(&nonce),
            output: process.output,
            input,
            next_number: 1,
            flying: VecDeque::new(),
            since: Instant::now(),
            nonce,
        };
        session.write(frame::prelude(&session.nonce));
        let mut status = None;
        loop {
            match session.output.next().await {
                Some(Event::Exit(code)) => status = Some(code),
                Some(event) => session.take_in(&event),
                None => return Err(login.explain(&session.frames.pending_error(), status)),
            }
            if session.frames.next().is_some() {
                return Ok(session);
            }
        }
    }

    fn write(&self, text: String) {
        // Fails only when the writer met an error; then the output ends too, which is where it is seen.
        let _ = self.input.send(text.into());
    }

    fn take_in(&mut self, event: &Event) {
        match event {
            Event::Out(bytes) => self.frames.out(bytes),
            Event::Err(bytes) => self.frames.err(bytes),
            Event::Eof | Event::Exit(_) => {}
        }
    }

    /// Sends what is queued and hands out replies, until the shell ends.
    async fn serve(mut self, jobs: &mut mpsc::UnboundedReceiver<Job>, queue: &mut VecDeque<Job>) {
        let end = self.until_end(jobs, queue).await;
        match (end, self.flying.pop_front()) {
            (_, None) => {}
            (End::Late, Some(job)) => {
                let message = format!("no answer within {} s", job.limit.as_secs_f32());
                let _ = job.reply.send(Err(Failure::Lost(message)));
            }
            (End::Gone, Some(job)) if job.sent >= job.tries => job.lose(),
            (_, Some(job)) => self.flying.push_front(job),
        }
        while let Some(job) = self.flying.pop_back() {
            // One that is sent once may have been begun, though its turn hadn't come for all that is known here.
            if job.tries == 1 { job.lose() } else { queue.push_front(job) }
        }
    }

    async fn until_end(&mut self, jobs: &mut mpsc::UnboundedReceiver<Job>, queue: &mut VecDeque<Job>) -> End {
        loop {
            queue.extend(std::iter::from_fn(|| jobs.try_recv().ok()));
            self.send(queue);
            let turn_ends = self.flying.front().map(|job| self.since + job.limit);
            tokio::select! {
                event = self.output.next() => match event {
                    None | Some(Event::Eof | Event::Exit(_)) => return End::Gone,
                    Some(event) => {
                        self.take_in(&event);
                        self.hand_out();
                    }
                },
                job = jobs.recv() => match job {
                    Some(job) => queue.push_back(job),
                    None => return End::Idle,
                },
                () = tokio::time::sleep_until(turn_ends.unwrap_or_else(Instant::now)), if turn_ends.is_some() => {
                    return End::Late;
                }
            }
        }
    }

    /// Writes all that is queued in one go.
    fn send(&mut self, queue: &mut VecDeque<Job>) {
        let mut text = String::new();
        for mut job in queue.drain(..) {
            if job.reply.is_closed() {
                continue;
            }
            text.push_str(&frame::request(&self.nonce, self.next_number, &job.script));
            self.next_number += 1;
            job.sent += 1;
            if self.flying.is_empty() {
                self.since = Instant::now();
            }
            self.flying.push_back(job);
        }
        if !text.is_empty() {
            self.write(text);
        }
    }

    fn hand_out(&mut self) {
        while let Some((_, reply, cut)) = self.frames.next() {
            let Some(job) = self.flying.pop_front() else { return };
            self.since = Instant::now();
            let answer = if cut {
                let limit = OUTPUT_LIMIT / 1024 / 1024;
                Err(Failure::Refused(format!("the answer is longer than {limit} MiB")))
            } else {
                Ok(reply)
            };
            let _ = job.reply.send(answer);
        }
    }
}

/// Writes what is queued; apart from reading, so that neither ever waits for the other.
async fn write_all(
    mut input: Box<dyn AsyncWrite + Send + Unpin>,
    mut queued: mpsc::UnboundedReceiver<Bytes>,
) {
    while let Some(bytes) = queued.recv().await {
        if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
    // End of file ends the shell; where it can't be sent, there is no shell.
    let _ = input.shutdown().await;
}
