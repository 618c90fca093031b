//! Checksums of rows: a byte that was changed on the disk is noticed when it is read. No signature.

/// A checksum of fields in their order; FNV-1a, a word at a time. Each step can be undone, so that a change
/// within one word is always seen.
#[derive(Clone, Copy)]
pub(super) struct Sum(u64);

impl Sum {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in a number.
    #[must_use]
    pub(super) fn number(self, number: i64) -> Self {
        let mixed = (self.0 ^ number.cast_unsigned()).wrapping_mul(0x0000_0100_0000_01b3);
        Self(mixed ^ (mixed >> 32))
    }

    /// Takes in a text with its length.
    #[must_use]
    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Takes in bytes with their number.
    #[must_use]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.number(bytes.len() as i64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = sum.number(i64::from_le_bytes(word));
        }
        sum
    }

    /// As it is stored.
    pub(super) fn get(self) -> i64 {
        self.0.cast_signed()
    }
}
