//! `flow plan`: check every task, change nothing.

use crate::args::{Global, WorkflowArgs};
use crate::exit::{Error, Exit};
use crate::{context, screen};

pub async fn plan(global: &Global, args: WorkflowArgs) -> Result<Exit, Error> {
    let (engine, _hosts) = context::engine();
    let plan = context::plan(&engine, &args, context::NO_KEY)?;
    let name = plan.workflow.name.value.clone();
    let confirmation = plan.confirmation()?;
    screen::before::described(&plan);
    let preview = engine.preview(plan).await;
    screen::preview::show(&name, &preview, confirmation.as_deref(), global.output);
    Ok(if preview.has_errors() {
        Exit::Failed
    } else if preview.has_changes() {
        Exit::Changes
    } else {
        Exit::Success
    })
}
