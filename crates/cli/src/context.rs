//! What most commands need: the engine with its step types and hosts, the store, the inventory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flow_core::engine::{Engine, Options};
use flow_core::inventory::{self, Given, Inventory, Loaded, PatternError, Sources};
use flow_core::plan::{Definition, Filter, Fingerprinter, Inputs, NewSecrets, Plan, Request};
use flow_core::step::{Registry, Resources};
use flow_core::store::{SqliteStore, Store};
use flow_steps::fleet::HostFleet;
use flow_steps::host::{Hosts, HostsConfig, Patience, SshEnvironment};
use flow_steps::plugin;

use crate::args::{Global, InventoryArg, WorkflowArgs};
use crate::exit::Error;
use crate::files;
use crate::screen;

/// The folders of `--plugins`. Of the whole process, as the environment is: all that reads a workflow or a run needs
/// its step types.
static PLUGIN_FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Looks for plugins in the folders that were named, before those of the path.
///
/// # Errors
/// One that isn't there.
pub fn look_for_plugins(global: &Global) -> Result<(), Error> {
    if let Some(missing) = global.plugins.iter().find(|folder| !folder.is_dir()) {
        return Err(Error::refused(
            format!("there is no folder {}", missing.display()),
            "--plugins DIR names a folder with executables called flow-step-NAME",
        ));
    }
    // What is run is found wherever it is started from.
    let folders = global.plugins.iter().filter_map(|folder| std::path::absolute(folder).ok());
    PLUGIN_FOLDERS.get_or_init(|| folders.collect());
    Ok(())
}

/// The step types of this program, and those of the plugins in the folders that were named and on its path.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    flow_steps::register(&mut registry);
    let named = PLUGIN_FOLDERS.get().into_iter().flatten().cloned();
    let folders: Vec<PathBuf> = named.chain(plugin::plugin_path(|name| std::env::var_os(name))).collect();
    plugin::register(&mut registry, &folders);
    registry
}

/// The hosts and the engine that works on them.
pub fn engine() -> (Engine, Arc<Hosts>) {
    engine_for(Options::default().concurrency)
}

/// The same, for so many tasks at once.
pub fn engine_for(concurrency: usize) -> (Engine, Arc<Hosts>) {
    engine_of(HostsConfig::default(), concurrency)
}

/// The same, for looks that are to end within seconds: a host that is down isn't waited for any longer.
pub fn engine_in_a_hurry() -> (Engine, Arc<Hosts>) {
    // Three packets that ask for a connection, after 0, 1 and 3 s.
    let patience = Patience { connect: Duration::from_secs(4), login: Duration::from_secs(5) };
    let ssh = SshEnvironment { patience, ..SshEnvironment::default() };
    engine_of(HostsConfig { ssh, ..HostsConfig::default() }, Options::default().concurrency)
}

fn engine_of(config: HostsConfig, concurrency: usize) -> (Engine, Arc<Hosts>) {
    let hosts = Arc::new(Hosts::new(config));
    let mut resources = Resources::default();
    resources.insert_shared(Arc::clone(&hosts));
    let engine = Engine::new(registry())
        .with_resources(resources)
        .with_fleet(Arc::new(HostFleet(Arc::clone(&hosts))))
        .with_options(Options { owner: owner(), concurrency });
    (engine, hosts)
}

/// `user@machine (pid N)`, for whoever finds a lock.
pub fn owner() -> String {
    format!("{} (pid {})", person(), std::process::id())
}

/// `user@machine`
pub fn person() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "root".to_owned());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", machine.trim())
}

/// The store that the user chose.
pub fn store(global: &Global) -> Result<Box<dyn Store>, Error> {
    let path = store_path(global)?;
    Ok(Box::new(SqliteStore::open(&path)?))
}

fn store_path(global: &Global) -> Result<PathBuf, Error> {
    if let Some(url) = &global.store {
        return match url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(path.into()),
            _ => Err(Error::refused(format!("`{url}` is no store"), "--store sqlite:PATH")),
        };
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")))
        .ok_or_else(|| Error::refused("neither XDG_STATE_HOME nor HOME is set", "--store sqlite:PATH"))?;
    Ok(state.join("flow/runs.db"))
}

/// The inventory that the user named, `inventory.ini` of this folder, or none. `workflow` is what it is for: the
/// folder of a workflow's file counts as the playbook's.
pub fn inventory(arg: &InventoryArg, workflow: Option<&str>) -> Result<Option<Inventory>, Error> {
    Ok(loaded(arg, workflow)?.map(|loaded| loaded.inventory))
}

/// The inventories that are read.
pub fn named(arg: &InventoryArg) -> Vec<PathBuf> {
    match arg.inventory.as_slice() {
        [] if Path::new("inventory.ini").is_file() => vec!["inventory.ini".into()],
        given => given.to_vec(),
    }
}

/// The same, with where everything came from.
pub fn loaded(arg: &InventoryArg, workflow: Option<&str>) -> Result<Option<Loaded>, Error> {
    let inventories = named(arg);
    if inventories.is_empty() {
        return Ok(None);
    }
    let playbook_dir = arg.playbook_dir.clone().unwrap_or_else(|| files::folder(workflow));
    let given = Given { inventories, playbook_dir: Some(playbook_dir) };
    Ok(Some(inventory::read_all(&Sources { given, vault: &arg.vault })?))
}

/// The inventory of a definition that was pinned, read again for its secrets: the one that the user named, or
/// the one that it came from, if that is there.
pub fn inventory_again(arg: &InventoryArg, pinned: &Definition) -> Result<Option<Inventory>, Error> {
    let mut given = pinned.inventory.given.clone();
    if !arg.inventory.is_empty() {
        given.inventories = arg.inventory.clone();
    }
    if arg.playbook_dir.is_some() {
        given.playbook_dir.clone_from(&arg.playbook_dir);
    }
    let is_there = |path: &PathBuf| path.exists() || path.to_string_lossy().contains(',');
    if given.inventories.is_empty() || arg.inventory.is_empty() && !given.inventories.iter().all(is_there) {
        return Ok(None);
    }
    Ok(Some(inventory::read_all(&Sources { given, vault: &arg.vault })?.inventory))
}

/// `--limit` with the files that it names read.
pub fn limit(limit: Option<&str>) -> Result<Option<String>, Error> {
    limit.map(|limit| inventory::with_files(limit).map_err(|error| pattern_error(&error))).transpose()
}

/// The hosts of an inventory that an Ansible pattern names.
pub fn select(inventory: &Inventory, pattern: &str) -> Result<Vec<String>, Error> {
    inventory::with_files(pattern)
        .and_then(|pattern| inventory.select(&pattern))
        .map_err(|error| pattern_error(&error))
}

fn pattern_error(error: &PatternError) -> Error {
    Error::Refused { message: error.to_string(), hint: error.help() }
}

/// The plan of a workflow as the user asks for it. `print` is the store's key, where the plan is stored. Passwords
/// that are to be made are, and it is told where they are kept.
pub fn plan(engine: &Engine, args: &WorkflowArgs, print: impl Into<Fingerprinter>) -> Result<Plan, Error> {
    let plan = plan_with(engine, args, print, NewSecrets::Kept)?;
    if !plan.weak_secrets.is_empty() {
        screen::tell(&format!(
            "warning: anyone can guess {}; they stand unmasked in what is shown and stored",
            plan.weak_secrets.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    for made in &plan.made_secrets {
        screen::tell(&format!("made a password for `{}`, kept in {}", made.param, made.path.display()));
    }
    Ok(plan)
}

/// A plan that is only looked at: no password is made for it.
pub fn drawn(engine: &Engine, args: &WorkflowArgs) -> Result<Plan, Error> {
    plan_with(engine, args, NO_KEY, NewSecrets::OfNames)
}

fn plan_with(
    engine: &Engine,
    args: &WorkflowArgs,
    print: impl Into<Fingerprinter>,
    secrets: NewSecrets,
) -> Result<Plan, Error> {
    let bundle = files::load(&args.workflow, engine.registry())?;
    let request = Request {
        bundle,
        inventory: inventory(&args.inventory, Some(&args.workflow))?.unwrap_or_default(),
        inputs: Inputs {
            set: args.set.iter().cloned().collect(),
            secrets,
            allow_weak: args.allow_weak_passwords,
        },
        filter: Filter { limit: limit(args.limit.as_deref())?, tags: args.tags.iter().cloned().collect() },
    };
    Ok(Plan::new(request, engine.registry(), print)?)
}

/// The key for plans that are never stored.
pub const NO_KEY: [u8; 32] = [0; 32];
