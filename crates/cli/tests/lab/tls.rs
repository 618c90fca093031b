//! What speaks TLS: what it shows, what mends it, and what deploy leaves as it is.

use crate::harness::{Lab, Operator, until};
use crate::page::{DEPLOY, page};

const LOOK: &str = r#"
name = "look"
summary = "Looks at etcd and PostgreSQL by way of TLS."

[params.ca]
type = "string"
default = "/etc/postgresql/certs/root.crt"

[steps.etcd]
uses = "etcd.member"
hosts = "promoters"
with = { members = 3, timeout = 0, tls = { ca = "{{ params.ca }}", cert = "/etc/etcd/certs/server.crt", key = "/etc/etcd/certs/server.key" } }

[steps.sql]
uses = "postgres.query"
hosts = "promoters"

[steps.sql.with]
address = "{{ host.address }}"
password = "{{ vars.postgresql_superuser_password }}"
sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
expect = [{ ssl = "t" }]
tls = { ca = "{{ params.ca }}" }
"#;

/// A certificate as deploy makes it, but for twenty days.
const SHORT: &str = r#"
name = "short"
summary = "A certificate that ends soon."

[steps.certificate]
uses = "certificate.leaf"
hosts = "promoters"

[steps.certificate.with]
ca_cert = "{{ group_var('promoters', 'flow_ca_cert') | default('~/.config/flow/demo/ca.crt') }}"
ca_key = "{{ group_var('promoters', 'flow_ca_key') | default('~/.config/flow/demo/ca.key') }}"
common_name = "{{ host.name }}"
names = "{{ [host.name, host.address, 'localhost', '127.0.0.1'] + addresses(groups.haproxy) + ['198.18.0.100'] }}"
cert = "/etc/postgresql/certs/server.crt"
key = "/etc/postgresql/certs/server.key"
ca = "/etc/postgresql/certs/root.crt"
owner = "postgres"
group = "postgres"
valid_days = 20
renew_days = 1
"#;

#[test]
fn short_everything_speaks_tls_and_a_certificate_of_another_ca_is_named() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let look = operator.write("look.toml", LOOK);
    operator.flow(&["run", &look]).ended(0).says(&["all 6 tasks"]);
    let stranger = "ca=/etc/ssl/certs/ssl-cert-snakeoil.pem";
    operator.flow(&["run", &look, "--set", stranger]).ended(1).says(&[
        "etcd@patroni1",
        "sql@patroni1",
        "not signed by the CA in /etc/ssl/certs/ssl-cert-snakeoil.pem",
        "name the CA that signed it",
    ]);

    // Without TLS nobody comes in, and without the password nobody changes anything.
    let password = lab.variable("postgresql_superuser_password");
    let plain =
        format!("PGPASSWORD={password} PGSSLMODE=disable psql -h 198.18.0.11 -U postgres -c 'select 1' 2>&1");
    assert!(lab.try_on("patroni2", &plain).unwrap_err().contains("no encryption"));
    let stranger = "cd / && python3 -c 'import ssl, urllib.request as u; \
        tls = ssl.create_default_context(cafile=\"/etc/postgresql/certs/root.crt\"); \
        u.urlopen(u.Request(\"https://198.18.0.11:8008/config\", b\"{}\", method=\"PATCH\"), context=tls)' 2>&1";
    assert!(lab.try_on("patroni2", stranger).unwrap_err().contains("401"));
}

#[test]
fn certificates_that_are_gone_loose_or_near_their_end_are_shown_and_mended_with_nothing_restarted() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let started = "systemctl show -P ActiveEnterTimestampMonotonic etcd patroni; cd /; runuser -u postgres -- \
        psql -XqAtc 'select pg_postmaster_start_time()'";
    let before = lab.on_all(started);
    lab.on("patroni1", "rm /etc/postgresql/certs/server.crt");
    lab.on("patroni2", "chmod 0644 /etc/postgresql/certs/server.key");
    lab.on("patroni3", "chown root /etc/etcd/certs/server.key");
    operator.flow(&["plan", "deploy.toml"]).ended(2).says(&[
        "certificate@patroni1",
        "no certificate",
        "certificate@patroni2",
        "0644 -> 0600 of /etc/postgresql/certs/server.key",
        "etcd-certificate@patroni3",
        "root -> etcd of /etc/etcd/certs/server.key",
    ]);
    page(&operator, DEPLOY, &[]).ended(0).says(&["patroni-running@patroni1", "reload"]);
    operator.flow(&["run", "deploy.toml"]).ended(0).says(&["nothing to do"]);
    assert_eq!(lab.on_all(started), before, "what was mended is read by a reload");
    let fits = "cd /etc/postgresql/certs && openssl verify -CAfile root.crt server.crt";
    assert!(lab.on_all(fits).values().all(|text| text.ends_with(": OK")));

    // One that ends in its last month is made anew, for the same key, and both services show the new one.
    let look = |what: &str| format!("openssl x509 -noout {what} -in /etc/postgresql/certs/server.crt");
    lab.on("patroni2", "rm /etc/postgresql/certs/server.crt");
    let short = operator.write("short.toml", SHORT);
    operator.flow(&["run", &short, "--limit", "patroni2"]).ended(0);
    lab.on("patroni2", &format!("! {}", look("-checkend $((21 * 86400))")));
    let key = lab.on("patroni2", &look("-pubkey"));
    operator.flow(&["run", "deploy.toml"]).ended(0).says(&["certificate@patroni2", "renew"]);
    lab.on("patroni2", &look("-checkend $((300 * 86400))"));
    assert_eq!(lab.on("patroni2", &look("-pubkey")), key);
    let made = lab.on("patroni2", &look("-fingerprint"));
    for service in ["198.18.0.12:5432 -starttls postgres", "198.18.0.12:8008"] {
        let shown = format!(
            "openssl s_client -connect {service} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint"
        );
        until("the new certificate to be shown", || match lab.try_on("patroni1", &shown)? {
            shown if shown == made => Ok(()),
            other => Err(format!("{service}: {other}")),
        });
    }
    operator
        .flow(&["run", "verify.toml", "--set", "days=400"])
        .ended(1)
        .says(&["expires on", "less than 400 days"]);
    assert_eq!(lab.on_all(started), before, "a renewed one is read by a reload too");
}

#[test]
fn deploy_turns_no_etcd_away_from_tls_and_replaces_no_certificate_of_another_ca() {
    let lab = Lab::deployed();
    let operator = Operator::new(&lab);
    let seen =
        "sha256sum /etc/default/etcd /etc/etcd/certs/* /etc/postgresql/certs/* /etc/patroni/config.yml";
    let before = lab.on_all(seen);
    operator.flow(&["run", "deploy.toml", "--set", "etcd_tls=false"]).ended(1).says(&[
        "etcd-stays@patroni1",
        "etcd here has data and serves with TLS",
        "etcd_tls=true",
    ]);
    let elsewhere = operator.folder().join("elsewhere");
    let (cert, key) =
        (format!("ca_cert={}/ca.crt", elsewhere.display()), format!("ca_key={}/ca.key", elsewhere.display()));
    operator.flow(&["run", "deploy.toml", "--set", &cert, "--set", &key]).ended(1).says(&[
        "certificate@patroni1",
        "/etc/postgresql/certs/server.crt is signed by another CA",
        "bring the files of that CA",
    ]);
    assert_eq!(lab.on_all(seen), before);
    lab.assert_healthy();

    // Whose CA it is: the run ends where the certificate can't serve, before anything is configured with it.
    lab.on("patroni2", "cp /etc/etcd/certs/server.key /etc/postgresql/certs/server.key");
    operator.flow(&["run", "deploy.toml", "--set", "certificates=given"]).ended(1).says(&[
        "certificate-good@patroni2",
        "/etc/postgresql/certs/server.crt doesn't match its key /etc/postgresql/certs/server.key",
    ]);
}
