//! Passwords and private keys are on no command line, in no store, no output and no journal.

use std::path::Path;

use crate::harness::lab::command;
use crate::harness::{Lab, Operator, PROMOTERS};

/// Samples the command lines of all processes of a host until told to end; gives what was seen.
struct Sampler(Vec<(&'static str, std::process::Child)>);

impl Sampler {
    fn new() -> Self {
        let script = "until [ -e /run/sampled ]; do ps -e -ww -o args=; sleep 0.02; done | sort -u >/run/samples.new; \
                      mv /run/samples.new /run/samples";
        let start = |host| (host, command(&["on", host, "sh", "-c", script]).spawn().unwrap());
        Self(PROMOTERS.into_iter().map(start).collect())
    }

    fn end(mut self, lab: &Lab) -> Vec<String> {
        lab.on_all("touch /run/sampled");
        for (_, child) in &mut self.0 {
            assert!(child.wait().unwrap().success());
        }
        lab.on_all("cat /run/samples").into_values().collect()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn passwords_and_keys_of_a_deploy_are_on_no_command_line_and_in_no_store_output_or_journal() {
    let lab = Lab::bare();
    let operator = Operator::new(&lab);
    let vars = std::fs::read_to_string(lab.file("group_vars/promoters.yml")).unwrap();
    let passwords: Vec<&str> = vars
        .lines()
        .filter(|line| line.contains("password:"))
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(passwords.len(), 4);

    let sampler = Sampler::new();
    let done = operator.flow(&["run", "deploy.toml", "--output", "json"]).ended(0);
    let samples = sampler.end(&lab);
    assert!(
        samples.iter().all(|seen| seen.contains("apt-get") && seen.contains("postgres")),
        "it looked: {samples:?}"
    );
    let shown = operator.flow(&["show", "--verbose"]).ended(0);
    let journals = lab.on_all("journalctl --no-pager -o cat");
    // The keys too: a line of each is enough.
    let mut keys: Vec<String> = lab
        .on_all("sed -s -n 2p /etc/etcd/certs/server.key /etc/postgresql/certs/server.key")
        .into_values()
        .flat_map(|lines| lines.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let authority = std::fs::read_to_string(lab.file("ca/ca.key")).unwrap();
    keys.push(authority.lines().nth(1).unwrap().to_owned());
    assert!(keys.len() == 7 && keys.iter().all(|line| line.len() > 40), "{}", keys.len());
    for password in passwords.into_iter().chain(keys.iter().map(String::as_str)) {
        for seen in &samples {
            let line = seen.lines().find(|line| line.contains(password));
            assert!(line.is_none(), "on a command line: {line:?}");
        }
        assert!(!done.text().contains(password), "in the output");
        assert!(!shown.text().contains(password), "in what `flow show` tells");
        assert_not_in_store(&operator, password);
        assert!(!journals.values().any(|journal| journal.contains(password)), "in a host's journal");
        let own =
            lab.on_all(&format!("grep -rlF {password} /run/flow /var/lib/flow /tmp 2>/dev/null || true"));
        assert!(own.values().all(String::is_empty), "in a file of flow's on a host: {own:?}");
    }
}

/// Asserts that no file of an operator's folder holds the secret, but for the inventory, where it is from.
pub fn assert_not_in_store(operator: &Operator, secret: &str) {
    let mut looked = 0;
    for entry in std::fs::read_dir(operator.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert!(!contains(&path, secret), "in {}", path.display());
            looked += 1;
        }
    }
    assert!(looked > 0 && operator.folder().join("runs.db").is_file());
}

fn contains(file: &Path, secret: &str) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}
