//! `flow man`: the manual pages, made from the command line's own description.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;
use crate::exit::{Error, Exit};
use crate::screen;

#[derive(Args, Clone)]
pub struct ManArgs {
    /// A folder for a page of each command: flow.1, flow-run.1 and so on [default: flow.1 to standard output].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

pub fn man(args: &ManArgs) -> Result<Exit, Error> {
    let mut whole = Cli::command();
    whole.build();
    let Some(folder) = &args.out else {
        let mut text = Vec::new();
        // Written to memory, which takes everything.
        let _ = page(whole).render(&mut text);
        screen::text(&String::from_utf8_lossy(&text));
        return Ok(Exit::Success);
    };
    std::fs::create_dir_all(folder).map_err(|error| unwritten(folder, &error))?;
    let parts: Vec<Command> =
        whole.get_subcommands().filter(|part| part.get_name() != "help").cloned().collect();
    for command in std::iter::once(whole).chain(parts) {
        let path = page(command).generate_to(folder).map_err(|error| unwritten(folder, &error))?;
        screen::line(&path.display().to_string());
    }
    Ok(Exit::Success)
}

fn page(command: Command) -> Man {
    Man::new(command).source(concat!("flow ", env!("CARGO_PKG_VERSION")))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Error {
    Error::refused(format!("{} can't be written: {error}", path.display()), "name another folder: --out DIR")
}
