//! `certificate.authority`: a certificate authority on the operator's machine.

use std::path::PathBuf;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use super::desk;
use super::issue::{self, Key, Serial};
use super::leaf::{DAYS_AT_MOST, day};
use super::read::Certificate;
use super::rehearsed::{self, rehearsing};

/// A certificate authority on the operator's machine, made where there is none.
///
/// For a step without `hosts`. What is there is never replaced: a key without its certificate, a certificate
/// without its key, two that don't belong together and an expired one are refused. The key is ECDSA on P-256,
/// in a file that only its owner may read (0600); whoever has it can make certificates that the hosts trust, so
/// keep it as you keep a password. A folder that isn't there is made (0700). `flow test` takes one of its own, and
/// touches no file. Output: `cert`, `pem` (the certificate itself, which is public), `sha256` (fingerprint),
/// `not_after`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The CA's certificate: a path on the operator's machine that begins with `/` or `~/`.
    pub ca_cert: String,
    /// The CA's key, likewise.
    pub ca_key: String,
    /// The name of a new CA, such as `demo CA`. That of an existing one is not compared.
    pub common_name: String,
    /// How long a new CA is valid, in days.
    #[serde(default = "ten_years")]
    pub valid_days: u32,
}

fn ten_years() -> u32 {
    3650
}

impl StepType for Authority {
    const NAME: &'static str = "certificate.authority";
    const NOT_UNDOABLE: &'static str =
        "certificates that it has signed may be in use; its files are on the operator's machine";

    fn validate(&self) -> Result<(), String> {
        let (cert, key) = (desk::path(&self.ca_cert)?, desk::path(&self.ca_key)?);
        if cert == key {
            return Err("`ca_cert` and `ca_key` are the same file".into());
        }
        if self.common_name.is_empty() {
            return Err("`common_name` is empty".into());
        }
        if self.valid_days == 0 || self.valid_days > DAYS_AT_MOST {
            return Err(format!("`valid_days` is from 1 to {DAYS_AT_MOST}"));
        }
        Ok(())
    }
}

/// What is at the places of the two files.
enum Found {
    Nothing,
    /// The key has its name, the certificate doesn't yet: it was interrupted.
    Half,
    Whole(Box<Certificate>),
    Wrong(String),
}

impl Authority {
    fn paths(&self) -> Result<(PathBuf, PathBuf), StepError> {
        let path = |text| desk::path(text).map_err(StepError::permanent);
        Ok((path(&self.ca_cert)?, path(&self.ca_key)?))
    }

    fn look(&self, now: Timestamp) -> Result<Found, StepError> {
        let (cert_path, key_path) = self.paths()?;
        let (cert, key) = (&self.ca_cert, &self.ca_key);
        let key_text = desk::read(&key_path)?.map(Secret::new);
        let found_key = key_text.as_ref().map(|text| Key::from_pem(text.reveal().as_bytes()));
        let found_key = match (desk::read(&cert_path)?, found_key) {
            (None, None) => return Ok(Found::Nothing),
            (None, Some(key_found)) => {
                let begun = desk::read(&desk::beside(&cert_path))?;
                let begun = begun.and_then(|text| Certificate::from_pem(text.as_bytes()).ok());
                return Ok(match (key_found, begun) {
                    (Some(key), Some(begun)) if key.belongs_to(&begun) => Found::Half,
                    _ => Found::Wrong(format!("the CA's key {key} is there, its certificate {cert} is not")),
                });
            }
            (Some(_), None) => {
                return Ok(Found::Wrong(format!(
                    "the CA's certificate {cert} is there, its key {key} is not"
                )));
            }
            (Some(text), Some(key_found)) => match Certificate::from_pem(text.as_bytes()) {
                Err(why) => return Ok(Found::Wrong(format!("the CA's certificate {cert}: {why}"))),
                Ok(certificate) => (certificate, key_found),
            },
        };
        Ok(match found_key {
            (_, None) => Found::Wrong(unreadable(key)),
            (certificate, Some(private)) if !private.belongs_to(&certificate) => {
                Found::Wrong(format!("the CA's certificate {cert} and its key {key} don't belong together"))
            }
            (certificate, _) if !certificate.is_authority => {
                Found::Wrong(format!("{cert} is the certificate of no CA"))
            }
            (certificate, _) if certificate.not_after <= now => {
                Found::Wrong(format!("the CA {cert} has expired on {}", day(certificate.not_after)))
            }
            (certificate, _) => Found::Whole(Box::new(certificate)),
        })
    }

    fn output(&self, certificate: &Certificate) -> Output {
        Output::empty()
            .with("cert", &self.ca_cert)
            .with("pem", certificate.to_pem())
            .with("sha256", &certificate.fingerprint)
            .with("not_after", certificate.not_after)
    }

    fn make(&self, now: Timestamp) -> Result<(), StepError> {
        let (cert_path, key_path) = self.paths()?;
        let key = Key::generate().map_err(StepError::failed)?;
        let not_after = now + SignedDuration::from_hours(24 * i64::from(self.valid_days));
        let certificate = issue::authority(&self.common_name, &key, now, not_after, &Serial::Random)
            .map_err(StepError::failed)?;
        for path in [&cert_path, &key_path] {
            desk::make_folder_of(path)?;
        }
        // Both are whole before either has its name; the certificate left beside its place is what a
        // later try goes on with.
        desk::write_beside(&cert_path, &certificate, 0o644)?;
        desk::write_beside(&key_path, Secret::new(key.to_pem()).reveal(), 0o600)?;
        desk::put(&key_path)?;
        desk::put(&cert_path)
    }
}

/// What is said of a private key that can't be used.
pub(super) fn unreadable(path: &str) -> String {
    format!(
        "the key {path} can't be read: it must be PKCS #8 in PEM without a passphrase \
         (`openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW` makes such a file)"
    )
}

#[async_trait]
impl Step for Authority {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        if let Some(host) = cx.inventory_host() {
            let why = format!("a CA is made at the operator, not for {}: leave out `hosts`", host.name);
            return Ok(Check::Refused(why));
        }
        if rehearsing(cx) {
            let (pem, _) = rehearsed::authority(cx)?;
            let certificate = Certificate::from_pem(pem.as_bytes()).map_err(StepError::failed)?;
            return Ok(Check::Satisfied(self.output(&certificate)));
        }
        Ok(match self.look(Timestamp::now())? {
            Found::Nothing => {
                Check::Pending(Change::new(format!("make the CA \"{}\": {}", self.common_name, self.ca_cert)))
            }
            Found::Half => Check::Pending(Change::new(format!(
                "put the CA's certificate in its place: {}",
                self.ca_cert
            ))),
            Found::Whole(certificate) => Check::Satisfied(self.output(&certificate)),
            Found::Wrong(why) => Check::Refused(why),
        })
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let now = Timestamp::now();
        match self.look(now)? {
            Found::Nothing => self.make(now)?,
            Found::Half => desk::put(&self.paths()?.0)?,
            Found::Whole(_) => {}
            Found::Wrong(why) => return Err(StepError::permanent(why)),
        }
        match self.look(now)? {
            Found::Whole(certificate) => Ok(self.output(&certificate)),
            Found::Wrong(why) => Err(StepError::permanent(why)),
            _ => Err(StepError::failed(format!("the CA {} is not there", self.ca_cert))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, operator, operator_rehearsing, pending, refused, satisfied};
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn step(folder: &Path) -> Authority {
        let path = |name: &str| folder.join(name).display().to_string();
        serde_json::from_value(json!({
            "ca_cert": path("ca.crt"), "ca_key": path("ca.key"), "common_name": "demo CA",
        }))
        .unwrap()
    }

    async fn establish(step: &Authority) -> Change {
        let cx = operator();
        let change = pending(step.check(&cx).await.unwrap());
        step.apply(&cx, &change).await.unwrap();
        satisfied(step.check(&cx).await.unwrap());
        change
    }

    #[tokio::test]
    async fn an_authority_is_made_once_with_a_key_that_only_its_owner_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let step = step(folder.path());
        let change = establish(&step).await;
        assert_eq!(change.summary, format!("make the CA \"demo CA\": {}", step.ca_cert));
        let key = fs::metadata(&step.ca_key).unwrap();
        assert_eq!(key.permissions().mode() & 0o7777, 0o600);
        let before = (fs::read(&step.ca_cert).unwrap(), fs::read(&step.ca_key).unwrap());
        step.apply(&operator(), &change).await.unwrap();
        let other = Authority { common_name: "other".into(), ..step.clone() };
        satisfied(other.check(&operator()).await.unwrap());
        assert_eq!(before, (fs::read(&step.ca_cert).unwrap(), fs::read(&step.ca_key).unwrap()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside them");
    }

    #[tokio::test]
    async fn the_authoritys_key_is_in_no_change_and_no_output() {
        let folder = tempfile::tempdir().unwrap();
        let step = step(folder.path());
        let change = pending(step.check(&operator()).await.unwrap());
        let output = step.apply(&operator(), &change).await.unwrap();
        let said = format!("{change:?} {output:?} {step:?}");
        let key = fs::read_to_string(&step.ca_key).unwrap();
        for line in key.lines().filter(|line| !line.is_empty()) {
            assert!(!said.contains(line), "{said}");
        }
    }

    #[tokio::test]
    async fn one_file_without_the_other_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let step = step(folder.path());
        establish(&step).await;
        let key = fs::read(&step.ca_key).unwrap();
        fs::remove_file(&step.ca_key).unwrap();
        let why = refused(step.check(&operator()).await.unwrap());
        assert_eq!(
            why,
            format!("the CA's certificate {} is there, its key {} is not", step.ca_cert, step.ca_key)
        );
        fs::write(&step.ca_key, &key).unwrap();
        fs::remove_file(&step.ca_cert).unwrap();
        let why = refused(step.check(&operator()).await.unwrap());
        assert_eq!(
            why,
            format!("the CA's key {} is there, its certificate {} is not", step.ca_key, step.ca_cert)
        );
        assert!(step.apply(&operator(), &Change::default()).await.unwrap_err().permanent);
        assert_eq!(fs::read(&step.ca_key).unwrap(), key, "it is left as it is");
    }

    #[tokio::test]
    async fn two_files_that_do_not_belong_together_are_refused() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (step, other) = (step(folder.path()), step(other.path()));
        establish(&step).await;
        establish(&other).await;
        fs::copy(&other.ca_key, &step.ca_key).unwrap();
        let why = refused(step.check(&operator()).await.unwrap());
        assert!(why.ends_with("don't belong together"), "{why}");
    }

    #[tokio::test]
    async fn an_expired_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let step = step(folder.path());
        let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        Authority { valid_days: DAYS_AT_MOST, ..step.clone() }.make(past).unwrap();
        satisfied(step.check(&operator()).await.unwrap());
        fs::remove_file(&step.ca_key).unwrap();
        fs::remove_file(&step.ca_cert).unwrap();
        Authority { valid_days: 30, ..step.clone() }.make(past).unwrap();
        let why = refused(step.check(&operator()).await.unwrap());
        assert_eq!(why, format!("the CA {} has expired on 2020-01-31", step.ca_cert));
    }

    #[tokio::test]
    async fn one_that_was_interrupted_between_its_files_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let step = step(folder.path());
        establish(&step).await;
        let key = fs::read(&step.ca_key).unwrap();
        fs::rename(&step.ca_cert, desk::beside(Path::new(&step.ca_cert))).unwrap();
        let change = establish(&step).await;
        assert!(change.summary.starts_with("put the CA's certificate in its place"), "{}", change.summary);
        assert_eq!(fs::read(&step.ca_key).unwrap(), key);
    }

    #[tokio::test]
    async fn one_for_each_host_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::bare().await;
        let why = refused(step(folder.path()).check(&lab.on("patroni1")).await.unwrap());
        assert!(why.ends_with("leave out `hosts`"), "{why}");
    }

    #[tokio::test]
    async fn a_rehearsal_has_a_ca_of_its_own_and_touches_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let step = step(folder.path());
        let output = satisfied(step.check(&operator_rehearsing()).await.unwrap());
        assert_eq!(
            output,
            satisfied(step.check(&operator_rehearsing()).await.unwrap()),
            "the same each time"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_folder_is_made_for_its_owner_alone_and_the_output_is_the_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let step = step(&folder.path().join("flow/demo"));
        establish(&step).await;
        let made = fs::metadata(folder.path().join("flow/demo")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o700);
        let output = satisfied(step.check(&operator()).await.unwrap());
        assert_eq!(output.0["pem"], fs::read_to_string(&step.ca_cert).unwrap());
    }
}
