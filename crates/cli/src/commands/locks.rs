//! `flow locks`: whose lock each host has, and what to do about it. Only looks.

use std::sync::Arc;

use clap::Args;
use flow_core::inventory::Host;
use flow_core::store::Store;
use flow_steps::host::{HostError, Hosts, LockClaim};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::runs::status;
use crate::args::{Format, Global, InventoryArg};
use crate::exit::{Error, Exit};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct LocksArgs {
    #[command(flatten)]
    pub inventory: InventoryArg,

    /// The hosts, an Ansible pattern.
    #[arg(long, value_name = "PATTERN", default_value = "all")]
    pub limit: String,
}

/// What was found on a host.
struct Row {
    host: String,
    lock: Result<Option<Lock>, HostError>,
}

struct Lock {
    claim: LockClaim,
    /// How its run stands in this store; none where it isn't of this store.
    status: Option<&'static str>,
    /// What of it is alive on the host.
    alive: Vec<String>,
}

pub async fn locks(global: &Global, args: LocksArgs) -> Result<Exit, Error> {
    let (_, hosts) = context::engine();
    let inventory = context::inventory(&args.inventory, None)?
        .ok_or_else(|| Error::refused("the hosts are not known", "give the inventory: -i INVENTORY"))?;
    let names = context::select(&inventory, &args.limit)?;
    let entries: Vec<Arc<Host>> = names.iter().filter_map(|name| inventory.host(name).cloned()).collect();
    let found = join_all(entries.iter().map(|entry| look(&hosts, entry))).await;
    hosts.close().await;
    let store = context::store(global)?;
    let mut rows = Vec::new();
    for (entry, found) in entries.iter().zip(found) {
        let lock = match found {
            Ok(Some((claim, alive))) => Ok(Some(Lock { status: known(&*store, &claim.run)?, claim, alive })),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        rows.push(Row { host: entry.name.clone(), lock });
    }
    if global.output == Format::Json {
        screen::json(&rows.iter().map(as_json).collect::<Vec<_>>());
    } else {
        let width = rows.iter().map(|row| row.host.len()).max().unwrap_or(0);
        rows.iter().for_each(|row| show(row, width));
    }
    Ok(if rows.iter().any(|row| row.lock.is_err()) { Exit::Failed } else { Exit::Success })
}

async fn look(hosts: &Hosts, entry: &Arc<Host>) -> Result<Option<(LockClaim, Vec<String>)>, HostError> {
    let host = hosts.get(entry).await?;
    match host.lock_holder().await? {
        None => Ok(None),
        Some(claim) => {
            let alive = host.alive(&claim.run).await?;
            Ok(Some((claim, alive)))
        }
    }
}

/// How a run of this store stands.
fn known(store: &dyn Store, run: &str) -> Result<Option<&'static str>, Error> {
    match store.find(run) {
        Ok(row) if row.id.as_str() == run => Ok(Some(status(store, &row.id)?)),
        _ => Ok(None),
    }
}

impl Lock {
    /// The next action.
    fn next(&self) -> String {
        let run = &self.claim.run;
        match (self.status, self.alive.is_empty()) {
            (Some("running"), _) => format!("its run is at work; `flow show {run}` tells how far it is"),
            (Some("succeeded" | "undone" | "refused"), true) => {
                format!("its run has ended and left it behind: flow unlock {run}")
            }
            (Some(_), _) => format!("go on with its run: flow resume {run}"),
            (None, false) => format!("something of it is at work; ask {}", self.claim.owner),
            (None, true) => {
                format!("ask {}; once nobody is to go on with it: flow unlock {run}", self.claim.owner)
            }
        }
    }
}

fn show(row: &Row, width: usize) {
    let host = &row.host;
    let lock = match &row.lock {
        Ok(Some(lock)) => lock,
        Ok(None) => return screen::line(&format!("{host:width$}  not locked")),
        Err(error) => return screen::line(&format!("{host:width$}  can't be asked: {error}")),
    };
    let LockClaim { run, workflow, owner, since, .. } = &lock.claim;
    let since = screen::local_time(*since);
    screen::line(&format!("{host:width$}  locked by run {run} ({workflow}) of {owner} since {since}"));
    let here = match lock.status {
        Some(status) => format!("in this store, {status}"),
        None => "not in this store".to_owned(),
    };
    let alive = match lock.alive.as_slice() {
        [] => "no command of it runs there now".to_owned(),
        alive => format!("at work there: {}", alive.join(", ")),
    };
    screen::line(&format!("{:width$}  {here}; {alive}", ""));
    screen::line(&format!("{:width$}  {}", "", lock.next()));
}

fn as_json(row: &Row) -> Value {
    match &row.lock {
        Ok(None) => json!({ "host": row.host, "lock": null }),
        Err(error) => json!({ "host": row.host, "lock": null, "error": error.to_string() }),
        Ok(Some(lock)) => {
            let LockClaim { run, workflow, owner, epoch, since } = &lock.claim;
            json!({
                "host": row.host,
                "lock": {
                    "run": run, "workflow": workflow, "owner": owner, "epoch": epoch, "since": since,
                    "status": lock.status, "alive": lock.alive, "next": lock.next(),
                },
            })
        }
    }
}
