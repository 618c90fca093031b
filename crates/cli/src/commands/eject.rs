//! `flow eject`: write a shipped workflow out with its files, to be changed.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::args::{Format, Global};
use crate::exit::{Error, Exit};
use crate::{context, files, screen};

#[derive(Args, Clone)]
pub struct EjectArgs {
    /// A shipped workflow (`flow workflows` lists them).
    pub name: String,

    /// The folder to write to.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub to: PathBuf,

    /// Write over files that are there.
    #[arg(long)]
    pub force: bool,
}

pub fn eject(global: &Global, args: &EjectArgs) -> Result<Exit, Error> {
    let bundle = files::load_shipped(&args.name, &context::registry())?;
    let paths: Vec<PathBuf> = bundle.files.keys().map(|path| args.to.join(path)).collect();
    let there: Vec<String> = paths
        .iter()
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() && !args.force {
        let message = format!("these are there already, and nothing was written: {}", there.join(", "));
        return Err(Error::refused(
            message,
            "name another folder with --to DIR, or write over them with --force",
        ));
    }
    for (path, file) in paths.iter().zip(bundle.files.values()) {
        write(path, &file.text)?;
    }
    let root = args.to.join(&bundle.root);
    if global.output == Format::Json {
        screen::json(&json!({ "workflow": root, "files": paths }));
        return Ok(Exit::Success);
    }
    for path in &paths {
        screen::line(&path.display().to_string());
    }
    screen::tell(&format!("`flow validate {}` checks it", root.display()));
    Ok(Exit::Success)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text)).map_err(|error| {
        Error::refused(
            format!("{} can't be written: {error}", path.display()),
            "name another folder: --to DIR",
        )
    })
}
