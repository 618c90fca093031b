//! New inputs from seeds, the same ones for the same number.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The longest input, in bytes.
const LONGEST: usize = 64 * 1024;

/// What parsers stumble over.
const NASTY: [&str; 40] = [
    "\0",
    "\r\n",
    "\r",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\u{1f600}",
    "\u{1b}[31m",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "${{",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "=",
    ":",
    ",",
    "<<",
    "&a ",
    "*a",
    "!vault ",
    "#",
    "---\n",
    "18446744073709551616",
    "-9223372036854775809",
    "1e999",
    "0x",
    "[1:99]",
];

/// Numbers at which something overflows.
const NUMBERS: [&str; 8] =
    ["0", "-1", "255", "65537", "4294967296", "9223372036854775807", "18446744073709551615", "1e400"];

/// Makes inputs of seeds.
pub(crate) struct Mutator {
    seeds: Vec<Vec<u8>>,
    random: StdRng,
}

impl Mutator {
    pub(crate) fn new(seeds: Vec<Vec<u8>>, seed: u32) -> Self {
        // What is huge already tells nothing new, and takes its time.
        let seeds = seeds.into_iter().filter(|seed| seed.len() <= LONGEST / 8).collect();
        Self { seeds, random: StdRng::seed_from_u64(seed.into()) }
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..self.random.random_range(1..=4) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn seed(&mut self) -> Vec<u8> {
        let at = self.random.random_range(0..self.seeds.len());
        self.seeds[at].clone()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input.len());
        match self.random.random_range(0..12) {
            0 => input[range].iter_mut().take(1).for_each(|byte| *byte ^= 0x20),
            1 => drop(input.splice(range.start..range.start, [self.random.random()])),
            2 => drop(input.drain(range)),
            3 => {
                let part = input[range.clone()].repeat(self.random.random_range(1..=20));
                input.splice(range.start..range.start, part);
            }
            4 | 5 => {
                let nasty = NASTY[self.random.random_range(0..NASTY.len())].bytes();
                input.splice(range.start..range.start, nasty);
            }
            6 => {
                let nasty =
                    NASTY[self.random.random_range(0..NASTY.len())].repeat(self.random.random_range(1..2000));
                input.splice(range.start..range.start, nasty.bytes());
            }
            7 => self.number(input),
            8 => {
                let other = self.seed();
                let from = self.range(other.len()).start;
                input.truncate(range.start);
                input.extend_from_slice(&other[from..]);
            }
            9 | 10 => self.swap_words(input),
            _ => input.truncate(range.end),
        }
    }

    /// A part of so many bytes; mostly a short one.
    fn range(&mut self, length: usize) -> Range<usize> {
        let start = self.random.random_range(0..=length);
        let longest = if self.random.random_bool(0.8) { 16 } else { length };
        let end = start + self.random.random_range(0..=longest.min(length - start));
        start..end
    }

    /// Puts another number in place of one.
    fn number(&mut self, input: &mut Vec<u8>) {
        let start = self.range(input.len()).start;
        let Some(first) = input[start..].iter().position(u8::is_ascii_digit) else { return };
        let begin = start + first;
        let length = input[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = NUMBERS[self.random.random_range(0..NUMBERS.len())].bytes();
        input.splice(begin..begin + length, number);
    }

    /// Puts a word of a seed in place of one.
    fn swap_words(&mut self, input: &mut Vec<u8>) {
        let other = self.seed();
        let (here, there) = (self.word(input), self.word(&other));
        input.splice(here, other[there].to_vec());
    }

    fn word(&mut self, text: &[u8]) -> Range<usize> {
        let at = self.range(text.len()).start;
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        let begin = text[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |at| at + 1);
        let end = text[at..].iter().position(|byte| !is_word(byte)).map_or(text.len(), |offset| at + offset);
        begin..end
    }
}
