//! What several step types share: waiting, and the wording of what commands said.

use std::future::Future;
use std::time::Duration;

use flow_core::step::{Change, Check, Context, Output, StepError};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::host::{Host, HostError, Reply};

/// The pause between two looks while something is waited for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The invariant of what only waits: what it still misses moves all the time.
pub(crate) const WAITS: &str = "waits";

/// What one look found.
pub(crate) enum Seen {
    /// It is as it should be.
    Yes(Output),
    /// Not yet; the text says what is missing.
    NotYet(String),
}

impl Seen {
    /// What a step that waits says of it: a plan can't know more yet.
    pub(crate) fn checked(self, cx: &Context) -> Check {
        match self {
            Self::Yes(output) => Check::Satisfied(output),
            Self::NotYet(missing) if cx.planning() => Check::Deferred(missing),
            Self::NotYet(missing) => Check::Pending(Change::new(format!("wait: {missing}"))),
        }
    }
}

/// What was seen as a step's output, a field for each of its own.
///
/// # Errors
/// It isn't made of fields: a defect of the step type.
pub(crate) fn output(seen: &impl Serialize) -> Result<Output, StepError> {
    match serde_json::to_value(seen) {
        Ok(Value::Object(fields)) => Ok(Output(fields)),
        Ok(_) => Err(StepError::permanent("what was seen has no fields")),
        Err(error) => Err(StepError::permanent(format!("what was seen can't be written down: {error}"))),
    }
}

/// Looks again and again until it is so, or until time runs out.
///
/// A look that fails in a way that may pass (a host that doesn't answer for a moment) counts as not yet.
///
/// # Errors
/// After `limit` the last look's words; a permanent error of a look at once.
pub(crate) async fn wait_until<F, L>(cx: &Context, limit: Duration, mut look: L) -> Result<Output, StepError>
where
    L: FnMut() -> F,
    F: Future<Output = Result<Seen, StepError>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let missing = match look().await {
            Ok(Seen::Yes(output)) => return Ok(output),
            Ok(Seen::NotYet(missing)) => missing,
            Err(error) if error.permanent => return Err(error),
            Err(error) => error.message,
        };
        if Instant::now() >= deadline {
            return Err(StepError::failed(format!("not so after {} s: {missing}", limit.as_secs())));
        }
        cx.progress(&missing);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Passes over what says that a service doesn't answer; an unreachable host stays an error.
pub(crate) fn answered<T>(result: Result<T, impl Into<HostError>>) -> Result<Result<T, String>, StepError> {
    match result.map_err(Into::into) {
        Ok(value) => Ok(Ok(value)),
        Err(HostError::Failed { message, .. } | HostError::Lost { message, .. }) => Ok(Err(message)),
        Err(error) => Err(error.into()),
    }
}

/// How long a look waits that is to end within seconds, whatever is down: longer where the host answers late, so that a
/// slow way to it isn't taken for silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For one answer of a service.
    pub(crate) answer: Duration,
    /// For all of the look, as where a disk hangs.
    pub(crate) whole: Duration,
}

impl Patience {
    const ANSWER: Duration = Duration::from_millis(2500);
    const ANSWER_ROUND_TRIPS: u32 = 8;
    const WHOLE: Duration = Duration::from_secs(8);
    const WHOLE_ROUND_TRIPS: u32 = 25;

    /// By how soon the host answers.
    pub(crate) async fn with(host: &dyn Host) -> Result<Self, StepError> {
        let began = Instant::now();
        let greeted = tokio::time::timeout(Self::WHOLE, host.probe(":")).await;
        greeted.map_err(|_| Self::late(host, Self::WHOLE))??;
        let way = began.elapsed();
        Ok(Self {
            answer: Self::ANSWER + way * Self::ANSWER_ROUND_TRIPS,
            whole: Self::WHOLE + way * Self::WHOLE_ROUND_TRIPS,
        })
    }

    /// The whole of a look.
    pub(crate) async fn keep<T>(
        self,
        host: &dyn Host,
        look: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        let looked = tokio::time::timeout(self.whole, look).await;
        looked.unwrap_or_else(|_| Err(Self::late(host, self.whole)))
    }

    fn late(host: &dyn Host, limit: Duration) -> StepError {
        StepError::failed(format!("{}: no answer within {} s", host.name(), limit.as_secs()))
    }
}

/// What comes of it, or nothing where that takes longer than is to be waited.
pub(crate) async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// What a look leaves that tells also what can't be seen: why.
pub(crate) fn unseen(why: &StepError) -> Output {
    Output::empty().with("unreachable", &why.message)
}

/// Why nothing was seen, where [`unseen`] was left.
pub(crate) fn unseen_because(output: &Value) -> Option<&str> {
    output["unreachable"].as_str()
}

/// The last lines of a text, for an error's detail.
pub(crate) fn tail(text: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// A command that ended with the wrong status, with the end of what it said.
pub(crate) fn exit_error(reply: &Reply) -> StepError {
    let said = if reply.stderr.is_empty() { reply.text() } else { reply.error_text() };
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    let message = match last.as_str() {
        "" => format!("exit status {}", reply.code),
        last => format!("exit status {}: {last}", reply.code),
    };
    let error = StepError::failed(message);
    if said.trim().lines().count() > 1 { error.with_detail(tail(&said)) } else { error }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serde's default for a flag that is on.
pub(crate) fn yes() -> bool {
    true
}

/// An address and a port, as in `198.18.0.11:8008`; also with a scheme, and IPv6 in brackets.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn address_and_port(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim().trim_end_matches('/');
    let (address, port) = match bare.rsplit_once(':') {
        Some((address, port)) if !address.contains(':') || address.ends_with(']') => (address, Some(port)),
        _ => (bare, None),
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().map_err(|_| format!("`{text}` is no address with a port"))?,
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.is_empty() {
        return Err(format!("`{text}` is no address with a port"));
    }
    Ok((address.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme_and_port() {
        let read = |text| address_and_port(text, 2379);
        assert_eq!(read("198.18.0.11"), Ok(("198.18.0.11".into(), 2379)));
        assert_eq!(read("http://h1:2380/"), Ok(("h1".into(), 2380)));
        assert_eq!(read("[::1]:8008"), Ok(("::1".into(), 8008)));
        assert_eq!(read("::1"), Ok(("::1".into(), 2379)));
        assert!(read("h1:x").is_err());
        assert!(read(":80").is_err());
    }

    #[test]
    fn the_reason_of_a_failed_command_is_its_last_line() {
        let reply = Reply { code: 2, stdout: Vec::new(), stderr: b"one\ntwo\n\n".to_vec() };
        let error = exit_error(&reply);
        assert_eq!(error.message, "exit status 2: two");
        assert_eq!(error.detail.as_deref(), Some("one\ntwo"));
    }
}
