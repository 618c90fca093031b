//! `flow graph`: the DAG of tasks as mermaid, dot or SVG; with `--run`, in the colours of a run's states.

use clap::{Args, ValueEnum};
use flow_core::engine::read_definition;
use flow_core::plan::{Drawing, Plan};
use flow_core::store::{RunRow, Store};

use super::show;
use crate::args::{Global, InventoryArg, WorkflowArgs, parse_set};
use crate::drawing::{self, States};
use crate::exit::{Error, Exit};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct GraphArgs {
    /// A file, or the name of a shipped workflow (`flow workflows` lists them).
    #[arg(required_unless_present = "run", conflicts_with = "run")]
    pub workflow: Option<String>,

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

    /// Draw a run instead, as it was pinned, with the states of its tasks: the beginning of its id, or `last`.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,

    /// The language.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid, value_name = "FORMAT")]
    pub format: GraphFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// For browsers: a box for each step, with its hosts in it.
    Svg,
}

pub fn graph(global: &Global, args: &GraphArgs) -> Result<Exit, Error> {
    let (drawing, states) = match &args.run {
        Some(run) => {
            let store = context::store(global)?;
            let row = find(&*store, Some(run))?;
            (of_run(&*store, &row)?, Some(show::states(&*store, &row)?))
        }
        None => {
            let (engine, _hosts) = context::engine();
            (context::drawn(&engine, &workflow(args))?.drawing(), None)
        }
    };
    screen::text(&draw(args.format, &drawing, states.as_ref()));
    Ok(Exit::Success)
}

fn workflow(args: &GraphArgs) -> WorkflowArgs {
    WorkflowArgs {
        workflow: args.workflow.clone().unwrap_or_default(),
        inventory: args.inventory.clone(),
        set: args.set.clone(),
        limit: args.limit.clone(),
        tags: args.tags.clone(),
        // It shows none.
        allow_weak_passwords: true,
    }
}

fn draw(format: GraphFormat, drawing: &Drawing, states: Option<&States>) -> String {
    match format {
        GraphFormat::Mermaid => drawing::mermaid(drawing, states),
        GraphFormat::Dot => drawing::dot(drawing, states),
        GraphFormat::Svg => drawing::svg(drawing, states),
    }
}

/// The run that the user named; the newest where none was named, or `last`.
pub fn find(store: &dyn Store, named: Option<&str>) -> Result<RunRow, Error> {
    match named.filter(|name| *name != "last") {
        Some(prefix) => Ok(store.find(prefix)?),
        None => {
            let newest = store.runs()?.into_iter().next();
            newest.ok_or_else(|| Error::refused("there is no run", "`flow run` makes one"))
        }
    }
}

/// The DAG of a run as it was pinned.
pub fn of_run(store: &dyn Store, row: &RunRow) -> Result<Drawing, Error> {
    let definition = read_definition(&row.id, &store.definition(&row.id)?)?;
    Ok(Plan::drawing_of(definition, &std::sync::Arc::new(context::registry()))?)
}
