//! The engine's view of the hosts: who they are, their locks, and what still runs on them.

use std::sync::Arc;

use async_trait::async_trait;
use flow_core::engine::{Fleet, Holder};
use flow_core::inventory;
use flow_core::run::Identity;
use flow_core::step::{Attempt, StepError};

use crate::host::{AttemptState, Hosts, LockClaim};

/// Hands the hosts of a program to the engine.
pub struct HostFleet(pub Arc<Hosts>);

fn claim(holder: &Holder) -> LockClaim {
    LockClaim {
        run: holder.run.to_string(),
        workflow: holder.workflow.clone(),
        owner: holder.owner.clone(),
        epoch: holder.epoch,
        since: holder.since,
    }
}

#[async_trait]
impl Fleet for HostFleet {
    async fn meet(&self, host: &Arc<inventory::Host>) -> Result<Identity, StepError> {
        let facts = self.0.get(host).await?.facts().await?;
        Ok(Identity { machine_id: facts.machine_id.clone(), key_fingerprint: facts.key_fingerprint.clone() })
    }

    async fn lock(&self, host: &Arc<inventory::Host>, holder: &Holder) -> Result<(), StepError> {
        Ok(self.0.get(host).await?.lock(&claim(holder)).await?)
    }

    async fn unlock(&self, host: &Arc<inventory::Host>, holder: &Holder) -> Result<(), StepError> {
        Ok(self.0.get(host).await?.unlock(&claim(holder), false).await?)
    }

    async fn alive(&self, host: &Arc<inventory::Host>, attempt: &Attempt) -> Result<bool, StepError> {
        Ok(self.0.get(host).await?.attempt(attempt).await? == AttemptState::Running)
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
