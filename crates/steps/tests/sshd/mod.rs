//! A private sshd on loopback, with keys and a home of its own, for tests.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use flow_core::inventory;
use flow_core::run::{RunId, TaskName};
use flow_core::step::Attempt;
use flow_steps::host::{Host, Hosts, HostsConfig, LockClaim, Patience, SshEnvironment};
use serde_json::{Value, json};

const SSHD: &str = "/usr/sbin/sshd";

/// A running sshd; ends when dropped.
pub(crate) struct Sshd {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    child: Child,
}

/// Starts one, or tells why it can't: then the test is skipped, except in CI, where it fails.
pub(crate) fn start(extra: &str) -> Option<Sshd> {
    match Sshd::start(extra) {
        Ok(sshd) => Some(sshd),
        Err(why) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no sshd to test with: {why}"),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

impl Sshd {
    fn start(extra: &str) -> Result<Self, String> {
        if !Path::new(SSHD).exists() {
            return Err(format!("{SSHD} is missing (package openssh-server)"));
        }
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        if !root {
            return Err("an sshd of one's own needs root".into());
        }
        // sshd's own place for privilege separation; without it there is no start.
        fs::create_dir_all("/run/sshd").map_err(|error| error.to_string())?;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        keygen(&path("host_key"), "ed25519", "");
        keygen(&path("user_key"), "ed25519", "");
        fs::copy(path("user_key.pub"), path("authorized_keys")).unwrap();
        fs::create_dir_all(path("home/.ssh")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = dir.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {here}/host_key\nPidFile none\nStrictModes no\n\
             AuthorizedKeysFile {here}/authorized_keys\nPasswordAuthentication no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nAllowStreamLocalForwarding yes\n{extra}"
        );
        fs::write(path("sshd_config"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let child = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let sshd = Self { dir, port, child };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        sshd.know(&sshd.path("home/.ssh/known_hosts"), "host_key.pub");
        Ok(sshd)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a known_hosts file that knows a key for this sshd.
    pub(crate) fn know(&self, file: &Path, key: &str) {
        let key = fs::read_to_string(self.path(key)).unwrap();
        fs::write(file, format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }

    /// How an operator with a home of their own reaches hosts.
    pub(crate) fn environment(&self) -> SshEnvironment {
        let home = self.path("home");
        SshEnvironment {
            config_files: vec![home.join(".ssh/config")],
            home,
            user: "root".into(),
            agent: None,
            patience: Patience::default(),
        }
    }

    pub(crate) fn vars(&self) -> Value {
        json!({
            "ansible_host": "127.0.0.1", "ansible_port": self.port, "ansible_user": "root",
            "ansible_ssh_private_key_file": self.text("user_key"),
        })
    }

    /// A host of a process of its own: nothing is shared with another one made so.
    pub(crate) async fn host(&self, vars: Value) -> Arc<dyn Host> {
        self.host_with(self.environment(), vars).await
    }

    pub(crate) async fn host_with(&self, ssh: SshEnvironment, vars: Value) -> Arc<dyn Host> {
        let Value::Object(vars) = vars else { panic!("variables are an object") };
        let config = HostsConfig { ssh, run_directory: self.text("run"), lib_directory: self.text("lib") };
        Hosts::new(config)
            .get(&Arc::new(inventory::Host { name: "box".into(), vars, ..inventory::Host::default() }))
            .await
            .unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Sessions end by themselves once their clients are gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a key pair.
pub(crate) fn keygen(path: &Path, kind: &str, passphrase: &str) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", passphrase, "-f"]).arg(path).status();
    assert!(made.unwrap().success());
}

pub(crate) fn claim(run: &str, epoch: u64) -> LockClaim {
    let since = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    LockClaim { run: run.into(), workflow: "w".into(), owner: "me@here (pid 1)".into(), epoch, since }
}

pub(crate) fn attempt(run: &str, epoch: u64, number: u32) -> Attempt {
    Attempt { run: RunId::from_text(run), task: TaskName::new("do/it", Some("box")), number, epoch }
}
