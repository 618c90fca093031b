//! What of a key and its certificate is on a host, compared with what should be.

use flow_core::step::StepError;
use jiff::Timestamp;

use super::issue::Key;
use super::leaf::{Authority, Leaf, PUBLIC, Usage, day, days};
use super::read::Certificate;
use crate::host::{FileKind, Host, Ownership, Stat};
use crate::system::content::ownership_differences;

/// Longer files are no keys or certificates, in bytes.
pub(super) const LIMIT: u64 = 1 << 20;

/// A file on the host.
pub(super) struct Seen {
    stat: Stat,
    pub(super) bytes: Vec<u8>,
}

/// What is on the host, compared with what should be.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) new_key: bool,
    pub(super) new_certificate: bool,
    pub(super) new_ca: bool,
    /// Another CA has signed what is there, or is trusted there.
    pub(super) other_ca: Option<String>,
    /// Where owner, group or mode are to be set.
    pub(super) loose: Vec<(String, Ownership)>,
    /// What is told: as it is now, and without what moves with time.
    pub(super) words: Vec<(String, String)>,
    /// The certificate and the key that are there, where they can be read.
    pub(super) certificate: Option<Certificate>,
    pub(super) key: Option<Key>,
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
    pub(super) async fn compare(
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
                    let there = seen.as_ref().and_then(|seen| Certificate::from_pem(&seen.bytes).ok());
                    if there.is_some_and(|there| there.public_key != authority.certificate.public_key) {
                        found.other_ca.get_or_insert_with(|| format!("{path} is another CA's certificate"));
                    }
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
            found.other_ca = Some(format!("{} is signed by another CA", self.cert));
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
}

pub(super) async fn look(host: &dyn Host, path: &str) -> Result<Option<Seen>, StepError> {
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
