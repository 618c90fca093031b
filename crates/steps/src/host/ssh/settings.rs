//! How one host is reached: the inventory's variables over `ssh_config`, with OpenSSH's defaults.
//!
//! Ansible hands its variables to `ssh` as command line options, which come before any file; so they
//! do here. Decides everything before a connection is tried, and connects to nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flow_core::inventory;

use super::config::{self, Values, split_words};

/// Where this process finds its user's SSH files.
#[derive(Debug, Clone)]
pub struct SshEnvironment {
    /// The home directory: `~` in paths, and where the default identities are.
    pub home: PathBuf,
    /// The login name at the operator's place, used where nothing else names a user.
    pub user: String,
    /// `ssh_config` files in order; one that is missing is passed over.
    pub config_files: Vec<PathBuf>,
    /// The agent's socket.
    pub agent: Option<PathBuf>,
    /// How long a host may take to let in, where nobody says otherwise.
    pub patience: Patience,
}

/// How long a host may take to let in.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the TCP connection stands, where `ConnectTimeout` doesn't say. 10 s by default.
    pub connect: Duration,
    /// From then on until the login is through; more where `ConnectTimeout` says so, or where the way is so long that
    /// this would be too few round trips. 20 s by default.
    pub login: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), login: Duration::from_secs(20) }
    }
}

impl Default for SshEnvironment {
    /// What `HOME`, `USER` and `SSH_AUTH_SOCK` say; `~/.ssh/config`, then `/etc/ssh/ssh_config`.
    fn default() -> Self {
        let home = std::env::home_dir().unwrap_or_else(|| "/".into());
        let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
        Self {
            user: name.unwrap_or_else(|_| "root".into()),
            config_files: vec![home.join(".ssh/config"), "/etc/ssh/ssh_config".into()],
            agent: std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from),
            home,
            patience: Patience::default(),
        }
    }
}

/// A key file to log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) path: PathBuf,
    /// Named by someone; a default one may be missing.
    pub(crate) named: bool,
}

/// How one machine is reached; nothing left to decide.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) identities: Vec<Identity>,
    pub(crate) identities_only: bool,
    pub(crate) agent: Option<PathBuf>,
    pub(crate) known_hosts: Vec<PathBuf>,
    pub(crate) key_alias: Option<String>,
    /// `StrictHostKeyChecking` was turned off somewhere; it stays on, and the refusal says so.
    pub(crate) lax: bool,
    /// Machines to pass through, first hop first: `[user@]host[:port]`.
    pub(crate) jumps: Vec<String>,
    /// Between two signs of life.
    pub(crate) alive_interval: Duration,
    /// Signs of life without an answer before the connection counts as lost.
    pub(crate) alive_count: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) login_timeout: Duration,
}

impl Target {
    /// The address for messages.
    pub(crate) fn address(&self) -> String {
        if self.port == 22 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// What an inventory host's variables say, as `ssh` options.
///
/// # Errors
/// A variable or option that can't be understood, or that would have to be ignored though it matters.
pub(crate) fn of_host(environment: &SshEnvironment, host: &inventory::Host) -> Result<Target, String> {
    let mut values = Values::default();
    let mut files = environment.config_files.clone();
    let variables = [
        ("ansible_port", "Port"),
        ("ansible_ssh_port", "Port"),
        ("ansible_user", "User"),
        ("ansible_ssh_user", "User"),
        ("ansible_ssh_private_key_file", "IdentityFile"),
        ("ansible_private_key_file", "IdentityFile"),
    ];
    for (variable, option) in variables {
        if let Some(value) = host.text(variable) {
            values.set(option, &[value]).map_err(|error| format!("{variable}: {error}"))?;
        }
    }
    for variable in ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"] {
        if let Some(text) = host.text(variable) {
            let words = split_words(&text).map_err(|error| format!("{variable}: {error}"))?;
            arguments(&words, &mut values, &mut files).map_err(|error| format!("{variable}: {error}"))?;
        }
    }
    decide(environment, &files, &host.address(), values)
}

/// A machine on the way, as written in `ProxyJump`.
pub(crate) fn of_jump(environment: &SshEnvironment, jump: &str) -> Result<Target, String> {
    let text = jump.strip_prefix("ssh://").unwrap_or(jump);
    let (user, place) = text.rsplit_once('@').map_or((None, text), |(user, place)| (Some(user), place));
    let (host, port) = split_port(place);
    let mut values = Values { user: user.map(str::to_owned), ..Values::default() };
    if let Some(port) = port {
        values.set("Port", &[port.to_owned()])?;
    }
    decide(environment, &environment.config_files, host, values)
}

fn split_port(place: &str) -> (&str, Option<&str>) {
    if let Some(rest) = place.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':'));
    }
    match place.rsplit_once(':') {
        // More than one colon without brackets is an IPv6 address.
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (place, None),
    }
}

/// The options of a command line of `ssh`, as far as they matter here.
fn arguments(words: &[String], values: &mut Values, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) else {
            return Err(format!("{word:?} is no option of ssh"));
        };
        if !"BbcDEeFIiJLlmOopQRSWw".contains(option) {
            continue;
        }
        let joined = &word[1 + option.len_utf8()..];
        let value = match joined {
            "" => words.next().cloned().ok_or_else(|| format!("{word} has no value"))?,
            joined => joined.to_owned(),
        };
        match option {
            'o' => {
                if let Some((keyword, arguments)) = config::split_option(&value)? {
                    values.set(&keyword, &arguments)?;
                }
            }
            'J' => values.set("ProxyJump", &[value])?,
            'i' => values.set("IdentityFile", &[value])?,
            'p' => values.set("Port", &[value])?,
            'l' => values.set("User", &[value])?,
            'F' => *files = vec![PathBuf::from(value)],
            _ => {}
        }
    }
    Ok(())
}

/// Reads the files and fills in OpenSSH's defaults.
fn decide(
    environment: &SshEnvironment,
    files: &[PathBuf],
    alias: &str,
    mut values: Values,
) -> Result<Target, String> {
    config::read(files, &environment.home, alias, &mut values)?;
    let host = values
        .hostname
        .as_deref()
        .map_or(alias.to_owned(), |name| name.replace("%%", "\0").replace("%h", alias).replace('\0', "%"));
    let user = values.user.clone().unwrap_or_else(|| environment.user.clone());
    let port = values.port.unwrap_or(22);
    let tokens = Tokens { environment, alias, host: &host, port, user: &user };
    if let Some(command) = values.proxy_command.as_deref().filter(|command| *command != "none") {
        return Err(format!("ProxyCommand isn't supported ({command}); ProxyJump is"));
    }
    let jumps = match values.proxy_jump.as_deref() {
        None | Some("none") => Vec::new(),
        Some(list) => list.split(',').map(|jump| tokens.expand(jump.trim())).collect(),
    };
    let paths = |given: Option<&Vec<String>>, default: &[&str]| -> Vec<PathBuf> {
        let default = || default.iter().map(|path| (*path).to_owned()).collect();
        let list: Vec<String> = given.cloned().unwrap_or_else(default);
        list.iter().filter(|path| *path != "none").map(|path| tokens.path(path)).collect()
    };
    let mut known_hosts =
        paths(values.user_known_hosts.as_ref(), &["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]);
    known_hosts.extend(paths(
        values.global_known_hosts.as_ref(),
        &["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"],
    ));
    let asked_for = values.connect_timeout.map(Duration::from_secs);
    let strict = values.strict_host_keys.as_deref();
    Ok(Target {
        identities: identities(&values, &tokens),
        identities_only: values.identities_only.unwrap_or(false),
        agent: agent(environment, &values, &tokens),
        known_hosts,
        key_alias: values.host_key_alias.clone(),
        lax: matches!(strict, Some("no" | "off" | "accept-new" | "false")),
        jumps,
        // 3 times 5 s: a pulled cable is noticed in 15 s.
        alive_interval: Duration::from_secs(values.alive_interval.filter(|s| *s > 0).unwrap_or(5)),
        alive_count: values.alive_count.unwrap_or(2),
        connect_timeout: asked_for.unwrap_or(environment.patience.connect),
        login_timeout: environment.patience.login.max(asked_for.unwrap_or_default()),
        user,
        port,
        host,
    })
}

fn identities(values: &Values, tokens: &Tokens<'_>) -> Vec<Identity> {
    if !values.identity_files.is_empty() {
        let named = values.identity_files.iter().filter(|path| *path != "none");
        return named.map(|path| Identity { path: tokens.path(path), named: true }).collect();
    }
    let default = ["id_rsa", "id_ecdsa", "id_ed25519"];
    let path = |name: &str| tokens.environment.home.join(".ssh").join(name);
    default.iter().map(|name| Identity { path: path(name), named: false }).collect()
}

fn agent(environment: &SshEnvironment, values: &Values, tokens: &Tokens<'_>) -> Option<PathBuf> {
    match values.identity_agent.as_deref() {
        Some("none") => None,
        None | Some("SSH_AUTH_SOCK") => environment.agent.clone(),
        Some(path) => match path.strip_prefix('$') {
            Some(variable) => std::env::var_os(variable).map(PathBuf::from),
            None => Some(tokens.path(path)),
        },
    }
}

/// What `%` and `~` stand for.
struct Tokens<'a> {
    environment: &'a SshEnvironment,
    alias: &'a str,
    host: &'a str,
    port: u16,
    user: &'a str,
}

impl Tokens<'_> {
    fn path(&self, text: &str) -> PathBuf {
        let text = self.expand(text);
        match text.strip_prefix("~/") {
            Some(rest) => self.environment.home.join(rest),
            None => Path::new(&text).to_owned(),
        }
    }

    fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                expanded.push(c);
                continue;
            }
            match chars.next() {
                Some('d') => expanded.push_str(&self.environment.home.to_string_lossy()),
                Some('u') => expanded.push_str(&self.environment.user),
                Some('h') => expanded.push_str(self.host),
                Some('n') => expanded.push_str(self.alias),
                Some('p') => expanded.push_str(&self.port.to_string()),
                Some('r') => expanded.push_str(self.user),
                Some(c) => expanded.push(c),
                None => expanded.push('%'),
            }
        }
        expanded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(vars: serde_json::Value, config: &str) -> Result<Target, String> {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        std::fs::write(&file, config).unwrap();
        let environment = SshEnvironment {
            home: "/home/op".into(),
            user: "op".into(),
            config_files: vec![file],
            agent: None,
            patience: Patience::default(),
        };
        let serde_json::Value::Object(vars) = vars else { panic!("an object") };
        of_host(&environment, &inventory::Host { name: "db1".into(), vars, ..inventory::Host::default() })
    }

    #[test]
    fn inventory_variables_come_before_the_files() {
        let vars = serde_json::json!({
            "ansible_host": "10.0.0.1", "ansible_port": 2222, "ansible_user": "root",
            "ansible_ssh_private_key_file": "~/key",
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/k/nown -o 'ProxyJump=a@gate:2,other' -C",
        });
        let config = "Host 10.*\n User nobody\n Port 1\n HostName real.example.org\n IdentityFile ~/.ssh/more\n ProxyJump wrong\n";
        let target = target(vars, config).unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.user.as_str()),
            ("real.example.org", 2222, "root")
        );
        assert_eq!(target.known_hosts[0], Path::new("/k/nown"));
        assert_eq!(target.jumps, ["a@gate:2", "other"]);
        let keys: Vec<_> = target.identities.iter().map(|i| i.path.to_str().unwrap()).collect();
        assert_eq!(keys, ["/home/op/key", "/home/op/.ssh/more"]);
    }

    #[test]
    fn openssh_s_defaults_hold_where_nothing_is_said() {
        let target = target(serde_json::json!({}), "").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.user.as_str()), ("db1", 22, "op"));
        assert_eq!(target.known_hosts[0], Path::new("/home/op/.ssh/known_hosts"));
        assert_eq!((target.connect_timeout.as_secs(), target.login_timeout.as_secs()), (10, 20));
        assert!(!target.lax && target.identities.iter().all(|i| !i.named));
    }

    #[test]
    fn whoever_gives_a_host_more_time_to_let_in_gives_it_to_the_login_too() {
        let vars = serde_json::json!({ "ansible_ssh_args": "-o ConnectTimeout=30" });
        let target = target(vars, "").unwrap();
        assert_eq!((target.connect_timeout.as_secs(), target.login_timeout.as_secs()), (30, 30));
    }

    #[test]
    fn every_way_to_write_an_option_is_read() {
        for args in ["-J gate", "-Jgate", "-oProxyJump=gate", "-o ProxyJump=gate", "-o \"ProxyJump gate\""] {
            let vars = serde_json::json!({ "ansible_ssh_common_args": args });
            assert_eq!(target(vars, "").unwrap().jumps, ["gate"], "{args}");
        }
    }

    #[test]
    fn turning_host_key_checks_off_is_noticed() {
        let vars = serde_json::json!({ "ansible_ssh_common_args": "-o StrictHostKeyChecking=no" });
        assert!(target(vars, "").unwrap().lax);
    }

    #[test]
    fn tokens_in_paths_and_host_names_are_replaced() {
        let target =
            target(serde_json::json!({}), "HostName %h.example.org\nIdentityFile %d/k-%r-%h-%p-%n\n")
                .unwrap();
        assert_eq!(target.host, "db1.example.org");
        assert_eq!(target.identities[0].path, Path::new("/home/op/k-op-db1.example.org-22-db1"));
    }

    #[test]
    fn a_proxy_command_is_an_error_and_not_passed_over() {
        assert!(
            target(serde_json::json!({}), "ProxyCommand nc %h %p\n").unwrap_err().contains("ProxyJump is")
        );
    }

    #[test]
    fn jumps_may_have_user_port_and_brackets() {
        let environment = SshEnvironment { config_files: Vec::new(), ..SshEnvironment::default() };
        let jump = of_jump(&environment, "me@[fd00::1]:2200").unwrap();
        assert_eq!((jump.user.as_str(), jump.host.as_str(), jump.port), ("me", "fd00::1", 2200));
        assert_eq!(of_jump(&environment, "fd00::1").unwrap().host, "fd00::1");
    }
}
