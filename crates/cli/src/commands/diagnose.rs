//! `flow diagnose`: what is wrong with a cluster, told in plain words. Changes nothing, and works with any part of it down.

use std::sync::Arc;

use clap::Args;
use flow_core::engine::{EngineError, Finding, Preview};
use flow_core::step::Output;
use flow_steps::patroni::Diagnosis;

use crate::args::{Format, Global, InventoryArg, WorkflowArgs, parse_set};
use crate::exit::{Error, Exit};
use crate::{context, screen};

/// The workflow that looks.
const WORKFLOW: &str = "diagnose.toml";
/// Its step that says what is wrong.
const FINDINGS: &str = "findings";

#[derive(Args, Clone)]
pub struct DiagnoseArgs {
    #[command(flatten)]
    pub inventory: InventoryArg,

    /// Set a param of the workflow `diagnose.toml`, such as `config_file=/etc/patroni.yml`.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,
}

pub async fn diagnose(global: &Global, args: DiagnoseArgs) -> Result<Exit, Error> {
    if context::loaded(&args.inventory, None)?.is_none() {
        return Err(Error::refused(
            "there is no inventory here",
            "give it: -i INVENTORY; its group `promoters` has the hosts with Patroni",
        ));
    }
    let (engine, _hosts) = context::engine_in_a_hurry();
    let workflow = WorkflowArgs {
        workflow: WORKFLOW.to_owned(),
        inventory: args.inventory,
        set: args.set,
        limit: None,
        tags: Vec::new(),
        allow_weak_passwords: false,
    };
    let plan = Arc::new(context::plan(&engine, &workflow, context::NO_KEY)?);
    let found = found(engine.preview(plan).await)?;
    match global.output {
        Format::Json => screen::json(&found),
        Format::Text => show(&found),
    }
    Ok(if found.healthy { Exit::Success } else { Exit::Changes })
}

/// What the workflow's last step found.
fn found(preview: Preview) -> Result<Diagnosis, Error> {
    let of_findings = preview.tasks.iter().find(|task| task.name.as_str() == FINDINGS);
    if let Some(Output(output)) = of_findings.and_then(|task| task.output.clone()) {
        let found = serde_json::from_value(output.into());
        return found.map_err(|error| EngineError::Broken(format!("`{FINDINGS}`: {error}")).into());
    }
    let first = preview.tasks.into_iter().find_map(|task| match task.finding {
        Finding::Failed(error) => Some((task.name, error.message, error.detail, error.hint)),
        Finding::Refused(why) => Some((task.name, why, None, None)),
        _ => None,
    });
    let (name, message, detail, hint) =
        first.ok_or_else(|| EngineError::Broken(format!("`{FINDINGS}` gave nothing")))?;
    Err(Error::Detailed { message: format!("{name}: {message}"), detail, hint })
}

fn show(found: &Diagnosis) {
    if found.healthy {
        screen::line(&format!("healthy: {}", found.reasons.join("; ")));
    }
    for (place, problem) in found.problems.iter().enumerate() {
        let (kind, what, sure) = (&problem.kind, &problem.what, &problem.sure);
        screen::line(&format!("{}. {kind}: {what} ({sure})", place + 1));
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
    let told = |reason: &&String| found.problems.iter().any(|problem| problem.because.contains(reason));
    let reasons: Vec<&String> = found.reasons.iter().filter(|reason| !told(reason)).collect();
    if found.verdict != "healthy" && !reasons.is_empty() {
        screen::line(&format!("verdict: {}", found.verdict));
        for reason in reasons {
            screen::indented(reason, 2);
        }
    }
    screen::line("seen, nothing was changed:");
    for line in &found.evidence {
        screen::indented(line, 2);
    }
}
