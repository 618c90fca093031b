//! `flow plan`: check every task, change nothing; keep what was shown in a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use flow_core::engine::Preview;
use flow_core::plan::{Plan, SavedPlan, is_plan_file};
use flow_core::run::RunId;
use jiff::Timestamp;

use crate::args::{AtOnceArg, Format, Global, WorkflowArgs};
use crate::exit::{Error, Exit};
use crate::{context, files, screen};

#[derive(Args, Clone)]
pub struct PlanArgs {
    #[command(flatten)]
    pub workflow: WorkflowArgs,

    #[command(flatten)]
    pub at_once: AtOnceArg,

    /// Keep the plan in a file: `flow run FILE` applies exactly what was shown.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

pub async fn plan(global: &Global, args: PlanArgs) -> Result<Exit, Error> {
    if let Some(path) = &args.out {
        refuse_to_overwrite(path)?;
    }
    let (engine, _hosts) = context::engine_for(args.at_once.concurrency);
    let (salt, print) = SavedPlan::fresh_salt();
    // Only what is kept needs fingerprints that hold elsewhere; they take their time.
    let print = if args.out.is_some() { print } else { context::NO_KEY.into() };
    let plan = Arc::new(context::plan(&engine, &args.workflow, print)?);
    let name = plan.workflow.name.value.clone();
    let confirmation = plan.confirmation()?;
    screen::before::described(&plan);
    // The id that the run will have: what is named after it is shown as it will be.
    let run = RunId::new(Timestamp::now().as_second(), rand::random());
    let preview = match args.out {
        Some(_) => engine.preview_of(Arc::clone(&plan), run.clone()).await,
        None => engine.preview(Arc::clone(&plan)).await,
    };
    screen::preview::show(&name, &preview, confirmation.as_deref(), global.output);
    if let Some(path) = &args.out {
        save(path, &plan, &preview, run, salt, global.output)?;
    }
    Ok(if preview.has_errors() {
        Exit::Failed
    } else if preview.has_changes() {
        Exit::Changes
    } else {
        Exit::Success
    })
}

/// Writes the plan file. A plan that can't go ahead isn't kept, and that is said.
fn save(
    path: &Path,
    plan: &Plan,
    preview: &Preview,
    run: RunId,
    salt: [u8; 32],
    format: Format,
) -> Result<(), Error> {
    let Some(shown) = preview.shown(run, &context::owner()) else {
        screen::tell(&format!("{} was not written: as things are, this can't be run", path.display()));
        return Ok(());
    };
    let mut definition = plan.definition.clone();
    definition.shown = Some(Box::new(shown));
    let written = SavedPlan { salt, definition }.to_text().map_err(std::io::Error::other);
    written.and_then(|text| files::write_private(path, &text)).map_err(|e| {
        Error::refused(
            format!("{} can't be written: {e}", path.display()),
            "name a file in a folder that is there and has room: --out FILE",
        )
    })?;
    if format == Format::Text {
        screen::tell(&format!(
            "kept in {0}; this, and nothing else, is done by: flow run {0}",
            path.display()
        ));
    }
    Ok(())
}

/// A file that is no plan, such as the workflow itself, isn't lost by a slip.
fn refuse_to_overwrite(path: &Path) -> Result<(), Error> {
    let taken = match std::fs::read_to_string(path) {
        Ok(text) => !text.is_empty() && !is_plan_file(&text),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    };
    if taken {
        return Err(Error::refused(
            format!("{} is there and is no plan file; it was left alone", path.display()),
            "name another file: --out FILE",
        ));
    }
    Ok(())
}
