//! Options of Patroni's configuration file that are off for a while, on a host.

mod archiving;
mod removal;
mod text;

pub use archiving::{PatroniArchivingOff, PatroniArchivingOn};
pub use removal::PatroniRemovalOff;
pub(super) use text::{ARCHIVING, parse};

use flow_core::step::{Change, Check, Context, Output, StepError, UndoError};
use serde_json::Value;

use super::archive::without_secrets;
use super::settings::Settings;
use crate::host::{Content, Host, HostChange, HostContext, Ownership};
use text::Off;

/// Longer configurations are none, in bytes.
pub(super) const LIMIT: u64 = 1 << 20;

/// What both step types do.
struct Switch<'a> {
    off: &'static Off,
    /// The dynamic configuration, where it is given.
    dynamic: Option<&'a Value>,
    as_before: bool,
    config_file: &'a str,
}

/// What the dynamic configuration says, by what the data directory keeps of it.
pub(super) async fn kept_dynamic(host: &dyn Host, data_dir: &str) -> Result<Option<Value>, StepError> {
    let kept = host.read(&format!("{data_dir}/patroni.dynamic.json"), LIMIT).await?;
    Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

impl Switch<'_> {
    async fn text(&self, host: &dyn Host) -> Result<String, StepError> {
        let bytes = host.read(self.config_file, LIMIT).await?;
        let bytes = bytes.ok_or_else(|| StepError::permanent(format!("there is no {}", self.config_file)))?;
        String::from_utf8(bytes).map_err(|_| StepError::permanent(format!("{} is no text", self.config_file)))
    }

    /// What the dynamic configuration says, wherever Patroni may take it from.
    async fn dynamic(&self, host: &dyn Host) -> Result<Vec<Value>, StepError> {
        let settings = Settings::required(host, self.config_file).await?;
        let kept = kept_dynamic(host, &settings.data_dir).await?;
        Ok(self.dynamic.cloned().into_iter().chain(kept).collect())
    }

    /// The file as it is to be, and the options that this is about.
    async fn wanted(
        &self,
        cx: &Context,
        host: &dyn Host,
    ) -> Result<Result<(String, String, Vec<&'static str>), String>, StepError> {
        let now = self.text(host).await?;
        if self.as_before {
            let options = self.off.options.into_iter().filter(|option| self.off.marked(&now, option));
            return Ok(Ok((now.clone(), self.off.as_before(&now), options.collect())));
        }
        let dynamic = self.dynamic(host).await?;
        Ok(self
            .off
            .turned_off(&now, &dynamic, &cx.run().to_string())
            .map(|(text, options)| (now, text, options))
            .map_err(|why| format!("{}: {why}", self.config_file)))
    }

    async fn write(&self, cx: &Context, host: &dyn Host, text: String) -> Result<(), StepError> {
        let write = HostChange::WriteFile {
            path: self.config_file.to_owned(),
            content: Content(text.into_bytes()),
            ownership: Ownership::default(),
        };
        Ok(host.change(cx.attempt(), &write).await?)
    }

    /// The lines that differ, and no others: the file has passwords.
    fn diff(&self, now: &str, wanted: &str) -> String {
        let of_them = |line: &&str| self.off.options.iter().any(|option| line.contains(option));
        let lines = |text: &str, sign: char, other: &str| -> String {
            let changed = text.lines().filter(of_them).filter(|line| !other.lines().any(|one| one == *line));
            changed.map(|line| format!("{sign}{}\n", without_secrets(line))).collect()
        };
        lines(now, '-', wanted) + &lines(wanted, '+', now)
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let (now, wanted, options) = match self.wanted(cx, &*host).await? {
            Ok(wanted) => wanted,
            Err(why) => return Ok(Check::Refused(why)),
        };
        if now == wanted {
            return Ok(Check::Satisfied(Output::empty().with("was_on", Vec::<String>::new())));
        }
        let what = if self.as_before { "as it was" } else { "off for a while" };
        let change = Change::new(format!("{} in {}: {what}", options.join(", "), self.config_file));
        Ok(Check::Pending(change.with_diff(self.diff(&now, &wanted)).with_data(options)))
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let (_, wanted, _) = self.wanted(cx, &*host).await?.map_err(StepError::permanent)?;
        self.write(cx, &*host, wanted).await?;
        Ok(Output::empty().with("was_on", change.data::<Vec<String>>()?))
    }

    async fn undo(&self, cx: &Context) -> Result<(), UndoError> {
        let host = cx.host().await?;
        let now = self.text(&*host).await?;
        let before = if self.as_before {
            let dynamic = self.dynamic(&*host).await?;
            let off = self.off.turned_off(&now, &dynamic, &cx.run().to_string());
            off.map_err(StepError::permanent)?.0
        } else {
            self.off.as_before(&now)
        };
        if before != now {
            self.write(cx, &*host, before).await?;
        }
        Ok(())
    }
}
