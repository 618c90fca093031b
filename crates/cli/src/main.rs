//! The command line: arguments in, the engine's work, a screen out. It decides what is shown and
//! which exit code a shell gets; everything else is the libraries' business.

#![expect(unreachable_pub, reason = "nothing is reached from outside a program")]

mod args;
mod codes;
mod commands;
mod context;
mod drawing;
mod exit;
mod files;
mod report;
mod screen;
mod vault;

use clap::Parser;

use args::{Cli, Command};
use exit::Exit;

fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen::errors::plain(&format!("the runtime can't be started: {error}"), None);
            return Exit::Broken.into();
        }
    };
    let format = cli.global.output;
    let result = runtime.block_on(dispatch(cli));
    // What was left running on Ctrl-C (a blocked read, say) must not hold the program back.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            screen::errors::show(&error, format);
            error.exit().into()
        }
    }
}

async fn dispatch(cli: Cli) -> Result<Exit, exit::Error> {
    let global = cli.global;
    context::look_for_plugins(&global)?;
    match cli.command {
        Command::Run(args) => commands::run::run(&global, args).await,
        Command::Resume(args) => commands::resume::resume(&global, args).await,
        Command::Undo(args) => commands::undo::undo(&global, args).await,
        Command::Plan(args) => commands::plan::plan(&global, args).await,
        Command::Diagnose(args) => commands::diagnose::diagnose(&global, args).await,
        Command::Validate(args) => commands::validate::validate(&global, &args),
        Command::Test(args) => commands::test::test(&global, args).await,
        Command::Export(args) => commands::export::export(&global, &args),
        Command::Import(args) => commands::import::import(&global, &args),
        Command::Runs(args) if args.prune.prune => commands::prune::prune(&global, &args.prune),
        Command::Runs(args) => commands::runs::runs(&global, &args),
        Command::Show(args) => commands::show::show(&global, &args),
        Command::Inventory(args) => commands::inventory::inventory(&global, &args),
        Command::Steps(args) => commands::steps::steps(&global, &args),
        Command::Schema => commands::schema::schema(),
        Command::Workflows => commands::workflows::workflows(&global),
        Command::Report(args) => commands::report::report(&global, &args),
        Command::Graph(args) => commands::graph::graph(&global, &args),
        Command::Approve(args) => commands::approve::approve(&global, args),
        Command::Resolve(args) => commands::resolve::resolve(&global, args).await,
        Command::Locks(args) => commands::locks::locks(&global, args).await,
        Command::Explain(args) => commands::explain::explain(&global, &args),
        Command::Eject(args) => commands::eject::eject(&global, &args),
        Command::Completions(args) => commands::completions::completions(&args),
        Command::Man(args) => commands::man::man(&args),
        Command::Unlock(args) => commands::unlock::unlock(&global, args).await,
    }
}
