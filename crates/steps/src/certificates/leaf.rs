//! `certificate.leaf`: a private key on a host and a certificate for it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::authority::unreadable;
use super::desk;
use super::issue::{self, Key, Order};
use super::read::{Certificate, normal};
use crate::host::{Content, FileKind, Host, HostChange, HostContext, Ownership, Stat};
use crate::system::content::{ownership_differences, parse_mode, validate_path};

/// Certificates last no longer, in days.
pub(super) const DAYS_AT_MOST: u32 = 36_500;
/// Longer files are no keys or certificates, in bytes.
const LIMIT: u64 = 1 << 20;
/// What everybody may read.
const PUBLIC: u32 = 0o644;

/// A private key on a host and a certificate for it, signed by a CA of the operator's.
///
/// A new certificate is issued where the one on the host can't be read, is signed by another CA, doesn't match
/// its key, has other names, another usage, or ends within `renew_days`. The key is kept as long as it can be
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

fn days(number: u32) -> SignedDuration {
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
struct Authority {
    pem: String,
    certificate: Certificate,
}

/// A file on the host.
struct Seen {
    stat: Stat,
    bytes: Vec<u8>,
}

/// What is on the host, compared with what should be.
#[derive(Default)]
struct Difference {
    new_key: bool,
    new_certificate: bool,
    new_ca: bool,
    /// Where owner, group or mode are to be set.
    loose: Vec<(String, Ownership)>,
    /// What is told: as it is now, and without what moves with time.
    words: Vec<(String, String)>,
    /// The certificate and the key that are there, where they can be read.
    certificate: Option<Certificate>,
    key: Option<Key>,
}

impl Difference {
    fn say(&mut self, words: impl Into<String>) {
        let words = words.into();
        self.words.push((words.clone(), words));
    }

    /// A reason for a new certificate.
    fn issue(&mut self, words: impl Into<String>) {
        self.new_certificate = true;
        self.say(words);
    }
}

impl Leaf {
    fn ownership(&self, mode: u32) -> Ownership {
        Ownership { owner: self.owner.clone(), group: self.group.clone(), mode: Some(mode) }
    }

    fn key_ownership(&self) -> Result<Ownership, StepError> {
        let mode = parse_mode(Some(&self.mode)).map_err(StepError::permanent)?;
        Ok(self.ownership(mode.unwrap_or(0o600)))
    }

    /// Each once, as it is compared.
    fn wanted_names(&self) -> BTreeSet<String> {
        self.names.iter().map(|name| normal(name)).collect()
    }

    /// The CA's certificate; none where there is no file.
    fn authority(&self) -> Result<Option<Authority>, StepError> {
        let path = desk::path(&self.ca_cert).map_err(StepError::permanent)?;
        let Some(pem) = desk::read(&path)? else { return Ok(None) };
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
    fn authority_key(&self, authority: &Authority) -> Result<Key, StepError> {
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

    /// Until when a certificate of now would be valid.
    fn end(&self, authority: &Authority, now: Timestamp) -> Timestamp {
        (now + days(self.valid_days)).min(authority.certificate.not_after)
    }

    async fn compare(
        &self,
        host: &dyn Host,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Difference, StepError> {
        let ca = async {
            match &self.ca {
                Some(path) => look(host, path).await,
                None => Ok(None),
            }
        };
        let (key, cert, ca) = tokio::try_join!(look(host, &self.key), look(host, &self.cert), ca)?;
        let mut found = Difference::default();
        self.compare_key(&mut found, key.as_ref(), cert.is_some())?;
        self.compare_certificate(&mut found, cert.as_ref(), authority, now);
        if let Some(path) = &self.ca {
            match &ca {
                Some(seen) if seen.bytes == authority.pem.as_bytes() => {
                    loose(&mut found, path, self.ownership(PUBLIC), &seen.stat);
                }
                seen => {
                    found.new_ca = true;
                    let is = if seen.is_some() { "another CA's certificate" } else { "no CA's certificate" };
                    found.say(format!("{is} at {path}"));
                }
            }
        }
        Ok(found)
    }

    fn compare_key(
        &self,
        found: &mut Difference,
        seen: Option<&Seen>,
        certificate_is_there: bool,
    ) -> Result<(), StepError> {
        found.key = seen.and_then(|seen| Key::from_pem(&seen.bytes));
        match (seen, &found.key) {
            (Some(seen), Some(_)) => loose(found, &self.key, self.key_ownership()?, &seen.stat),
            (seen, _) => {
                found.new_key = true;
                found.new_certificate = true;
                match seen {
                    Some(_) => found.say(format!("the key {} can't be read", self.key)),
                    None if certificate_is_there => found.say(format!("no key at {}", self.key)),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn compare_certificate(
        &self,
        found: &mut Difference,
        seen: Option<&Seen>,
        authority: &Authority,
        now: Timestamp,
    ) {
        let Some(seen) = seen else { return found.issue("no certificate") };
        let certificate = match Certificate::from_pem(&seen.bytes) {
            Ok(certificate) => certificate,
            Err(why) => return found.issue(format!("the certificate: {why}")),
        };
        if !certificate.is_signed_by(&authority.certificate) {
            found.issue("signed by another CA");
        }
        if found.key.as_ref().is_some_and(|key| !key.belongs_to(&certificate)) {
            found.issue("doesn't match its key");
        }
        if certificate.common_name != self.common_name {
            found.issue(format!("common name: {} -> {}", certificate.common_name, self.common_name));
        }
        if let Some(names) = self.names_changed(&certificate) {
            found.issue(names);
        }
        if certificate.usage != Some(self.usage) {
            let is = certificate.usage.map_or("other", Usage::word);
            found.issue(format!("usage: {is} -> {}", self.usage.word()));
        }
        if certificate.not_after <= now + days(self.renew_days) {
            found.new_certificate = true;
            found.words.push(expiry(certificate.not_after, now));
        }
        if !found.new_certificate {
            loose(found, &self.cert, self.ownership(PUBLIC), &seen.stat);
        }
        found.certificate = Some(certificate);
    }

    /// `names: -198.18.0.11 +198.18.0.12`
    fn names_changed(&self, certificate: &Certificate) -> Option<String> {
        let wanted = self.wanted_names();
        let gone = certificate.names.difference(&wanted).map(|name| format!("-{name}"));
        let new = wanted.difference(&certificate.names).map(|name| format!("+{name}"));
        let changed: Vec<String> = gone.chain(new).collect();
        (!changed.is_empty()).then(|| format!("names: {}", changed.join(" ")))
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
        key: &Key,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<(String, Certificate), StepError> {
        let order = Order {
            common_name: &self.common_name,
            names: self.wanted_names().into_iter().collect(),
            usage: self.usage,
            not_after: self.end(authority, now),
        };
        let pem = issue::leaf(order, key, &authority.pem, self.authority_key(authority)?, now)
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
    fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Both => "both",
        }
    }
}

async fn look(host: &dyn Host, path: &str) -> Result<Option<Seen>, StepError> {
    let Some(stat) = host.stat(path).await? else { return Ok(None) };
    if stat.kind != FileKind::File {
        return Err(StepError::permanent(format!("{path} is there and is no file")));
    }
    Ok(host.read(path, LIMIT).await?.map(|bytes| Seen { stat, bytes }))
}

fn loose(found: &mut Difference, path: &str, wanted: Ownership, is: &Stat) {
    let differences = ownership_differences(&wanted, is);
    if !differences.is_empty() {
        found.say(format!("{} of {path}", differences.join(", ")));
        found.loose.push((path.to_owned(), wanted));
    }
}

/// When it ends, with how long that is from now, and without.
fn expiry(not_after: Timestamp, now: Timestamp) -> (String, String) {
    let left = not_after.duration_since(now).as_hours() / 24;
    let day = day(not_after);
    if not_after <= now {
        return (format!("expired on {day} ({} days ago)", -left), format!("expired on {day}"));
    }
    (format!("expires on {day} (in {left} days)"), format!("expires on {day}"))
}

#[async_trait]
impl Step for Leaf {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let Some(authority) = self.authority()? else {
            let why = format!("there is no CA {} at the operator", self.ca_cert);
            return Ok(if cx.planning() {
                Check::Deferred(format!("{why} yet"))
            } else {
                Check::Refused(why)
            });
        };
        let now = Timestamp::now();
        let host = cx.host().await?;
        let found = self.compare(&*host, &authority, now).await?;
        if let ([], Some(certificate)) = (found.words.as_slice(), &found.certificate) {
            return Ok(Check::Satisfied(self.output(certificate)));
        }
        if found.new_certificate {
            if self.end(&authority, now) <= now + days(self.renew_days) {
                let end = day(authority.certificate.not_after);
                return Ok(Check::Refused(format!(
                    "the CA {} ends on {end}, less than `renew_days` ({}) from now: it is to be replaced first",
                    self.ca_cert, self.renew_days
                )));
            }
            if let Err(error) = self.authority_key(&authority) {
                return Ok(Check::Refused(error.message));
            }
        }
        Ok(Check::Pending(self.change(&found)))
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let authority = self.authority()?.ok_or_else(|| {
            StepError::permanent(format!("there is no CA {} at the operator", self.ca_cert))
        })?;
        let now = Timestamp::now();
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
                let key = key.map_or_else(Key::generate, Ok).map_err(StepError::failed)?;
                // Issued before anything is written: what can fail at the operator leaves the host as it is.
                let (pem, certificate) = self.issue(&key, &authority, now)?;
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
