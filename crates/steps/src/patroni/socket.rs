//! The way into a member's own PostgreSQL that needs no password: its Unix socket, as the owner of the data directory.

use flow_core::step::StepError;

use super::settings::Settings;
use crate::host::{Host, quote};
use crate::postgres::processes_on;

/// Longer files are none, in bytes.
const LIMIT: u64 = 1 << 20;

/// Where a running PostgreSQL listens on its host.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) owner: String,
    pub(super) psql: String,
    pub(super) directory: String,
    pub(super) port: String,
}

impl Socket {
    /// Of the PostgreSQL that runs on the member's data directory. The inner error says why it can't be asked so.
    pub(super) async fn of(host: &dyn Host, settings: &Settings) -> Result<Result<Self, String>, StepError> {
        let data_dir = &settings.data_dir;
        if processes_on(host, data_dir).await?.is_empty() {
            return Ok(Err("no PostgreSQL runs on it".to_owned()));
        }
        let pid = format!("{data_dir}/postmaster.pid");
        let (stat, pid) = tokio::try_join!(host.stat(data_dir), host.read(&pid, LIMIT))?;
        let (Some(stat), Some(pid)) = (stat, pid) else {
            return Ok(Err("no PostgreSQL runs on it".to_owned()));
        };
        let pid = String::from_utf8_lossy(&pid).into_owned();
        let lines: Vec<&str> = pid.lines().map(str::trim).collect();
        let (Some(port), Some(socket)) =
            (lines.get(3), lines.get(4).filter(|socket| socket.starts_with('/')))
        else {
            return Ok(Err("its PostgreSQL has no Unix socket".to_owned()));
        };
        let psql = match settings.bin_dir.as_str() {
            "" => "psql".to_owned(),
            bin_dir => format!("{bin_dir}/psql"),
        };
        Ok(Ok(Self { owner: stat.owner, psql, directory: (*socket).to_owned(), port: (*port).to_owned() }))
    }

    /// A script that asks it; a line for each row, the values with tabs between them.
    pub(super) fn psql(&self, sql: &str) -> String {
        format!(
            "cd / && timeout 10 runuser -u {} -- {} -XwqAt -F '\t' -h {} -p {} -d postgres -c {}",
            quote(&self.owner),
            quote(&self.psql),
            quote(&self.directory),
            quote(&self.port),
            quote(sql)
        )
    }
}

/// A text as SQL writes it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
