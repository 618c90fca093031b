//! Passwords of Ansible's vaults: from files, the environment, or typed at the terminal.

use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use flow_core::inventory::{VaultPassword, VaultPasswords};
use flow_core::step::Secret;

#[derive(Args, Clone, Default)]
pub struct VaultArg {
    /// A file with the password of vaults in the inventory, or a program that prints it. May be given again.
    #[arg(long = "vault-password-file", env = "ANSIBLE_VAULT_PASSWORD_FILE", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The same for one vault id: ID@FILE, or ID@prompt to be asked for it. May be given again.
    #[arg(
        long = "vault-id",
        env = "ANSIBLE_VAULT_IDENTITY_LIST",
        value_name = "ID@SOURCE",
        value_delimiter = ','
    )]
    pub ids: Vec<String>,
}

/// The variable that holds the password itself.
const VARIABLE: &str = "FLOW_VAULT_PASSWORD";

/// How a password is given.
const HINT: &str =
    "give it: --vault-password-file FILE, or the variable ANSIBLE_VAULT_PASSWORD_FILE or FLOW_VAULT_PASSWORD";

type Problem = (String, String);

impl VaultPasswords for VaultArg {
    fn passwords(&self, path: &str) -> Result<Vec<VaultPassword>, Problem> {
        let mut found = Vec::new();
        for given in &self.ids {
            let (id, source) =
                given.split_once('@').map_or((None, given.as_str()), |(id, source)| (Some(id), source));
            found.push(from_source(id.filter(|id| !id.is_empty()), source)?);
        }
        for file in &self.files {
            found.push(from_file(None, file)?);
        }
        if let Ok(password) = std::env::var(VARIABLE) {
            let source = format!("the variable {VARIABLE}");
            found.push(VaultPassword { id: None, password: Secret::new(password), source });
        }
        if found.is_empty() {
            if !terminal() {
                return Err(("no password for it was given".to_owned(), HINT.to_owned()));
            }
            found.push(prompt(None, &format!("Vault password ({path}): "))?);
        }
        Ok(found)
    }
}

fn from_source(id: Option<&str>, source: &str) -> Result<VaultPassword, Problem> {
    if source != "prompt" && source != "prompt_ask_vault_pass" {
        return from_file(id, Path::new(source));
    }
    if !terminal() {
        let hint = "give a file instead: --vault-id ID@FILE".to_owned();
        return Err(("there is no terminal to ask for its password".to_owned(), hint));
    }
    let of = id.map(|id| format!(" ({id})")).unwrap_or_default();
    prompt(id, &format!("Vault password{of}: "))
}

fn terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn prompt(id: Option<&str>, text: &str) -> Result<VaultPassword, Problem> {
    let term = console::Term::stderr();
    let typed = term.write_str(text).and_then(|()| term.read_secure_line());
    let password =
        typed.map_err(|error| (format!("its password can't be read: {error}"), HINT.to_owned()))?;
    let source = "what was typed".to_owned();
    Ok(VaultPassword { id: id.map(str::to_owned), password: Secret::new(password), source })
}

/// The file's text, or what it prints where it is a program, as Ansible does.
fn from_file(id: Option<&str>, path: &Path) -> Result<VaultPassword, Problem> {
    let shown = path.display().to_string();
    let cant = |why: String| {
        (
            format!("its password can't be read from {shown}: {why}"),
            "name the file with the vault's password".to_owned(),
        )
    };
    let path = expanded(path);
    let meta = std::fs::metadata(&path).map_err(|error| cant(error.to_string()))?;
    let program = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    let bytes =
        if program { printed(&path, id) } else { std::fs::read(&path).map_err(|error| error.to_string()) };
    let text = bytes
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
        .map_err(cant)?;
    let password = text.trim();
    if password.is_empty() {
        return Err(cant("it is empty".to_owned()));
    }
    Ok(VaultPassword { id: id.map(str::to_owned), password: Secret::new(password), source: shown })
}

fn printed(path: &Path, id: Option<&str>) -> Result<Vec<u8>, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let mut command = std::process::Command::new(&path);
    // A client, by Ansible's rule: it is told which password.
    let client = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("-client"));
    if let (true, Some(id)) = (client, id) {
        command.args(["--vault-id", id]);
    }
    let output =
        command.stderr(std::process::Stdio::inherit()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("the program ended with {}", output.status));
    }
    Ok(output.stdout)
}

/// `~/...` in the home folder, since the environment's values come as they are.
fn expanded(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}
