//! `flow run`: confirm what is destructive, run, tell.

use std::io::{IsTerminal, Write};

use flow_core::engine::{EngineError, Notice, RunHandle, Stop};
use flow_core::plan::Plan;
use flow_core::run::Outcome;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::runs::Next;
use crate::args::{Global, RunArgs};
use crate::codes::UNCONFIRMED;
use crate::context;
use crate::exit::{Error, Exit};
use crate::screen::{self, Questions, Screen};

pub async fn run(global: &Global, args: RunArgs) -> Result<Exit, Error> {
    if let Some(text) = super::planned::plan_file(&args.workflow.workflow) {
        return super::planned::run(global, args, &text).await;
    }
    let (engine, _hosts) = context::engine_for(args.at_once.concurrency);
    let store = context::store(global)?;
    let plan = context::plan(&engine, &args.workflow, store.fingerprint_key()?)?;
    if plan.is_empty() {
        return Err(Error::refused("the plan has no tasks", "see the workflow's hosts, --limit and --tags"));
    }
    let confirmed =
        confirm(&plan, args.confirm, "`flow plan` with the same arguments shows what it would do")?;
    let screen = Screen::new(global.output, &plan);
    let others = store.runs()?;
    let handle = engine.start(plan, store, confirmed.as_deref())?;
    let next = Next::of(global, &others, &handle.id);
    follow(handle, screen, &next).await
}

/// Shows what is destructive and has its name typed, unless it was given. `look` says how to see more before.
pub fn confirm(plan: &Plan, given: Option<String>, look: &str) -> Result<Option<String>, Error> {
    let Some(name) = plan.confirmation()? else { return Ok(given) };
    screen::before::destructive(plan);
    match given {
        Some(given) if given == name => Ok(Some(given)),
        Some(given) => Err(Error::coded(
            UNCONFIRMED,
            format!("--confirm {given} is not the name that this run asks for; nothing was changed"),
            format!("to go ahead: --confirm {name}"),
        )),
        None if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "Type {name} to go ahead: ");
            let _ = stderr.flush();
            let mut typed = String::new();
            let _ = std::io::stdin().read_line(&mut typed);
            if typed.trim() == name {
                Ok(Some(name))
            } else {
                Err(Error::coded(
                    UNCONFIRMED,
                    "not confirmed; nothing was changed",
                    format!("to go ahead, type {name}"),
                ))
            }
        }
        None => Err(Error::coded(
            UNCONFIRMED,
            "this run has destructive steps and was not confirmed; nothing was changed",
            format!("{look}; to go ahead: --confirm {name}"),
        )),
    }
}

/// Stops the run when a signal asks for that. A terminal that goes away (SIGHUP, often sent twice) never stops what
/// runs: nobody is there to see what became of it.
async fn stop_on_signals(stop: impl Fn(Stop)) {
    let listen = |kind| signal(kind).ok();
    let mut interrupt = listen(SignalKind::interrupt());
    let mut terminate = listen(SignalKind::terminate());
    let mut hang_up = listen(SignalKind::hangup());
    let mut how = Stop::Gently;
    loop {
        tokio::select! {
            () = next_of(&mut interrupt) => {}
            () = next_of(&mut terminate) => {}
            () = next_of(&mut hang_up) => {
                stop(Stop::Gently);
                continue;
            }
        }
        stop(how);
        how = Stop::AtOnce;
    }
}

/// The next signal; never, where it can't be listened for.
async fn next_of(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Shows a run until it ends, and asks at the terminal what it waits for; `next` are the commands that go on
/// with it. Ctrl-C once: start nothing new. Twice: leave what runs.
pub async fn follow(mut handle: RunHandle, mut screen: Screen, next: &Next) -> Result<Exit, Error> {
    let stop = handle.stopper();
    let id = handle.id.clone();
    let signals = tokio::spawn(stop_on_signals(stop));
    screen.started(&id);
    let mut questions = Questions::new(screen.is_text(), handle.answerer());
    loop {
        tokio::select! {
            notice = handle.notices.recv() => match notice {
                None => break,
                Some(Notice::Asks(asked)) => questions.ask(asked, &mut screen, next),
                Some(Notice::Event(record)) => {
                    questions.over(&record.event, &mut screen);
                    screen.event(&record);
                }
                Some(notice) => screen.notice(&notice),
            },
            line = questions.typed() => questions.answer(line, &mut screen, next),
        }
    }
    screen.unprompt();
    let result = handle.wait().await;
    signals.abort();
    screen.clear();
    let report = result.inspect_err(|error| {
        // Where the run itself was refused, the error says it all.
        if !matches!(error, EngineError::Host { .. }) {
            screen.broke_off(&id, next);
        }
    })?;
    screen.ended(&report, next);
    // A run that failed and was taken back by itself has failed all the same.
    let failed = report.outcome == Outcome::Undone && !screen.is_undo();
    Ok(if failed { Exit::Failed } else { report.outcome.into() })
}
