//! The document: what an author wrote, with the place of every word, and everything about it that
//! can be refused by reading it alone. Knows no inventory and runs nothing.

mod bundle;
mod check;
mod diagnostic;
mod document;
mod documents;
pub mod expr;
mod inherit;
mod items;
mod json_schema;
mod language;
mod parse;
mod toml;

pub use bundle::{Bundle, BundledFile, Files};
pub use check::check_values;
pub use diagnostic::{Code, Diagnostic, Diagnostics, Source, Span, Spanned, nearest};
pub use document::{
    Argument, ArgumentKind, Hosts, OnFailure, Param, ParamKind, Retry, Serial, StepDef, Workflow,
};
pub use documents::Documents;
pub(crate) use documents::included_file;
pub use items::{Item, ItemFault, MAX_ITEMS, items};
pub use json_schema::json_schema;
pub use parse::parse;
