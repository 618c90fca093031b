//! The script of each change. What the changes promise is said at [`HostChange`].

use crate::host::shell::quote;
use crate::host::{HostChange, Ownership, UnitVerb};

/// A change as a script, what it reads, and what it is called where it fails.
pub(crate) struct Plan {
    pub(crate) script: String,
    pub(crate) input: Vec<u8>,
    /// Fits before ": reason".
    pub(crate) what: String,
}

/// `fail` ends with a reason that people read. `dir` is a path's parent, for `sync`.
const FUNCTIONS: &str = "fail() { printf '%s\\n' \"$*\" >&2; exit 1; }\n\
     dir() { d=${1%/*}; printf '%s\\n' \"${d:-/}\"; }\n";

/// Writes a change as a script.
///
/// # Errors
/// A path that isn't absolute, or that holds a NUL; a unit's name that is none.
pub(crate) fn plan(change: &HostChange) -> Result<Plan, String> {
    let (script, what) = match change {
        HostChange::WriteFile { path, content, ownership } => {
            let script = write_file(&absolute(path)?, content.0.len(), ownership)?;
            let what = format!("can't write {path}");
            return Ok(Plan { script: format!("{FUNCTIONS}{script}"), input: content.0.clone(), what });
        }
        HostChange::MakeDirectory { path, ownership } => {
            (make_directory(&absolute(path)?, ownership)?, format!("can't make {path}"))
        }
        HostChange::SetOwnership { path, ownership } => {
            (set_ownership(&absolute(path)?, ownership)?, format!("can't set owner or mode of {path}"))
        }
        HostChange::Rename { from, to } => {
            (rename(&absolute(from)?, &absolute(to)?), format!("can't rename {from} to {to}"))
        }
        HostChange::Replace { path, from } => {
            (replace(path, from)?, format!("can't replace {path} by {from}"))
        }
        HostChange::RemoveFile { path } => {
            let p = absolute(path)?;
            let script = format!("rm -f -- {p} || exit 1\nd=$(dir {p}); [ ! -d \"$d\" ] || sync \"$d\"\n");
            (script, format!("can't remove {path}"))
        }
        HostChange::RemoveDirectory { path } => {
            let p = absolute(path)?;
            let script = format!(
                "[ ! -e {p} ] || rmdir -- {p} || exit 1\nd=$(dir {p}); [ ! -d \"$d\" ] || sync \"$d\"\n"
            );
            (script, format!("can't remove the directory {path}"))
        }
        HostChange::Symlink { path, target } => {
            (symlink(&absolute(path)?, &printable(target)?), format!("can't link {path}"))
        }
        HostChange::Unit { unit, verb } => {
            let unit = unit_name(unit)?;
            (unit_script(&unit, *verb), format!("systemctl {} {unit} failed", verb_name(*verb)))
        }
    };
    Ok(Plan { script: format!("{FUNCTIONS}{script}"), input: Vec::new(), what })
}

/// An absolute path, quoted.
pub(crate) fn absolute(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("not an absolute path: {path:?}"));
    }
    printable(path)
}

/// Text without NUL, quoted.
pub(crate) fn printable(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err(format!("a NUL character in {text:?}"));
    }
    Ok(quote(text))
}

/// A unit's name, which needs no quotes but may.
pub(crate) fn unit_name(unit: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if unit.is_empty() || unit.starts_with('-') || !unit.chars().all(legal) {
        return Err(format!("not a unit's name: {unit:?}"));
    }
    Ok(quote(unit))
}

/// A user or group, quoted.
fn account(name: &str) -> Result<String, String> {
    if name.is_empty() || name.contains([':', '\0', '\n']) {
        return Err(format!("not a user or group: {name:?}"));
    }
    Ok(quote(name))
}

/// `chown` and `chmod` of `$t`, a shell word, as far as given. Owner first: it takes special bits away.
fn own(t: &str, ownership: &Ownership) -> Result<String, String> {
    let mut script = String::new();
    if let Some(owner) = &ownership.owner {
        script.push_str(&format!("chown -h -- {} {t} || exit 1\n", account(owner)?));
    }
    if let Some(group) = &ownership.group {
        script.push_str(&format!("chgrp -h -- {} {t} || exit 1\n", account(group)?));
    }
    if let Some(mode) = ownership.mode {
        script.push_str(&format!("chmod {:04o} {t} || exit 1\n", mode & 0o7777));
    }
    Ok(script)
}

/// The file is made unreadable to others, gets its owner and mode, and only then its content.
fn write_file(path: &str, size: usize, ownership: &Ownership) -> Result<String, String> {
    let own = own("\"$t\"", ownership)?;
    Ok(format!(
        "p={path}; d=$(dir \"$p\")\n\
         [ -d \"$d\" ] || fail \"no such directory: $d\"\n\
         [ -d \"$p\" ] && [ ! -L \"$p\" ] && fail 'it is a directory'\n\
         t=$(mktemp \"$d/.flow.XXXXXXXX\") || exit 1\n\
         trap 'rm -f \"$t\"' EXIT\n\
         if [ -f \"$p\" ] && [ ! -L \"$p\" ]; then\n\
         chown --reference=\"$p\" \"$t\" && chmod --reference=\"$p\" \"$t\" || exit 1\n\
         else chmod 0644 \"$t\" || exit 1; fi\n\
         {own}cat >\"$t\" || exit 1\n\
         [ \"$(stat -c %s \"$t\")\" = {size} ] || fail 'the content did not arrive whole'\n\
         sync \"$t\" && mv -fT -- \"$t\" \"$p\" && sync \"$d\" || exit 1\n\
         trap - EXIT\n"
    ))
}

/// Another task of the host may make the same one at that moment.
fn make_directory(path: &str, ownership: &Ownership) -> Result<String, String> {
    let own = own("\"$p\"", ownership)?;
    let mode = ownership.mode.unwrap_or(0o755) & 0o7777;
    Ok(format!(
        "p={path}; d=$(dir \"$p\")\n\
         if [ ! -d \"$p\" ]; then\n\
         (umask 022; mkdir -p -- \"$d\") || exit 1\n\
         if ! m=$(mkdir -m {mode:04o} -- \"$p\" 2>&1) && [ ! -d \"$p\" ]; then\n\
         [ ! -e \"$p\" ] && [ ! -L \"$p\" ] || fail 'something else is there'\n\
         fail \"$m\"; fi\n\
         fi\n\
         {own}sync \"$p\" \"$d\"\n"
    ))
}

fn set_ownership(path: &str, ownership: &Ownership) -> Result<String, String> {
    let own = own("\"$p\"", ownership)?;
    let link = if ownership.mode.is_some() { "[ ! -L \"$p\" ] || fail 'a link has no mode'\n" } else { "" };
    Ok(format!("p={path}\n{link}{own}"))
}

/// `mv` copies where rename(2) can't do it, so that case is ruled out before, by device and mount; the
/// file size limit of 0 is the last guard: a copy would fail at its first byte. Then the inode is
/// compared. GNU mv -n uses renameat2(RENAME_NOREPLACE), so nothing is overwritten.
fn rename(from: &str, to: &str) -> String {
    format!(
        "f={from}; t={to}; fd=$(dir \"$f\"); td=$(dir \"$t\")\n\
         [ -e \"$f\" ] || [ -L \"$f\" ] || fail \"no such file or directory: $f\"\n\
         [ ! -e \"$t\" ] && [ ! -L \"$t\" ] || fail \"it exists: $t\"\n\
         [ -d \"$td\" ] || fail \"no such directory: $td\"\n\
         [ -L \"$f\" ] || ! mountpoint -q -- \"$f\" || fail \"it is a mount point: $f\"\n\
         [ \"$(stat -c %d -- \"$fd\")\" = \"$(stat -c %d -- \"$td\")\" ] &&\n\
         [ \"$(findmnt -n -o ID -T \"$fd\")\" = \"$(findmnt -n -o ID -T \"$td\")\" ] ||\n\
         fail \"they are on different file systems\"\n\
         i=$(stat -c %i -- \"$f\") || exit 1\n\
         (ulimit -f 0; exec mv -nT -- \"$f\" \"$t\") || exit 1\n\
         [ \"$(stat -c %i -- \"$t\")\" = \"$i\" ] && [ ! -e \"$f\" ] && [ ! -L \"$f\" ] || fail 'it did not move'\n\
         sync \"$fd\" \"$td\" || exit 1\n"
    )
}

/// In one directory it is one file system: `mv` does rename(2).
fn replace(path: &str, from: &str) -> Result<String, String> {
    let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
    let (p, f) = (absolute(path)?, absolute(from)?);
    if parent(path) != parent(from) {
        return Err(format!("not in one directory: {path:?}, {from:?}"));
    }
    Ok(format!(
        "p={p}; f={f}; d=$(dir \"$p\")\n\
         [ -f \"$f\" ] && [ ! -L \"$f\" ] || fail \"no such file: $f\"\n\
         [ -d \"$p\" ] && [ ! -L \"$p\" ] && fail 'it is a directory'\n\
         sync \"$f\" && mv -fT -- \"$f\" \"$p\" && sync \"$d\" || exit 1\n"
    ))
}

fn symlink(path: &str, target: &str) -> String {
    format!(
        "p={path}; d=$(dir \"$p\")\n\
         [ -d \"$d\" ] || fail \"no such directory: $d\"\n\
         [ ! -d \"$p\" ] || [ -L \"$p\" ] || fail 'it is a directory'\n\
         t=\"$d/.flow.$$.link\"\n\
         ln -sfT -- {target} \"$t\" && mv -fT -- \"$t\" \"$p\" && sync \"$d\" || exit 1\n"
    )
}

fn verb_name(verb: UnitVerb) -> &'static str {
    match verb {
        UnitVerb::Start => "start",
        UnitVerb::Stop => "stop",
        UnitVerb::Restart => "restart",
        UnitVerb::Reload => "reload-or-restart",
        UnitVerb::Enable => "enable",
        UnitVerb::Disable => "disable",
        UnitVerb::Mask => "mask",
        UnitVerb::Unmask => "unmask",
        UnitVerb::ResetFailed => "reset-failed",
        UnitVerb::DaemonReload => "daemon-reload",
    }
}

/// Where a unit fails to start, its last words are worth more than systemctl's.
fn unit_script(unit: &str, verb: UnitVerb) -> String {
    let name = verb_name(verb);
    match verb {
        UnitVerb::DaemonReload => "systemctl daemon-reload\n".into(),
        UnitVerb::Start | UnitVerb::Restart | UnitVerb::Reload => format!(
            "m=$(systemctl --no-ask-password {name} -- {unit} 2>&1); c=$?\n\
             [ $c = 0 ] && exit 0\n\
             journalctl -u {unit} -n 20 -o cat --no-pager >&2\n\
             printf '%s\\n' \"$m\" | head -n 1 >&2\n\
             exit $c\n"
        ),
        _ => format!("systemctl --no-ask-password --quiet {name} -- {unit}\n"),
    }
}
