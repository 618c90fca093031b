//! TLS as tokio-postgres wants it: a connector that is asked once the server has said that it speaks TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect};
use tokio_rustls::Connect;
use tokio_rustls::client::TlsStream;

use super::tls::{Tls, server_name};
use crate::host::transport::Failure;

/// TLS with the server at an address.
pub(super) struct Over {
    tls: Tls,
    address: String,
    name: ServerName<'static>,
}

impl Over {
    /// # Errors
    /// The address can't be the name in a certificate.
    pub(super) fn new(tls: Tls, address: &str) -> Result<Self, Failure> {
        Ok(Self { tls, address: address.to_owned(), name: server_name(address)? })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for Over {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Handshake<S>;

    fn connect(self, stream: S) -> Handshake<S> {
        Handshake { connect: self.tls.begin(self.name.clone(), stream), over: self }
    }
}

/// A handshake under way.
pub(super) struct Handshake<S> {
    connect: Connect<S>,
    over: Over,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Handshake<S> {
    type Output = io::Result<Encrypted<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = ready!(Pin::new(&mut self.connect).poll(cx));
        Poll::Ready(done.map(Encrypted).map_err(|error| {
            match self.over.tls.broken_off(&error, &self.over.address) {
                Failure::Refused(why) | Failure::Lost(why) | Failure::Unreachable { message: why, .. } => {
                    io::Error::other(why)
                }
            }
        }))
    }
}

/// A stream with TLS. Passwords are not bound to it (SCRAM-SHA-256-PLUS): its certificate was verified.
pub(super) struct Encrypted<S>(TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
