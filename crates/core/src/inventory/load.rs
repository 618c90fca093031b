//! Which files an inventory is read from, and by which reader.

use std::path::Path;
use std::sync::Arc;

use super::builder::Builder;
use super::vars_files::{self, VarsFiles};
use super::{Inventory, ini, yaml};
use crate::workflow::{Code, Diagnostic, Diagnostics, Source};

/// Reads an Ansible inventory, INI or YAML, with the `group_vars` and `host_vars` beside it.
///
/// # Errors
/// Every place in the files that can't be read or understood. Folders, scripts, plugins, vaults and
/// TOML are not read, and said to be.
pub fn load(path: &Path) -> Result<Inventory, Diagnostics> {
    let shown = path.display();
    if path.is_dir() {
        let folder = Diagnostic::general(Code::INVENTORY, format!("`{shown}` is a folder"))
            .help("name the inventory file in it; `group_vars` and `host_vars` beside the file are read too");
        return Err(folder.into());
    }
    let source = read(path)?;
    let mut builder = Builder::new();
    let mut diagnostics = match kind(path, &source.text) {
        Kind::Ini => ini::read(&source, &mut builder),
        Kind::Yaml => yaml::read(&source, &mut builder),
        Kind::Refused(why, help) => {
            let message = format!("`{shown}` {why}");
            return Err(Diagnostic::general(Code::INVENTORY, message).help(help).into());
        }
    };
    // A name can lead out of the folders, so that no file is looked for before all are good.
    let folder = path.parent().unwrap_or(Path::new(""));
    let files = match builder.check_names(&source) {
        Ok(()) => vars_files::read(folder, builder.group_names(), builder.host_names()),
        Err(found) => VarsFiles { diagnostics: found, ..VarsFiles::default() },
    };
    diagnostics.0.extend(files.diagnostics.0);
    let mut sources = vec![path.to_owned()];
    sources.extend(files.read);
    let inventory = builder.finish(&files.groups, &files.hosts, sources);
    diagnostics.into_result(inventory)
}

/// The text of a file, as a source for messages.
pub(super) fn read(path: &Path) -> Result<Arc<Source>, Diagnostic> {
    let bytes = std::fs::read(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        Diagnostic::general(Code::INVENTORY, format!("`{}` can't be read: {why}", path.display()))
    })?;
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        Diagnostic::general(Code::INVENTORY, format!("`{name}` is not UTF-8 text: line {line}"))
    })?;
    Ok(Arc::new(Source { name, text }))
}

enum Kind {
    Ini,
    Yaml,
    Refused(&'static str, &'static str),
}

fn kind(path: &Path, text: &str) -> Kind {
    if text.starts_with("$ANSIBLE_VAULT") {
        return Kind::Refused("is encrypted with ansible-vault", "decrypt it: vaults are not read");
    }
    if text.starts_with("#!") {
        return Kind::Refused(
            "is a script, and inventory scripts are not run",
            "save what it prints: ansible-inventory -i SCRIPT --list --yaml --output hosts.yml",
        );
    }
    match path.extension().and_then(|suffix| suffix.to_str()) {
        Some("yml" | "yaml" | "json") => Kind::Yaml,
        Some("toml") => Kind::Refused("is TOML", "inventories are Ansible's INI or YAML files"),
        Some("ini") => Kind::Ini,
        _ if looks_like_yaml(text) => Kind::Yaml,
        _ => Kind::Ini,
    }
}

/// Whether the first line that says anything can only be YAML.
fn looks_like_yaml(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    first.is_some_and(|line| line == "---" || line.starts_with('{') || line.ends_with(':'))
}

#[cfg(test)]
mod tests;
