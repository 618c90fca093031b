//! The fuzz targets with their seeds and with what a seeded generator makes of these: an error is fine, a panic or
//! a hang is not. Always the same inputs; `FLOW_FUZZ_ROUNDS=100 FLOW_FUZZ_SEED=7` takes a hundred times as many of
//! others.

#![expect(clippy::unwrap_used, reason = "clippy takes a test's helpers for no part of it")]

mod mutate;
#[path = "../../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library to the fuzz targets")]
mod targets;

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use mutate::Mutator;
use targets::{TARGETS, Target};

/// How long one input may take before it counts as hung, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What tokio's workers have.
const STACK: usize = 2 << 20;

/// How many mutated inputs each target gets: about as many as fit in a tenth of a second.
fn rounds(target: &str) -> u32 {
    let rounds = match target {
        "workflow" | "plan_file" | "run_file" => 60,
        "inventory_ini" | "inventory_yaml" | "group_vars" | "ssh_config" | "known_hosts" => 150,
        _ => 400,
    };
    rounds * number("FLOW_FUZZ_ROUNDS").unwrap_or(1)
}

fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Gives a target one input after another in a thread of its own. Where it panics, hangs or ends the process, the
/// input lies in a file whose name was told.
fn try_all(target: Target, inputs: impl Iterator<Item = (String, Vec<u8>)> + Send + 'static) {
    let (name, run) = target;
    let last = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    let (told, heard) = mpsc::channel();
    let kept = last.clone();
    let work = move || {
        for (what, input) in inputs {
            fs::write(&kept, &input).unwrap();
            let survived = std::panic::catch_unwind(AssertUnwindSafe(|| run(&input))).is_ok();
            if told.send((what, survived)).is_err() || !survived {
                return;
            }
        }
    };
    let worker = std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap();
    loop {
        match heard.recv_timeout(PATIENCE) {
            Ok((_, true)) => {}
            Ok((what, false)) => panic!("`{name}` panics with {what}: {}", last.display()),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("`{name}` hangs: {}", last.display()),
        }
    }
    worker.join().unwrap();
    let _ = fs::remove_file(last);
}

#[test]
fn every_target_gets_on_with_its_seeds() {
    for target in TARGETS {
        let seeds = seeds(target.0);
        assert!(seeds.len() >= 5, "`{}` has hardly any seeds", target.0);
        try_all(target, seeds.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)));
    }
}

#[test]
fn every_target_gets_on_with_what_is_made_of_its_seeds() {
    for target in TARGETS {
        let seeds = seeds(target.0).into_iter().map(|(_, bytes)| bytes).collect();
        let mut mutator = Mutator::new(seeds, number("FLOW_FUZZ_SEED").unwrap_or(1));
        let inputs = (0..rounds(target.0)).map(move |round| (format!("round {round}"), mutator.next()));
        try_all(target, inputs);
    }
}

#[test]
fn every_target_has_an_entry_and_a_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    for (name, _) in TARGETS {
        let text = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("flow_fuzz::{name}(data)")), "{text}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
