//! The lab: `fixtures/lab/lab`, brought to a known state before each test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Operator;

/// One lab, so one test at a time, also where the test threads were forgotten.
static ONE: Mutex<()> = Mutex::new(());

/// Rows in the table `accounts` of the saved state `deployed`.
pub const ROWS: u32 = 1000;

/// The lab in the hands of one test.
pub struct Lab {
    _alone: MutexGuard<'static, ()>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn script() -> PathBuf {
    repository().join("fixtures/lab/lab")
}

/// `lab ARGUMENTS`, not started yet.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(script());
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

impl Lab {
    /// Bare hosts, just booted: sshd and systemd.
    pub fn bare() -> Self {
        let lab = Self::take();
        lab.load("bare");
        lab
    }

    /// A healthy cluster that flow deployed, with [`ROWS`] rows in the table `accounts`.
    pub fn deployed() -> Self {
        let lab = Self::take();
        lab.load_deployed();
        lab
    }

    /// The same with one replica's data directory initdb'ed anew; gives its name too.
    pub fn broken() -> (Self, String) {
        let lab = Self::take();
        if lab.has("broken") {
            lab.load("broken");
        } else {
            lab.load_deployed();
            let replica = lab.wait_healthy().replicas()[0].clone();
            lab.break_system_id(&replica);
            lab.save("broken");
        }
        let broken = lab.wait_broken();
        (lab, broken)
    }

    fn load_deployed(&self) {
        if self.has("deployed") {
            self.load("deployed");
        } else {
            self.load("bare");
            Operator::new(self).flow(&["run", "deploy.toml"]).ended(0);
            self.fill_and_save();
        }
        self.wait_healthy();
        self.wait_served();
    }

    /// Makes the table with its rows, has them written to every disk, and keeps the state `deployed`.
    pub fn fill_and_save(&self) {
        let members = self.wait_healthy();
        let leader = members.leader();
        self.sql(leader, "create table accounts (id int primary key, owner text)");
        self.sql(
            leader,
            &format!("insert into accounts select n, 'customer ' || n from generate_series(1, {ROWS}) n"),
        );
        self.sql(leader, "checkpoint");
        let position = self.sql(leader, "select pg_current_wal_lsn()");
        for replica in members.replicas() {
            super::until("the replica to replay all", || {
                match &*self.sql(&replica, &format!("select pg_last_wal_replay_lsn() >= '{position}'")) {
                    "t" => Ok(()),
                    other => Err(format!("{replica}: {other}")),
                }
            });
            self.sql(&replica, "checkpoint");
        }
        self.save("deployed");
    }

    fn take() -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let release = std::env::var("FLOW_TEST_RELEASE").unwrap_or_default();
        assert!(
            ["bookworm", "trixie"].contains(&&*release) && std::env::var_os("FLOW_LAB").is_some(),
            "the lab's tests are run on purpose, as root: fixtures/scripts/test, or \
             FLOW_TEST_RELEASE=bookworm FLOW_LAB=mine cargo test -p flow-cli --test lab -- --test-threads=1 [NAME]"
        );
        let lab = Self { _alone: alone };
        if !lab.has("bare") {
            lab.must(&["up", "--release", &release]);
            let bare = lab.try_on("patroni1", "test ! -e /var/lib/dpkg/info/patroni.list").is_ok();
            assert!(bare, "the lab was used before the tests began: `lab down` first");
            lab.save("bare");
        }
        lab
    }

    /// A file of the lab's folder: inventory, keys, passwords.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(self.must(&["dir"]).trim()).join(name)
    }

    /// `lab ARGUMENTS`; gives standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "lab {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// A script on a host, as root; gives what it prints, without the last line's end.
    pub fn on(&self, host: &str, script: &str) -> String {
        self.try_on(host, script).unwrap_or_else(|error| panic!("on {host}: {script}\n{error}"))
    }

    /// The same where it may fail.
    pub fn try_on(&self, host: &str, script: &str) -> Result<String, String> {
        let output = run(&["on", host, "sh", "-c", script]);
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{} {text} {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()))
        }
    }

    /// The same script on several hosts at once; results in the hosts' order.
    pub fn each(&self, hosts: &[&str], script: &str) -> Vec<Result<String, String>> {
        std::thread::scope(|scope| {
            let all: Vec<_> =
                hosts.iter().map(|host| scope.spawn(move || self.try_on(host, script))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        })
    }

    /// One value or row of SQL on a host.
    pub fn sql(&self, host: &str, statement: &str) -> String {
        self.on(host, &format!("cd / && runuser -u postgres -- psql -X -q -A -t -c \"{statement}\""))
    }

    /// A variable of the lab's promoters.
    pub fn variable(&self, name: &str) -> String {
        let variables = std::fs::read_to_string(self.file("group_vars/promoters.yml")).unwrap();
        let value = variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("{name}: {variables}")).to_owned()
    }

    /// What Patroni's REST API on a host answers: the body.
    pub fn rest(&self, host: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
        const ASK: &str = "import base64, ssl, sys, urllib.request as u; \
             url, method, body, user = sys.argv[1:]; \
             tls = ssl.create_default_context(cafile=\"/etc/postgresql/certs/root.crt\"); \
             login = \"Basic \" + base64.b64encode(user.encode()).decode(); \
             request = u.Request(url, body.encode() or None, {\"Authorization\": login}, method=method); \
             print(u.urlopen(request, context=tls, timeout=10).read().decode())";
        let (url, user) = (
            format!("https://{}:8008{path}", address(host)),
            format!("patroni:{}", self.variable("patroni_restapi_password")),
        );
        self.try_on(host, &format!("python3 -c '{ASK}' {url} {method} '{body}' {user}"))
    }

    pub fn save(&self, name: &str) {
        self.must(&["save", name]);
    }

    pub fn load(&self, name: &str) {
        self.must(&["load", name]);
    }

    fn has(&self, name: &str) -> bool {
        let output = run(&["saved"]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).lines().any(|line| line == name)
    }

    /// Gives a replica a data directory of another cluster.
    pub fn break_system_id(&self, replica: &str) {
        let output =
            Command::new(repository().join("fixtures/lab/break-system-id")).arg(replica).output().unwrap();
        assert!(output.status.success(), "break-system-id: {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("system ID mismatch"));
    }
}

/// A host's address, as `fixtures/lab/lab` gives them out.
pub fn address(host: &str) -> &'static str {
    match host {
        "patroni1" => "198.18.0.11",
        "patroni2" => "198.18.0.12",
        "patroni3" => "198.18.0.13",
        other => panic!("{other} is no host of these tests"),
    }
}
