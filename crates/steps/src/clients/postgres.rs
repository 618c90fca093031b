//! A PostgreSQL connection over a stream that a host dials.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::{Rows, Sql, SqlTarget};
use crate::host::HostError;
use crate::host::transport::{Failure, Transport};

/// How long connecting and logging in may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A logged-in connection.
pub(crate) struct Client {
    host: String,
    address: String,
    client: tokio_postgres::Client,
    driver: tokio::task::JoinHandle<()>,
}

/// Connects and logs in.
pub(crate) async fn connect(transport: &dyn Transport, target: &SqlTarget) -> Result<Client, Failure> {
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
        let connected = config.connect_raw(stream, NoTls).await;
        connected.map_err(|error| Failure::Refused(format!("PostgreSQL at {place}: {}", text(&error))))
    };
    let connected = tokio::time::timeout(CONNECT_LIMIT, work).await.unwrap_or_else(|_| {
        let seconds = CONNECT_LIMIT.as_secs();
        Err(Failure::Lost(format!("PostgreSQL at {place}: no answer within {seconds} s")))
    });
    let (client, connection) = connected?;
    // Drives the connection; its error reaches the client too.
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Client { host: transport.name().to_owned(), address: transport.address().to_owned(), client, driver })
}

/// The server's own message with its SQLSTATE, or what went wrong on the way.
fn text(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} ({})", server.message(), server.code().code()),
        None => match std::error::Error::source(error) {
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
