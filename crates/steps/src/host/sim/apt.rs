//! Packages: what the repository has, and what installing one brings to a host.

use super::state::{HostState, Release, WorldState};
use super::{patroni, units};
use crate::host::{Ownership, UnitVerb};

/// A package of the release.
struct Package {
    name: &'static str,
    bookworm: &'static str,
    trixie: &'static str,
    needs: &'static [&'static str],
    users: &'static [&'static str],
    directories: &'static [(&'static str, &'static str)],
    /// Enabled and started when it is installed.
    unit: Option<&'static str>,
}

impl Package {
    const fn new(name: &'static str, bookworm: &'static str, trixie: &'static str) -> Self {
        Self { name, bookworm, trixie, needs: &[], users: &[], directories: &[], unit: None }
    }

    fn version(&self, release: Release) -> &'static str {
        match release {
            Release::Bookworm => self.bookworm,
            Release::Trixie => self.trixie,
        }
    }
}

/// Versions as of Debian 12 and 13; an empty one means that the release lacks the package.
const REPOSITORY: &[Package] = &[
    Package {
        users: &["postgres"],
        directories: &[
            ("/etc/postgresql-common", "root"),
            ("/etc/postgresql", "postgres"),
            ("/var/lib/postgresql", "postgres"),
            ("/var/log/postgresql", "postgres"),
        ],
        ..Package::new("postgresql-common", "248+deb12u1", "278")
    },
    Package { needs: &["postgresql-common"], ..Package::new("postgresql-client-15", "15.20-0+deb12u1", "") },
    Package { needs: &["postgresql-client-15"], ..Package::new("postgresql-15", "15.20-0+deb12u1", "") },
    Package { needs: &["postgresql-15"], ..Package::new("postgresql", "15+248+deb12u1", "") },
    Package { needs: &["postgresql-17"], ..Package::new("postgresql", "", "17+278") },
    Package { needs: &["postgresql-common"], ..Package::new("postgresql-client-17", "", "17.6-0+deb13u1") },
    Package { needs: &["postgresql-client-17"], ..Package::new("postgresql-17", "", "17.6-0+deb13u1") },
    Package {
        users: &["etcd"],
        directories: &[("/var/lib/etcd", "etcd")],
        unit: Some("etcd"),
        ..Package::new("etcd-server", "3.4.23-4+b4", "3.5.16-4")
    },
    Package::new("etcd-client", "3.4.23-4+b4", "3.5.16-4"),
    Package {
        needs: &["python3-etcd", "python3-psycopg2"],
        directories: &[("/etc/patroni", "root")],
        unit: Some("patroni"),
        ..Package::new("patroni", "3.0.2-1", "4.0.7-1")
    },
    Package::new("python3-etcd", "0.4.5-4", "0.4.5-5"),
    Package::new("python3-psycopg2", "2.9.5-1+b1", "2.9.10-1"),
    Package {
        users: &["haproxy"],
        directories: &[("/etc/haproxy", "root")],
        unit: Some("haproxy"),
        ..Package::new("haproxy", "2.6.12-1+deb12u4", "3.0.11-1")
    },
    Package {
        directories: &[("/etc/keepalived", "root")],
        unit: Some("keepalived"),
        ..Package::new("keepalived", "1:2.2.7-1+b2", "1:2.3.3-1")
    },
];

/// `apt-get install` of these (`name` or `name=version`). An error is apt's line.
pub(super) fn install(world: &mut WorldState, host: &str, packages: &[String]) -> Result<(), String> {
    let release = world.settings.release;
    for wanted in packages {
        let (name, version) = wanted.split_once('=').unwrap_or((wanted, ""));
        let package = find(name, release)?;
        if !version.is_empty() && version != package.version(release) {
            return Err(format!("E: Version '{version}' for '{name}' was not found"));
        }
    }
    for wanted in packages {
        install_one(world, host, wanted.split('=').next().unwrap_or(wanted))?;
    }
    Ok(())
}

fn find(name: &str, release: Release) -> Result<&'static Package, String> {
    REPOSITORY
        .iter()
        .find(|package| package.name == name && !package.version(release).is_empty())
        .ok_or_else(|| format!("E: Unable to locate package {name}"))
}

fn install_one(world: &mut WorldState, host: &str, name: &str) -> Result<(), String> {
    let release = world.settings.release;
    let package = find(name, release)?;
    if world.host(host)?.packages.contains_key(name) {
        return Ok(());
    }
    for needed in package.needs {
        install_one(world, host, needed)?;
    }
    let state = world.host_mut(host)?;
    state.packages.insert(name.to_owned(), package.version(release).to_owned());
    state.users.extend(package.users.iter().map(|user| (*user).to_owned()));
    for (directory, owner) in package.directories {
        state.files.make_directory(directory, &owned_by(owner, 0o755))?;
    }
    if let Some(major) = name.strip_prefix("postgresql-").filter(|rest| rest.parse::<u32>().is_ok()) {
        create_main_cluster(world, host, major)?;
    }
    if let Some(unit) = package.unit {
        units::add(world.host_mut(host)?, unit, true);
        start_if_allowed(world, host, unit);
    }
    Ok(())
}

/// The cluster `main` that Debian's packages make, unless they are told not to.
fn create_main_cluster(world: &mut WorldState, host: &str, major: &str) -> Result<(), String> {
    let state = world.host_mut(host)?;
    let base = format!("/var/lib/postgresql/{major}");
    let refused = state.files.text("/etc/postgresql-common/createcluster.conf").is_some_and(|text| {
        text.lines().any(|line| line.replace([' ', '\''], "").starts_with("create_main_cluster=false"))
    });
    units::add(state, "postgresql", true);
    if refused || state.files.exists(&format!("{base}/main")) {
        return Ok(());
    }
    state.files.make_directory(&base, &owned_by("postgres", 0o755))?;
    let identifier = patroni::next_identifier(world);
    patroni::write_data_directory(world.host_mut(host)?, &format!("{base}/main"), major, identifier)?;
    let unit = format!("postgresql@{major}-main");
    units::add(world.host_mut(host)?, &unit, true);
    start_if_allowed(world, host, &unit);
    Ok(())
}

/// invoke-rc.d: a masked unit or a policy that forbids it keeps the service down; no error.
fn start_if_allowed(world: &mut WorldState, host: &str, unit: &str) {
    if world.host(host).is_ok_and(|state| !state.files.exists("/usr/sbin/policy-rc.d")) {
        let _ = units::verb(world, host, unit, UnitVerb::Start);
    }
}

/// Ownership of a directory that a package brings.
fn owned_by(owner: &str, mode: u32) -> Ownership {
    Ownership { owner: Some(owner.to_owned()), group: Some(owner.to_owned()), mode: Some(mode) }
}

impl HostState {
    /// A machine as it is after its system was installed.
    pub(super) fn bare(index: usize) -> Self {
        let mut files = super::files::FileTree::default();
        let directories = [
            "/boot",
            "/dev",
            "/etc/default",
            "/etc/systemd/system",
            "/home",
            "/lib/systemd/system",
            "/opt",
            "/root",
            "/run",
            "/srv",
            "/usr/sbin",
            "/usr/bin",
            "/usr/local/bin",
            "/var/lib",
            "/var/log",
            "/var/tmp",
            "/var/backups",
            "/tmp",
        ];
        for directory in directories {
            // The tree is empty, so that nothing can stand in a directory's way.
            let _ = files.make_directory(directory, &Ownership::default());
        }
        Self {
            address: format!("198.18.0.{}", 11 + index),
            machine_id: format!("{:032x}", 0xf10f_0000 + index),
            boot_id: String::new(),
            key_fingerprint: format!("SHA256:simulated{index}"),
            powered: true,
            cut: false,
            files,
            users: ["root", "daemon", "nobody", "www-data"].map(str::to_owned).into(),
            units: [].into(),
            processes: [].into(),
            packages: [].into(),
            lock: None,
            attempts: [].into(),
            journal: [].into(),
            postgres: None,
            detached_polls: 0,
        }
    }
}
