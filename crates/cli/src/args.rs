//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::approve::ApproveArgs;
use crate::commands::locks::LocksArgs;
use crate::commands::resolve::ResolveArgs;

use crate::commands::completions::CompletionsArgs;
use crate::commands::eject::EjectArgs;
use crate::commands::explain::ExplainArgs;
use crate::commands::man::ManArgs;

/// Runs the procedures of PostgreSQL high-availability clusters: planned, checkpointed, resumable.
#[derive(Parser)]
#[command(name = "flow", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0    done, taken back, or nothing to do
  1    a task failed; `flow resume` goes on, or `flow undo` where it is being taken back
  2    plan: there is something to do; diagnose: something is wrong
  3    refused before anything was changed
  4    what became of a task can't be told; a person must decide
  5    the store can't be used
  64   the command line is wrong
  130  stopped by Ctrl-C; the same goes on

Data goes to standard output, everything else to standard error.
`flow explain CODE` says more about an error.";

#[derive(Args, Clone)]
pub struct Global {
    /// Where runs are kept: sqlite:PATH [default: $XDG_STATE_HOME/flow/runs.db].
    #[arg(long, global = true, env = "FLOW_STORE", value_name = "URL")]
    pub store: Option<String>,

    /// How results are written. `json` is stable; see docs/json.md.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub output: Format,

    /// A folder with plugins, looked into before those of FLOW_PLUGIN_PATH; may be given several times.
    #[arg(long, global = true, value_name = "DIR")]
    pub plugins: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a workflow, or apply a plan file.
    Run(RunArgs),
    /// Go on with a run that was interrupted, failed or killed.
    Resume(ResumeArgs),
    /// Take a run back: undo what it did, in reverse order.
    Undo(crate::commands::undo::UndoArgs),
    /// Show what a run would do. Changes nothing; exit code 2 when there is something to do.
    Plan(crate::commands::plan::PlanArgs),
    /// Show what is wrong with a cluster. Changes nothing; exit code 2 when something is.
    Diagnose(crate::commands::diagnose::DiagnoseArgs),
    /// Check a workflow without touching any host.
    Validate(WorkflowArgs),
    /// Run a workflow on simulated hosts, and disturb it at every point: does it hold?
    Test(crate::commands::test::TestArgs),
    /// List the runs, newest first, or remove old ones.
    Runs(RunsArgs),
    /// Show a run: every task's state, times, attempts and output.
    Show(ShowArgs),
    /// Write a run down as one HTML file, for the postmortem.
    Report(crate::commands::report::ReportArgs),
    /// Show the inventory as flow reads it, and where each value stands.
    Inventory(crate::commands::inventory::InventoryArgs),
    /// List the step types, or show one with its arguments.
    Steps(StepsArgs),
    /// Print the JSON Schema of workflows, by which editors complete and check.
    Schema,
    /// List the shipped workflows.
    Workflows,
    /// Write a run with its definition and events to a file, to be looked at elsewhere.
    Export(crate::commands::export::ExportArgs),
    /// Take in a run that `flow export` wrote.
    Import(crate::commands::import::ImportArgs),
    /// Draw a workflow's tasks and what needs what.
    Graph(crate::commands::graph::GraphArgs),
    /// Approve what a run waits for, or reject it.
    Approve(ApproveArgs),
    /// Show what is known of a task of which nobody can tell what became of it, and say it.
    Resolve(ResolveArgs),
    /// List the hosts' locks: whose each is, and whether anything of its run is alive.
    Locks(LocksArgs),
    /// Take a run's locks off its hosts, once nothing of it is alive there.
    Unlock(UnlockArgs),
    /// Say what the code of an error means, and what to do.
    Explain(ExplainArgs),
    /// Write a shipped workflow out with its files, to be changed.
    Eject(EjectArgs),
    /// Write what a shell completes.
    Completions(CompletionsArgs),
    /// Write the manual pages.
    Man(ManArgs),
}

/// A workflow, its hosts and its params.
#[derive(Args, Clone)]
pub struct WorkflowArgs {
    /// A file, or the name of a shipped workflow (`flow workflows` lists them).
    pub workflow: String,

    #[command(flatten)]
    pub inventory: InventoryArg,

    /// Set a param. A secret is given as NAME=env:VARIABLE or NAME=file:PATH.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,

    /// Only these hosts, an Ansible pattern.
    #[arg(long, value_name = "PATTERN")]
    pub limit: Option<String>,

    /// Only the steps with one of these tags.
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub tags: Vec<String>,

    /// Take passwords that are short, or words of the workflow or the inventory (`password`). They are not masked.
    #[arg(long)]
    pub allow_weak_passwords: bool,
}

#[derive(Args, Clone)]
pub struct InventoryArg {
    /// An Ansible inventory, INI or YAML, with group_vars beside it; a folder of them; or hosts: `web1,web2,`. May be
    /// given again, later ones win [default: inventory.ini, if there].
    #[arg(short, long, env = "FLOW_INVENTORY", value_name = "FILE")]
    pub inventory: Vec<PathBuf>,

    /// The folder whose group_vars and host_vars are read too [default: the workflow's, or this one].
    #[arg(long, value_name = "FOLDER")]
    pub playbook_dir: Option<PathBuf>,

    #[command(flatten)]
    pub vault: crate::vault::VaultArg,
}

#[derive(Args, Clone)]
pub struct AtOnceArg {
    /// So many tasks at work at once, over all hosts; the workflow may set further limits.
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = parse_count)]
    pub concurrency: usize,
}

#[derive(Args, Clone)]
pub struct RunArgs {
    #[command(flatten)]
    pub workflow: WorkflowArgs,

    #[command(flatten)]
    pub at_once: AtOnceArg,

    /// Confirm the destructive steps by the name that the workflow asks for, such as the cluster's.
    #[arg(long, value_name = "NAME")]
    pub confirm: Option<String>,
}

#[derive(Args, Clone)]
pub struct ResumeArgs {
    /// The run, by the beginning of its id [default: the newest one that can be gone on with].
    pub run: Option<String>,

    #[command(flatten)]
    pub inventory: InventoryArg,

    /// Make changes as they are found, also where the plan file that it was started from showed others.
    #[arg(long)]
    pub as_found: bool,

    #[command(flatten)]
    pub at_once: AtOnceArg,
}

#[derive(Args, Clone)]
pub struct RunsArgs {
    /// So many at most.
    #[arg(long, short = 'n', default_value_t = 20, value_name = "COUNT")]
    pub count: usize,

    #[command(flatten)]
    pub prune: crate::commands::prune::PruneArgs,
}

#[derive(Args, Clone)]
pub struct ShowArgs {
    /// The run, by the beginning of its id [default: the newest].
    pub run: Option<String>,

    /// Show each task's changes and output too.
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Args, Clone)]
pub struct StepsArgs {
    /// A step type, such as systemd.unit.
    pub step_type: Option<String>,
}

#[derive(Args, Clone)]
pub struct UnlockArgs {
    /// The run that holds the locks, by its whole id, as the message names it.
    pub run: String,

    #[command(flatten)]
    pub inventory: InventoryArg,

    /// The hosts, an Ansible pattern.
    #[arg(long, value_name = "PATTERN", default_value = "all")]
    pub limit: String,

    /// The run's id again, where the run is in another store: you know that the process that works on it, which
    /// can't be seen from here, has ended.
    #[arg(long, value_name = "RUN")]
    pub confirm: Option<String>,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a count from 1".to_owned()),
    }
}

pub fn parse_set(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() {
        return Err("expected NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}
