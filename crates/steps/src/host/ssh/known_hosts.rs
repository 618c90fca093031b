//! Whether a host's key is the one that is known for it, as OpenSSH decides it (sshd(8)).
//!
//! Reads `known_hosts` files and decides; it connects to nothing and writes nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ring::hmac;
use russh::keys::ssh_key::known_hosts::{HostPatterns, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::config::glob;

/// A line that is about the host in question.
#[derive(Debug, Clone)]
struct Entry {
    file: PathBuf,
    line: usize,
    marker: Option<Marker>,
    key: PublicKey,
}

/// All lines about one host.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The name that lines are looked up by: `host`, or `[host]:port`.
    name: String,
    entries: Vec<Entry>,
    /// Lines without the port, for a port other than 22: they may vouch for a key, not refuse one.
    without_port: Vec<Entry>,
    files: Vec<PathBuf>,
}

/// Why a key is refused: what a person reads, and the next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Known {
    /// Reads what the files say. One that is missing or can't be read says nothing.
    pub(crate) fn read(files: &[PathBuf], host: &str, port: u16, alias: Option<&str>) -> Self {
        let host = host.to_ascii_lowercase();
        let name = match alias {
            Some(alias) => alias.to_owned(),
            None if port == 22 => host.clone(),
            None => format!("[{host}]:{port}"),
        };
        let lines_of = |name: &str| files.iter().flat_map(|file| entries(file, name)).collect();
        let without_port = if alias.is_none() && port != 22 { lines_of(&host) } else { Vec::new() };
        Self { entries: lines_of(&name), name, without_port, files: files.to_vec() }
    }

    /// The algorithms to ask for first: of these a key is known.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        let lines = self.entries.iter().chain(&self.without_port);
        lines.filter(|entry| entry.marker.is_none()).map(|entry| entry.key.algorithm()).collect()
    }

    /// Accepts the key that is known, and no other.
    pub(crate) fn check(&self, key: &PublicKey) -> Result<(), Refusal> {
        let same = |entry: &&Entry| entry.key.key_data() == key.key_data();
        let all = || self.entries.iter().chain(&self.without_port);
        if let Some(entry) = all().filter(|e| e.marker == Some(Marker::Revoked)).find(same) {
            return Err(Refusal {
                message: format!("the host key {} is revoked ({})", fingerprint(key), entry.place()),
                hint: "give the host a new key, or remove the @revoked line if it is a mistake".into(),
            });
        }
        if all().filter(|e| e.marker.is_none()).any(|e| same(&e)) {
            return Ok(());
        }
        let plain = || self.entries.iter().filter(|e| e.marker.is_none());
        match plain().find(|e| e.key.algorithm() == key.algorithm()) {
            Some(entry) => Err(self.changed(entry, key)),
            None => Err(self.unknown(key, plain().next())),
        }
    }

    fn changed(&self, entry: &Entry, key: &PublicKey) -> Refusal {
        let message = format!(
            "the host key has changed: {} is known ({}), it shows {}",
            fingerprint(&entry.key),
            entry.place(),
            fingerprint(key)
        );
        let hint = format!(
            "someone may be in between; if the host was set up anew, `ssh-keygen -R '{}' -f {}`, then `{}`",
            self.name,
            entry.file.display(),
            self.keyscan(&entry.file)
        );
        Refusal { message, hint }
    }

    fn unknown(&self, key: &PublicKey, other: Option<&Entry>) -> Refusal {
        let mut message = format!("the host key is unknown: it shows {}", fingerprint(key));
        if let Some(entry) = other {
            let _ = write!(message, "; known is {} ({})", fingerprint(&entry.key), entry.place());
        }
        let file = self.files.first().map_or(Path::new("~/.ssh/known_hosts"), PathBuf::as_path);
        let hint = format!(
            "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_{}_key.pub` on the host, then `{}`",
            family(&key.algorithm()),
            self.keyscan(file)
        );
        Refusal { message, hint }
    }

    fn keyscan(&self, file: &Path) -> String {
        let file = file.display();
        match self.name.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
            Some((host, port)) => format!("ssh-keyscan -p {port} {host} >> {file}"),
            None => format!("ssh-keyscan {} >> {file}", self.name),
        }
    }
}

impl Entry {
    fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// `SHA256:...`, as ssh-keygen shows it, with the key's kind.
fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", family(&key.algorithm()), key.fingerprint(HashAlg::Sha256))
}

/// The name in `/etc/ssh/ssh_host_*_key`.
fn family(algorithm: &Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Ed25519 => "ed25519",
        Algorithm::Ecdsa { .. } => "ecdsa",
        Algorithm::Rsa { .. } => "rsa",
        Algorithm::Dsa => "dsa",
        _ => "key",
    }
}

/// The lines of a file that are about a host. Lines that can't be read are passed over, as OpenSSH does.
fn entries(file: &Path, name: &str) -> Vec<Entry> {
    let Ok(bytes) = std::fs::read(file) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let parse = |(number, line): (usize, &str)| {
        let mut words = line.split_ascii_whitespace().peekable();
        let marker = match words.peek()?.starts_with('@') {
            true => Some(words.next()?.parse().ok()?),
            false => None,
        };
        let patterns = words.next().filter(|word| !word.starts_with('#'))?;
        if !about(patterns, name) {
            return None;
        }
        let key = format!("{} {}", words.next()?, words.next()?);
        let key = PublicKey::from_openssh(&key).ok()?;
        Some(Entry { file: file.to_owned(), line: number + 1, marker, key })
    };
    text.lines().enumerate().filter_map(parse).collect()
}

/// Whether a line's first field means the host.
fn about(patterns: &str, name: &str) -> bool {
    match patterns.parse() {
        Ok(HostPatterns::HashedName { salt, hash }) => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
            hmac::verify(&key, name.as_bytes(), &hash).is_ok()
        }
        Ok(HostPatterns::Patterns(patterns)) => {
            let negated = |p: &String| p.strip_prefix('!').is_some_and(|p| pattern_is(p, name));
            patterns.iter().any(|p| pattern_is(p, name)) && !patterns.iter().any(negated)
        }
        Err(_) => false,
    }
}

fn pattern_is(pattern: &str, name: &str) -> bool {
    glob(pattern, name)
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
        PrivateKey::from(pair).public_key().clone()
    }

    fn known(text: &str, host: &str, port: u16) -> (tempfile::NamedTempFile, Known) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let known = Known::read(&[file.path().to_owned()], host, port, None);
        (file, known)
    }

    fn line(names: &str, seed: u8) -> String {
        format!("{names} {}\n", key(seed).to_openssh().unwrap())
    }

    #[test]
    fn a_known_key_is_accepted_by_name_pattern_and_port() {
        assert!(known(&line("db1,10.0.0.1", 1), "10.0.0.1", 22).1.check(&key(1)).is_ok());
        assert!(
            known(&line("*.example.org,!bad.example.org", 1), "a.example.org", 22).1.check(&key(1)).is_ok()
        );
        assert!(
            known(&line("*.example.org,!bad.example.org", 1), "bad.example.org", 22)
                .1
                .check(&key(1))
                .is_err()
        );
        assert!(known(&line("[db1]:2222", 1), "db1", 2222).1.check(&key(1)).is_ok());
        assert!(known(&line("[db1]:2222", 1), "db1", 22).1.check(&key(1)).is_err());
    }

    #[test]
    fn a_key_known_without_the_port_vouches_and_does_not_accuse() {
        assert!(known(&line("db1", 1), "db1", 2222).1.check(&key(1)).is_ok());
        let refusal = known(&line("db1", 1), "db1", 2222).1.check(&key(2)).unwrap_err();
        assert!(refusal.message.starts_with("the host key is unknown"), "{}", refusal.message);
    }

    #[test]
    fn a_changed_key_shows_both_fingerprints_and_the_fix() {
        let (file, known) = known(&format!("# old\n{}", line("db1", 1)), "db1", 22);
        let refusal = known.check(&key(2)).unwrap_err();
        for part in [fingerprint(&key(1)), fingerprint(&key(2)), format!("{}:2", file.path().display())] {
            assert!(refusal.message.contains(&part), "{}", refusal.message);
        }
        assert!(refusal.hint.contains("ssh-keygen -R 'db1' -f"), "{}", refusal.hint);
    }

    #[test]
    fn an_unknown_key_names_keyscan_with_the_port() {
        let refusal = known("", "db1", 2222).1.check(&key(2)).unwrap_err();
        assert!(refusal.hint.contains("ssh-keyscan -p 2222 db1 >> "), "{}", refusal.hint);
    }

    #[test]
    fn a_revoked_key_is_refused_though_it_is_known() {
        let text = format!("{}@revoked {}", line("db1", 1), line("*", 1));
        let refusal = known(&text, "db1", 22).1.check(&key(1)).unwrap_err();
        assert!(refusal.message.contains("is revoked"), "{}", refusal.message);
    }

    #[test]
    fn refusals_have_codes_of_their_own() {
        use crate::host::codes::{HOST_KEY_CHANGED, HOST_KEY_UNKNOWN};
        let revoked = format!("@revoked {}", line("*", 1));
        for (text, code) in [
            (String::new(), HOST_KEY_UNKNOWN),
            (line("db1", 2), HOST_KEY_CHANGED),
            (revoked, HOST_KEY_CHANGED),
        ] {
            let Refusal { message, hint } = known(&text, "db1", 22).1.check(&key(1)).unwrap_err();
            let failure = crate::host::transport::Failure::unreachable(message).with_hint(hint);
            assert_eq!(failure.into_error("db1", "db1:22").code(), Some(code), "{text}");
        }
    }

    #[test]
    fn hashed_names_are_found() {
        // ssh-keygen -H of a line for "db1".
        let salt = [7u8; 20];
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt), b"[db1]:2200");
        let name = HostPatterns::HashedName { salt: salt.to_vec(), hash: mac.as_ref().try_into().unwrap() };
        let text = line(&name.to_string(), 1);
        assert!(known(&text, "db1", 2200).1.check(&key(1)).is_ok());
        assert!(known(&text, "db2", 2200).1.check(&key(1)).is_err());
    }

    #[test]
    fn lines_that_cannot_be_read_are_passed_over() {
        let text = format!("garbage\ndb1 ssh-ed25519 not-base64\n\u{0}\n{}", line("db1", 1));
        assert!(known(&text, "db1", 22).1.check(&key(1)).is_ok());
    }
}
