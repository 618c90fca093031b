//! The engine by itself: steps that do nothing, in a row and all ready at once, in memory and durable;
//! what a task costs in memory; a run of a million events opened again.
//!
//! `bench-engine` measures them all, each size in a process of its own so that memory is told apart.
//! `bench-engine once WORK TASKS` does one piece of work and prints its seconds and its memory.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use flow_benches::{MemoryStore, engine, median, peak_memory, plan_of};
use flow_core::engine::{Engine, Options};
use flow_core::plan::Plan;
use flow_core::run::{Event, Outcome, Record, RunId};
use flow_core::step::{Change, Output};
use flow_core::store::{NewRun, SqliteStore, Store};
use jiff::Timestamp;
use rusqlite::Connection;

const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        [] => all(),
        ["fill", path, events] => {
            println!("{}", fill(&engine(), Path::new(path), events.parse().expect("a number")));
        }
        ["once", work, tasks] => once(work, tasks.parse().expect("a number of tasks")),
        _ => eprintln!("usage: bench-engine [once chain|wide|ready-at-once|reopen|rows TASKS]"),
    }
}

/// One piece of work: `SECONDS BYTES`, the bytes being what the process grew by at its largest.
fn once(work: &str, tasks: usize) {
    let engine = engine();
    let (seconds, bytes) = match work {
        "chain" => in_memory(&engine, tasks, true),
        "wide" => in_memory(&engine, tasks, false),
        "ready-at-once" => ready_at_once(&engine, tasks),
        "reopen" => reopen(&engine, tasks),
        "rows" => rows(tasks),
        other => panic!("no such work: {other}"),
    };
    println!("{seconds} {bytes}");
}

fn in_memory(engine: &Engine, tasks: usize, in_a_row: bool) -> (f64, usize) {
    let before = peak_memory();
    let plan = plan_of(engine, tasks, in_a_row);
    let seconds = run(engine, plan, Box::new(MemoryStore::default()));
    (seconds, peak_memory() - before)
}

/// As many at work at once as are ready, so that what is ready shares its commits.
fn ready_at_once(engine: &Engine, tasks: usize) -> (f64, usize) {
    let engine = &engine.clone().with_options(Options { concurrency: tasks, ..Options::default() });
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on disk");
    let store = SqliteStore::open(&folder.path().join("flow.db")).expect("the folder can be written");
    let before = peak_memory();
    let plan = plan_of(engine, tasks, false);
    let seconds = run(engine, plan, Box::new(store));
    (seconds, peak_memory() - before)
}

fn run(engine: &Engine, plan: Plan, store: Box<dyn Store>) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let tasks = plan.len();
    let began = Instant::now();
    runtime.block_on(async {
        let mut run = engine.start(plan, store, None).expect("it starts");
        // Somebody watches, as the command line does.
        while run.notices.recv().await.is_some() {}
        let report = run.wait().await.expect("it ends");
        assert_eq!(report.outcome, Outcome::Succeeded);
        assert!(report.state.all_passed() && report.state.shape().tasks() == tasks);
    });
    began.elapsed().as_secs_f64()
}

/// A run of `events` events, all of its tasks but the last done; opened again up to its first step.
fn reopen(engine: &Engine, events: usize) -> (f64, usize) {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on disk");
    let path = folder.path().join("flow.db");
    let id = filled(&path, events);
    let before = peak_memory();
    let began = Instant::now();
    let store = SqliteStore::open(&path).expect("it is there");
    let session = engine.open(Box::new(store), &id, None).expect("it opens");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let seconds = runtime.block_on(async {
        let mut run = session.resume().expect("it goes on");
        let mut first = None;
        while let Some(notice) = run.notices.recv().await {
            if let flow_core::engine::Notice::Started { .. } = notice {
                first.get_or_insert(began.elapsed().as_secs_f64());
            }
        }
        assert_eq!(run.wait().await.expect("it ends").outcome, Outcome::Succeeded);
        first.expect("the last task is started")
    });
    (seconds, peak_memory() - before)
}

/// [`fill`] in a process of its own, whose memory is not counted.
fn filled(path: &Path, events: usize) -> RunId {
    let program = std::env::current_exe().expect("its own path");
    let output =
        Command::new(program).arg("fill").arg(path).arg(events.to_string()).output().expect("it runs");
    RunId::from_text(String::from_utf8_lossy(&output.stdout).trim())
}

/// The raw limit of [`reopen`]: the same file, every row read and nothing done with it.
fn rows(events: usize) -> (f64, usize) {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on disk");
    let path = folder.path().join("flow.db");
    filled(&path, events);
    let began = Instant::now();
    let connection = Connection::open(&path).expect("it is there");
    let mut statement = connection.prepare("SELECT place, at, body FROM events ORDER BY place").expect("SQL");
    let columns = statement.column_count();
    let mut rows = statement.query([]).expect("rows");
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next().expect("a row") {
        count += 1;
        for column in 0..columns {
            if let Ok(text) = row.get_ref(column).expect("a value").as_str() {
                bytes += text.len();
            }
        }
    }
    assert!(count > events / 2 && bytes > events);
    (began.elapsed().as_secs_f64(), 0)
}

fn fill(engine: &Engine, path: &Path, events: usize) -> RunId {
    let plan = plan_of(engine, events / 2, false);
    let mut store = SqliteStore::open(path).expect("the folder can be written");
    let started = Timestamp::now();
    let id = RunId::new(started.as_second(), 1);
    let definition = serde_json::to_string(&plan.definition).expect("it can be written");
    store.create(&NewRun { id: id.clone(), workflow: "wide".into(), started, definition }).expect("a row");
    let mut all = vec![Event::RunStarted { owner: "bench@host (pid 1)".into(), epoch: 1 }];
    let tasks: Vec<_> = plan.tasks().into_iter().map(|task| task.name.clone()).collect();
    for task in &tasks[..tasks.len() - 1] {
        let change = Change::new("nothing -> nothing");
        all.push(Event::TaskIntended { task: task.clone(), attempt: 1, change });
        all.push(Event::TaskDone { task: task.clone(), attempt: 1, output: Output::empty(), by: None });
    }
    let records: Vec<Record> =
        (1..).zip(all).map(|(seq, event)| Record { seq, at: Timestamp::now(), event }).collect();
    for some in records.chunks(10_000) {
        store.append(&id, some).expect("rows");
    }
    id
}

/// Runs `once` in a process of its own, several times: median seconds and bytes.
fn measured(work: &str, tasks: usize) -> (f64, usize) {
    let rounds = if tasks > 100_000 { 3 } else { ROUNDS };
    let program = std::env::current_exe().expect("its own path");
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let output = Command::new(&program)
            .args(["once", work, &tasks.to_string()])
            .stderr(std::process::Stdio::inherit())
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let (seconds, bytes) = text.trim().split_once(' ').expect("two figures");
        times.push(seconds.parse::<f64>().expect("seconds"));
        sizes.push(bytes.parse::<usize>().expect("bytes"));
    }
    (median(&times), median(&sizes))
}

/// A peer's program that prints its seconds: median of some rounds; none where it isn't there.
fn peer(variable: &str, arguments: &[&str]) -> Option<f64> {
    let program = std::env::var_os(variable)?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let output = Command::new(&program).args(arguments).output().ok()?;
        times.push(String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().ok()?);
    }
    Some(median(&times))
}

fn all() {
    let rate = |tasks: usize, seconds: f64| tasks as f64 / seconds;
    for work in ["chain", "wide"] {
        println!("steps that do nothing, in memory, {work}");
        for tasks in [10_000, 100_000, 1_000_000] {
            let (seconds, bytes) = measured(work, tasks);
            let (rate, each) = (rate(tasks, seconds), bytes / tasks);
            println!("  flow   {tasks:>9} tasks {seconds:>8.3} s {rate:>10.0}/s {each:>6} bytes a task");
        }
        for tasks in [1_000, 10_000] {
            match peer("BENCH_STENO", &[work, &tasks.to_string()]) {
                Some(seconds) => {
                    println!("  steno  {tasks:>9} nodes {seconds:>8.3} s {:>10.0}/s", rate(tasks, seconds));
                }
                None => println!("  steno  not measured: benches/run builds it"),
            }
        }
        println!();
    }
    println!("durable steps, 10,000 ready at once");
    let (seconds, _) = measured("ready-at-once", 10_000);
    println!("  flow   {seconds:.3} s  {:.0}/s", rate(10_000, seconds));
    match peer("BENCH_DBOS", &["1000"]) {
        Some(seconds) => println!("  DBOS   {:.0}/s, its steps in a row on SQLite", rate(1_000, seconds)),
        None => println!("  DBOS   not measured: benches/run installs it"),
    }
    println!("\na run of 1,000,000 events opened again, to its first step");
    let (ours, bytes) = measured("reopen", 1_000_000);
    let (raw, _) = measured("rows", 1_000_000);
    println!("  flow   {ours:.3} s  {} MiB", bytes >> 20);
    println!("  rows   {raw:.3} s, only read");
    println!("  flow takes {:.2} times as long\n", ours / raw);
}
