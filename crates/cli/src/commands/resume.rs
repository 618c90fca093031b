//! `flow resume`: go on with a run.

use flow_core::engine::read_definition;
use flow_core::inventory::Inventory;
use flow_core::plan::Definition;
use flow_core::run::{Event, Outcome, RunId};
use flow_core::store::Store;

use super::run::follow;
use super::runs::Next;
use crate::args::{Global, InventoryArg, ResumeArgs};
use crate::context;
use crate::exit::{Error, Exit};
use crate::screen::{self, Screen};

pub async fn resume(global: &Global, args: ResumeArgs) -> Result<Exit, Error> {
    let (engine, _hosts) = context::engine_for(args.at_once.concurrency);
    let store = context::store(global)?;
    let run = match &args.run {
        Some(prefix) => store.find(prefix)?.id,
        None => newest_open(&*store)?,
    };
    let definition = read_definition(&run, &store.definition(&run)?)?;
    let inventory = inventory_of(&definition, &args.inventory)?;
    let next = Next::of(global, &store.runs()?, &run);
    let session = engine.open(store, &run, inventory.as_ref())?;
    screen::before::moved_on(session.plan());
    let mut screen = Screen::new(global.output, session.plan());
    screen.so_far(session.state());
    let handle = session.resume()?;
    follow(handle, screen, &next).await
}

/// The inventory of now: the one that was given, or the one that the run was started with, read again for
/// its secrets.
pub fn inventory_of(definition: &Definition, given: &InventoryArg) -> Result<Option<Inventory>, Error> {
    let source = given.inventory.clone().or_else(|| definition.inventory.sources.first().cloned());
    match source {
        Some(path) if given.inventory.is_some() || path.exists() => {
            context::inventory(&InventoryArg { inventory: Some(path) })
        }
        _ => Ok(None),
    }
}

/// The newest run that has not ended well.
fn newest_open(store: &dyn Store) -> Result<RunId, Error> {
    for row in store.runs()? {
        let last = store.last_events(&row.id, 1)?;
        let ended = matches!(
            last.first().map(|record| &record.event),
            Some(Event::RunEnded { outcome: Outcome::Succeeded | Outcome::Undone | Outcome::Refused })
        );
        if !ended {
            return Ok(row.id);
        }
    }
    Err(Error::refused("there is no run to go on with", "`flow runs` lists the runs"))
}
