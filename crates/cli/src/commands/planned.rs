//! `flow run PLANFILE`: look again at every task, refuse where the world has moved on, apply what was shown.

use std::path::Path;
use std::sync::Arc;

use flow_core::engine::Engine;
use flow_core::plan::{Plan, SavedPlan, Shown, is_plan_file};
use flow_core::store::Store;
use flow_core::workflow::Code;

use super::run::{confirm, follow};
use super::runs::Next;
use crate::args::{Global, RunArgs};
use crate::context;
use crate::exit::{Error, Exit};
use crate::screen::{self, Screen};

/// The text of the file that was named, where it is a plan file. Told by what is in it.
pub fn plan_file(name: &str) -> Option<String> {
    let path = Path::new(name);
    if !path.is_file() {
        return None;
    }
    std::fs::read_to_string(path).ok().filter(|text| is_plan_file(text))
}

pub async fn run(global: &Global, args: RunArgs, text: &str) -> Result<Exit, Error> {
    let file = args.workflow.workflow.clone();
    refuse_other_arguments(&args)?;
    let (engine, _hosts) = context::engine_for(args.at_once.concurrency);
    let store = context::store(global)?;
    let saved = SavedPlan::read(text, engine.registry()).map_err(|e| {
        Error::refused(format!("the plan file {file} can't be used: {e}; nothing was changed"), e.hint())
    })?;
    let print = saved.fingerprinter();
    let inventory = context::inventory_again(&args.workflow.inventory, &saved.definition)?;
    let mut plan = Plan::pinned(saved.definition, inventory.as_ref(), engine.registry(), print)?;
    // From here on its secrets are this store's.
    plan.pin_secrets(store.fingerprint_key()?);
    let shown =
        plan.definition.shown.clone().ok_or_else(|| Error::refused("the plan file shows nothing", ""))?;
    refuse_second_run(&*store, &shown)?;
    if let Some((step_type, now)) = plan.moved_plugins().first() {
        let message = format!(
            "the plugin of `{step_type}`, {}, is another than when the plan was made",
            now.path.display()
        );
        return Err(Error::coded(Code::PLUGIN, message, "put the one of then back, or make a new plan"));
    }
    screen::before::file_moved_on(&plan, "the plan was made", "what is done is what was shown");
    let confirmed = confirm(&plan, args.confirm, "it does what was shown when the file was made")?;
    let plan = Arc::new(plan);
    look_again(&engine, &plan, &shown, &file).await?;
    let screen = Screen::new(global.output, &plan);
    let others = store.runs()?;
    let handle = engine.start(plan, store, confirmed.as_deref())?;
    let next = Next::of(global, &others, &handle.id);
    follow(handle, screen, &next).await
}

/// What would change what was shown isn't taken beside a plan file.
fn refuse_other_arguments(args: &RunArgs) -> Result<(), Error> {
    let workflow = &args.workflow;
    let given = [
        ("--set", !workflow.set.is_empty()),
        ("--limit", workflow.limit.is_some()),
        ("--tags", !workflow.tags.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::refused(
            format!("{name} can't be given beside a plan file: what is done was settled when it was made"),
            format!("leave it out, or make a new plan: `flow plan WORKFLOW {name} ... --out FILE`"),
        )),
        None => Ok(()),
    }
}

fn refuse_second_run(store: &dyn Store, shown: &Shown) -> Result<(), Error> {
    let run = &shown.run;
    if store.runs()?.iter().all(|row| row.id != *run) {
        return Ok(());
    }
    Err(Error::refused(
        format!("this plan was run before, as run {run}; nothing was changed"),
        format!("`flow show {run}` shows it, `flow resume {run}` goes on with it; else make a new plan"),
    ))
}

/// Looks at every task as the plan did, and refuses where one isn't as it was shown.
async fn look_again(engine: &Engine, plan: &Arc<Plan>, shown: &Shown, file: &str) -> Result<(), Error> {
    let preview = engine.preview_of(Arc::clone(plan), shown.run.clone()).await;
    let moved = preview.moved(shown);
    if moved.is_empty() {
        return Ok(());
    }
    Err(Error::MovedOn { file: file.to_owned(), made: shown.made, moved })
}
