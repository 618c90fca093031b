//! What a plugin asks flow to do on the task's host, done by the host's own verbs.

use async_trait::async_trait;
use flow_core::step::{Context, StepError};
use serde_json::{Value, json};

use super::process::{Serve, Trouble};
use super::wire::{Call, Reply};
use crate::host::{self, Content, Host, HostChange, HostContext, HostError, Ownership};

/// The longest file that is read for a plugin, in bytes.
const READ_LIMIT: u64 = 1024 * 1024;

/// The host of one task.
pub(super) struct HostCalls<'c> {
    pub(super) cx: &'c Context,
    pub(super) verb: &'static str,
    /// During `apply` and `undo`.
    pub(super) may_change: bool,
}

#[async_trait]
impl Serve for HostCalls<'_> {
    async fn call(&self, call: Call) -> Result<Reply, Trouble> {
        if call.changes() && !self.may_change {
            let message = format!("it asked to change the host (`{}`) during `{}`", call.word(), self.verb);
            return Err(Trouble::Misbehaved { message, detail: None, always: true });
        }
        let host = self.cx.host().await.map_err(Trouble::Host)?;
        match self.carry_out(&*host, call).await {
            Ok(result) => Ok(Reply::Result(result)),
            // What was tried and failed is the plugin's to judge; a host that is gone, or another run's, isn't.
            Err(HostError::Failed { message, .. }) => Ok(Reply::Error(message)),
            Err(error) => Err(Trouble::Host(StepError::from(error))),
        }
    }

    fn progress(&self, text: &str) {
        self.cx.progress(text);
    }
}

impl HostCalls<'_> {
    async fn carry_out(&self, host: &dyn Host, call: Call) -> Result<Value, HostError> {
        let change = match call {
            Call::Probe { script } => return host.probe(&script).await.map(|reply| said(&reply)),
            Call::Run { script, stdin, environment, user, directory, detached } => {
                let silent = false;
                let command = host::Command { script, stdin, directory, user, environment, detached, silent };
                return host.run(self.cx.attempt(), &command).await.map(|reply| said(&reply));
            }
            Call::Read { path } => return text_of(host, &path).await,
            Call::Stat { path } => return Ok(json!(host.stat(&path).await?)),
            Call::Write { path, content, owner, group, mode } => {
                let mode = mode.map(|mode| octal(host, &mode)).transpose()?;
                let content = Content(content.reveal().as_bytes().to_vec());
                HostChange::WriteFile { path, content, ownership: Ownership { owner, group, mode } }
            }
            Call::Rename { from, to } => HostChange::Rename { from, to },
            Call::Remove { path } => HostChange::RemoveFile { path },
        };
        host.change(self.cx.attempt(), &change).await.map(|()| Value::Null)
    }
}

fn said(reply: &host::Reply) -> Value {
    json!({ "code": reply.code, "stdout": reply.text(), "stderr": reply.error_text() })
}

async fn text_of(host: &dyn Host, path: &str) -> Result<Value, HostError> {
    match host.read(path, READ_LIMIT).await?.map(String::from_utf8) {
        None => Ok(json!({ "text": null })),
        Some(Ok(text)) => Ok(json!({ "text": text })),
        Some(Err(_)) => Err(failed(host, format!("{path} is not UTF-8 text"))),
    }
}

fn octal(host: &dyn Host, mode: &str) -> Result<u32, HostError> {
    u32::from_str_radix(mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| failed(host, format!("`{mode}` is no octal mode")))
}

fn failed(host: &dyn Host, message: String) -> HostError {
    HostError::Failed { host: host.name().to_owned(), message, detail: None }
}
