//! `flow resolve`: what is known of a task of which nobody can tell what became of it, and a person's
//! word on it.

use clap::Args;
use flow_core::engine::{Evidence, Verdict, read_definition};
use flow_core::run::RunId;
use flow_core::step::Resolved;
use serde_json::{Value, json};

use super::runs::Next;
use crate::args::{Format, Global, InventoryArg};
use crate::exit::{Error, Exit};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct ResolveArgs {
    /// The run, by the beginning of its id.
    pub run: String,

    /// The task.
    pub task: String,

    /// Say that it was done: what needs it may go on. It has no outputs. Of a task that was being taken
    /// back: that it was.
    #[arg(long, conflicts_with = "not_done")]
    pub done: bool,

    /// Say that it was not done: it is run, or taken back, again when the run is gone on with.
    #[arg(long)]
    pub not_done: bool,

    #[command(flatten)]
    pub inventory: InventoryArg,
}

impl ResolveArgs {
    fn verdict(&self) -> Option<Verdict> {
        match (self.done, self.not_done) {
            (true, _) => Some(Verdict::Done),
            (_, true) => Some(Verdict::NotDone),
            _ => None,
        }
    }
}

pub async fn resolve(global: &Global, args: ResolveArgs) -> Result<Exit, Error> {
    let (engine, _hosts) = context::engine();
    let store = context::store(global)?;
    let run = store.find(&args.run)?.id;
    let definition = read_definition(&run, &store.definition(&run)?)?;
    let inventory = context::inventory_again(&args.inventory, &definition)?;
    let next = Next::of(global, &store.runs()?, &run);
    let mut session = engine.open(store, &run, inventory.as_ref())?;
    let verdict = args.verdict();
    let evidence = match verdict {
        None => session.evidence(&args.task).await?,
        Some(verdict) => session.settle(&args.task, verdict).await?,
    };
    if global.output == Format::Json {
        screen::json(&as_json(&run, &evidence, verdict));
    } else if let Some(verdict) = verdict {
        let word = match (verdict, evidence.of_undo) {
            (Verdict::Done, false) => "done",
            (Verdict::NotDone, false) => "not done",
            (Verdict::Done, true) => "taken back",
            (Verdict::NotDone, true) => "not taken back",
        };
        screen::line(&format!("{} is settled as {word}; nothing was started", evidence.task));
        let go_on = if evidence.undoing { next.undo() } else { next.resume() };
        screen::tell(&format!("go on with: {go_on}"));
    } else {
        show(&run, &evidence, &next);
    }
    let open = verdict.is_none() && !can_tell(&evidence);
    Ok(if open { Exit::Undecided } else { Exit::Success })
}

/// Whether the step itself knows what became of it.
fn can_tell(evidence: &Evidence) -> bool {
    matches!(evidence.found, Some(Ok(Resolved::Done(_) | Resolved::NotDone)))
}

fn show(run: &RunId, evidence: &Evidence, next: &Next) {
    let Evidence { task, attempt, change, alive, found, of_undo, undoing } = evidence;
    screen::line(&format!("{task} of run {run}, attempt {attempt}"));
    let what = if *of_undo { "it was to undo:  " } else { "it was to change:" };
    screen::line(&format!("  {what} {}", change.summary));
    screen::indented(change.diff.as_deref().unwrap_or_default(), 4);
    let alive = match alive {
        Ok(true) => "a process of it is at work".to_owned(),
        Ok(false) => "nothing of it is at work".to_owned(),
        Err(error) => format!("can't be asked: {error}"),
    };
    screen::line(&format!("  on its host now:  {alive}"));
    let done = if *of_undo { "taken back" } else { "done" };
    let found = match found {
        None => None,
        Some(Ok(Resolved::Done(_))) => Some(format!("it was {done}")),
        Some(Ok(Resolved::NotDone)) if *of_undo => {
            Some("it can't tell that all was taken back, so it is taken back again".to_owned())
        }
        Some(Ok(Resolved::NotDone)) => Some(format!("it was not {done}")),
        Some(Ok(Resolved::Running)) => Some("it is still going on".to_owned()),
        Some(Ok(Resolved::Unknown(why))) => Some(why.clone()),
        Some(Err(error)) => Some(format!("can't be looked at: {error}")),
    };
    if let Some(found) = found {
        screen::line(&format!("  the step finds:   {found}"));
    }
    match evidence.refusal() {
        Some(error) => {
            screen::line("");
            screen::line(&error.hint.unwrap_or(error.message));
        }
        None => {
            let command = |flag: &str| next.command("resolve", &format!("{task} {flag}"));
            let (there, not_there) = match (of_undo, undoing) {
                (true, _) => ("it is gone", "it isn't; it is taken back again on undo"),
                (false, true) => ("it is there; it is taken back on undo", "it isn't"),
                (false, false) => ("it is there", "it isn't; it is run again on resume"),
            };
            screen::line("\nlook on the host whether the change is there, then say so:");
            screen::line(&format!("  {}      {there}", command("--done")));
            screen::line(&format!("  {}  {not_there}", command("--not-done")));
        }
    }
}

fn as_json(run: &RunId, evidence: &Evidence, verdict: Option<Verdict>) -> Value {
    let (found, why) = match &evidence.found {
        None => (None, None),
        Some(Ok(Resolved::Done(_))) => (Some("done"), None),
        Some(Ok(Resolved::NotDone)) => (Some("not_done"), None),
        Some(Ok(Resolved::Running)) => (Some("running"), None),
        Some(Ok(Resolved::Unknown(why))) => (Some("unknown"), Some(why.clone())),
        Some(Err(error)) => (None, Some(error.message.clone())),
    };
    let error = evidence.alive.as_ref().err().map(|error| error.message.clone());
    json!({
        "run": run, "task": evidence.task, "attempt": evidence.attempt, "change": evidence.change,
        "alive": evidence.alive.as_ref().ok(), "found": found, "why": error.or(why),
        "settled": verdict.map(|verdict| if verdict == Verdict::Done { "done" } else { "not_done" }),
    })
}
