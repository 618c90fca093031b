//! One process's work on a run: what the tests start, and what ends itself where it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flow_core::engine::{Engine, EngineError, Options, RunHandle, UndoOptions};
use flow_core::inventory::{self, Inventory};
use flow_core::plan::{Filter, Fingerprinter, Inputs, NewSecrets, Plan, Request};
use flow_core::step::{Registry, Resources};
use flow_core::store::{SqliteStore, Store};
use flow_core::workflow::{Bundle, Files};
use flow_steps::fleet::HostFleet;
use flow_steps::host::Hosts;
use flow_steps::host::sim::SimWorld;
use serde::{Deserialize, Serialize};

use crate::killing_store::{Kill, killing};

/// The variable that carries a [`Job`].
pub(crate) const VARIABLE: &str = "FLOW_CRASH_JOB";

/// What a process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Where store and inventory are.
    pub(crate) folder: PathBuf,
    /// The world's file.
    pub(crate) world: PathBuf,
    /// The shipped workflow.
    pub(crate) workflow: String,
    /// Its params.
    pub(crate) set: Vec<(String, String)>,
    /// A text of the workflow, and what stands there instead.
    pub(crate) edit: Option<(String, String)>,
    /// Go on with the run instead of starting one.
    pub(crate) resume: bool,
    /// Take it back instead.
    pub(crate) undo: bool,
    /// When it is killed.
    pub(crate) kill: Option<Kill>,
    /// How many tasks are at work at once.
    pub(crate) concurrency: usize,
}

/// The workflows of the repository, with an edit.
struct Shipped<'a>(Option<&'a (String, String)>);

impl Files for Shipped<'_> {
    fn read(&self, path: &str) -> io::Result<String> {
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows").join(path),
        )?;
        Ok(match self.0 {
            Some((before, after)) if path.ends_with(".toml") => {
                assert!(text.contains(before.as_str()), "{path} has no {before:?}");
                text.replace(before, after)
            }
            _ => text,
        })
    }

    fn display(&self, path: &str) -> String {
        path.to_owned()
    }
}

impl Job {
    pub(crate) fn world(&self) -> SimWorld {
        SimWorld::open(&self.world).unwrap()
    }

    pub(crate) fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.folder.join("runs.db")).unwrap()
    }

    pub(crate) fn inventory(&self) -> Inventory {
        inventory::load(&self.folder.join("inventory.ini")).unwrap_or_else(|e| panic!("{e}"))
    }

    /// An engine on the world's hosts.
    pub(crate) fn engine(&self, owner: &str) -> Engine {
        let world = self.world();
        let hosts = Arc::new(Hosts::with_factory(Arc::new(move |entry| Ok(world.host(&entry.name)))));
        let mut resources = Resources::default();
        resources.insert_shared(Arc::clone(&hosts));
        resources.insert(flow_steps::rehearsal::Rehearsed);
        let mut registry = Registry::new();
        flow_steps::register(&mut registry);
        Engine::new(registry)
            .with_resources(resources)
            .with_fleet(Arc::new(HostFleet(hosts)))
            .with_options(Options { owner: owner.to_owned(), concurrency: self.concurrency })
    }

    /// Starts or resumes the run in this process, or takes it back.
    pub(crate) fn begin(&self, engine: &Engine, store: Box<dyn Store>) -> Result<RunHandle, EngineError> {
        if self.resume {
            let run = store.runs()?.remove(0).id;
            let session = engine.open(store, &run, Some(&self.inventory()))?;
            return if self.undo { session.undo(&UndoOptions::default()) } else { session.resume() };
        }
        let plan = self.plan(engine, store.fingerprint_key()?)?;
        let confirmed = plan.confirmation()?;
        engine.start(plan, store, confirmed.as_deref())
    }

    /// The plan of a run.
    pub(crate) fn plan(&self, engine: &Engine, print: impl Into<Fingerprinter>) -> Result<Plan, EngineError> {
        let bundle = Bundle::load(&Shipped(self.edit.as_ref()), &self.workflow, engine.registry())?;
        let request = Request {
            bundle,
            inventory: self.inventory(),
            inputs: Inputs {
                set: self.set.iter().cloned().collect(),
                secrets: NewSecrets::OfNames,
                ..Inputs::default()
            },
            filter: Filter::default(),
        };
        Ok(Plan::new(request, engine.registry(), print)?)
    }
}

/// Not a test of its own: what the tests start as another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the crash tests, with FLOW_CRASH_JOB set"]
async fn work() {
    let job: Job = serde_json::from_str(&std::env::var(VARIABLE).unwrap()).unwrap();
    let store = killing(job.store(), job.kill.clone());
    let engine = job.engine(&format!("pid {}", std::process::id()));
    let report = job.begin(&engine, Box::new(store)).unwrap_or_else(|e| panic!("{e}")).wait().await;
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    for (task, error) in &report.failures {
        eprintln!("{task}: {error:?}");
    }
}
