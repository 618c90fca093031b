//! A cluster that somebody turned to TLS: etcd that wants a client's certificate, a REST API with one of its own.
//! What flow needs to speak to it is in the hosts' Patroni configurations.

use crate::harness::{Lab, Operator, PROMOTERS};

const CERTIFICATES: &str = r#"
name = "certificates"
summary = "A CA at the operator, a certificate for each host."

[steps.ca]
uses = "certificate.authority"
with = { ca_cert = "CA/ca.crt", ca_key = "CA/ca.key", common_name = "lab CA" }

[steps.directory]
uses = "directory"
hosts = "promoters"
with = { path = "/etc/tls", mode = "0755" }

[steps.etcd]
uses = "certificate.leaf"
needs = ["ca", "directory"]
hosts = "promoters"

[steps.etcd.with]
ca_cert = "CA/ca.crt"
ca_key = "CA/ca.key"
common_name = "{{ host.name }}"
names = ["{{ host.name }}", "{{ host.address }}", "127.0.0.1"]
cert = "/etc/tls/etcd.crt"
key = "/etc/tls/etcd.key"
ca = "/etc/tls/ca.crt"
owner = "etcd"
group = "etcd"

[steps.patroni]
uses = "certificate.leaf"
needs = ["etcd"]
hosts = "promoters"

[steps.patroni.with]
ca_cert = "CA/ca.crt"
ca_key = "CA/ca.key"
common_name = "{{ host.name }}"
names = ["{{ host.name }}", "{{ host.address }}"]
cert = "/etc/tls/patroni.crt"
key = "/etc/tls/patroni.key"
owner = "postgres"
group = "postgres"
"#;

const STOP: &str = "systemctl stop patroni etcd";
const TURN: &str = r"
sed -i 's#http://\([0-9.]*:2379\)#https://\1#g' /etc/default/etcd
printf 'ETCD_%s\n' CERT_FILE=/etc/tls/etcd.crt KEY_FILE=/etc/tls/etcd.key TRUSTED_CA_FILE=/etc/tls/ca.crt \
  CLIENT_CERT_AUTH=true >>/etc/default/etcd
sed -i -e '/^restapi:/a\  certfile: /etc/tls/patroni.crt\n  keyfile: /etc/tls/patroni.key\n  cafile: /etc/tls/ca.crt\n  verify_client: optional' \
  -e '/^etcd3:/a\  protocol: https\n  cacert: /etc/tls/ca.crt\n  cert: /etc/tls/patroni.crt\n  key: /etc/tls/patroni.key' \
  -e '/^  parameters:/a\    ssl: on\n    ssl_cert_file: /etc/tls/patroni.crt\n    ssl_key_file: /etc/tls/patroni.key' \
  /etc/patroni/config.yml";

const LOOK: &str = r#"
name = "look"
summary = "Looks at everything that speaks TLS."

[steps.configuration]
uses = "patroni.config"
hosts = "promoters"

[steps.cluster]
uses = "patroni.agree"
needs = ["configuration"]
with = { configurations = "{{ steps.configuration.hosts }}" }

[steps.etcd]
uses = "etcd.member"
needs = ["cluster"]
hosts = "promoters"
with = { members = 3, tls = "{{ steps.configuration.etcd_tls }}" }

[steps.healthy]
uses = "patroni.cluster"
needs = ["cluster"]
hosts = "promoters[0]"
with = { members = "{{ steps.cluster.rest }}", timeout = 60 }

[steps.sql]
uses = "postgres.query"
needs = ["healthy"]
hosts = "promoters"

[steps.sql.with]
address = "{{ host.address }}"
password = "{{ vars.postgresql_superuser_password }}"
sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
expect = [{ ssl = "t" }]
tls = { ca = "/etc/tls/ca.crt" }

[steps.stranger]
if = "params.stranger"
uses = "etcd.member"
needs = ["cluster"]
hosts = "promoters[0]"
with = { tls = { ca = "/etc/ssl/certs/ssl-cert-snakeoil.pem" }, timeout = 0 }

[params.stranger]
type = "boolean"
default = false
"#;

#[test]
fn short_a_cluster_of_tls_is_looked_at_and_recovered_by_what_its_patroni_says() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let ca = operator.folder().join("ca");
    std::fs::create_dir(&ca).unwrap();
    let made = CERTIFICATES.replace("CA/", &format!("{}/", ca.display()));
    operator.flow(&["run", &operator.write("certificates.toml", &made)]).ended(0);
    for script in [STOP, TURN, "systemctl start --no-block etcd patroni"] {
        lab.each(&PROMOTERS, script).into_iter().for_each(|done| drop(done.unwrap()));
    }

    let look = operator.write("look.toml", LOOK);
    operator.flow(&["run", &look]).ended(0);
    operator
        .flow(&["run", "system-id-recovery.toml", "--confirm", "demo", "--set", "mode=reset"])
        .ended(1)
        .says(&["the cluster is healthy"]);
    let recovery = ["--confirm", "demo", "--set", "mode=reset", "--set", "even_if_healthy=true"];
    operator.flow(&[&["run", "system-id-recovery.toml"], recovery.as_slice()].concat()).ended(0);
    assert_eq!(lab.set_aside().len(), PROMOTERS.len());
    operator.flow(&["run", &look, "--set", "stranger=true"]).ended(1).says(&[
        "not signed by the CA in /etc/ssl/certs/ssl-cert-snakeoil.pem",
        "name the CA that signed it",
    ]);
}
