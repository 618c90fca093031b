//! `flow report`: a run as one HTML file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use flow_core::engine::{outputs_of, read_definition};
use serde_json::Map;

use super::runs::{Next, status};
use super::{graph, show};
use crate::args::Global;
use crate::exit::{Error, Exit};
use crate::report::{Report, page};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct ReportArgs {
    /// The run, by the beginning of its id [default: the newest].
    pub run: Option<String>,

    /// Where to write it; `-` is standard output [default: flow-RUN.html in this folder].
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: Option<PathBuf>,
}

pub fn report(global: &Global, args: &ReportArgs) -> Result<Exit, Error> {
    let store = context::store(global)?;
    let row = graph::find(&*store, args.run.as_deref())?;
    let records = store.events(&row.id)?;
    let tasks = show::rows(&*store, &row, &records);
    let definition = read_definition(&row.id, &store.definition(&row.id)?).ok();
    let drawing = graph::of_run(&*store, &row).ok();
    let next = Next::of(global, &store.runs()?, &row.id);
    let turned_back = records.iter().any(|record| record.event.is_of_undo());
    let status = status(&*store, &row.id)?;
    let outputs = match &definition {
        Some(definition) if status == "succeeded" => {
            let registry = Arc::new(context::registry());
            outputs_of(definition.clone(), &row.id, row.started, &records, &registry).unwrap_or_default()
        }
        _ => Map::new(),
    };
    let html = page(&Report {
        row: &row,
        status,
        outputs,
        records: &records,
        tasks: &tasks,
        definition: definition.as_ref(),
        drawing: drawing.as_ref(),
        go_on: if turned_back { next.undo() } else { next.resume() },
    });
    let path = args.out.clone().unwrap_or_else(|| format!("flow-{}.html", row.id).into());
    if path.as_os_str() == "-" {
        screen::text(&html);
        return Ok(Exit::Success);
    }
    // Outputs may hold what isn't for everyone, secrets or not: as private as the store.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(html.as_bytes())).map_err(|e| {
        Error::refused(format!("{} can't be written: {e}", path.display()), "choose another place: -o FILE")
    })?;
    screen::line(&path.display().to_string());
    Ok(Exit::Success)
}
