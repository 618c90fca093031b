//! Patroni's own configuration file, as far as the model reads it.

use std::cell::RefCell;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct File {
    scope: String,
    #[serde(default)]
    namespace: Option<String>,
    name: String,
    #[serde(default)]
    restapi: RestApi,
    #[serde(default)]
    etcd3: Option<Etcd3>,
    #[serde(default)]
    bootstrap: Bootstrap,
    postgresql: Postgresql,
    #[serde(default)]
    tags: Tags,
}

#[derive(Deserialize, Default)]
struct RestApi {
    connect_address: Option<String>,
    listen: Option<String>,
    authentication: Option<Authentication>,
}

#[derive(Deserialize)]
struct Authentication {
    username: Value,
    password: Value,
}

#[derive(Deserialize)]
struct Etcd3 {
    host: Option<String>,
    hosts: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Bootstrap {
    #[serde(default)]
    dcs: Value,
}

#[derive(Deserialize)]
struct Postgresql {
    data_dir: String,
    bin_dir: Option<String>,
    connect_address: Option<String>,
    listen: Option<String>,
}

#[derive(Deserialize, Default)]
struct Tags {
    #[serde(default)]
    nofailover: bool,
}

/// What the model needs of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    /// `/service/demo/`
    pub(super) prefix: String,
    pub(super) scope: String,
    pub(super) name: String,
    /// Addresses of etcd's members.
    pub(super) etcd: Vec<String>,
    pub(super) data_dir: String,
    /// PostgreSQL's major version, where `bin_dir` tells it.
    pub(super) major: Option<String>,
    pub(super) port: u16,
    pub(super) api_port: u16,
    pub(super) auth: Option<(String, String)>,
    /// `bootstrap.dcs`
    pub(super) dcs: Value,
    pub(super) nofailover: bool,
}

/// Reads a configuration. The error says why Patroni would exit.
///
/// It is read at every turn of the world, and rarely another one: what was read is kept.
pub(super) fn read(text: &str) -> Result<Config, String> {
    const KEPT: usize = 64;
    thread_local! {
        static READ: RefCell<HashMap<String, Result<Config, String>>> = RefCell::default();
    }
    READ.with_borrow_mut(|read| {
        if let Some(known) = read.get(text) {
            return known.clone();
        }
        if read.len() >= KEPT {
            read.clear();
        }
        let config = parse(text);
        read.insert(text.to_owned(), config.clone());
        config
    })
}

fn parse(text: &str) -> Result<Config, String> {
    let file: File =
        serde_saphyr::from_str(text).map_err(|error| format!("invalid configuration: {error}"))?;
    let namespace = file.namespace.as_deref().unwrap_or("/service/").trim_matches('/').to_owned();
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let etcd = file.etcd3.map(|etcd| match (etcd.hosts, etcd.host) {
        (Some(Value::Array(hosts)), _) => hosts.iter().map(plain).collect(),
        (Some(Value::String(hosts)), _) => hosts.split(',').map(|host| host.trim().to_owned()).collect(),
        (_, Some(host)) => vec![host],
        _ => Vec::new(),
    });
    let address = |endpoint: String| {
        let bare = endpoint.split("//").last().unwrap_or_default();
        bare.rsplit_once(':').map_or(bare, |(address, _)| address).to_owned()
    };
    let postgres = file.postgresql;
    let port = |text: Option<String>, default: u16| {
        text.and_then(|text| text.rsplit_once(':')?.1.trim().parse().ok()).unwrap_or(default)
    };
    Ok(Config {
        prefix: format!("/{namespace}/{}/", file.scope).replace("//", "/"),
        scope: file.scope,
        name: file.name,
        etcd: etcd.unwrap_or_default().into_iter().map(address).collect(),
        data_dir: postgres.data_dir.trim_end_matches('/').to_owned(),
        major: postgres
            .bin_dir
            .and_then(|dir| dir.split('/').find(|part| part.parse::<u32>().is_ok()).map(str::to_owned)),
        port: port(postgres.connect_address.or(postgres.listen), 5432),
        api_port: port(file.restapi.connect_address.or(file.restapi.listen), 8008),
        auth: file.restapi.authentication.map(|auth| (plain(&auth.username), plain(&auth.password))),
        dcs: file.bootstrap.dcs,
        nofailover: file.tags.nofailover,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_with_patronis_defaults() {
        let config = read(
            "scope: demo\nname: patroni1\netcd3:\n  hosts: 198.18.0.11:2379, 198.18.0.12:2379\n\
             bootstrap:\n  dcs:\n    ttl: 30\npostgresql:\n  data_dir: /var/lib/postgresql/15/main\n  \
             bin_dir: /usr/lib/postgresql/15/bin\n  connect_address: 198.18.0.11:5432\n",
        )
        .unwrap();
        assert_eq!(config.prefix, "/service/demo/");
        assert_eq!(config.etcd, ["198.18.0.11", "198.18.0.12"]);
        assert_eq!(config.major.as_deref(), Some("15"));
        assert_eq!((config.port, config.api_port), (5432, 8008));
        assert_eq!(config.dcs["ttl"], 30);
    }

    #[test]
    fn a_section_that_is_missing_is_named() {
        assert!(read("scope: demo\nname: x\n").unwrap_err().contains("postgresql"));
    }
}
