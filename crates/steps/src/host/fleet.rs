//! The hosts of a run: one [`Host`] for each machine of the inventory, made once and kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use flow_core::inventory;
use flow_core::step::{Context, Secret, StepError};

use super::local::LocalTransport;
use super::posix::{Become, Login, Paths, PosixHost};
use super::ssh::{SshEnvironment, SshTransport};
use super::transport::{Failure, Transport};
use super::{Host, HostError};

/// What makes a host from its entry in the inventory. It connects to nothing yet.
pub type HostFactory = Arc<dyn Fn(&inventory::Host) -> Result<Arc<dyn Host>, HostError> + Send + Sync>;

/// How real hosts are reached.
#[derive(Debug, Clone)]
pub struct HostsConfig {
    /// Where this process finds its user's SSH files.
    pub ssh: SshEnvironment,
    /// The hosts' directory for attempts, empty after a reboot. The same for every process that works
    /// on a host.
    pub run_directory: String,
    /// The hosts' directory for the lock; survives a reboot. The same for every process, too.
    pub lib_directory: String,
}

impl Default for HostsConfig {
    /// `/run/flow` and `/var/lib/flow`.
    fn default() -> Self {
        let Paths { run, lib } = Paths::default();
        Self { ssh: SshEnvironment::default(), run_directory: run, lib_directory: lib }
    }
}

/// One [`Host`] for each machine, made when first asked for. Registered as a resource of a program.
pub struct Hosts {
    factory: HostFactory,
    made: Mutex<HashMap<String, Made>>,
}

/// A host, and the entry that it was made from.
struct Made {
    entry: Arc<inventory::Host>,
    host: Arc<dyn Host>,
}

impl Hosts {
    /// Real hosts: by SSH, or local where `ansible_connection` says so.
    pub fn new(config: HostsConfig) -> Self {
        Self::with_factory(Arc::new(move |entry| real(&config, entry)))
    }

    /// Hosts of another kind, such as simulated ones.
    pub fn with_factory(factory: HostFactory) -> Self {
        Self { factory, made: Mutex::default() }
    }

    /// The host of an inventory entry; the same one for the same entry. Connects to nothing yet.
    ///
    /// # Errors
    /// Variables or an `ssh_config` that can't be followed.
    pub async fn get(&self, entry: &Arc<inventory::Host>) -> Result<Arc<dyn Host>, HostError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.get(&entry.name).filter(|made| made.entry == *entry) {
            return Ok(made.host.clone());
        }
        let host = (self.factory)(entry)?;
        made.insert(entry.name.clone(), Made { entry: entry.clone(), host: host.clone() });
        Ok(host)
    }

    /// Ends all connections.
    pub async fn close(&self) {
        let hosts: Vec<_> = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.values().map(|made| made.host.clone()).collect()
        };
        for host in hosts {
            host.close().await;
        }
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(made.keys()).finish()
    }
}

/// The variables that say how a host is reached.
const FOLLOWED: [&str; 19] = [
    "ansible_become",
    "ansible_become_method",
    "ansible_become_pass",
    "ansible_become_password",
    "ansible_become_user",
    "ansible_connection",
    "ansible_host",
    "ansible_port",
    "ansible_private_key_file",
    "ansible_ssh_args",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_host",
    "ansible_ssh_port",
    "ansible_ssh_private_key_file",
    "ansible_ssh_user",
    "ansible_sudo_pass",
    "ansible_user",
    "flow_state_dir",
];

/// A real host, as its variables say.
fn real(config: &HostsConfig, entry: &inventory::Host) -> Result<Arc<dyn Host>, HostError> {
    let refused = |message: String| Failure::unreachable(message).into_error(&entry.name, &entry.address());
    if let Some((name, why)) = entry.faults.iter().find(|(name, _)| FOLLOWED.contains(&name.as_str())) {
        return Err(refused(format!("`{name}` can't be evaluated: {why}")));
    }
    let login = login(entry).map_err(refused)?;
    let paths = paths(config, entry).map_err(refused)?;
    let transport: Arc<dyn Transport> = match entry.text("ansible_connection").as_deref() {
        Some("local") => Arc::new(LocalTransport::new(&entry.name)),
        None | Some("ssh" | "smart" | "paramiko" | "paramiko_ssh") => {
            Arc::new(SshTransport::new(&config.ssh, entry).map_err(refused)?)
        }
        Some(other) => {
            return Err(refused(format!("ansible_connection={other} isn't supported; ssh and local are")));
        }
    };
    Ok(Arc::new(PosixHost::new(transport, login, paths)))
}

/// Where the host keeps its lock and its attempts: `flow_state_dir`, else as the program says.
///
/// For a machine that stands for several hosts, each with a folder of its own. Everyone who works on a
/// host must name the same one: runs under different folders don't see each other's locks.
fn paths(config: &HostsConfig, entry: &inventory::Host) -> Result<Paths, String> {
    match entry.text("flow_state_dir") {
        None => Ok(Paths { run: config.run_directory.clone(), lib: config.lib_directory.clone() }),
        Some(folder) if folder.starts_with('/') && !folder.trim_end_matches('/').is_empty() => {
            Ok(Paths::below(&folder))
        }
        Some(folder) => Err(format!("flow_state_dir={folder} is no absolute path of a folder")),
    }
}

/// Whether and how to become root.
fn login(entry: &inventory::Host) -> Result<Login, String> {
    if !truthy(entry.vars.get("ansible_become")) {
        return Ok(Login::default());
    }
    if let Some(method) = entry.text("ansible_become_method").filter(|method| method != "sudo") {
        return Err(format!("ansible_become_method={method} isn't supported; sudo is"));
    }
    let password = ["ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"]
        .iter()
        .find_map(|name| entry.text(name));
    let user = entry.text("ansible_become_user").unwrap_or_else(|| "root".into());
    Ok(Login { become_user: Some(Become::new(user, password.map(Secret::new))) })
}

/// Ansible's booleans: YAML's, and what an INI file holds.
fn truthy(value: Option<&serde_json::Value>) -> bool {
    match value {
        Some(serde_json::Value::Bool(value)) => *value,
        Some(serde_json::Value::Number(number)) => number.as_i64() == Some(1),
        Some(serde_json::Value::String(text)) => {
            ["true", "yes", "on", "1", "y", "t"].contains(&text.to_ascii_lowercase().as_str())
        }
        _ => false,
    }
}

/// A step's way to its host.
#[async_trait]
pub trait HostContext {
    /// The task's host.
    ///
    /// # Errors
    /// A task without one, or variables that can't be followed.
    async fn host(&self) -> Result<Arc<dyn Host>, StepError>;

    /// The host of another entry of the inventory.
    ///
    /// # Errors
    /// Variables that can't be followed.
    async fn host_of(&self, entry: &Arc<inventory::Host>) -> Result<Arc<dyn Host>, StepError>;
}

#[async_trait]
impl HostContext for Context {
    async fn host(&self) -> Result<Arc<dyn Host>, StepError> {
        let Some(entry) = self.inventory_host() else {
            return Err(StepError::permanent("this step works on a host, and the task has none")
                .with_hint("say `hosts = ...` on the step"));
        };
        self.host_of(entry).await
    }

    async fn host_of(&self, entry: &Arc<inventory::Host>) -> Result<Arc<dyn Host>, StepError> {
        let hosts = self.resource::<Hosts>()?;
        Ok(hosts.get(entry).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(vars: serde_json::Value) -> Arc<inventory::Host> {
        let serde_json::Value::Object(vars) = vars else { panic!("an object") };
        Arc::new(inventory::Host { name: "h".into(), vars, ..inventory::Host::default() })
    }

    fn hosts() -> Hosts {
        let ssh = SshEnvironment { config_files: Vec::new(), ..SshEnvironment::default() };
        Hosts::new(HostsConfig { ssh, ..HostsConfig::default() })
    }

    #[tokio::test]
    async fn the_same_entry_gives_the_same_host() {
        let (hosts, entry) = (hosts(), entry(serde_json::json!({})));
        let (one, two) = (hosts.get(&entry).await.unwrap(), hosts.get(&entry).await.unwrap());
        assert!(Arc::ptr_eq(&one, &two));
    }

    #[tokio::test]
    async fn variables_that_can_t_be_followed_are_refused_by_name() {
        for (vars, part) in [
            (serde_json::json!({ "ansible_connection": "winrm" }), "ansible_connection=winrm"),
            (
                serde_json::json!({ "ansible_become": "yes", "ansible_become_method": "su" }),
                "ansible_become_method=su",
            ),
            (serde_json::json!({ "flow_state_dir": "here" }), "flow_state_dir=here"),
        ] {
            let error = hosts().get(&entry(vars)).await.unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn become_takes_ansible_s_booleans_and_passwords() {
        let login =
            login(&entry(serde_json::json!({ "ansible_become": "True", "ansible_become_pass": "x" })))
                .unwrap();
        assert!(format!("{login:?}").contains("user: \"root\", password: Some("));
        assert!(
            super::login(&entry(serde_json::json!({ "ansible_become": false })))
                .unwrap()
                .become_user
                .is_none()
        );
    }
}
