//! `certificate.valid`: a certificate that is there is one that services and clients will take.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::compare::{LIMIT, look};
use super::issue::Key;
use super::leaf::{DAYS_AT_MOST, day, days};
use super::read::{Certificate, normal};
use super::rehearsed;
use crate::host::{Host, HostContext};
use crate::system::content::validate_path;

/// Proves that a certificate on a host is signed by a CA, fits its key, is for these names, and lasts long enough.
///
/// Whoever made it. Refused else, with all that is wrong. Changes nothing. Output: `sha256` (fingerprint),
/// `not_after`, `names`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Valid {
    /// Absolute path of the certificate on the host; the first one in the file is looked at.
    pub cert: String,
    /// Absolute path of its private key. By default it isn't looked at.
    #[serde(default)]
    pub key: Option<String>,
    /// Absolute path of the certificate of the CA that must have signed it. By default any may have.
    #[serde(default)]
    pub ca: Option<String>,
    /// DNS names and IP addresses that it must be for; it may be for more.
    #[serde(default)]
    pub names: Vec<String>,
    /// How many days it must last from now on.
    #[serde(default = "two_weeks")]
    pub days: u32,
}

fn two_weeks() -> u32 {
    14
}

impl StepType for Valid {
    const NAME: &'static str = "certificate.valid";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        [Some(&self.cert), self.key.as_ref(), self.ca.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|path| validate_path(path))?;
        if self.days > DAYS_AT_MOST {
            return Err(format!("`days` is at most {DAYS_AT_MOST}"));
        }
        Ok(())
    }
}

impl Valid {
    async fn certificate(host: &dyn Host, path: &str) -> Result<Result<Certificate, String>, StepError> {
        let Some(seen) = look(host, path).await? else { return Ok(Err(format!("there is no {path}"))) };
        Ok(Certificate::from_pem(&seen.bytes).map_err(|why| format!("{path}: {why}")))
    }

    /// All that is wrong with it.
    async fn wrong(
        &self,
        host: &dyn Host,
        found: &Certificate,
        now: Timestamp,
    ) -> Result<Vec<String>, StepError> {
        let (cert, mut wrong) = (&self.cert, Vec::new());
        if let Some(path) = &self.key {
            match look(host, path).await?.map(|seen| Key::from_pem(&seen.bytes)) {
                None => wrong.push(format!("there is no {path}")),
                Some(None) => wrong.push(super::authority::unreadable(path)),
                Some(Some(key)) if !key.belongs_to(found) => {
                    wrong.push(format!("{cert} doesn't match its key {path}"));
                }
                Some(Some(_)) => {}
            }
        }
        if let Some(path) = &self.ca {
            match self.authority(host, path).await? {
                Err(why) => wrong.push(why),
                Ok(authorities) if !authorities.iter().any(|authority| found.is_signed_by(authority)) => {
                    wrong.push(format!("{cert} is not signed by the CA in {path}"));
                }
                Ok(_) => {}
            }
        }
        let missing: Vec<String> =
            self.names.iter().map(|name| normal(name)).filter(|name| !found.is_for(name)).collect();
        if !missing.is_empty() {
            wrong.push(format!("{cert} is not for {}", missing.join(", ")));
        }
        if found.not_before > now {
            wrong.push(format!(
                "{cert} is not valid before {}: is the host's clock right?",
                day(found.not_before)
            ));
        }
        if found.not_after <= now {
            wrong.push(format!("{cert} has expired on {}", day(found.not_after)));
        } else if found.not_after <= now + days(self.days) {
            let end = day(found.not_after);
            wrong.push(format!("{cert} expires on {end}, less than {} days from now", self.days));
        }
        Ok(wrong)
    }

    /// All certificates of the CA's file.
    async fn authority(
        &self,
        host: &dyn Host,
        path: &str,
    ) -> Result<Result<Vec<Certificate>, String>, StepError> {
        let Some(bytes) = host.read(path, LIMIT).await? else {
            return Ok(Err(format!("there is no {path}")));
        };
        Ok(Certificate::all_from_pem(&bytes).map_err(|why| format!("{path}: {why}")))
    }
}

#[async_trait]
impl Step for Valid {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let found = match Self::certificate(&*host, &self.cert).await? {
            Err(why) if cx.planning() => return Ok(Check::Deferred(why)),
            Err(why) => return Ok(Check::Refused(why)),
            Ok(found) => found,
        };
        let wrong = self.wrong(&*host, &found, rehearsed::now(cx)).await?;
        if !wrong.is_empty() {
            return Ok(Check::Refused(wrong.join("; ")));
        }
        let output = Output::empty()
            .with("sha256", &found.fingerprint)
            .with("not_after", found.not_after)
            .with("names", &found.names);
        Ok(Check::Satisfied(output))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::leaf_tests::{CA, CERT, Desk, KEY};
    use super::*;
    use crate::testing::{refused, satisfied};
    use serde_json::{Value, json};

    async fn look(desk: &Desk, other: &Value) -> Check {
        let mut with = json!({ "cert": CERT, "key": KEY, "ca": CA, "names": ["PATRONI1", "198.18.0.11"] });
        with.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        let step: Valid = serde_json::from_value(with).unwrap();
        step.check(&desk.cx()).await.unwrap()
    }

    #[tokio::test]
    async fn a_good_one_is_taken_and_all_that_is_wrong_with_another_is_told() {
        let desk = Desk::new().await;
        assert_eq!(refused(look(&desk, &json!({})).await), format!("there is no {CERT}"));
        desk.establish(&desk.step(&json!({}))).await;
        satisfied(look(&desk, &json!({})).await);
        let why = refused(look(&desk, &json!({ "names": ["db.example", "patroni1"], "days": 400 })).await);
        assert!(why.starts_with(&format!("{CERT} is not for db.example; {CERT} expires on ")), "{why}");
        let other = Key::generate().unwrap().to_pem();
        desk.write(KEY, &other, 0o600).await;
        assert_eq!(refused(look(&desk, &json!({})).await), format!("{CERT} doesn't match its key {KEY}"));
        let why = refused(look(&desk, &json!({ "ca": CERT, "key": null })).await);
        assert_eq!(why, format!("{CERT} is not signed by the CA in {CERT}"));
    }
}
