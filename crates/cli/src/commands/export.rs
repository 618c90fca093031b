//! `flow export`: a run with its definition and events in one file.

use std::path::PathBuf;

use clap::Args;
use flow_core::engine::export as text_of;

use crate::args::Global;
use crate::exit::{Error, Exit};
use crate::{context, files, screen};

#[derive(Args, Clone)]
pub struct ExportArgs {
    /// The run, by the beginning of its id.
    pub run: String,

    /// The file, readable by you alone [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

pub fn export(global: &Global, args: &ExportArgs) -> Result<Exit, Error> {
    let store = context::store(global)?;
    let run = store.find(&args.run)?.id;
    let text = text_of(&*store, &run)?;
    let Some(path) = &args.out else {
        screen::text(&text);
        return Ok(Exit::Success);
    };
    if path.exists() {
        return Err(Error::refused(
            format!("{} is there already; it was left alone", path.display()),
            "name another file: --out FILE",
        ));
    }
    files::write_private(path, &text).map_err(|e| {
        Error::refused(
            format!("{} can't be written: {e}", path.display()),
            "name a file in a folder that is there and has room: --out FILE",
        )
    })?;
    screen::tell(&format!("run {run} was written to {0}; elsewhere: flow import {0}", path.display()));
    Ok(Exit::Success)
}
