//! A hundred checks on each of five hosts, nothing to change: in a row (each needing the one before,
//! on all hosts), and all independent. Run at the lab's operator's place.
//!
//! The peers: one kept-open shell a host, all hosts at once, a check a round trip; and for the checks
//! in a row, on top of it, a hundred durable commits by bare SQLite.
//!
//! `bench-checks FLOW INVENTORY`: the flow binary, and the lab's inventory.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flow_benches::{in_turn, print};
use flow_core::inventory::{self, Inventory};
use rusqlite::{Connection, params};

const CHECKS: usize = 100;
const CHECK: &str = "test -e /etc/hostname";
const ROUNDS: usize = 7;

fn workflow(in_a_row: bool) -> String {
    let mut text = String::from("name = \"checks\"\nsummary = \"A hundred checks on each host.\"\n");
    for n in 0..CHECKS {
        text.push_str(&format!(
            "[steps.c{n}]\nuses = \"command\"\nhosts = \"all\"\nwith = {{ script = \"false\", unless = \"{CHECK}\" }}\n"
        ));
        if in_a_row && n > 0 {
            text.push_str(&format!("needs = [\"c{}\"]\n", n - 1));
        }
    }
    text
}

struct Lab {
    flow: PathBuf,
    inventory: PathBuf,
    hosts: Inventory,
    folder: tempfile::TempDir,
}

impl Lab {
    fn run_flow(&self, workflow: &Path) {
        let store = format!("sqlite:{}", self.folder.path().join("flow.db").display());
        let status = Command::new(&self.flow)
            .args(["run", "--output", "json", "--store", &store, "-i"])
            .args([&self.inventory, workflow])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .expect("flow starts");
        assert!(status.success(), "flow failed");
    }

    /// One shell for each host, all at once; each check waits for the answer of the one before.
    fn kept_open_shells(&self) {
        std::thread::scope(|scope| {
            for host in self.hosts.hosts.values() {
                scope.spawn(|| {
                    let mut ssh = Command::new("ssh")
                        .args(["-F", "none", "-T", "-o", "BatchMode=yes", "-i"])
                        .arg(
                            host.text("ansible_ssh_private_key_file")
                                .expect("the lab's inventory names a key"),
                        )
                        .args(words(&host.text("ansible_ssh_common_args").unwrap_or_default()))
                        .arg(format!("root@{}", host.address()))
                        .arg("sh")
                        .stdin(Stdio::piped())
                        .stdout(Stdio::piped())
                        .spawn()
                        .expect("ssh starts");
                    let mut input = ssh.stdin.take().expect("it is piped");
                    let mut answers = BufReader::new(ssh.stdout.take().expect("it is piped")).lines();
                    for _ in 0..CHECKS {
                        writeln!(input, "{CHECK}; echo $?").expect("the shell is there");
                        let answer = answers.next().expect("an answer").expect("text");
                        assert_eq!(answer, "0");
                    }
                    drop(input);
                    ssh.wait().expect("it ends");
                });
            }
        });
    }

    /// What flow makes durable for the same: a commit for each check in the row.
    fn commits(&self) {
        let connection = Connection::open(self.folder.path().join("bare.db")).expect("a file");
        connection.pragma_update(None, "journal_mode", "WAL").expect("a pragma");
        connection.pragma_update(None, "synchronous", "FULL").expect("a pragma");
        connection.execute_batch("CREATE TABLE IF NOT EXISTS events (body TEXT NOT NULL)").expect("a table");
        for _ in 0..CHECKS {
            connection.execute("INSERT INTO events VALUES (?1)", params!["x".repeat(500)]).expect("a row");
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(flow), Some(inventory)) = (arguments.next(), arguments.next()) else {
        panic!("usage: bench-checks FLOW INVENTORY");
    };
    let hosts = inventory::load(&inventory).expect("the lab's inventory");
    let lab =
        Lab { flow, inventory, hosts, folder: tempfile::tempdir_in("/var/tmp").expect("a folder on disk") };
    let count = CHECKS * lab.hosts.hosts.len();
    let [chain, wide] = [(true, "chain"), (false, "wide")].map(|(in_a_row, name)| {
        let path = lab.folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, workflow(in_a_row)).expect("the folder can be written");
        path
    });

    let pair = in_turn(
        ROUNDS,
        || lab.run_flow(&chain),
        || {
            lab.kept_open_shells();
            lab.commits();
        },
    );
    print("100 checks in a row on each host, connecting included", count, "shell+commits", pair);

    let pair = in_turn(ROUNDS, || lab.run_flow(&wide), || lab.kept_open_shells());
    print("100 independent checks on each host, connecting included", count, "open shell", pair);
}
