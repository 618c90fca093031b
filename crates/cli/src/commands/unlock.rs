//! `flow unlock`: take a run's locks off hosts, once nothing of it is alive there.

use flow_steps::host::LockClaim;

use crate::args::{Global, UnlockArgs};
use crate::exit::{Error, Exit};
use crate::{context, screen};

pub async fn unlock(global: &Global, args: UnlockArgs) -> Result<Exit, Error> {
    let (_, hosts) = context::engine();
    let inventory = context::inventory(&args.inventory, None)?
        .ok_or_else(|| Error::refused("the hosts are not known", "give the inventory: -i INVENTORY"))?;
    let names = context::select(&inventory, &args.limit)?;
    // A process that still works on the run would find its locks gone; it must end first.
    let store = context::store(global)?;
    let known = store.find(&args.run).ok();
    let run = known.as_ref().map_or_else(|| args.run.clone(), |row| row.id.to_string());
    if !flow_core::run::RunId::is_well_formed(&run) {
        return Err(Error::refused(
            format!("`{run}` is no run's id"),
            "it has 12 letters and digits, as the message of the locked host names it",
        ));
    }
    let _claim = store.claim(&flow_core::run::RunId::from_text(&run), &context::owner())?;
    // Of a run of another store, nobody here can see whether its process has ended: a person must know.
    let taken_on_trust = known.is_none() && args.confirm.as_deref() != Some(run.as_str());
    let mut trusted = None;
    let mut failed = false;
    for name in names {
        let Some(entry) = inventory.host(&name) else { continue };
        let result = async {
            let host = hosts.get(entry).await?;
            match host.lock_holder().await? {
                Some(holder) if holder.run == run && taken_on_trust => {
                    trusted = Some(holder.owner.clone());
                    Ok(format!("left locked; by {} since {}", holder.owner, screen::local_time(holder.since)))
                }
                Some(holder) if holder.run == run => {
                    host.unlock(&LockClaim { owner: context::owner(), ..holder.clone() }, true).await?;
                    Ok(format!(
                        "unlocked; it was locked by {} since {}",
                        holder.owner,
                        screen::local_time(holder.since)
                    ))
                }
                Some(holder) => {
                    Ok(format!("left alone: locked by another run, {} ({})", holder.run, holder.workflow))
                }
                None => Ok("not locked".to_owned()),
            }
        }
        .await;
        match result {
            Ok(text) => screen::line(&format!("{name}: {text}")),
            Err(error) => {
                failed = true;
                let error: flow_steps::host::HostError = error;
                screen::errors::plain(&error.to_string(), None);
            }
        }
    }
    hosts.close().await;
    if let Some(owner) = trusted {
        return Err(Error::refused(
            format!(
                "run {run} is not in this store, so nobody can see here whether {owner} still works on it"
            ),
            format!(
                "ask there: a run that loses its locks stops where it stands. Once that process has ended: \
                 flow unlock {run} --confirm {run}"
            ),
        ));
    }
    Ok(if failed { Exit::Failed } else { Exit::Success })
}
