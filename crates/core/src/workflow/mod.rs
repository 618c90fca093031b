//! The document: what an author wrote, with the place of every word, and everything about it that
//! can be refused by reading it alone. Knows no inventory and runs nothing.

mod bundle;
mod check;
mod diagnostic;
mod document;
mod documents;
pub mod expr;
mod items;
mod parse;
mod toml;

pub use bundle::{Bundle, BundledFile, Files};
pub use diagnostic::{Code, Diagnostic, Diagnostics, Source, Span, Spanned, nearest};
pub use document::{
    Argument, ArgumentKind, Hosts, OnFailure, Param, ParamKind, Retry, Serial, StepDef, Workflow,
};
pub use documents::Documents;
pub use items::{Item, ItemFault, MAX_ITEMS, items};
pub use parse::parse;
