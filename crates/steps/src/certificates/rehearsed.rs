//! The certificates of a rehearsal, where nothing is simulated at the operator.
//!
//! Its CA is made of nothing but a name, a host's key of where it lies, and the time stands still: each process of a
//! rehearsal makes the same ones, so that what it leaves on the hosts can be compared. They protect nothing.

use flow_core::step::{Context, StepError};
use jiff::{SignedDuration, Timestamp};

use super::issue::{self, Key, Serial};
use crate::rehearsal::Rehearsed;
use crate::support::sha256;

/// What time it is in a rehearsal: 1 January 2026.
const NOW: i64 = 1_767_225_600;
/// How long its CA is valid: ten years.
const VALID: SignedDuration = SignedDuration::from_hours(24 * 3650);

/// Whether this is one.
pub(super) fn rehearsing(cx: &Context) -> bool {
    cx.resource::<Rehearsed>().is_ok()
}

/// What time it is for certificates.
pub(super) fn now(cx: &Context) -> Timestamp {
    if rehearsing(cx) { Timestamp::UNIX_EPOCH + SignedDuration::from_secs(NOW) } else { Timestamp::now() }
}

/// The key of a host's file.
pub(super) fn key_of(cx: &Context, path: &str) -> Result<Key, StepError> {
    let host = cx.inventory_host().map_or("", |host| host.name.as_str());
    Key::made_of(&format!("{host}:{path}")).map_err(StepError::failed)
}

/// The serial number of a certificate for that key.
pub(super) fn serial(text: &str) -> Serial {
    Serial::Of(sha256(text.as_bytes()))
}

/// The CA's certificate, and its key.
pub(super) fn authority(cx: &Context) -> Result<(String, Key), StepError> {
    let key = || Key::made_of("authority").map_err(StepError::failed);
    let made = issue::authority("rehearsal", &key()?, now(cx), now(cx) + VALID, &serial("authority"));
    Ok((made.map_err(StepError::failed)?, key()?))
}
