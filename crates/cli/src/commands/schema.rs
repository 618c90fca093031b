//! `flow schema`: the JSON Schema of workflows, for editors.

use flow_core::workflow::json_schema;

use crate::exit::{Error, Exit};
use crate::{context, screen};

pub fn schema() -> Result<Exit, Error> {
    screen::json(&json_schema(&context::registry()));
    Ok(Exit::Success)
}
