//! A workflow with all the files it is made of: the workflows it includes and the templates of its
//! steps. A bundle is what a run pins, so that editing a file changes no run under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Source;

/// Where files are read from when a bundle is put together: a folder, or what a binary carries.
pub trait Files {
    /// The text of a file, by its path relative to the root workflow's folder.
    fn read(&self, path: &str) -> std::io::Result<String>;
    /// How that file is called in messages.
    fn display(&self, path: &str) -> String;
}

/// The texts of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The root workflow's path among `files`.
    pub root: String,
    /// Each file's text, by its path relative to the root workflow's folder.
    pub files: BTreeMap<String, BundledFile>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundledFile {
    /// How it is called in messages.
    pub display: String,
    /// Its text.
    pub text: String,
}

impl Bundle {
    /// A workflow of one text, such as a string in a program.
    pub fn single(name: &str, text: &str) -> Self {
        let file = BundledFile { display: name.to_owned(), text: text.to_owned() };
        Self { root: name.to_owned(), files: BTreeMap::from([(name.to_owned(), file)]) }
    }

    /// A file as a source for messages.
    pub fn source(&self, path: &str) -> Option<Arc<Source>> {
        let file = self.files.get(path)?;
        Some(Arc::new(Source { name: file.display.clone(), text: file.text.clone() }))
    }
}
