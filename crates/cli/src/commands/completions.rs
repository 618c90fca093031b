//! `flow completions`: what a shell completes, made from the command line's own description.

use clap::{Args, CommandFactory, ValueEnum};

use crate::args::Cli;
use crate::exit::{Error, Exit};
use crate::screen;

#[derive(Args, Clone)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// source <(flow completions bash), or a file in /etc/bash_completion.d.
    Bash,
    /// A file `_flow` in a folder of $fpath.
    Zsh,
    /// A file in ~/.config/fish/completions.
    Fish,
}

pub fn completions(args: &CompletionsArgs) -> Result<Exit, Error> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flow", &mut script);
    screen::text(&String::from_utf8_lossy(&script));
    Ok(Exit::Success)
}
