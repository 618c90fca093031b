//! `flow graph`: the DAG of tasks as mermaid or dot.

use flow_core::plan::{to_dot, to_mermaid};

use crate::args::{Global, GraphArgs, GraphFormat};
use crate::exit::{Error, Exit};
use crate::{context, screen};

pub fn graph(_global: &Global, args: &GraphArgs) -> Result<Exit, Error> {
    let (engine, _hosts) = context::engine();
    let plan = context::plan(&engine, &args.workflow, context::NO_KEY)?;
    let text = match args.format {
        GraphFormat::Mermaid => to_mermaid(&plan),
        GraphFormat::Dot => to_dot(&plan),
    };
    screen::text(&text);
    Ok(Exit::Success)
}
