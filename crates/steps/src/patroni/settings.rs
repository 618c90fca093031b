//! Patroni's own configuration file, as far as procedures need it.
//!
//! Environment variables (`PATRONI_SCOPE` ...) go before the file in Patroni; Debian's unit sets none,
//! and they are not looked at here.

use flow_core::step::{Secret, StepError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clients::TlsFiles;
use crate::host::Host;
use crate::support::address_and_port;

/// Longer configurations are none, in bytes.
const LIMIT: u64 = 1 << 20;
/// Sections of stores that flow doesn't speak to. `etcd` is version 2 of its API, another keyspace.
const OTHER_STORES: [&str; 6] = ["etcd", "consul", "zookeeper", "exhibitor", "kubernetes", "raft"];

/// What a host's configuration says, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The cluster's name.
    pub(crate) scope: String,
    /// With slashes at both ends: `/service/`.
    pub(crate) namespace: String,
    /// Namespace and scope: `/service/demo/`.
    pub(crate) prefix: String,
    /// The member's name.
    pub(crate) name: String,
    /// etcd's members, `address:port`.
    pub(crate) endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host. Null: plain.
    #[serde(default)]
    pub(crate) etcd_tls: Option<TlsFiles>,
    /// Where the REST API answers, `address:port`.
    pub(crate) rest: String,
    /// TLS to the REST API of every member, and by which files of the host. Null: plain.
    #[serde(default)]
    pub(crate) rest_tls: Option<TlsFiles>,
    /// Where PostgreSQL answers, `address:port`.
    pub(crate) postgres: String,
    /// The data directory.
    pub(crate) data_dir: String,
    /// PostgreSQL's programs; empty where the configuration doesn't say.
    pub(crate) bin_dir: String,
    /// It never leads: the tag `nofailover`, or a `failover_priority` below 1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) nofailover: bool,
    /// `postgresql.use_pg_rewind`, where the file says it; it goes before the dynamic configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) use_pg_rewind: Option<bool>,
    /// What flow can't do with it, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unsupported: Vec<String>,
    /// User and password of the REST API.
    #[serde(skip)]
    pub(crate) rest_auth: Option<RestAuth>,
}

/// User and password of the REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RestAuth {
    pub(crate) username: String,
    pub(crate) password: Secret,
}

/// Why a configuration can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It isn't Patroni's, or something in it is missing.
    Broken(String),
    /// The cluster's state is kept where flow doesn't look.
    OtherStore(String),
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

impl From<&str> for Unusable {
    fn from(why: &str) -> Self {
        Self::Broken(why.to_owned())
    }
}

impl Settings {
    /// Reads a host's configuration. `None`: there is no such file.
    ///
    /// # Errors
    /// The file can't be read, or isn't Patroni's.
    pub(crate) async fn of(host: &dyn Host, path: &str) -> Result<Option<Self>, StepError> {
        let Some(read) = Self::read(host, path).await? else { return Ok(None) };
        read.map(Some).map_err(|unusable| {
            let (Unusable::Broken(why) | Unusable::OtherStore(why)) = unusable;
            StepError::permanent(format!("{path} can't be used: {why}"))
                .with_hint("`patroni --validate-config` on the host tells more")
        })
    }

    /// As [`Settings::of`]; the inner error says why it can't be used.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) async fn read(
        host: &dyn Host,
        path: &str,
    ) -> Result<Option<Result<Self, Unusable>>, StepError> {
        let Some(bytes) = host.read(path, LIMIT).await? else { return Ok(None) };
        Ok(Some(Self::parse(&String::from_utf8_lossy(&bytes))))
    }

    /// As [`Settings::of`], where the file must be there.
    pub(crate) async fn required(host: &dyn Host, path: &str) -> Result<Self, StepError> {
        Self::of(host, path).await?.ok_or_else(|| StepError::permanent(format!("there is no {path}")))
    }

    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        // Never the parser's own words: they may quote a line with a password.
        let file: Value = serde_saphyr::from_str(text).map_err(|error| {
            let at = error.location().map(|at| format!(" (line {})", at.line())).unwrap_or_default();
            format!("it is no YAML{at}")
        })?;
        let text_at = |path: &str| file.pointer(path).and_then(plain);
        let required =
            |path: &str| text_at(path).ok_or_else(|| format!("`{}` is missing", path[1..].replace('/', ".")));
        let scope = required("/scope")?;
        let bare = text_at("/namespace").unwrap_or_else(|| "service".to_owned());
        let bare = bare.trim_matches('/');
        let namespace = if bare.is_empty() { "/".to_owned() } else { format!("/{bare}/") };
        let mut unsupported = Vec::new();
        let endpoints = endpoints(&file, &mut unsupported)?;
        let etcd_tls = etcd_tls(&file, &mut unsupported);
        let rest_tls = rest_tls(&file, &mut unsupported);
        let listen = |section: &str| {
            let connect = text_at(&format!("/{section}/connect_address"));
            connect.or_else(|| text_at(&format!("/{section}/listen")))
        };
        let rest_auth = match (
            text_at("/restapi/authentication/username"),
            text_at("/restapi/authentication/password"),
        ) {
            (Some(username), Some(password)) => Some(RestAuth { username, password: Secret::new(password) }),
            _ => None,
        };
        Ok(Self {
            prefix: format!("{namespace}{scope}/"),
            namespace,
            scope,
            name: required("/name")?,
            endpoints,
            etcd_tls,
            rest_tls,
            rest: listen("restapi").ok_or("`restapi.connect_address` is missing")?,
            postgres: listen("postgresql").ok_or("`postgresql.connect_address` is missing")?,
            data_dir: required("/postgresql/data_dir")?.trim_end_matches('/').to_owned(),
            bin_dir: text_at("/postgresql/bin_dir").unwrap_or_default().trim_end_matches('/').to_owned(),
            nofailover: nofailover(&file),
            use_pg_rewind: file.pointer("/postgresql/use_pg_rewind").and_then(Value::as_bool),
            unsupported,
            rest_auth,
        })
    }
}

/// `nofailover` goes before `failover_priority` (Patroni 4.0.7, `tags.py`).
fn nofailover(file: &Value) -> bool {
    match file.pointer("/tags/nofailover") {
        Some(Value::Bool(never)) => *never,
        Some(Value::String(text)) => matches!(text.to_lowercase().as_str(), "true" | "yes" | "on" | "1"),
        _ => file
            .pointer("/tags/failover_priority")
            .and_then(Value::as_i64)
            .is_some_and(|priority| priority <= 0),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Patroni speaks TLS to etcd where `protocol` says so (`dcs/etcd.py`); without `cacert` it verifies nothing.
fn etcd_tls(file: &Value, unsupported: &mut Vec<String>) -> Option<TlsFiles> {
    let text_at = |name: &str| file.pointer(&format!("/etcd3/{name}")).and_then(plain);
    if text_at("protocol").as_deref() != Some("https") {
        return None;
    }
    let Some(ca) = text_at("cacert") else {
        unsupported.push("etcd speaks TLS, and no CA to verify it is named (`etcd3.cacert`)".to_owned());
        return None;
    };
    Some(TlsFiles { ca, cert: text_at("cert"), key: text_at("key") })
}

/// The REST API speaks TLS where it has a certificate. As patronictl does it: section `ctl` goes before
/// `restapi`. The member's own certificate is shown only where clients are verified.
fn rest_tls(file: &Value, unsupported: &mut Vec<String>) -> Option<TlsFiles> {
    let text_at = |path: &str| file.pointer(path).and_then(plain);
    let own = text_at("/restapi/certfile")?;
    let Some(ca) = text_at("/ctl/cacert").or_else(|| text_at("/restapi/cafile")) else {
        unsupported.push(
            "its REST API speaks TLS, and no CA to verify it is named (`ctl.cacert` or `restapi.cafile`)"
                .to_owned(),
        );
        return None;
    };
    let verified = text_at("/restapi/verify_client").is_some_and(|which| which != "none");
    let (cert, key) = match text_at("/ctl/certfile") {
        Some(cert) => (Some(cert), text_at("/ctl/keyfile")),
        None if verified => (Some(own), text_at("/restapi/keyfile")),
        None => (None, None),
    };
    Some(TlsFiles { ca, cert, key })
}

/// The members of etcd that section `etcd3` names.
fn endpoints(file: &Value, unsupported: &mut Vec<String>) -> Result<Vec<String>, Unusable> {
    let Some(section) = file.get("etcd3") else {
        return Err(match OTHER_STORES.iter().find(|name| file.get(**name).is_some()) {
            Some(&"etcd") => Unusable::OtherStore(
                "section `etcd` speaks version 2 of etcd's API, which has other keys; flow speaks version 3 (section `etcd3`)".to_owned(),
            ),
            Some(other) => Unusable::OtherStore(format!(
                "the cluster's state is kept in {other}; flow speaks etcd version 3 only (section `etcd3`)"
            )),
            None => "section `etcd3` is missing".into(),
        });
    };
    let field = |name: &str| section.get(name);
    if field("username").is_some() {
        unsupported.push("etcd wants a password (`etcd3.username`)".to_owned());
    }
    let texts: Vec<String> = match (field("hosts"), field("host")) {
        (Some(Value::Array(hosts)), _) => hosts.iter().filter_map(plain).collect(),
        (Some(Value::String(hosts)), _) => hosts.split(',').map(|host| host.trim().to_owned()).collect(),
        (_, Some(Value::String(host))) => vec![host.clone()],
        _ => Vec::new(),
    };
    if texts.is_empty() {
        return Err("`etcd3.hosts` is missing (`url`, `srv` and `proxy` are not read)".into());
    }
    let mut endpoints = texts
        .iter()
        .map(|text| address_and_port(text, 2379).map(|(address, port)| format!("{address}:{port}")))
        .collect::<Result<Vec<_>, _>>()?;
    endpoints.sort();
    endpoints.dedup();
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "scope: demo\nname: patroni1\nrestapi:\n  listen: 0.0.0.0:8008\n  \
        connect_address: 198.18.0.11:8008\n  authentication: {username: admin, password: s3cret}\n\
        etcd3:\n  hosts: 198.18.0.12:2379, http://198.18.0.11:2379\npostgresql:\n  \
        connect_address: 198.18.0.11:5432\n  data_dir: /var/lib/postgresql/15/main/\n  bin_dir: /usr/lib/postgresql/15/bin\n";

    #[test]
    fn a_configuration_is_read_with_patronis_defaults() {
        let settings = Settings::parse(CONFIG).unwrap();
        assert_eq!(settings.prefix, "/service/demo/");
        assert_eq!(settings.endpoints, ["198.18.0.11:2379", "198.18.0.12:2379"]);
        assert_eq!(settings.data_dir, "/var/lib/postgresql/15/main");
        assert_eq!(settings.rest, "198.18.0.11:8008");
        assert!(settings.unsupported.is_empty());
    }

    #[test]
    fn what_is_given_on_holds_no_password() {
        let settings = Settings::parse(CONFIG).unwrap();
        assert_eq!(settings.rest_auth.as_ref().unwrap().password.reveal(), "s3cret");
        assert!(!serde_json::to_string(&settings).unwrap().contains("s3cret"));
        let broken = format!("{:?}", Settings::parse("password: s3cret: [x\n").unwrap_err());
        assert!(!broken.contains("s3cret"), "{broken}");
    }

    #[test]
    fn a_store_that_flow_does_not_speak_to_is_named() {
        let with = |section: &str| Settings::parse(&CONFIG.replace("etcd3:", section)).unwrap_err();
        assert!(matches!(with("etcd:"), Unusable::OtherStore(why) if why.contains("version 2")));
        assert!(matches!(with("consul:"), Unusable::OtherStore(why) if why.contains("consul")));
        assert_eq!(with("nothing:"), Unusable::Broken("section `etcd3` is missing".into()));
    }

    fn files(ca: &str, own: Option<&str>) -> Option<TlsFiles> {
        let at = |ending: &str| own.map(|own| format!("{own}.{ending}"));
        Some(TlsFiles { ca: ca.to_owned(), cert: at("crt"), key: at("key") })
    }

    #[test]
    fn tls_is_spoken_by_the_files_that_patroni_uses() {
        let text = CONFIG
            .replace(
                "etcd3:\n",
                "etcd3:\n  protocol: https\n  cacert: /c/ca.crt\n  cert: /c/e.crt\n  key: /c/e.key\n",
            )
            .replace(
                "restapi:\n",
                "restapi:\n  certfile: /c/r.crt\n  keyfile: /c/r.key\n  cafile: /c/ca.crt\n",
            );
        let settings = Settings::parse(&text).unwrap();
        assert!(settings.unsupported.is_empty());
        assert_eq!(settings.etcd_tls, files("/c/ca.crt", Some("/c/e")));
        assert_eq!(settings.rest_tls, files("/c/ca.crt", None));
        let verified = text.replace("restapi:\n", "restapi:\n  verify_client: optional\n");
        assert_eq!(Settings::parse(&verified).unwrap().rest_tls, files("/c/ca.crt", Some("/c/r")));
        let ctl = format!("{verified}ctl: {{cacert: /o/ca.crt, certfile: /o/c.crt, keyfile: /o/c.key}}\n");
        assert_eq!(Settings::parse(&ctl).unwrap().rest_tls, files("/o/ca.crt", Some("/o/c")));
    }

    #[test]
    fn tls_that_nobody_verifies_is_told_as_unsupported() {
        let text = CONFIG
            .replace("etcd3:\n", "etcd3:\n  protocol: https\n")
            .replace("restapi:\n", "restapi:\n  certfile: /c/r.crt\n");
        let settings = Settings::parse(&text).unwrap();
        assert_eq!(settings.unsupported.len(), 2, "{:?}", settings.unsupported);
    }
}
