//! Keys and certificates on simulated hosts.

use std::fs;
use std::path::Path;

use flow_core::step::{Change, Check, Context, Outcome, Output, Step, StepError, StepType};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::issue::Key;
use super::read::Certificate;
use super::{Authority, Leaf};
use crate::host::sim::{Fault, FaultKind};
use crate::host::{Content, HostChange, HostContext, Ownership};
use crate::testing::{Lab, operator, pending, refused, satisfied};

pub(super) const KEY: &str = "/etc/pg.key";
pub(super) const CERT: &str = "/etc/pg.crt";
pub(super) const CA: &str = "/etc/ca.crt";

/// An authority at the operator, and hosts.
pub(super) struct Desk {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Desk {
    pub(super) async fn new() -> Self {
        let desk = Self { lab: Lab::bare().await, folder: tempfile::tempdir().unwrap() };
        desk.make_authority("demo CA", 3650).await;
        desk
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn make_authority(&self, common_name: &str, valid_days: u32) {
        let (cert, key) = (self.path("ca.crt"), self.path("ca.key"));
        for path in [&cert, &key] {
            let _ = fs::remove_file(path);
        }
        let step = Authority { ca_cert: cert, ca_key: key, common_name: common_name.into(), valid_days };
        let change = pending(step.check(&operator()).await.unwrap());
        step.apply(&operator(), &change).await.unwrap();
    }

    /// A step with other arguments than usual.
    pub(super) fn step(&self, other: &Value) -> Leaf {
        let step: Leaf = serde_json::from_value(self.arguments(other)).unwrap();
        step.validate().unwrap();
        step
    }

    fn arguments(&self, other: &Value) -> Value {
        let mut with = json!({
            "ca_cert": self.path("ca.crt"), "ca_key": self.path("ca.key"), "common_name": "patroni1",
            "names": ["patroni1", "198.18.0.11"], "cert": CERT, "key": KEY, "ca": CA,
        });
        with.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        with
    }

    pub(super) fn cx(&self) -> Context {
        self.lab.on("patroni1")
    }

    pub(super) async fn establish(&self, step: &Leaf) -> (Change, Output) {
        self.lab.establish(step, &self.cx()).await
    }

    async fn change(&self, step: &Leaf) -> Change {
        pending(step.check(&self.cx()).await.unwrap())
    }

    fn text(&self, path: &str) -> String {
        self.lab.text("patroni1", path).unwrap()
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.text(CERT).as_bytes()).unwrap()
    }

    pub(super) async fn write(&self, path: &str, text: &str, mode: u32) {
        let ownership = Ownership { mode: Some(mode), ..Ownership::default() };
        let write = HostChange::WriteFile {
            path: path.into(),
            content: Content(text.as_bytes().to_vec()),
            ownership,
        };
        self.cx().host().await.unwrap().change(self.cx().attempt(), &write).await.unwrap();
    }

    async fn mode(&self, path: &str) -> u32 {
        self.cx().host().await.unwrap().stat(path).await.unwrap().unwrap().mode
    }

    fn assert_pair(&self) {
        let key = Key::from_pem(self.text(KEY).as_bytes()).unwrap();
        assert!(key.belongs_to(&self.certificate()));
        let authority = Certificate::from_pem(&fs::read(self.path("ca.crt")).unwrap()).unwrap();
        assert!(self.certificate().is_signed_by(&authority));
    }
}

fn in_days(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

#[tokio::test]
async fn a_key_and_its_certificate_are_made_and_a_second_run_changes_nothing() {
    let desk = Desk::new().await;
    let step = desk.step(&json!({}));
    let (change, output) = desk.establish(&step).await;
    assert_eq!(change.summary, format!("issue {CERT}: no certificate, no CA's certificate at {CA}"));
    desk.assert_pair();
    assert_eq!((desk.mode(KEY).await, desk.mode(CERT).await, desk.mode(CA).await), (0o600, 0o644, 0o644));
    assert_eq!(desk.text(CA), fs::read_to_string(desk.path("ca.crt")).unwrap());
    let certificate = desk.certificate();
    assert!(certificate.not_after > in_days(364) && certificate.not_after < in_days(366));
    assert_eq!(output.0["sha256"], certificate.fingerprint.as_str());
    assert_eq!(output.0["names"], json!(["198.18.0.11", "patroni1"]));

    let effects = desk.lab.effects();
    assert_eq!(satisfied(step.check(&desk.cx()).await.unwrap()), output);
    assert_eq!(step.apply(&desk.cx(), &change).await.unwrap(), output);
    assert_eq!(desk.lab.effects(), effects);
}

#[tokio::test]
async fn names_that_mean_the_same_are_the_same() {
    let desk = Desk::new().await;
    desk.establish(&desk.step(&json!({ "names": ["Patroni1", "FD00:0::1"] }))).await;
    let other = desk.step(&json!({ "names": ["fd00::1", "patroni1", "patroni1"] }));
    satisfied(other.check(&desk.cx()).await.unwrap());
}

#[tokio::test]
async fn other_names_and_another_usage_want_a_new_certificate_for_the_same_key() {
    let desk = Desk::new().await;
    desk.establish(&desk.step(&json!({}))).await;
    let key = desk.text(KEY);
    let other = desk.step(&json!({
        "names": ["patroni1", "198.18.0.12"], "common_name": "pg", "usage": "server",
    }));
    let (change, _) = desk.establish(&other).await;
    assert_eq!(
        change.summary,
        format!(
            "renew {CERT}: common name: patroni1 -> pg, names: -198.18.0.11 +198.18.0.12, usage: both -> server"
        )
    );
    assert_eq!(desk.text(KEY), key);
    desk.assert_pair();
}

#[tokio::test]
async fn it_is_renewed_before_it_ends_and_not_sooner() {
    let desk = Desk::new().await;
    desk.establish(&desk.step(&json!({ "valid_days": 31, "renew_days": 5 }))).await;
    satisfied(desk.step(&json!({ "renew_days": 30 })).check(&desk.cx()).await.unwrap());
    let first = desk.certificate();

    let step = desk.step(&json!({ "renew_days": 31 }));
    let change = desk.change(&step).await;
    let day = first.not_after.strftime("%Y-%m-%d");
    assert_eq!(change.summary, format!("renew {CERT}: expires on {day} (in 30 days)"));
    assert!(!step.invariant(&change).to_string().contains("days"), "a saved plan holds tomorrow too");
    assert!(step.invariant(&change).to_string().contains(&format!("expires on {day}")));
    desk.establish(&step).await;
    desk.assert_pair();
    assert_ne!(desk.certificate().serial(), first.serial());
}

#[tokio::test]
async fn one_of_another_authority_is_replaced_on_purpose_only_and_so_is_that_authoritys_own() {
    let desk = Desk::new().await;
    let step = desk.step(&json!({}));
    desk.establish(&step).await;
    // The same name, another key.
    desk.make_authority("demo CA", 3650).await;
    let before = desk.text(CERT);
    let why = refused(step.check(&desk.cx()).await.unwrap());
    assert!(
        why.starts_with(&format!("{CERT} is signed by another CA: bring the files of that CA to")),
        "{why}"
    );
    assert_eq!(desk.text(CERT), before);
    let step = desk.step(&json!({ "replace_ca": true }));
    let (change, _) = desk.establish(&step).await;
    assert_eq!(
        change.summary,
        format!("renew {CERT}: signed by another CA, another CA's certificate at {CA}")
    );
    desk.assert_pair();
}

#[tokio::test]
async fn one_that_does_not_match_its_key_is_replaced_and_the_key_stays() {
    let desk = Desk::new().await;
    let step = desk.step(&json!({}));
    desk.establish(&step).await;
    let other = Key::generate().unwrap().to_pem();
    desk.write(KEY, &other, 0o600).await;
    let (change, _) = desk.establish(&step).await;
    assert_eq!(change.summary, format!("renew {CERT}: doesn't match its key"));
    assert_eq!(desk.text(KEY), other);
    desk.assert_pair();
}

#[tokio::test]
async fn a_key_that_is_missing_or_broken_is_made_anew_with_a_certificate() {
    let desk = Desk::new().await;
    let step = desk.step(&json!({}));
    desk.establish(&step).await;
    let half = desk.text(KEY)[..60].to_owned();
    desk.write(KEY, &half, 0o644).await;
    let (change, _) = desk.establish(&step).await;
    assert_eq!(change.summary, format!("renew {CERT}: the key {KEY} can't be read"));
    assert_eq!(desk.mode(KEY).await, 0o600);
    desk.assert_pair();

    let remove = HostChange::RemoveFile { path: KEY.into() };
    desk.cx().host().await.unwrap().change(desk.cx().attempt(), &remove).await.unwrap();
    let (change, _) = desk.establish(&step).await;
    assert_eq!(change.summary, format!("renew {CERT}: no key at {KEY}"));
    desk.assert_pair();
}

#[tokio::test]
async fn a_loosened_mode_is_mended_with_the_same_certificate() {
    let desk = Desk::new().await;
    let step = desk.step(&json!({}));
    desk.establish(&step).await;
    let before = (desk.text(KEY), desk.text(CERT));
    desk.write(KEY, &before.0, 0o644).await;
    // The CA's key isn't needed for that.
    fs::remove_file(desk.path("ca.key")).unwrap();
    let (change, _) = desk.establish(&step).await;
    assert_eq!(change.summary, format!("change {CERT}: mode 0644 -> 0600 of {KEY}"));
    assert_eq!((desk.text(KEY), desk.text(CERT)), before);
    assert_eq!(desk.mode(KEY).await, 0o600);
}

#[tokio::test]
async fn interrupted_after_any_of_its_files_it_is_gone_on_with_to_a_matching_pair() {
    for path in [KEY, CERT, CA] {
        let desk = Desk::new().await;
        let step = desk.step(&json!({}));
        let change = desk.change(&step).await;
        desk.lab
            .world
            .inject(Fault::at("patroni1", &format!("write-file {path}"), FaultKind::LoseAnswer))
            .unwrap();
        let error = step.apply(&desk.cx(), &change).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Lost, "after {path}");
        let key = desk.text(KEY);
        if let Check::Pending(change) = step.check(&desk.cx()).await.unwrap() {
            step.apply(&desk.cx(), &change).await.unwrap();
        }
        satisfied(step.check(&desk.cx()).await.unwrap());
        desk.assert_pair();
        assert_eq!(desk.text(KEY), key, "the key that was left is used, after {path}");
    }
}

#[tokio::test]
async fn the_private_keys_are_in_no_change_output_error_or_effect() {
    let desk = Desk::new().await;
    let step = desk.step(&json!({}));
    let change = desk.change(&step).await;
    let fault = |kind| desk.lab.world.inject(Fault::at("patroni1", "write-file", kind)).unwrap();
    fault(FaultKind::LoseAnswer);
    let lost = step.apply(&desk.cx(), &change).await.unwrap_err();
    let (again, output) = desk.establish(&step).await;
    let authority = fs::read_to_string(desk.path("ca.key")).unwrap();
    let key = desk.text(KEY);
    desk.write(KEY, &key[..100], 0o600).await;
    let broken = desk.change(&step).await;
    fs::write(desk.path("ca.key"), &authority[..100]).unwrap();
    let unreadable = step.check(&desk.cx()).await.unwrap();
    let failed: StepError = step.apply(&desk.cx(), &broken).await.unwrap_err();
    let said = format!(
        "{change:?} {again:?} {broken:?} {output:?} {lost:?} {unreadable:?} {failed:?} {step:?} {:?}",
        desk.lab.effects()
    );
    for line in key.lines().chain(authority.lines()) {
        if !line.is_empty() {
            assert!(!said.contains(line), "{line} in {said}");
        }
    }
}

#[tokio::test]
async fn without_its_authority_it_is_known_later_in_a_plan_and_refused_in_a_run() {
    let desk = Desk::new().await;
    let step = desk.step(&json!({}));
    let key = fs::read_to_string(desk.path("ca.key")).unwrap();
    fs::remove_file(desk.path("ca.key")).unwrap();
    let why = refused(step.check(&desk.cx()).await.unwrap());
    assert!(why.starts_with("there is no CA's key"), "{why}");
    fs::write(desk.path("ca.key"), Key::generate().unwrap().to_pem()).unwrap();
    let why = refused(step.check(&desk.cx()).await.unwrap());
    assert!(why.ends_with("don't belong together"), "{why}");
    fs::write(desk.path("ca.key"), key).unwrap();
    fs::remove_file(desk.path("ca.crt")).unwrap();
    assert!(matches!(step.check(&desk.lab.planning("patroni1")).await.unwrap(), Check::Deferred(_)));
    refused(step.check(&desk.cx()).await.unwrap());
    assert_eq!(desk.lab.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn a_certificate_outlives_its_authority_never_and_one_that_would_be_renewed_at_once_is_refused() {
    let desk = Desk::new().await;
    desk.make_authority("short", 100).await;
    desk.establish(&desk.step(&json!({}))).await;
    let authority = Certificate::from_pem(&fs::read(desk.path("ca.crt")).unwrap()).unwrap();
    assert_eq!(desk.certificate().not_after, authority.not_after);
    desk.make_authority("shorter", 20).await;
    let step = desk.step(&json!({ "replace_ca": true }));
    let why = refused(step.check(&desk.cx()).await.unwrap());
    assert!(why.contains("less than `renew_days` (30) from now"), "{why}");
}

#[tokio::test]
async fn a_private_key_in_the_file_of_the_authoritys_certificate_is_never_put_on_a_host() {
    let desk = Desk::new().await;
    let path = desk.path("ca.crt");
    let both =
        format!("{}{}", fs::read_to_string(&path).unwrap(), fs::read_to_string(desk.path("ca.key")).unwrap());
    fs::write(&path, both).unwrap();
    let error = desk.step(&json!({})).check(&desk.cx()).await.unwrap_err();
    assert!(error.message.contains("a private key is in the same file"), "{}", error.message);
}

#[tokio::test]
async fn arguments_that_can_never_be_right_are_refused() {
    let desk = Desk::new().await;
    for (other, words) in [
        (json!({ "ca_key": "ca.key" }), "begins with `/` or `~/`"),
        (json!({ "key": CERT }), "is there twice"),
        (json!({ "ca": KEY }), "is there twice"),
        (json!({ "cert": "pg.crt" }), "no absolute path"),
        (json!({ "names": [] }), "`names` is empty"),
        (json!({ "names": ["a b"] }), "neither a DNS name nor an IP address"),
        (json!({ "renew_days": 365 }), "`renew_days` is less than `valid_days`"),
        (json!({ "valid_days": 0 }), "`valid_days` is from 1"),
        (json!({ "mode": "rw" }), "octal"),
    ] {
        let step: Leaf = serde_json::from_value(desk.arguments(&other)).unwrap();
        let error = step.validate().unwrap_err();
        assert!(error.contains(words), "{other}: {error}");
    }
    desk.step(&json!({ "names": [], "usage": "client" }));
}

/// Where there is an `openssl`, it says so too.
#[tokio::test]
async fn openssl_takes_the_certificate_for_what_it_is() {
    let desk = Desk::new().await;
    desk.establish(&desk.step(&json!({}))).await;
    let leaf = desk.path("leaf.crt");
    fs::write(&leaf, desk.text(CERT)).unwrap();
    if !Path::new("/usr/bin/openssl").exists() {
        return;
    }
    let ca = desk.path("ca.crt");
    for (purpose, name) in [("sslserver", "patroni1"), ("sslclient", "patroni1")] {
        let said = std::process::Command::new("/usr/bin/openssl")
            .args(["verify", "-x509_strict", "-CAfile", &ca, "-purpose", purpose])
            .args(["-verify_hostname", name, "-verify_ip", "198.18.0.11", &leaf])
            .output()
            .unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}
