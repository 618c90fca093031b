//! `package`: Debian packages, by apt.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{Command, Host, HostChange, HostContext, Packages, UnitVerb};
use crate::support::{exit_error, yes};

/// Debian packages are installed (apt, without recommended ones).
///
/// The check compares names, and versions where they are given; it never upgrades what is there.
/// The installation runs as a systemd unit, so it goes on when the connection is lost. It waits up to
/// 5 minutes for another apt or dpkg, asks nothing, and keeps configuration files that are there.
/// Output: `versions`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Packages: `patroni`, or `patroni=3.0.2-1` for one version.
    pub names: Vec<String>,
    /// Read the package lists anew before something is installed.
    #[serde(default = "yes")]
    pub update: bool,
    /// Units that are masked (unless they run already) before the installation, so that no package starts its service before it is
    /// configured. They stay masked: a later `systemd.unit` with `masked = false` brings them up.
    /// Only looked at where something is to be installed.
    #[serde(default)]
    pub mask: Vec<String>,
}

impl StepType for Package {
    const NAME: &'static str = "package";
    const NOT_UNDOABLE: &'static str =
        "removing packages can take others and their data with them; say `keep = true` where they may stay";

    fn validate(&self) -> Result<(), String> {
        if self.names.is_empty() {
            return Err("`names` is empty".to_owned());
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "+-.=:~".contains(c);
        match self
            .names
            .iter()
            .find(|name| name.is_empty() || name.starts_with('-') || !name.chars().all(legal))
        {
            Some(name) => Err(format!("`{name}` is no package's name")),
            None => Ok(()),
        }
    }
}

impl Package {
    fn split(name: &str) -> (&str, Option<&str>) {
        name.split_once('=').map_or((name, None), |(name, version)| (name, Some(version)))
    }

    async fn installed(&self, host: &dyn Host) -> Result<Packages, StepError> {
        let names: Vec<String> = self.names.iter().map(|name| Self::split(name).0.to_owned()).collect();
        Ok(host.packages(&names).await?)
    }

    fn missing(&self, installed: &Packages) -> Vec<String> {
        let is_there = |name: &str| {
            let (name, wanted) = Self::split(name);
            installed.get(name).is_some_and(|version| wanted.is_none_or(|wanted| wanted == version))
        };
        self.names.iter().filter(|name| !is_there(name)).cloned().collect()
    }

    fn script(&self, missing: &[String]) -> String {
        let mut script = String::from("export DEBIAN_FRONTEND=noninteractive\n");
        // An installation that a power loss cut short is brought to its end first.
        script.push_str("[ -z \"$(ls -A /var/lib/dpkg/updates)\" ] || dpkg --force-confold --configure -a\n");
        if self.update {
            // Where a source doesn't answer, the lists that are there may do; if not, apt says so below.
            script.push_str("apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null || true\n");
        }
        script.push_str(
            "apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
             -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install",
        );
        for name in missing {
            script.push(' ');
            script.push_str(name);
        }
        script.push('\n');
        script
    }
}

#[async_trait]
impl Step for Package {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let installed = self.installed(&*cx.host().await?).await?;
        let missing = self.missing(&installed);
        Ok(if missing.is_empty() {
            Check::Satisfied(Output::empty().with("versions", installed))
        } else {
            Check::Pending(Change::new(format!("install {}", missing.join(", "))).with_data(&missing))
        })
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let missing: Vec<String> = change.data()?;
        for unit in &self.mask {
            let now = host.unit(unit).await?;
            if !now.masked() && now.active != "active" {
                let mask = HostChange::Unit { unit: unit.clone(), verb: UnitVerb::Mask };
                host.change(cx.attempt(), &mask).await?;
            }
        }
        cx.progress(format!("installing {}", missing.join(", ")));
        let reply = host.run(cx.attempt(), &Command::new(self.script(&missing)).detached()).await?;
        if reply.success() {
            return Ok(Output::empty().with("versions", self.installed(&*host).await?));
        }
        Err(explain(&reply))
    }
}

/// apt's own words, with the next action where the reason is known.
fn explain(reply: &crate::host::Reply) -> StepError {
    let said = reply.error_text();
    let unknown =
        said.lines().find_map(|line| line.split_once("Unable to locate package ").map(|(_, name)| name));
    if let Some(name) = unknown {
        return StepError::permanent(format!("there is no package `{}` for this host", name.trim()))
            .with_detail(crate::support::tail(&said))
            .with_hint("see the name with `apt-cache search`, and the host's sources in /etc/apt");
    }
    if let Some(line) = said.lines().find(|line| line.contains("Version '") && line.contains("was not found"))
    {
        return StepError::permanent(line.trim_start_matches("E: ").to_owned())
            .with_hint("`apt-cache madison PACKAGE` on the host lists the versions that are there");
    }
    exit_error(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::{Fault, FaultKind};
    use crate::testing::{Lab, done, pending, satisfied};
    use serde_json::json;

    fn package(names: &[&str]) -> Package {
        serde_json::from_value(json!({ "names": names, "mask": ["etcd.service"] })).unwrap()
    }

    #[tokio::test]
    async fn what_is_missing_is_installed_and_held_services_stay_down() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let (change, output) = lab.establish(&package(&["etcd-server", "etcd-client"]), &cx).await;
        assert_eq!(change.summary, "install etcd-server, etcd-client");
        assert_eq!(output.0["versions"]["etcd-server"], "3.4.23-4+b4");
        let unit = cx.host().await.unwrap().unit("etcd.service").await.unwrap();
        assert!(unit.masked() && unit.active == "inactive", "{unit:?}");
        let more = pending(package(&["etcd-server", "patroni"]).check(&cx).await.unwrap());
        assert_eq!(more.summary, "install patroni");
    }

    #[tokio::test]
    async fn a_version_is_compared_where_it_is_given() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        lab.establish(&package(&["patroni=3.0.2-1"]), &cx).await;
        satisfied(package(&["patroni"]).check(&cx).await.unwrap());
        pending(package(&["patroni=4.0.7-1"]).check(&cx).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_package_or_version_is_named() {
        let lab = Lab::bare().await;
        for (host, name, message) in [
            ("patroni1", "postgrsql", "there is no package `postgrsql` for this host"),
            ("patroni2", "patroni=9", "Version '9' for 'patroni' was not found"),
        ] {
            let (step, cx) = (package(&[name]), lab.on(host));
            let change = pending(step.check(&cx).await.unwrap());
            let error = step.apply(&cx, &change).await.unwrap_err();
            assert_eq!((error.message.as_str(), error.permanent), (message, true));
        }
    }

    #[tokio::test]
    async fn an_installation_whose_answer_was_lost_is_found_done() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = package(&["patroni"]);
        let change = pending(step.check(&cx).await.unwrap());
        lab.world.inject(Fault::at("patroni1", "run export", FaultKind::LoseAnswer)).unwrap();
        step.apply(&cx, &change).await.unwrap_err();
        done(step.resolve(&cx, &change).await.unwrap());
    }

    #[test]
    fn what_a_shell_would_read_otherwise_is_no_package() {
        for wrong in ["a;b", "-o", "a b", ""] {
            assert!(package(&[wrong]).validate().is_err(), "{wrong}");
        }
        assert!(package(&["libstdc++6=12.2.0-14~deb12u1"]).validate().is_ok());
    }
}
