//! `certificate.leaf`: a private key on a host and a certificate for it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::authority::unreadable;
use super::compare::Difference;
use super::desk;
use super::issue::Serial;
use super::issue::{self, Key, Order};
use super::read::{Certificate, normal};
use super::rehearsed::{self, rehearsing};
use crate::host::{Content, HostChange, HostContext, Ownership};
use crate::system::content::{parse_mode, validate_path};

/// Certificates last no longer, in days.
pub(super) const DAYS_AT_MOST: u32 = 36_500;
/// What everybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// A private key on a host and a certificate for it, signed by a CA of the operator's.
///
/// A new certificate is issued where the one on the host can't be read, doesn't match its key, is signed by another
/// CA (with `replace_ca`; refused else), has other names, another usage, or ends within `renew_days`. The key is kept as long as it can be
/// read: a new one is made only where there is none, or where it isn't PKCS #8 in PEM without a passphrase. It is
/// ECDSA on P-256, made in flow's process and sent to its file on the host, nowhere else. Where only owner or
/// mode are wrong, those are set. Each file is replaced at once; the directories must be there. Whatever reads
/// the files has to be reloaded by a later step. The CA's key is read where something is to be issued, and stays
/// with the operator. Output: `cert`, `key` (paths), `sha256` (fingerprint), `not_after`, `names`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// The CA's certificate: a path on the operator's machine that begins with `/` or `~/`. Read anew at each look,
    /// not pinned with the run.
    pub ca_cert: String,
    /// The CA's key, likewise: PKCS #8 in PEM without a passphrase.
    pub ca_key: String,
    /// The subject's common name; PostgreSQL takes it for the user's name where clients show certificates.
    pub common_name: String,
    /// DNS names and IP addresses that it is for; at least one where servers show it.
    #[serde(default)]
    pub names: Vec<String>,
    /// Absolute path of the certificate on the host (0644).
    pub cert: String,
    /// Absolute path of its private key on the host.
    pub key: String,
    /// Absolute path on the host where the CA's certificate is put (0644); by default it isn't.
    #[serde(default)]
    pub ca: Option<String>,
    /// Owner of the files; of existing ones it is kept, new ones are root's.
    #[serde(default)]
    pub owner: Option<String>,
    /// Group; as with `owner`.
    #[serde(default)]
    pub group: Option<String>,
    /// Permission bits of the key, octal as text.
    #[serde(default = "private")]
    pub mode: String,
    /// How long a new certificate is valid, in days; never longer than its CA.
    #[serde(default = "a_year")]
    pub valid_days: u32,
    /// A new one is issued that many days before the end.
    #[serde(default = "a_month")]
    pub renew_days: u32,
    /// Who shows it: servers, clients, or both.
    #[serde(default)]
    pub usage: Usage,
    /// Replaces what another CA has signed. By default that is refused: others trust that CA, and would trust this
    /// host no more.
    #[serde(default)]
    pub replace_ca: bool,
}

/// Who shows a certificate (its extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// Servers.
    Server,
    /// Clients.
    Client,
    /// Both, as members of a cluster do that call each other.
    #[default]
    Both,
}

fn private() -> String {
    "0600".into()
}

fn a_year() -> u32 {
    365
}

fn a_month() -> u32 {
    30
}

/// `2026-12-09`
pub(super) fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

pub(super) fn days(number: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(number))
}

impl StepType for Leaf {
    const NAME: &'static str = "certificate.leaf";
    const NOT_UNDOABLE: &'static str = "the former key and certificate aren't kept";

    fn validate(&self) -> Result<(), String> {
        desk::path(&self.ca_cert)?;
        desk::path(&self.ca_key)?;
        let paths = [Some(&self.cert), Some(&self.key), self.ca.as_ref()];
        let paths: Vec<&String> = paths.into_iter().flatten().collect();
        for (place, path) in paths.iter().enumerate() {
            validate_path(path)?;
            if paths[..place].contains(path) {
                return Err(format!("`cert`, `key` and `ca` are different files, {path} is there twice"));
            }
        }
        parse_mode(Some(&self.mode))?;
        if self.common_name.is_empty() {
            return Err("`common_name` is empty".into());
        }
        if self.names.is_empty() && self.usage != Usage::Client {
            return Err("`names` is empty: clients look a server's name up there".into());
        }
        if let Some(wrong) = self.names.iter().find(|name| !is_name(name)) {
            return Err(format!("`{wrong}` is neither a DNS name nor an IP address"));
        }
        if self.valid_days == 0 || self.valid_days > DAYS_AT_MOST {
            return Err(format!("`valid_days` is from 1 to {DAYS_AT_MOST}"));
        }
        if self.renew_days >= self.valid_days {
            return Err("`renew_days` is less than `valid_days`: else a new one is renewed at once".into());
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte))
    };
    name.parse::<std::net::IpAddr>().is_ok() || name.split('.').all(label)
}

/// What a change records: what it is about in words that don't move with time. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    /// Why.
    reasons: Vec<String>,
    /// A new key is made.
    new_key: bool,
    /// A new certificate is issued.
    new_certificate: bool,
    /// SHA-256 of the certificate that is there.
    former: Option<String>,
}

/// The CA as it is at the operator.
pub(super) struct Authority {
    pub(super) pem: String,
    pub(super) certificate: Certificate,
}

impl Leaf {
    pub(super) fn ownership(&self, mode: u32) -> Ownership {
        Ownership { owner: self.owner.clone(), group: self.group.clone(), mode: Some(mode) }
    }

    pub(super) fn key_ownership(&self) -> Result<Ownership, StepError> {
        let mode = parse_mode(Some(&self.mode)).map_err(StepError::permanent)?;
        Ok(self.ownership(mode.unwrap_or(0o600)))
    }

    /// Each once, as it is compared.
    pub(super) fn wanted_names(&self) -> BTreeSet<String> {
        self.names.iter().map(|name| normal(name)).collect()
    }

    /// The CA's certificate; none where there is no file.
    fn authority(&self, cx: &Context) -> Result<Option<Authority>, StepError> {
        let path = desk::path(&self.ca_cert).map_err(StepError::permanent)?;
        let pem = if rehearsing(cx) { Some(rehearsed::authority(cx)?.0) } else { desk::read(&path)? };
        let Some(pem) = pem else { return Ok(None) };
        let wrong = |why: &str| StepError::permanent(format!("the CA's certificate {}: {why}", self.ca_cert));
        // It is copied to the host as it is.
        if pem.contains("PRIVATE KEY") {
            return Err(wrong("a private key is in the same file, and would be put on the host"));
        }
        let certificate = Certificate::from_pem(pem.as_bytes()).map_err(|why| wrong(&why))?;
        if !certificate.is_authority {
            return Err(wrong("it is no CA's"));
        }
        Ok(Some(Authority { pem, certificate }))
    }

    /// The CA's key.
    fn authority_key(&self, cx: &Context, authority: &Authority) -> Result<Key, StepError> {
        if rehearsing(cx) {
            return Ok(rehearsed::authority(cx)?.1);
        }
        let path = desk::path(&self.ca_key).map_err(StepError::permanent)?;
        let text = desk::read(&path)?.map(Secret::new).ok_or_else(|| {
            StepError::permanent(format!("there is no CA's key {} at the operator", self.ca_key))
        })?;
        let key = Key::from_pem(text.reveal().as_bytes())
            .ok_or_else(|| StepError::permanent(unreadable(&self.ca_key)))?;
        if key.belongs_to(&authority.certificate) {
            return Ok(key);
        }
        let (cert, key) = (&self.ca_cert, &self.ca_key);
        Err(StepError::permanent(format!(
            "the CA's certificate {cert} and its key {key} don't belong together"
        )))
    }

    fn new_key(&self, cx: &Context) -> Result<Key, StepError> {
        if rehearsing(cx) {
            rehearsed::key_of(cx, &self.key)
        } else {
            Key::generate().map_err(StepError::failed)
        }
    }

    /// Until when a certificate of now would be valid.
    fn end(&self, authority: &Authority, now: Timestamp) -> Timestamp {
        (now + days(self.valid_days)).min(authority.certificate.not_after)
    }

    fn change(&self, found: &Difference) -> Change {
        let verb = match (found.new_certificate, &found.certificate) {
            (true, Some(_)) => "renew",
            (true, None) => "issue",
            (false, _) => "change",
        };
        let (now, lasting): (Vec<_>, Vec<_>) = found.words.iter().cloned().unzip();
        Change::new(format!("{verb} {}: {}", self.cert, now.join(", "))).with_data(Recorded {
            reasons: lasting,
            new_key: found.new_key,
            new_certificate: found.new_certificate,
            former: found.certificate.as_ref().map(|certificate| certificate.fingerprint.clone()),
        })
    }

    fn output(&self, certificate: &Certificate) -> Output {
        Output::empty()
            .with("cert", &self.cert)
            .with("key", &self.key)
            .with("sha256", &certificate.fingerprint)
            .with("not_after", certificate.not_after)
            .with("names", &certificate.names)
    }

    /// A certificate in PEM, looked at as one that is found on a host.
    fn issue(
        &self,
        cx: &Context,
        key: &Key,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<(String, Certificate), StepError> {
        let order = Order {
            common_name: &self.common_name,
            names: self.wanted_names().into_iter().collect(),
            usage: self.usage,
            not_after: self.end(authority, now),
            serial: if rehearsing(cx) { rehearsed::serial(&self.common_name) } else { Serial::Random },
        };
        let pem = issue::leaf(order, key, &authority.pem, self.authority_key(cx, authority)?, now)
            .map_err(StepError::permanent)?;
        let certificate = Certificate::from_pem(pem.as_bytes()).map_err(StepError::permanent)?;
        if !certificate.is_signed_by(&authority.certificate) {
            let why = format!("the CA {} has a name that can't be written as it stands", self.ca_cert);
            return Err(StepError::permanent(why));
        }
        Ok((pem, certificate))
    }
}

impl Usage {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Both => "both",
        }
    }
}

#[async_trait]
impl Step for Leaf {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let Some(authority) = self.authority(cx)? else {
            let why = format!("there is no CA {} at the operator", self.ca_cert);
            return Ok(if cx.planning() {
                Check::Deferred(format!("{why} yet"))
            } else {
                Check::Refused(why)
            });
        };
        let now = rehearsed::now(cx);
        let host = cx.host().await?;
        let found = self.compare(&*host, &authority, now).await?;
        if let ([], Some(certificate)) = (found.words.as_slice(), &found.certificate) {
            return Ok(Check::Satisfied(self.output(certificate)));
        }
        if let Some(why) = found.other_ca.as_ref().filter(|_| !self.replace_ca) {
            return Ok(Check::Refused(format!(
                "{why}: bring the files of that CA to {} and {}, or set `replace_ca` to replace it on all hosts",
                self.ca_cert, self.ca_key
            )));
        }
        if found.new_certificate {
            if self.end(&authority, now) <= now + days(self.renew_days) {
                let end = day(authority.certificate.not_after);
                return Ok(Check::Refused(format!(
                    "the CA {} ends on {end}, less than `renew_days` ({}) from now: it is to be replaced first",
                    self.ca_cert, self.renew_days
                )));
            }
            if let Err(error) = self.authority_key(cx, &authority) {
                return Ok(Check::Refused(error.message));
            }
        }
        Ok(Check::Pending(self.change(&found)))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let authority = self.authority(cx)?.ok_or_else(|| {
            StepError::permanent(format!("there is no CA {} at the operator", self.ca_cert))
        })?;
        let now = rehearsed::now(cx);
        let host = cx.host().await?;
        // Looked at again, since an earlier try may have written a part: a key that it left is used.
        let found = self.compare(&*host, &authority, now).await?;
        for (path, ownership) in found.loose {
            host.change(cx.attempt(), &HostChange::SetOwnership { path, ownership }).await?;
        }
        let write = async |path: &str, text: String, ownership: Ownership| {
            let content = Content(text.into_bytes());
            let write = HostChange::WriteFile { path: path.to_owned(), content, ownership };
            host.change(cx.attempt(), &write).await
        };
        let certificate = match (found.certificate, found.key) {
            (Some(certificate), Some(_)) if !found.new_certificate => certificate,
            (_, key) => {
                let new = key.is_none();
                let key = key.map_or_else(|| self.new_key(cx), Ok)?;
                // Issued before anything is written: what can fail at the operator leaves the host as it is.
                let (pem, certificate) = self.issue(cx, &key, &authority, now)?;
                if new {
                    write(&self.key, key.to_pem(), self.key_ownership()?).await?;
                }
                write(&self.cert, pem, self.ownership(PUBLIC)).await?;
                certificate
            }
        };
        if let Some(path) = self.ca.as_ref().filter(|_| found.new_ca) {
            write(path, authority.pem.clone(), self.ownership(PUBLIC)).await?;
        }
        Ok(self.output(&certificate))
    }

    /// How many days are left moves all the time.
    fn invariant(&self, change: &Change) -> Value {
        change.data.clone()
    }
}
