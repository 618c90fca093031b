//! `flow diagnose`: what is wrong with a cluster, told in plain words. Changes nothing, and works with any part of it down.

use std::sync::Arc;

use clap::Args;
use flow_core::engine::{Finding, Preview};
use flow_steps::patroni::{Diagnosis, Looks, diagnose as judge};
use serde_json::Value;

use crate::args::{Format, Global, InventoryArg, WorkflowArgs, parse_set};
use crate::exit::{Error, Exit};
use crate::{context, screen};

/// The workflow that looks.
const WORKFLOW: &str = "diagnose.toml";

#[derive(Args, Clone)]
pub struct DiagnoseArgs {
    #[command(flatten)]
    pub inventory: InventoryArg,

    /// Set a param of the workflow `diagnose.toml`, such as `config_file=/etc/patroni.yml`.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,
}

pub async fn diagnose(global: &Global, args: DiagnoseArgs) -> Result<Exit, Error> {
    let (engine, _hosts) = context::engine();
    let workflow = WorkflowArgs {
        workflow: WORKFLOW.to_owned(),
        inventory: args.inventory,
        set: args.set,
        limit: None,
        tags: Vec::new(),
        allow_weak_passwords: false,
    };
    let plan = Arc::new(context::plan(&engine, &workflow, context::NO_KEY)?);
    let found = judge(seen(engine.preview(plan).await));
    match global.output {
        Format::Json => screen::json(&found),
        Format::Text => show(&found),
    }
    Ok(if found.healthy { Exit::Success } else { Exit::Changes })
}

/// What the workflow's looks gave on each host, or why they gave nothing.
fn seen(preview: Preview) -> Looks {
    let mut looks = Looks::default();
    for task in preview.tasks {
        let Some((step, host)) = task.name.as_str().split_once('@') else { continue };
        let of = match step {
            "evidence" => &mut looks.evidence,
            "condition" => &mut looks.condition,
            "certificates" => &mut looks.certificates,
            "balancer" => &mut looks.balancers,
            _ => continue,
        };
        let seen = match (task.output, task.finding) {
            (Some(output), _) => Ok(Value::Object(output.0)),
            (None, Finding::Failed(error)) => Err(error.message),
            (None, Finding::Refused(why)) => Err(why),
            (None, _) => Err("it was not looked at".to_owned()),
        };
        of.push((host.to_owned(), seen));
    }
    looks
}

fn show(found: &Diagnosis) {
    if found.healthy {
        screen::line(&format!("healthy: {}", found.reasons.join("; ")));
    }
    for (place, problem) in found.problems.iter().enumerate() {
        screen::line(&format!("{}. {} ({})", place + 1, problem.what, problem.sure));
        for because in &problem.because {
            screen::indented(because, 5);
        }
        if let Some(remedy) = &problem.remedy {
            screen::indented(&format!("to do: {}", remedy.what), 3);
            if let Some(command) = &remedy.command {
                screen::indented(command, 5);
            }
            screen::indented(&format!("touches: {}", remedy.touches), 3);
        }
        screen::line("");
    }
    if !found.healthy && found.problems.is_empty() {
        screen::line(&format!("not known to be healthy: {}", found.reasons.join("; ")));
    }
    screen::line("seen, nothing was changed:");
    for line in &found.evidence {
        screen::indented(line, 2);
    }
}
