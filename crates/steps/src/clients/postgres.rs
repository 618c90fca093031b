//! A PostgreSQL connection over a stream that a host dials.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, Connection, NoTls, SimpleQueryMessage};

use super::tls::Tls;
use super::{Rows, Sql, SqlTarget, postgres_tls::Over};
use crate::host::transport::{Failure, Transport};
use crate::host::{BoxStream, HostError};

/// How long connecting and logging in may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A logged-in connection.
pub(crate) struct Client {
    host: String,
    address: String,
    client: tokio_postgres::Client,
    driver: tokio::task::JoinHandle<()>,
}

/// Connects and logs in; with TLS never without it, whatever the server offers.
pub(crate) async fn connect(
    transport: &dyn Transport,
    target: &SqlTarget,
    tls: Option<Tls>,
) -> Result<Client, Failure> {
    let (place, address) = match target.address.starts_with('/') {
        true => {
            let socket = format!("{}/.s.PGSQL.{}", target.address.trim_end_matches('/'), target.port);
            (socket.clone(), socket)
        }
        false => (format!("{}:{}", target.address, target.port), target.address.clone()),
    };
    let mut config = Config::new();
    config.user(&target.user).dbname(&target.database).application_name("flow");
    if let Some(password) = &target.password {
        config.password(password.reveal());
    }
    let work = async {
        let stream = transport.dial(&address, target.port).await?;
        let connected = match tls {
            None => config.connect_raw(stream, NoTls).await.map(|(client, driven)| (client, drive(driven))),
            Some(tls) => {
                config.ssl_mode(SslMode::Require);
                let over = Over::new(tls, &target.address)?;
                config.connect_raw(stream, over).await.map(|(client, driven)| (client, drive(driven)))
            }
        };
        connected.map_err(|error| Failure::Refused(format!("PostgreSQL at {place}: {}", text(&error))))
    };
    let connected = tokio::time::timeout(CONNECT_LIMIT, work).await.unwrap_or_else(|_| {
        let seconds = CONNECT_LIMIT.as_secs();
        Err(Failure::Lost(format!("PostgreSQL at {place}: no answer within {seconds} s")))
    });
    let (client, driver) = connected?;
    Ok(Client { host: transport.name().to_owned(), address: transport.address().to_owned(), client, driver })
}

/// Drives a connection; its error reaches the client too.
fn drive<T>(connection: Connection<BoxStream, T>) -> tokio::task::JoinHandle<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let _ = connection.await;
    })
}

/// The server's own message with its SQLSTATE, or what went wrong on the way.
fn text(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => match std::error::Error::source(error) {
            // A balancer that has nobody to lead to does that.
            Some(cause)
                if cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof) =>
            {
                "it closed the connection without a word".to_owned()
            }
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

#[async_trait]
impl Sql for Client {
    async fn query(&self, sql: &str) -> Result<Rows, HostError> {
        let messages = self.client.simple_query(sql).await.map_err(|error| {
            let failure = match error.as_db_error() {
                Some(_) => Failure::Refused(text(&error)),
                None => Failure::Lost(text(&error)),
            };
            failure.into_error(&self.host, &self.address)
        })?;
        Ok(last_rows(messages))
    }
}

/// The rows of the last statement.
fn last_rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let (mut rows, mut complete) = (Rows::new(), false);
    for message in messages {
        if std::mem::take(&mut complete) {
            rows.clear();
        }
        match message {
            SimpleQueryMessage::Row(row) => {
                let fields = row.columns().iter().enumerate().map(|(index, column)| {
                    let value = row.get(index).map_or(Value::Null, Value::from);
                    (column.name().to_owned(), value)
                });
                rows.push(fields.collect::<Map<_, _>>());
            }
            SimpleQueryMessage::CommandComplete(_) => complete = true,
            _ => {}
        }
    }
    rows
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
