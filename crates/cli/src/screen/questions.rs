//! What a run waits for, asked at the terminal: one question at a time, below what else is told.
//!
//! A line is the answer to the question that stands there when it ends. Where somebody answered from
//! elsewhere meanwhile, the line under way is for nobody: it is thrown away, and the next question
//! comes after it.

use std::collections::VecDeque;
use std::io::IsTerminal;

use flow_core::run::{Asked, Event};
use flow_core::store::{Answer, Signal};
use tokio::sync::mpsc;

use super::Screen;
use crate::commands::runs::Next;
use crate::context;

/// The questions of one run.
pub struct Questions {
    /// Whether somebody can be asked here.
    terminal: bool,
    reply: Box<dyn Fn(Signal) + Send + Sync>,
    /// The first is the one that stands there, unless a line is still for nobody.
    waiting: VecDeque<Asked>,
    for_nobody: bool,
    lines: Option<mpsc::UnboundedReceiver<String>>,
}

impl Questions {
    /// Asks only where a person reads and types.
    pub fn new(is_text: bool, reply: impl Fn(Signal) + Send + Sync + 'static) -> Self {
        let terminal = is_text && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self { terminal, reply: Box::new(reply), waiting: VecDeque::new(), for_nobody: false, lines: None }
    }

    /// A task waits for approval.
    pub fn ask(&mut self, asked: Asked, screen: &mut Screen, next: &Next) {
        screen.asks(&asked, next);
        if !self.terminal {
            return;
        }
        self.waiting.push_back(asked);
        if self.lines.is_none() {
            self.lines = Some(read_lines());
        }
        if self.waiting.len() == 1 && !self.for_nobody {
            self.show(screen);
        }
    }

    /// Something happened: it may be that a question is answered from elsewhere, or too old.
    pub fn over(&mut self, event: &Event, screen: &mut Screen) {
        if matches!(event, Event::UndoStarted { .. }) {
            // What is taken back asks for nothing any more.
            self.for_nobody |= !self.waiting.is_empty();
            self.waiting.clear();
            screen.unprompt();
            return;
        }
        let Some(at) = event.task().and_then(|task| self.waiting.iter().position(|q| q.task == *task)) else {
            return;
        };
        self.waiting.remove(at);
        if at == 0 && !self.for_nobody {
            self.for_nobody = true;
            match self.waiting.is_empty() {
                true => screen.unprompt(),
                false => screen.prompt("answered; press Enter for the next question "),
            }
        }
    }

    /// The next line that is typed; none where no more can be.
    pub async fn typed(&mut self) -> Option<String> {
        match &mut self.lines {
            Some(lines) => lines.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Takes in what was typed.
    pub fn answer(&mut self, line: Option<String>, screen: &mut Screen, next: &Next) {
        let Some(line) = line else {
            // Nobody types here any more.
            (self.terminal, self.lines) = (false, None);
            screen.unprompt();
            self.waiting.drain(..).for_each(|asked| screen.asks(&asked, next));
            return;
        };
        if std::mem::take(&mut self.for_nobody) {
            self.show(screen);
            return;
        }
        let answer = match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("yes", "") => Answer::Approve,
            ("no", reason) => Answer::Reject((!reason.trim().is_empty()).then(|| reason.trim().to_owned())),
            _ => {
                self.show(screen);
                return;
            }
        };
        if let Some(Asked { task, attempt, .. }) = self.waiting.pop_front() {
            (self.reply)(Signal {
                task,
                attempt,
                by: context::person(),
                when: jiff::Timestamp::now(),
                answer,
            });
        }
        self.show(screen);
    }

    fn show(&self, screen: &mut Screen) {
        match self.waiting.front() {
            Some(asked) => {
                screen.prompt(&format!("Approve {}? Type yes, or no and the reason: ", asked.task));
            }
            None => screen.unprompt(),
        }
    }
}

/// The lines of standard input. The thread ends with the program: a read can't be broken off.
fn read_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
