//! A command's channel as a stream of events.

use async_trait::async_trait;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::OwnedSemaphorePermit;

use crate::host::transport::{Event, Output};

/// Reads a session channel; closes it when dropped, and only then makes room for another.
pub(super) struct ChannelOutput {
    read: ChannelReadHalf,
    /// Taken when dropped.
    rest: Option<(ChannelWriteHalf<Msg>, OwnedSemaphorePermit)>,
}

impl ChannelOutput {
    pub(super) fn new(
        read: ChannelReadHalf,
        write: ChannelWriteHalf<Msg>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { read, rest: Some((write, permit)) }
    }
}

#[async_trait]
impl Output for ChannelOutput {
    async fn next(&mut self) -> Option<Event> {
        loop {
            match self.read.wait().await? {
                ChannelMsg::Data { data } => return Some(Event::Out(data)),
                ChannelMsg::ExtendedData { data, .. } => return Some(Event::Err(data)),
                ChannelMsg::Eof => return Some(Event::Eof),
                ChannelMsg::ExitStatus { exit_status } => {
                    return Some(Event::Exit(i32::try_from(exit_status).unwrap_or(255)));
                }
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    return Some(Event::Exit(128 + signal_number(&signal_name)));
                }
                // The server refused to run the command, or closed the channel: nothing more comes.
                ChannelMsg::Failure | ChannelMsg::Close => return None,
                _ => {}
            }
        }
    }
}

/// POSIX numbers of the signals that the protocol names (RFC 4254, 6.10).
fn signal_number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        _ => 10,
    }
}

impl Drop for ChannelOutput {
    fn drop(&mut self) {
        let (Some((write, permit)), Ok(runtime)) = (self.rest.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            // A dead connection closes its channels by itself.
            let _ = write.close().await;
            drop(permit);
        });
    }
}
