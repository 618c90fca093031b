//! `flow validate`: everything that can be refused before a run, without touching a host.

use flow_core::engine::Engine;
use flow_core::workflow::{Documents, Workflow};
use serde_json::json;

use crate::args::{Format, Global, WorkflowArgs};
use crate::exit::{Error, Exit};
use crate::{context, files, screen};

pub fn validate(global: &Global, args: &WorkflowArgs) -> Result<Exit, Error> {
    let registry = context::registry();
    let bundle = files::load(&args.workflow, &registry)?;
    let workflow = Documents::load(&bundle, &registry)?.root;
    // With an inventory, or where none is needed, the plan is checked too.
    let tasks = if !context::named(&args.inventory).is_empty() || needs_no_inventory(&workflow) {
        Some(context::drawn(&Engine::new(registry), args)?.len())
    } else {
        None
    };
    if global.output == Format::Json {
        screen::json(
            &json!({ "workflow": workflow.name.value, "steps": workflow.steps.len(), "tasks": tasks }),
        );
    } else {
        let steps = workflow.steps.len();
        match tasks {
            Some(count) => screen::line(&format!(
                "{}: {}, {}, no errors",
                workflow.name.value,
                screen::counted(steps, "step"),
                screen::tasks(count)
            )),
            None => screen::line(&format!(
                "{}: {}, no errors; give -i INVENTORY to check hosts and params too",
                workflow.name.value,
                screen::counted(steps, "step")
            )),
        }
    }
    Ok(Exit::Success)
}

fn needs_no_inventory(workflow: &Workflow) -> bool {
    workflow.steps.values().all(|step| step.hosts.is_none())
        && workflow.params.values().all(|param| param.default.is_some())
}
