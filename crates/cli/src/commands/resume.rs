//! `flow resume`: go on with a run.

use flow_core::engine::read_definition;
use flow_core::run::{Event, Outcome, RunId};
use flow_core::store::Store;

use super::run::follow;
use super::runs::{Next, turned_back};
use crate::args::{Global, ResumeArgs};
use crate::codes::NO_RUN;
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
    let inventory = context::inventory_again(&args.inventory, &definition)?;
    let next = Next::of(global, &store.runs()?, &run);
    let mut session = engine.open(store, &run, inventory.as_ref())?;
    if args.as_found {
        session.as_found();
    }
    screen::before::plugins_moved_on(session.plan());
    screen::before::file_moved_on(session.plan(), "the run began", "the run goes on with it as it was");
    let mut screen = Screen::new(global.output, session.plan());
    screen.so_far(session.state());
    let handle = session.resume()?;
    follow(handle, screen, &next).await
}

/// The newest run that has not ended well and isn't being taken back.
fn newest_open(store: &dyn Store) -> Result<RunId, Error> {
    for row in store.runs()? {
        if store.is_imported(&row.id)? {
            continue;
        }
        let last = store.last_events(&row.id, 1)?;
        let ended = matches!(
            last.first().map(|record| &record.event),
            Some(Event::RunEnded { outcome: Outcome::Succeeded | Outcome::Undone | Outcome::Refused, .. })
        );
        if !ended && !turned_back(store, &row.id)? {
            return Ok(row.id);
        }
    }
    Err(Error::coded(NO_RUN, "there is no run to go on with", "`flow runs` lists the runs"))
}
