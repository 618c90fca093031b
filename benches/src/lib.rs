//! Comparisons: flow and its peer in turn, several times, medians and their ratio. Figures of one
//! run only; they are never asserted on.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod noop;

use std::time::{Duration, Instant};

pub use noop::{MemoryStore, engine, plan_of};

/// The figures of one comparison.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Median of ours.
    pub ours: Duration,
    /// Median of the peer's.
    pub peer: Duration,
}

impl Pair {
    /// How many times as long ours takes as the peer's.
    pub fn ratio(self) -> f64 {
        self.ours.as_secs_f64() / self.peer.as_secs_f64()
    }
}

/// Runs both in turn, `rounds` times after one round that doesn't count.
pub fn in_turn(rounds: usize, mut ours: impl FnMut(), mut peer: impl FnMut()) -> Pair {
    let time = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    time(&mut ours);
    time(&mut peer);
    let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        of_ours.push(time(&mut ours));
        of_peer.push(time(&mut peer));
    }
    Pair { ours: median(&of_ours), peer: median(&of_peer) }
}

/// Prints a comparison of work done so many times.
pub fn print(what: &str, count: usize, peer_name: &str, pair: Pair) {
    let per_second = |time: Duration| count as f64 / time.as_secs_f64();
    println!("{what}");
    println!("  flow         {:>9.3} s  {:>10.0}/s", pair.ours.as_secs_f64(), per_second(pair.ours));
    println!("  {peer_name:12} {:>9.3} s  {:>10.0}/s", pair.peer.as_secs_f64(), per_second(pair.peer));
    println!(
        "  flow takes {:.2} times as long ({:.2} of the peer's rate)\n",
        pair.ratio(),
        1.0 / pair.ratio()
    );
}

/// The middle one.
pub fn median<T: PartialOrd + Copy>(figures: &[T]) -> T {
    let mut figures = figures.to_vec();
    figures.sort_by(|a, b| a.partial_cmp(b).expect("figures are comparable"));
    figures[figures.len() / 2]
}

/// The most memory that this process has had, in bytes (VmHWM of proc(5)).
pub fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
