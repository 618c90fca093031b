//! Checksums of rows: a byte that was changed on the disk is noticed when it is read.

use sha2::{Digest, Sha256};

/// The checksum of a row's fields, in their order.
pub(super) fn sum(fields: &[&str]) -> i64 {
    let mut digest = Sha256::new();
    for field in fields {
        digest.update((field.len() as u64).to_le_bytes());
        digest.update(field.as_bytes());
    }
    let digest = digest.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_le_bytes(first)
}
