//! Vaults: what ansible-vault has encrypted (AES256, the formats 1.1 and 1.2; Ansible 2.19,
//! parsing/vault/__init__.py).
//!
//! A payload is hexadecimal of three lines, each hexadecimal again: salt, HMAC-SHA-256, cipher text. PBKDF2-HMAC-SHA-256
//! with 10,000 rounds gives 80 bytes: the key of AES-256 in counter mode, that of the HMAC, the first counter.

use std::cell::OnceCell;
use std::num::NonZeroU32;

use aes::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::step::Secret;

/// What every vault begins with.
const HEADER: &str = "$ANSIBLE_VAULT";
const ROUNDS: NonZeroU32 = NonZeroU32::new(10_000).expect("it isn't 0");
const BLOCK: usize = 16;

/// A password of vaults.
#[derive(Debug, Clone)]
pub struct VaultPassword {
    /// The vault id that it is for; it is tried on the others too, after theirs.
    pub id: Option<String>,
    /// The password.
    pub password: Secret,
    /// Where it came from, for messages: "the file .vault-pass".
    pub source: String,
}

/// Gives the passwords of vaults. It is asked when the first vault is met, and only once.
pub trait VaultPasswords {
    /// All passwords that there are. `path` is the file with the first vault.
    ///
    /// # Errors
    /// Why there are none, and what to do: a message and a hint.
    fn passwords(&self, path: &str) -> Result<Vec<VaultPassword>, (String, String)>;
}

/// No passwords: a vault is an error.
pub struct NoPasswords;

impl VaultPasswords for NoPasswords {
    fn passwords(&self, _: &str) -> Result<Vec<VaultPassword>, (String, String)> {
        Err(("no password for it was given".to_owned(), HOW.to_owned()))
    }
}

/// How a password is given, for hints.
const HOW: &str = "give it: --vault-password-file FILE, or ANSIBLE_VAULT_PASSWORD_FILE";

/// Opens vaults with the passwords that there are.
pub(super) struct Vaults<'p> {
    from: &'p dyn VaultPasswords,
    known: OnceCell<Result<Vec<VaultPassword>, (String, String)>>,
}

impl<'p> Vaults<'p> {
    pub(super) fn new(from: &'p dyn VaultPasswords) -> Self {
        Self { from, known: OnceCell::new() }
    }

    /// What is in a vault that stands in the file `path`.
    ///
    /// # Errors
    /// A message and a hint. Nothing of the vault is in them.
    pub(super) fn open(&self, text: &str, path: &str) -> Result<String, (String, String)> {
        let damaged =
            |why: &str| (format!("a vault that {why}"), "encrypt it anew: ansible-vault encrypt".to_owned());
        let vault = Vault::parse(text).map_err(damaged)?;
        let known = self.known.get_or_init(|| self.from.passwords(path));
        let passwords = known
            .as_ref()
            .map_err(|(why, hint)| (format!("encrypted with ansible-vault: {why}"), hint.clone()))?;
        // That of its own id first, as Ansible does.
        let own = |password: &&VaultPassword| password.id.is_some() && password.id == vault.id;
        let others = passwords.iter().filter(|password| !own(password));
        for password in passwords.iter().filter(own).chain(others) {
            if let Some(plain) = vault.open(password.password.reveal()) {
                let plain = plain.map_err(damaged)?;
                return String::from_utf8(plain.to_vec()).map_err(|_| damaged("doesn't hold UTF-8 text"));
            }
        }
        let tried: Vec<&str> = passwords.iter().map(|password| password.source.as_str()).collect();
        let id = vault.id.as_ref().map(|id| format!(" (vault id `{id}`)")).unwrap_or_default();
        let hint = match tried.as_slice() {
            [one] => format!("the password tried is from {one}"),
            many => format!("the passwords tried are from {}", many.join(", ")),
        };
        Err((format!("no password opens this vault{id}"), hint))
    }
}

/// Whether a text is a vault.
pub(super) fn is_vault(text: &str) -> bool {
    text.starts_with(HEADER)
}

/// A vault, read but closed.
struct Vault {
    id: Option<String>,
    salt: Vec<u8>,
    mac: Vec<u8>,
    cipher_text: Vec<u8>,
}

impl Vault {
    /// # Errors
    /// What is wrong with it: "has no payload".
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.trim_end().lines();
        let header = lines.next().unwrap_or_default();
        let mut parts = header.trim_end().split(';');
        if parts.next() != Some(HEADER) {
            return Err("doesn't begin with $ANSIBLE_VAULT");
        }
        let (version, cipher, id) = (parts.next(), parts.next(), parts.next());
        match version {
            Some("1.1" | "1.2") => {}
            _ => return Err("is of a format that isn't known (1.1 and 1.2 are)"),
        }
        if cipher.map(str::trim) != Some("AES256") {
            return Err("is of a cipher that isn't known (AES256 is)");
        }
        let digits: String = lines.map(str::trim).collect();
        let body = unhex(digits.as_bytes()).ok_or("is cut short or damaged")?;
        let mut fields = body.splitn(3, |byte| *byte == b'\n');
        let mut field = || fields.next().and_then(unhex).filter(|field| !field.is_empty());
        let (Some(salt), Some(mac), Some(cipher_text)) = (field(), field(), field()) else {
            return Err("is cut short or damaged");
        };
        if !cipher_text.len().is_multiple_of(BLOCK) {
            return Err("is cut short or damaged");
        }
        let id = id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        Ok(Self { id, salt, mac, cipher_text })
    }

    /// What is in it. None: it is another password's, or damaged, which nobody can tell apart.
    fn open(&self, password: &str) -> Option<Result<Zeroizing<Vec<u8>>, &'static str>> {
        let mut keys = Zeroizing::new([0_u8; 80]);
        ring::pbkdf2::derive(
            ring::pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            &self.salt,
            password.as_bytes(),
            &mut keys[..],
        );
        let (cipher_key, rest) = keys.split_at(32);
        let (mac_key, counter) = rest.split_at(32);
        let mac_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, mac_key);
        ring::hmac::verify(&mac_key, &self.cipher_text, &self.mac).ok()?;
        let mut plain = Zeroizing::new(self.cipher_text.clone());
        let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new_from_slices(cipher_key, counter).ok()?;
        cipher.apply_keystream(&mut plain);
        // PKCS#7
        let pad = plain.last().map_or(0, |last| usize::from(*last));
        let length = plain.len().checked_sub(pad).filter(|_| (1..=BLOCK).contains(&pad));
        let Some(length) =
            length.filter(|length| plain[*length..].iter().all(|byte| usize::from(*byte) == pad))
        else {
            return Some(Err("has a wrong padding"));
        };
        plain.truncate(length);
        Some(Ok(plain))
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests;
