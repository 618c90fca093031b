//! Narrow clients of what runs on the hosts: HTTP (Patroni's REST API), etcd v3, PostgreSQL.
//!
//! Steps reach them by way of a [`Host`](crate::host::Host), so that they work through the SSH
//! connection, and so that a simulated host can stand in for all of them.

pub(crate) mod etcd;
mod etcd_error;
pub(crate) mod http;
pub(crate) mod postgres;
mod postgres_tls;
pub(crate) mod tls;

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::Secret;
use serde::{Deserialize, Serialize};

pub use etcd_error::{EtcdError, NoEtcd};
pub use tls::TlsFiles;

use crate::host::HostError;

/// How long a look is repeated while etcd itself says that it can't answer now, as during an election
/// ("leader changed", "no leader"), and how often.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(10);
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// An HTTP request to a service as seen from the host.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// `GET`, `POST`, `PATCH`.
    pub method: &'static str,
    /// An address or name as seen from the host.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Path and query, starting with `/`.
    pub path: String,
    /// A JSON body.
    pub body: Option<serde_json::Value>,
    /// User and password for basic authentication.
    pub basic_auth: Option<(String, Secret)>,
    /// HTTPS, and by which files of the host. None: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How long the whole exchange may take.
    pub timeout: Duration,
}

/// What an HTTP service answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Where an etcd member listens for clients, as seen from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdEndpoint {
    /// An address or name.
    pub address: String,
    /// TCP port, 2379 by custom.
    pub port: u16,
    /// TLS, and by which files of the host. None: plain.
    pub tls: Option<TlsFiles>,
}

/// One key of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdKey {
    /// The key, as text.
    pub key: String,
    /// The value, as text (Patroni writes nothing else).
    pub value: String,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// The lease it hangs on; 0 for none.
    pub lease: i64,
}

/// An etcd member, as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdMember {
    /// Member id.
    pub id: u64,
    /// Its name; empty before its first start.
    pub name: String,
    /// `http://198.18.0.11:2380`
    pub peer_urls: Vec<String>,
    /// `http://198.18.0.11:2379`; none before its first start.
    pub client_urls: Vec<String>,
    /// It follows and has no vote yet.
    #[serde(default)]
    pub learner: bool,
}

/// What one etcd member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdStatus {
    /// `3.4.23`
    pub version: String,
    /// The id of the cluster's leader, 0 for none.
    pub leader: u64,
    /// This member's id.
    pub member: u64,
    /// Bytes of the database.
    pub db_size: i64,
    /// The store's revision.
    pub revision: i64,
    /// It has no vote yet, and answers few questions.
    pub learner: bool,
    /// Alarms and other trouble, as the member words it.
    pub errors: Vec<String>,
}

/// An alarm that a member of etcd has raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdAlarm {
    /// The member's id.
    pub member: u64,
    /// Of what kind it is.
    pub kind: EtcdAlarmKind,
}

/// Kinds of alarms (etcd 3.5, `rpc.proto`, `AlarmType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EtcdAlarmKind {
    /// `NOSPACE`: its database is as large as it may be; the whole cluster takes no writes.
    NoSpace,
    /// `CORRUPT`: its data isn't what the others have.
    Corrupt,
    /// One that flow doesn't know.
    Other,
}

/// The answer to a conditional change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It held; this many keys were changed.
    Held(i64),
    /// It did not hold; nothing was changed.
    Broken,
}

/// etcd v3, as far as procedures need it. Every call has a time limit of 5 s.
#[async_trait]
pub trait Etcd: Send + Sync {
    /// All keys that begin with `prefix`, in order. A linearizable read: it needs quorum.
    async fn keys(&self, prefix: &str) -> Result<Vec<EtcdKey>, EtcdError>;
    /// Deletes every key that begins with `prefix`, if each of `expected` is still at its revision,
    /// in one transaction.
    async fn delete_prefix(&self, prefix: &str, expected: &[EtcdKey]) -> Result<Condition, EtcdError>;
    /// Writes a key if its `mod_revision` is as given (0: the key doesn't exist), and deletes those of `forget` in the
    /// same transaction.
    async fn put_if(
        &self,
        key: &str,
        value: &str,
        mod_revision: i64,
        forget: &[String],
    ) -> Result<Condition, EtcdError>;
    /// Writes all of these keys, without a lease, if there is no key that begins with `prefix`, in one
    /// transaction. etcd takes 128 by default.
    async fn put_all_if_absent(
        &self,
        prefix: &str,
        keys: &[(String, String)],
    ) -> Result<Condition, EtcdError>;
    /// What this member says of itself. Answers without quorum too.
    async fn status(&self) -> Result<EtcdStatus, EtcdError>;
    /// The alarms of all members. It needs quorum.
    async fn alarms(&self) -> Result<Vec<EtcdAlarm>, EtcdError>;
    /// A snapshot of all keys, as `etcdctl snapshot save` writes it: the database, and its SHA-256 at the end.
    /// One of more than `limit` bytes is an error.
    async fn snapshot(&self, limit: u64) -> Result<Vec<u8>, EtcdError>;
    /// The cluster's members.
    async fn members(&self) -> Result<Vec<EtcdMember>, EtcdError>;
    /// Adds a member without a vote, which is then to be started, and gives its id.
    async fn member_add_learner(&self, peer_url: &str) -> Result<u64, EtcdError>;
    /// Gives a learner its vote. Refused by etcd until it has caught up with the leader.
    async fn member_promote(&self, id: u64) -> Result<(), EtcdError>;
    /// Removes a member for good: a data directory of it can't join again.
    async fn member_remove(&self, id: u64) -> Result<(), EtcdError>;
}

/// Where and as whom to connect to PostgreSQL, as seen from the host.
#[derive(Debug, Clone)]
pub struct SqlTarget {
    /// An address, or the directory of a Unix socket.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Password; none for trust or peer.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// TLS, and by which files of the host. None: plain.
    pub tls: Option<TlsFiles>,
}

/// Rows as JSON objects, column name to value; types that JSON lacks are given as text.
pub type Rows = Vec<serde_json::Map<String, serde_json::Value>>;

/// One PostgreSQL connection.
#[async_trait]
pub trait Sql: Send + Sync {
    /// Runs one or more statements (simple query protocol) and gives the last one's rows, all values as text.
    /// The server's message with its SQLSTATE is the error's message.
    async fn query(&self, sql: &str) -> Result<Rows, HostError>;
}
