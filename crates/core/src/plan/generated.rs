//! Passwords that flow makes: each in a file at the operator's place, made once.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::step::Secret;

/// How long a password is: 190 bits.
const LENGTH: usize = 32;
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// What becomes of a secret param that says `generate` where neither the user nor its default gives one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewSecrets {
    /// Read from its file. Where there is none, a random password is made and kept there (0600).
    #[default]
    Kept,
    /// Made of the param's name, the same each time; no file is read or written. For rehearsals, and where a plan is
    /// only drawn.
    OfNames,
}

/// A password that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeSecret {
    /// The param's name.
    pub param: String,
    /// The file that it is kept in.
    pub path: PathBuf,
}

/// The path of a file at the operator's place: it begins with `/` or `~/`, so that it is the same wherever flow is
/// started, also when a run is resumed.
///
/// # Errors
/// What is wrong with the text, as a fragment.
pub fn operator_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("~/") {
        Some(rest) => std::env::var_os("HOME")
            .map(|home| Path::new(&home).join(rest))
            .ok_or_else(|| format!("`{text}`: HOME is not set")),
        None if text.starts_with('/') => Ok(PathBuf::from(text)),
        None => Err(format!("`{text}` is a path on the operator's machine: it begins with `/` or `~/`")),
    }
}

/// Makes a password's file where there is none. Whether it was made; of two that make it at once, one does.
///
/// # Errors
/// Why it can't be.
pub(super) fn keep(path: &Path) -> Result<bool, String> {
    let failed = |error: io::Error| format!("{} can't be made: {error}", path.display());
    if path.exists() {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    let write = || -> io::Result<bool> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(password()?.reveal().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        match fs::hard_link(&new, path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        }
        File::open(folder)?.sync_all()?;
        Ok(true)
    };
    let made = write();
    let _ = fs::remove_file(&new);
    made.map_err(failed)
}

fn password() -> io::Result<Secret> {
    let mut text = String::with_capacity(LENGTH);
    let mut bytes = [0; 64];
    while text.len() < LENGTH {
        SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("there are no random numbers"))?;
        // What is beyond the letters is thrown away, so that each is as likely.
        let letters = bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte & 63)).copied());
        text.extend(letters.map(char::from).take(LENGTH - text.len()));
    }
    Ok(Secret::new(text))
}

/// The secret of a name, for [`NewSecrets::OfNames`].
pub(super) fn of_name(name: &str) -> Secret {
    let bytes = digest(&SHA256, format!("flow param {name}").as_bytes());
    Secret::new(bytes.as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flow/demo/password");
        assert_eq!(keep(&path), Ok(true));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end().len(), LENGTH);
        assert!(text.trim_end().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(keep(&path), Ok(false));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        assert_ne!(password().unwrap().reveal(), password().unwrap().reveal());
    }

    #[test]
    fn where_it_can_not_be_kept_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = keep(&folder.path().join("file/password")).unwrap_err();
        assert!(error.contains("file/password can't be made"), "{error}");
        assert_eq!(operator_path("/srv/x"), Ok(PathBuf::from("/srv/x")));
        assert!(operator_path("~/x").is_ok_and(|path| path.is_absolute()));
        for wrong in ["secrets/x", "./x", "~other/x", ""] {
            assert!(operator_path(wrong).is_err(), "{wrong}");
        }
    }
}
