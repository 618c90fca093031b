//! Ways in to parsers that nobody else needs, for the fuzz targets (`fuzz/`). No part of the library's interface.

use std::path::Path;

use flow_core::inventory;
use russh::keys::PublicKey;
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};

use super::Reply;
use super::shell::Frames;
use super::ssh::{self, SshEnvironment};

/// The answers of a shell, with their numbers, and whether they were cut; its two streams come in pieces of at
/// most so many bytes.
pub fn frames(nonce: &str, out: &[u8], err: &[u8], piece: usize) -> Vec<(u64, Reply, bool)> {
    let mut frames = Frames::new(nonce);
    let mut answers = Vec::new();
    let (mut outs, mut errs) = (out.chunks(piece), err.chunks(piece));
    loop {
        let (out, err) = (outs.next(), errs.next());
        frames.out(out.unwrap_or_default());
        frames.err(err.unwrap_or_default());
        answers.extend(std::iter::from_fn(|| frames.next()));
        if out.is_none() && err.is_none() {
            let _ = frames.pending_error();
            return answers;
        }
    }
}

/// How a host is reached, and by way of which others.
///
/// # Errors
/// Why it can't be told.
pub fn ssh_settings(environment: &SshEnvironment, host: &inventory::Host) -> Result<(), String> {
    ssh::way_to(environment, host)
}

/// Whether a file knows a host's key.
///
/// # Errors
/// Why the key is refused.
pub fn known_host(file: &Path, host: &str, port: u16) -> Result<(), String> {
    let key = PublicKey::from(KeyData::Ed25519(Ed25519PublicKey([7; 32])));
    let known = ssh::Known::read(&[file.to_owned()], host, port, None);
    let _ = known.algorithms();
    known.check(&key).map_err(|refusal| refusal.message)
}
