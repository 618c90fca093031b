//! One HTTP/1.1 exchange over a stream that a host dials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;

use super::tls::Tls;
use super::{HttpReply, HttpRequest};
use crate::host::BoxStream;
use crate::host::transport::{Failure, Transport};

/// The longest body that is read, in bytes.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// Sends a request and reads the whole reply, on a connection of its own.
///
/// # Errors
/// `Refused` where nothing listens or TLS isn't agreed on; `Lost` where the request may have arrived and no whole
/// reply came.
pub(crate) async fn exchange(
    transport: &dyn Transport,
    request: &HttpRequest,
    tls: Option<&Tls>,
) -> Result<HttpReply, Failure> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let place = format!("{scheme}://{}:{}{}", request.address, request.port, request.path);
    let message = message(request).map_err(|error| Failure::Refused(format!("{place}: {error}")))?;
    let work = async {
        let mut stream = transport.dial(&request.address, request.port).await?;
        if let Some(tls) = tls {
            let agreed = tls.handshake(stream, &request.address).await;
            stream = Box::new(agreed.map_err(|failure| failure.of(&place))?);
        }
        let explain = |error: &hyper::Error| {
            tls.and_then(|tls| tls.explain(error, &request.address)).unwrap_or_else(|| text(error))
        };
        send(stream, message, explain).await.map_err(|error| Failure::Lost(format!("{place}: {error}")))
    };
    tokio::time::timeout(request.timeout, work).await.unwrap_or_else(|_| {
        let seconds = request.timeout.as_secs_f32();
        Err(Failure::Lost(format!("{place}: no reply within {seconds} s")))
    })
}

fn message(request: &HttpRequest) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let host = match request.address.contains(':') {
        true => format!("[{}]:{}", request.address, request.port),
        false => format!("{}:{}", request.address, request.port),
    };
    let mut builder = Request::builder().method(request.method).uri(&request.path).header(HOST, host);
    if let Some((user, password)) = &request.basic_auth {
        let credentials = STANDARD.encode(format!("{user}:{}", password.reveal()));
        let mut value = hyper::header::HeaderValue::try_from(format!("Basic {credentials}"))?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    match &request.body {
        Some(body) => {
            builder.header(CONTENT_TYPE, "application/json").body(Full::new(body.to_string().into()))
        }
        None => builder.body(Full::default()),
    }
}

async fn send(
    stream: BoxStream,
    message: Request<Full<Bytes>>,
    explain: impl Fn(&hyper::Error) -> String,
) -> Result<HttpReply, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| explain(&error))?;
    // Drives the connection; its error reaches the sender too.
    let driver = tokio::spawn(connection);
    let exchanged = async {
        let reply = sender.send_request(message).await.map_err(|error| explain(&error))?;
        let status = reply.status().as_u16();
        let body = Limited::new(reply.into_body(), BODY_LIMIT).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes().to_vec();
        Ok(HttpReply { status, body })
    };
    let reply = exchanged.await;
    driver.abort();
    reply
}

/// hyper keeps the cause apart from the message.
fn text(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
