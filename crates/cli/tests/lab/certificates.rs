//! What services are configured with, on real hosts: certificates of the operator's own CA, and files that a
//! program looks at before they take the place of working ones.

use crate::harness::{Lab, Operator};

#[test]
fn hosts_get_certificates_of_the_operator_s_ca_and_a_second_run_changes_nothing() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let ca = operator.folder().join("ca");
    std::fs::create_dir(&ca).unwrap();
    let text = r#"
name = "certificates"
summary = "A CA at the operator, a certificate for each host."

[steps.ca]
uses = "certificate.authority"
with = { ca_cert = "CA/ca.crt", ca_key = "CA/ca.key", common_name = "lab CA" }

[steps.directory]
uses = "directory"
hosts = "promoters"
with = { path = "/etc/app/certs", owner = "postgres", group = "postgres", mode = "0750" }

[steps.leaf]
uses = "certificate.leaf"
needs = ["ca", "directory"]
hosts = "promoters"

[steps.leaf.with]
ca_cert = "CA/ca.crt"
ca_key = "CA/ca.key"
common_name = "{{ host.name }}"
names = ["{{ host.name }}", "{{ host.address }}"]
cert = "/etc/app/certs/server.crt"
key = "/etc/app/certs/server.key"
ca = "/etc/app/certs/root.crt"
owner = "postgres"
group = "postgres"
"#;
    let workflow = operator.write("certificates.toml", &text.replace("CA/", &format!("{}/", ca.display())));
    operator.flow(&["run", &workflow]).ended(0);
    let seen = "cd /etc/app/certs && stat -c '%n %U %a' root.crt server.crt server.key && sha256sum server.*";
    let first = lab.on_all(seen);
    for (host, files) in &first {
        assert!(
            files.contains("server.key postgres 600") && files.contains("server.crt postgres 644"),
            "{files}"
        );
        let data = lab.on(host, "cat /etc/app/certs/server.crt");
        assert!(data.starts_with("-----BEGIN CERTIFICATE-----"), "{data}");
    }
    operator.flow(&["run", &workflow]).ended(0).says(&["nothing to do"]);
    assert_eq!(lab.on_all(seen), first);

    // A loosened mode is mended and nothing else.
    lab.on("patroni1", "chmod 0644 /etc/app/certs/server.key");
    operator.flow(&["plan", &workflow]).ended(2).says(&["leaf@patroni1", "0644", "0600"]);
    operator.flow(&["run", &workflow]).ended(0);
    assert_eq!(lab.on_all(seen), first, "the mode is mended, the certificate is the same");
    let key = lab.on("patroni1", "cat /etc/app/certs/server.key");
    let secret = key.lines().nth(1).unwrap();
    for entry in std::fs::read_dir(operator.folder()).unwrap().flatten() {
        if entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{:?}", entry.path());
        }
    }
}

#[test]
fn a_file_that_its_program_refuses_does_not_take_the_place_of_a_working_one() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let workflow = |content: &str| {
        let text = r#"
name = "validated"
summary = "A configuration of sshd, looked at by sshd."

[steps.configuration]
uses = "file"
hosts = "patroni1"
with = { path = "/etc/ssh/sshd_flow_config", content = "CONTENT\n", validate = ["/usr/sbin/sshd", "-t", "-f", "%s"] }
"#;
        operator.write("validated.toml", &text.replace("CONTENT", content))
    };
    let there = || lab.on("patroni1", "cd /etc/ssh && cat sshd_flow_config; ls -a | grep flow");
    operator.flow(&["run", &workflow("Port 2222")]).ended(0);
    assert_eq!(there(), "Port 2222\nsshd_flow_config");
    operator.flow(&["run", &workflow("Prot 2223")]).ended(1).says(&["is not written", "Prot"]);
    assert_eq!(there(), "Port 2222\nsshd_flow_config");
    operator.flow(&["run", &workflow("Port 2224")]).ended(0);
    assert_eq!(there(), "Port 2224\nsshd_flow_config");
}
