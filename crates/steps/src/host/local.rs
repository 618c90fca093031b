//! The operator's own machine as a host (`ansible_connection=local`): the same scripts, in local processes.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::BoxStream;
use super::transport::{Event, Failure, Output, Peer, Process, Transport};

/// A way to the machine that this process runs on.
#[derive(Debug)]
pub(crate) struct LocalTransport {
    name: String,
}

impl LocalTransport {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}

#[async_trait]
impl Transport for LocalTransport {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> &str {
        "local"
    }

    /// In a process group of its own: an interrupt at the terminal is this program's to handle.
    async fn start(&self, command: &str) -> Result<Process, Failure> {
        let mut sh = Command::new("/bin/sh");
        sh.arg("-c").arg(command).process_group(0);
        sh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started =
            sh.spawn().map_err(|error| Failure::unreachable(format!("can't start a shell: {error}")));
        let mut child = started?;
        let (Some(input), Some(out), Some(err)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::unreachable("a shell was started without its pipes"));
        };
        let output = LocalOutput { child, out: Some(out), err: Some(err), ended: false };
        Ok(Process { input: Box::new(input), output: Box::new(output) })
    }

    async fn dial(&self, address: &str, port: u16) -> Result<BoxStream, Failure> {
        if address.starts_with('/') {
            let dialled = UnixStream::connect(address).await;
            return dialled
                .map(|stream| Box::new(stream) as BoxStream)
                .map_err(|error| Failure::Refused(format!("can't connect to {address}: {error}")));
        }
        let dialled = TcpStream::connect((address, port)).await;
        dialled
            .map(|stream| Box::new(stream) as BoxStream)
            .map_err(|error| Failure::Refused(format!("can't connect to {address}:{port}: {error}")))
    }

    async fn peer(&self) -> Result<Peer, Failure> {
        Ok(Peer { generation: 0, fingerprint: String::new() })
    }

    async fn close(&self) {}
}

/// Both outputs of a child, then its status.
struct LocalOutput {
    child: Child,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    ended: bool,
}

#[async_trait]
impl Output for LocalOutput {
    /// The status is given as soon as it is there, as SSH does: a child left behind may hold the outputs
    /// open for as long as it lives.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let reading = self.out.is_some() || self.err.is_some();
            if self.ended && !reading {
                return None;
            }
            tokio::select! {
                biased;
                bytes = piece(&mut self.out), if self.out.is_some() => match bytes {
                    Some(bytes) => return Some(Event::Out(bytes)),
                    None => self.out = None,
                },
                bytes = piece(&mut self.err), if self.err.is_some() => match bytes {
                    Some(bytes) => return Some(Event::Err(bytes)),
                    None => self.err = None,
                },
                status = self.child.wait(), if !self.ended => {
                    self.ended = true;
                    let status = status.ok()?;
                    let signal = status.signal().map(|signal| 128 + signal);
                    return Some(Event::Exit(status.code().or(signal).unwrap_or(255)));
                }
            }
            if self.ended && self.out.is_none() && self.err.is_none() {
                return Some(Event::Eof);
            }
        }
    }
}

/// What a pipe has now; `None` at its end, or where it can't be read.
async fn piece<R: AsyncRead + Unpin>(pipe: &mut Option<R>) -> Option<Bytes> {
    let mut buffer = bytes::BytesMut::with_capacity(32 * 1024);
    match pipe.as_mut()?.read_buf(&mut buffer).await {
        Ok(1..) => Some(buffer.freeze()),
        Ok(0) | Err(_) => None,
    }
}
