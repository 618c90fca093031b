//! etcd v3 over streams that a host dials.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use etcd_client::{
    AlarmAction, AlarmType, Compare, CompareOp, DeleteOptions, GetOptions, MemberAddOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};
use hyper_util::rt::TokioIo;
use tonic::Code;
use tonic::transport::{Endpoint, Uri};

use super::tls::Tls;
use super::{
    Condition, Etcd, EtcdAlarm, EtcdAlarmKind, EtcdEndpoint, EtcdError, EtcdKey, EtcdMember, EtcdStatus,
    LOOK_AGAIN, NoEtcd, SETTLES_WITHIN,
};
use crate::host::transport::{Failure, Transport};
use crate::host::{BoxStream, HostError};

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A client of one member; it dials when first asked, and anew when the connection was lost. Clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    transport: Arc<dyn Transport>,
    place: String,
    address: String,
    tls: Option<Tls>,
    client: etcd_client::Client,
}

impl Client {
    pub(crate) async fn new(
        transport: Arc<dyn Transport>,
        endpoint: &EtcdEndpoint,
        tls: Option<Tls>,
    ) -> Result<Self, HostError> {
        let (address, port) = (endpoint.address.clone(), endpoint.port);
        let place = format!("{address}:{port}");
        let (dialling, dialled, by) = (transport.clone(), address.clone(), tls.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (transport, address, tls) = (dialling.clone(), dialled.clone(), by.clone());
            async move {
                let stream = dial(&*transport, &address, port, tls.as_ref()).await;
                stream.map(TokioIo::new)
            }
        });
        // The address and TLS are the connector's; these only name scheme and authority.
        let origin = if tls.is_some() { "https://etcd" } else { "http://etcd" };
        let endpoint = Endpoint::from_static("http://etcd").origin(Uri::from_static(origin));
        let channel = endpoint.connect_with_connector_lazy(connector);
        let made = etcd_client::Client::from_channel(etcd_client::Channel::Tonic(channel), None).await;
        match made {
            Ok(client) => Ok(Self { transport, place, address, tls, client }),
            Err(error) => {
                let failure = Failure::Refused(format!("etcd at {place}: {error}"));
                Err(failure.into_error(transport.name(), transport.address()))
            }
        }
    }

    /// One call within the time limit; errors name the endpoint and what etcd said.
    async fn call<T>(
        &self,
        work: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, EtcdError> {
        let (kind, failure) = match tokio::time::timeout(CALL_LIMIT, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => self.failure(&error),
            Err(_) => {
                let limit = CALL_LIMIT.as_secs();
                let text = format!("etcd at {}: no answer within {limit} s", self.place);
                (NoEtcd::Silent, Failure::Lost(text))
            }
        };
        Err(EtcdError::new(kind, failure.into_error(self.transport.name(), self.transport.address())))
    }

    /// A call that changes nothing, and so may be repeated while etcd elects a leader.
    async fn look<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let began = Instant::now();
        loop {
            match self.call(work()).await {
                Err(EtcdError { kind: NoEtcd::NoQuorum, .. }) if began.elapsed() < SETTLES_WITHIN => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    /// Refused only where etcd certainly did nothing: it said no, or was never reached.
    ///
    /// `Unavailable` is no such answer: "request timed out" and "leader changed" carry it too.
    fn failure(&self, error: &etcd_client::Error) -> (NoEtcd, Failure) {
        let etcd_client::Error::GRpcStatus(status) = error else {
            return (NoEtcd::Refused, Failure::Refused(format!("etcd at {}: {error}", self.place)));
        };
        if let Some(failure) = dial_failure(status) {
            return failure;
        }
        let tls = self.tls.as_ref().and_then(|tls| tls.explain(status, &self.address));
        let by_tls = tls.is_some();
        let text = format!("etcd at {}: {}", self.place, tls.unwrap_or_else(|| cause(status)));
        let certain = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated
        );
        let kind = match status.code() {
            _ if by_tls => NoEtcd::Refused,
            Code::Unimplemented => NoEtcd::NotEtcd3,
            _ if certain => NoEtcd::Refused,
            // What tonic made of a broken connection has a source; what etcd sent has none.
            _ if std::error::Error::source(status).is_none() => NoEtcd::NoQuorum,
            _ => NoEtcd::Silent,
        };
        (kind, if certain { Failure::Refused(text) } else { Failure::Lost(text) })
    }
}

/// A stream to a member, with TLS where it is wanted.
async fn dial(
    transport: &dyn Transport,
    address: &str,
    port: u16,
    tls: Option<&Tls>,
) -> Result<BoxStream, Undialled> {
    let dialled = transport.dial(address, port).await;
    let stream = dialled.map_err(|failure| Undialled(NoEtcd::Silent, failure))?;
    let Some(tls) = tls else { return Ok(stream) };
    let agreed = tls.handshake(stream, address).await;
    agreed
        .map(|stream| Box::new(stream) as BoxStream)
        .map_err(|why| Undialled(NoEtcd::Refused, why.of(&format!("{address}:{port}"))))
}

/// A failure to dial, as tonic hands it on.
#[derive(Debug)]
struct Undialled(NoEtcd, Failure);

impl std::fmt::Display for Undialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.1)
    }
}

impl std::error::Error for Undialled {}

/// What went wrong before a connection stood, so that nothing was asked.
fn dial_failure(status: &tonic::Status) -> Option<(NoEtcd, Failure)> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(Undialled(kind, failure)) = error.downcast_ref() {
            let failure = match failure {
                Failure::Refused(message) => Failure::Refused(format!("etcd: {message}")),
                other => other.clone(),
            };
            return Some((*kind, failure));
        }
        source = error.source();
    }
    None
}

/// tonic says "transport error" and keeps what happened in the sources.
fn cause(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn held(succeeded: bool, changed: i64) -> Condition {
    if succeeded { Condition::Held(changed) } else { Condition::Broken }
}

#[async_trait]
impl Etcd for Client {
    async fn keys(&self, prefix: &str) -> Result<Vec<EtcdKey>, EtcdError> {
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Key, SortOrder::Ascend);
        let get = || {
            let (mut client, options) = (self.client.kv_client(), options.clone());
            async move { client.get(prefix, Some(options)).await }
        };
        let reply = self.look(get).await?;
        let key = |kv: &etcd_client::KeyValue| EtcdKey {
            key: text(kv.key()),
            value: text(kv.value()),
            mod_revision: kv.mod_revision(),
            lease: kv.lease(),
        };
        Ok(reply.kvs().iter().map(key).collect())
    }

    async fn delete_prefix(&self, prefix: &str, expected: &[EtcdKey]) -> Result<Condition, EtcdError> {
        let unchanged =
            |key: &EtcdKey| Compare::mod_revision(key.key.as_str(), CompareOp::Equal, key.mod_revision);
        let delete = TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix()));
        let txn = Txn::new().when(expected.iter().map(unchanged).collect::<Vec<_>>()).and_then([delete]);
        let mut client = self.client.kv_client();
        let reply = self.call(client.txn(txn)).await?;
        let deleted = reply.op_responses().into_iter().map(|reply| match reply {
            TxnOpResponse::Delete(deleted) => deleted.deleted(),
            _ => 0,
        });
        Ok(held(reply.succeeded(), deleted.sum()))
    }

    async fn put_if(
        &self,
        key: &str,
        value: &str,
        mod_revision: i64,
        forget: &[String],
    ) -> Result<Condition, EtcdError> {
        let put = TxnOp::put(key, value, None::<PutOptions>);
        let delete = forget.iter().map(|key| TxnOp::delete(key.as_str(), None));
        let then: Vec<TxnOp> = std::iter::once(put).chain(delete).collect();
        let txn =
            Txn::new().when([Compare::mod_revision(key, CompareOp::Equal, mod_revision)]).and_then(then);
        let mut client = self.client.kv_client();
        let reply = self.call(client.txn(txn)).await?;
        Ok(held(reply.succeeded(), 1))
    }

    async fn put_all_if_absent(
        &self,
        prefix: &str,
        keys: &[(String, String)],
    ) -> Result<Condition, EtcdError> {
        // Of a range without a key etcd compares what a key that isn't there has: 0.
        let none = Compare::create_revision(prefix, CompareOp::Equal, 0).with_prefix();
        let put =
            |(key, value): &(String, String)| TxnOp::put(key.as_str(), value.as_str(), None::<PutOptions>);
        let txn = Txn::new().when([none]).and_then(keys.iter().map(put).collect::<Vec<_>>());
        let mut client = self.client.kv_client();
        let reply = self.call(client.txn(txn)).await?;
        Ok(held(reply.succeeded(), i64::try_from(keys.len()).unwrap_or(i64::MAX)))
    }

    async fn status(&self) -> Result<EtcdStatus, EtcdError> {
        let mut client = self.client.maintenance_client();
        let reply = self.call(client.status()).await?;
        Ok(EtcdStatus {
            version: reply.version().to_owned(),
            leader: reply.leader(),
            member: reply.header().map_or(0, etcd_client::ResponseHeader::member_id),
            db_size: reply.db_size(),
            learner: reply.is_learner(),
            revision: reply.header().map_or(0, etcd_client::ResponseHeader::revision),
            errors: reply.errors().to_vec(),
        })
    }

    async fn alarms(&self) -> Result<Vec<EtcdAlarm>, EtcdError> {
        let mut client = self.client.maintenance_client();
        let reply = self.call(client.alarm(AlarmAction::Get, AlarmType::None, None)).await?;
        let alarm = |raised: &etcd_client::AlarmMember| EtcdAlarm {
            member: raised.member_id(),
            kind: match raised.alarm() {
                AlarmType::Nospace => EtcdAlarmKind::NoSpace,
                AlarmType::Corrupt => EtcdAlarmKind::Corrupt,
                AlarmType::None => EtcdAlarmKind::Other,
            },
        };
        Ok(reply.alarms().iter().map(alarm).collect())
    }

    async fn snapshot(&self, limit: u64) -> Result<Vec<u8>, EtcdError> {
        let mut client = self.client.maintenance_client();
        let mut stream = self.call(client.snapshot()).await?;
        let mut bytes = Vec::new();
        while let Some(part) = self.call(stream.message()).await? {
            bytes.extend_from_slice(part.blob());
            if bytes.len() as u64 > limit {
                let failure = Failure::Refused(format!(
                    "etcd at {}: its snapshot is larger than {} MiB",
                    self.place,
                    limit >> 20
                ));
                return Err(failure.into_error(self.transport.name(), self.transport.address()).into());
            }
        }
        Ok(bytes)
    }

    async fn members(&self) -> Result<Vec<EtcdMember>, EtcdError> {
        let mut client = self.client.cluster_client();
        let reply = self.call(client.member_list()).await?;
        let member = |member: &etcd_client::Member| EtcdMember {
            id: member.id(),
            name: member.name().to_owned(),
            peer_urls: member.peer_urls().to_vec(),
            client_urls: member.client_urls().to_vec(),
            learner: member.is_learner(),
        };
        Ok(reply.members().iter().map(member).collect())
    }

    async fn member_add_learner(&self, peer_url: &str) -> Result<u64, EtcdError> {
        let mut client = self.client.cluster_client();
        let options = MemberAddOptions::new().with_is_learner();
        let reply = self.call(client.member_add([peer_url.to_owned()], Some(options))).await?;
        Ok(reply.member().map_or(0, etcd_client::Member::id))
    }

    async fn member_promote(&self, id: u64) -> Result<(), EtcdError> {
        let mut client = self.client.cluster_client();
        self.call(client.member_promote(id)).await.map(drop)
    }

    async fn member_remove(&self, id: u64) -> Result<(), EtcdError> {
        let mut client = self.client.cluster_client();
        self.call(client.member_remove(id)).await.map(drop)
    }
}
