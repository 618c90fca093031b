//! Passwords and private keys are on no command line, in no store, no output and no journal.

use std::path::Path;

use crate::harness::lab::command;
use crate::harness::{Lab, Operator, PROMOTERS};

const BALANCERS: [&str; 2] = ["lb1", "lb2"];

/// Samples the command lines of all processes of a host until told to end; gives what was seen.
struct Sampler(Vec<(&'static str, std::process::Child)>);

impl Sampler {
    fn new() -> Self {
        let script = "until [ -e /run/sampled ]; do ps -e -ww -o args=; sleep 0.02; done | sort -u >/run/samples.new; \
                      mv /run/samples.new /run/samples";
        let start = |host| (host, command(&["on", host, "sh", "-c", script]).spawn().unwrap());
        Self(PROMOTERS.into_iter().chain(BALANCERS).map(start).collect())
    }

    fn end(mut self, lab: &Lab) -> Vec<String> {
        let hosts: Vec<&str> = self.0.iter().map(|(host, _)| *host).collect();
        lab.each(&hosts, "touch /run/sampled");
        for (_, child) in &mut self.0 {
            assert!(child.wait().unwrap().success());
        }
        lab.each(&hosts, "cat /run/samples").into_iter().map(Result::unwrap).collect()
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
        samples.iter().all(|seen| seen.contains("apt-get"))
            && samples[..3].iter().all(|seen| seen.contains("postgres"))
            && samples[3..].iter().all(|seen| seen.contains("haproxy") && seen.contains("keepalived")),
        "it looked: {samples:?}"
    );
    let shown = operator.flow(&["show", "--verbose"]).ended(0);
    operator.flow(&["report", "--out", "report.html"]).ended(0);
    // What a refused password is told by.
    let inventory = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let other = Operator::with_inventory(&lab, &inventory);
    const WRONG: &str = "a-wrong-password-that-is-long-enough";
    other.edit_variables(|text| text.replace(&lab.variable("postgresql_replication_password"), WRONG));
    let refused =
        other.flow(&["run", "deploy.toml"]).ended(1).says(&["the password of `replicator` isn't the one"]);
    let told = format!("{}{}", refused.text(), other.flow(&["show", "--verbose"]).ended(0).text());
    assert_not_in_store(&other, WRONG);
    let journals = lab.each(&[PROMOTERS.as_slice(), &BALANCERS].concat(), "journalctl --no-pager -o cat");
    let journals: Vec<String> = journals.into_iter().map(Result::unwrap).collect();
    // The keys too: a line of each is enough.
    let mut keys: Vec<String> = lab
        .on_all("sed -s -n 2p /etc/etcd/certs/server.key /etc/postgresql/certs/server.key")
        .into_values()
        .flat_map(|lines| lines.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let authority = std::fs::read_to_string(lab.file("ca/ca.key")).unwrap();
    keys.push(authority.lines().nth(1).unwrap().to_owned());
    assert!(keys.len() == 7 && keys.iter().all(|line| line.len() > 40), "{}", keys.len());
    for password in passwords.into_iter().chain([WRONG]).chain(keys.iter().map(String::as_str)) {
        for seen in &samples {
            let line = seen.lines().find(|line| line.contains(password));
            assert!(line.is_none(), "on a command line: {line:?}");
        }
        assert!(!done.text().contains(password), "in the output");
        assert!(!told.contains(password), "in an error message");
        assert!(!shown.text().contains(password), "in what `flow show` tells");
        assert_not_in_store(&operator, password);
        assert!(!journals.iter().any(|journal| journal.contains(password)), "in a host's journal");
        let search = format!("grep -rlF -e {password} /run/flow /var/lib/flow /tmp 2>/dev/null || true");
        let own = lab.each(&[PROMOTERS.as_slice(), &BALANCERS].concat(), &search);
        assert!(own.iter().all(|found| found.as_deref() == Ok("")), "in a file of flow's on a host: {own:?}");
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
