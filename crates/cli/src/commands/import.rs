//! `flow import`: a run of elsewhere, to be looked at.

use std::path::PathBuf;

use clap::Args;
use flow_core::engine::{ImportError, import as take_in};
use serde_json::json;

use crate::args::{Format, Global};
use crate::exit::{Error, Exit};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct ImportArgs {
    /// A file that `flow export` wrote.
    pub file: PathBuf,
}

pub fn import(global: &Global, args: &ImportArgs) -> Result<Exit, Error> {
    let file = args.file.display();
    let text = std::fs::read_to_string(&args.file).map_err(|e| {
        Error::refused(
            format!("{file} can't be read: {e}"),
            "`flow export RUN --out FILE` writes such a file",
        )
    })?;
    let mut store = context::store(global)?;
    let registry = std::sync::Arc::new(context::registry());
    let imported = take_in(&mut *store, &text, &registry).map_err(|error| match error {
        ImportError::Store(error) => error.into(),
        error => {
            let hint = match &error {
                ImportError::Other(_) => "look at both: import it into another store, `--store sqlite:PATH`",
                ImportError::OtherFormat { .. } | ImportError::Workflow(_) => {
                    "use the flow that wrote it; its version stands in the first line"
                }
                _ => "write it anew where the run is: `flow export RUN --out FILE`",
            };
            Error::refused(format!("{file} is not taken in: {error}; nothing was stored"), hint)
        }
    })?;
    if global.output == Format::Json {
        screen::json(&json!({
            "id": imported.run, "workflow": imported.workflow, "events": imported.events, "new": imported.new,
        }));
        return Ok(Exit::Success);
    }
    let run = &imported.run;
    screen::line(&match imported.new {
        true => format!("imported run {run}, {}: {} events", imported.workflow, imported.events),
        false => format!("run {run} is in the store already, the same to the last event"),
    });
    screen::tell(&format!("look at it with: flow show {run}"));
    Ok(Exit::Success)
}
