//! Durable steps in a row: each step's intent and its result are committed before the next starts.
//! The peer is bare SQLite doing the same commits, with rows of the same size.

use std::path::Path;

use flow_benches::{engine, in_turn, print};
use flow_core::engine::Engine;
use flow_core::inventory::Inventory;
use flow_core::plan::{Filter, Inputs, Plan, Request};
use flow_core::run::Outcome;
use flow_core::store::SqliteStore;
use flow_core::workflow::Bundle;
use rusqlite::{Connection, params};

const STEPS: usize = 1000;
const ROUNDS: usize = 9;

fn chain(steps: usize) -> String {
    let mut text = String::from("name = \"chain\"\nsummary = \"Steps in a row.\"\n");
    for n in 0..steps {
        text.push_str(&format!("[steps.s{n}]\nuses = \"noop\"\n"));
        if n > 0 {
            text.push_str(&format!("needs = [\"s{}\"]\n", n - 1));
        }
    }
    text
}

fn plan(engine: &Engine, text: &str) -> Plan {
    let request = Request {
        bundle: Bundle::single("chain.toml", text),
        inventory: Inventory::default(),
        inputs: Inputs::default(),
        filter: Filter::default(),
    };
    Plan::new(request, engine.registry(), [0; 32]).expect("the chain is a workflow")
}

fn flow(runtime: &tokio::runtime::Runtime, engine: &Engine, folder: &Path, plan: Plan) {
    let store = SqliteStore::open(&folder.join("flow.db")).expect("the folder can be written");
    runtime.block_on(async {
        let run = engine.start(plan, Box::new(store), None).expect("it starts");
        let report = run.wait().await.expect("it ends");
        assert_eq!(report.outcome, Outcome::Succeeded);
    });
}

fn bare(folder: &Path, round: &mut usize) {
    let connection = Connection::open(folder.join("bare.db")).expect("the folder can be written");
    connection.pragma_update(None, "journal_mode", "WAL").expect("a pragma");
    connection.pragma_update(None, "synchronous", "FULL").expect("a pragma");
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS events (
                 run TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL,
                 PRIMARY KEY (run, seq)) STRICT, WITHOUT ROWID",
        )
        .expect("a table");
    *round += 1;
    let mut seq = 0i64;
    let run = format!("{round:012}");
    let intent =
        r#"{"event":"task_intended","task":"s999","attempt":1,"change":{"summary":"nothing -> nothing"}}"#;
    let result = r#"{"event":"task_done","task":"s999","attempt":1,"output":{}}"#;
    let mut insert = connection
        .prepare("INSERT INTO events VALUES (?1, ?2, '2026-01-01T00:00:00.123456789Z', ?3)")
        .expect("SQL");
    for _ in 0..STEPS {
        for body in [intent, result] {
            seq += 1;
            insert.execute(params![run, seq, body]).expect("a row");
        }
    }
}

fn main() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on disk");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let engine = engine();
    // Planned before: what is compared is the run, from its creation to its last event.
    let mut plans: Vec<Plan> = (0..=ROUNDS).map(|_| plan(&engine, &chain(STEPS))).collect();
    let mut round = 0;
    let pair = in_turn(
        ROUNDS,
        || flow(&runtime, &engine, folder.path(), plans.pop().expect("one for each round")),
        || bare(folder.path(), &mut round),
    );
    print("durable steps in a row (intent and result each committed)", STEPS, "bare SQLite", pair);
}
