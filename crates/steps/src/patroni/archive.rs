//! What archives a host's WAL, by its configuration, and of which cluster the backups are.
//!
//! pgBackRest is asked; any other command is named, and not looked into.

use std::time::Duration;

use flow_core::step::StepError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::off::{ARCHIVING, LIMIT, kept_dynamic, parse};
use super::settings::Settings;
use crate::host::{Host, quote};

/// What archives the WAL of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Archive {
    /// The run that has turned archiving off until the cluster is opened.
    pub(crate) off_by: Option<String>,
    /// The command or library, without secrets; what comes again where it is off. None where nothing is archived.
    pub(crate) command: Option<String>,
    /// PostgreSQL's last attempt to archive has failed; none where it can't be asked.
    pub(crate) failing: Option<bool>,
    /// What pgBackRest says, where it is configured.
    pub(crate) backups: Option<Backups>,
}

/// What pgBackRest says of a stanza.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Backups {
    /// The stanza.
    pub(crate) stanza: String,
    /// Why nothing, or not all, can be told.
    pub(crate) unknown: Option<String>,
    /// The system identifier that it takes WAL of now, decimal; of several repositories those that differ.
    pub(crate) identifiers: Vec<String>,
    /// PostgreSQL's major version.
    pub(crate) version: Option<String>,
    /// The latest backup's label.
    pub(crate) latest: Option<String>,
    /// When that ended, UTC.
    pub(crate) ended: Option<String>,
    /// Of which system identifier it is: a stanza that was upgraded still has those of the cluster before.
    pub(crate) of: Option<String>,
    /// The newest WAL in the archive.
    pub(crate) wal: Option<String>,
}

impl Archive {
    /// pgBackRest's stanza into which the WAL goes.
    pub(super) fn stanza(&self) -> Option<&Backups> {
        self.backups
            .as_ref()
            .filter(|_| self.command.as_deref().is_some_and(|one| one.contains("pgbackrest")))
    }
}

impl Backups {
    /// Why WAL of the cluster of this identifier can't be archived into it, or isn't known to be, and what to do.
    pub(super) fn in_the_way(&self, own: &str) -> Option<String> {
        let unknown = self.unknown.as_ref().map(|why| {
            format!("pgBackRest (stanza {}) can't tell of which cluster its archive is: {why}", self.stanza)
        });
        let none = self.identifiers.is_empty();
        let none = || none.then(|| self.other("no cluster", own));
        self.of_another(own).or(unknown).or_else(none)
    }

    /// It takes WAL of another cluster than that of this identifier, and what to do.
    pub(super) fn of_another(&self, own: &str) -> Option<String> {
        let others: Vec<&str> =
            self.identifiers.iter().map(String::as_str).filter(|one| *one != own).collect();
        (!others.is_empty()).then(|| self.other(&others.join(" and "), own))
    }

    fn other(&self, of: &str, own: &str) -> String {
        format!(
            "pgBackRest's stanza {} takes WAL of {of}, and this cluster is {own}: where that is right, on the leader `{}` first, and a full backup soon after",
            self.stanza,
            self.upgrade()
        )
    }

    /// What makes the stanza the living cluster's.
    pub(super) fn upgrade(&self) -> String {
        let verb = if self.identifiers.is_empty() { "stanza-create" } else { "stanza-upgrade" };
        format!("runuser -u postgres -- pgbackrest --stanza={} {verb}", self.stanza)
    }
}

/// What the configuration says.
#[derive(Debug, Default, PartialEq)]
struct Configured {
    off_by: Option<String>,
    command: Option<String>,
    /// The command that names pgBackRest: that which archives, else that which restores.
    pgbackrest: Option<String>,
}

/// Looks at a host. What can't be seen is told or left out, and is no failure.
///
/// # Errors
/// The host doesn't answer.
pub(super) async fn look(host: &dyn Host, config_file: &str) -> Result<Archive, StepError> {
    look_within(host, config_file, Duration::from_secs(10)).await
}

/// The same, with so long for pgBackRest.
pub(super) async fn look_within(
    host: &dyn Host,
    config_file: &str,
    patience: Duration,
) -> Result<Archive, StepError> {
    let text = match host.read(config_file, LIMIT).await.map_err(StepError::from) {
        Ok(text) => String::from_utf8_lossy(&text.unwrap_or_default()).into_owned(),
        Err(error) if error.permanent => String::new(),
        Err(error) => return Err(error),
    };
    let Ok(settings) = Settings::parse(&text) else { return Ok(Archive::default()) };
    let dynamic = kept_dynamic(host, &settings.data_dir).await?;
    let configured = configured(&text, dynamic.as_ref());
    let archive = Archive {
        off_by: configured.off_by,
        command: configured.command.as_deref().map(without_secrets),
        ..Archive::default()
    };
    let stanza = configured.pgbackrest.as_deref().map(|command| (command, word(command, "--stanza")));
    if archive.command.is_none() && stanza.is_none() {
        return Ok(archive);
    }
    let info = match &stanza {
        Some((command, Some(stanza))) => info(command, stanza, patience),
        _ => String::new(),
    };
    let reply = host.probe(&script(&settings, &info)).await?;
    let (text, mut backups) = (reply.text(), None);
    let said = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    if let Some((_, name)) = stanza {
        let found = match (&name, said("info"), said("silent")) {
            (None, ..) => Err("its command names no stanza".to_owned()),
            (Some(name), Some(info), _) => read(info, name),
            (_, None, said) => Err(said.unwrap_or("no answer").to_owned()),
        };
        backups = Some(match found {
            Ok(found) => found,
            Err(why) => {
                Backups { stanza: name.unwrap_or_default(), unknown: Some(why), ..Backups::default() }
            }
        });
    }
    Ok(Archive { failing: said("failing").map(|failing| failing == "t"), backups, ..archive })
}

/// As Patroni has it: its file, else the dynamic configuration, else what a new cluster begins with.
fn configured(text: &str, dynamic: Option<&Value>) -> Configured {
    let off_by = ARCHIVING.run(text).map(str::to_owned);
    let Ok(file) = parse(&ARCHIVING.as_before(text)) else {
        return Configured { off_by, ..Configured::default() };
    };
    let shared = dynamic.or_else(|| file.pointer("/bootstrap/dcs"));
    let at = |path: &str| {
        let found = [Some(&file), shared].into_iter().flatten().find_map(|of| of.pointer(path))?;
        match found {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Bool(yes) => Some(if *yes { "on" } else { "off" }.to_owned()),
            _ => None,
        }
    };
    let parameter = |name: &str| at(&format!("/postgresql/parameters/{name}"));
    let on =
        parameter("archive_mode").is_some_and(|mode| !matches!(mode.as_str(), "off" | "false" | "no" | "0"));
    let command = parameter("archive_library").or_else(|| parameter("archive_command")).filter(|_| on);
    let restore = at("/postgresql/recovery_conf/restore_command").or_else(|| parameter("restore_command"));
    let pgbackrest = [&command, &restore].into_iter().flatten().find(|one| one.contains("pgbackrest"));
    Configured { pgbackrest: pgbackrest.cloned(), off_by, command }
}

/// `--NAME=VALUE` or `--NAME VALUE` in a command.
fn word(command: &str, name: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    let value = loop {
        let rest = words.next()?.strip_prefix(name);
        match rest {
            Some("") => break words.next()?,
            Some(rest) if rest.starts_with('=') => break &rest[1..],
            _ => {}
        }
    };
    let value = value.trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// pgBackRest's question, with the options by which the command finds its configuration and repository.
fn info(command: &str, stanza: &str, patience: Duration) -> String {
    let program =
        command.split_whitespace().find(|word| word.ends_with("pgbackrest")).unwrap_or("pgbackrest");
    let options = command.split_whitespace().filter(|word| {
        ["--config", "--repo"].iter().any(|option| word.starts_with(option)) && word.contains('=')
    });
    let options: Vec<String> = options.map(quote).collect();
    format!(
        r#"o=$(timeout {} runuser -u "$u" -- {} {} --stanza={} --output=json --log-level-console=off --log-level-stderr=error info 2>&1)
case $o in
  '['*) printf 'info %s\n' "$o" ;;
  *) printf 'silent %s\n' "$(printf '%s\n' "$o" | grep . | head -n 1)" ;;
esac
"#,
        patience.as_secs(),
        quote(program),
        options.join(" "),
        quote(stanza)
    )
}

/// Whether the archiver's last attempt has failed.
const FAILING: &str = "select coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) from pg_stat_archiver";

fn script(settings: &Settings, info: &str) -> String {
    asked("failing", settings, FAILING) + info
}

/// A script that asks the host's own PostgreSQL as the data's owner, over its socket; the row follows `word`. Where none runs, or it
/// lets nobody in, there is no such line. `u` is the owner.
pub(super) fn asked(word: &str, settings: &Settings, sql: &str) -> String {
    let bin = if settings.bin_dir.is_empty() { "/usr/bin" } else { &settings.bin_dir };
    format!(
        r#"# What archives the WAL.
cd /; LC_ALL=C; export LC_ALL
d={}; b={}; u=$(stat -c %U -- "$d" 2>/dev/null) || u=postgres
if [ -r "$d/postmaster.pid" ]; then
  {{ read -r pid; read -r _; read -r _; read -r port; read -r socket; }} <"$d/postmaster.pid"
  if kill -0 "$pid" 2>/dev/null; then
    o=$(PGCONNECT_TIMEOUT=3 PGAPPNAME=flow PGOPTIONS='-c statement_timeout=3s' \
      timeout 3 runuser -u "$u" -- "$b/psql" -XqAtw -F ' ' -h "${{socket:-127.0.0.1}}" -p "$port" -U postgres -d postgres -c {} 2>/dev/null) &&
      printf '{word} %s\n' "$o"
  fi
fi
"#,
        quote(&settings.data_dir),
        quote(bin),
        quote(sql),
    )
}

/// `pgbackrest --output=json info` of one stanza (2.45).
#[derive(Deserialize)]
struct Told {
    name: String,
    #[serde(default)]
    db: Vec<Database>,
    #[serde(default)]
    archive: Vec<ArchiveOf>,
    #[serde(default)]
    backup: Vec<Backup>,
    #[serde(default)]
    repo: Vec<Repository>,
}

#[derive(Deserialize)]
struct Database {
    id: u64,
    #[serde(rename = "repo-key", default)]
    repository: u64,
    #[serde(rename = "system-id")]
    identifier: u64,
    version: String,
}

#[derive(Deserialize)]
struct Reference {
    id: u64,
    #[serde(rename = "repo-key", default)]
    repository: u64,
}

#[derive(Deserialize)]
struct ArchiveOf {
    database: Reference,
    max: Option<String>,
}

#[derive(Deserialize)]
struct Backup {
    label: String,
    database: Reference,
    timestamp: Ended,
}

#[derive(Deserialize)]
struct Ended {
    stop: i64,
}

#[derive(Deserialize)]
struct Repository {
    key: u64,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    code: u64,
    message: String,
}

/// A repository that works and has no backup yet.
const NO_BACKUP: u64 = 2;

fn read(info: &str, stanza: &str) -> Result<Backups, String> {
    let told: Vec<Told> =
        serde_json::from_str(info).map_err(|error| format!("its answer can't be read: {error}"))?;
    let told = told.into_iter().find(|one| one.name == stanza);
    let told = told.ok_or_else(|| format!("it knows no stanza {stanza}"))?;
    let ill = told.repo.iter().filter(|one| !matches!(one.status.code, 0 | NO_BACKUP));
    let ill: Vec<String> = ill.map(|one| format!("repository {}: {}", one.key, one.status.message)).collect();
    // A stanza that was upgraded has one for each cluster; the last counts.
    let of_now: Vec<&Database> = told
        .db
        .iter()
        .filter(|one| !told.db.iter().any(|next| next.repository == one.repository && next.id > one.id))
        .collect();
    let mut identifiers: Vec<String> = of_now.iter().map(|one| one.identifier.to_string()).collect();
    identifiers.sort();
    identifiers.dedup();
    let latest = told.backup.iter().max_by_key(|one| one.timestamp.stop);
    let of = latest.and_then(|latest| {
        let is =
            |one: &&Database| one.id == latest.database.id && one.repository == latest.database.repository;
        told.db.iter().find(is)
    });
    let current = |one: &&ArchiveOf| {
        of_now.iter().any(|db| db.id == one.database.id && db.repository == one.database.repository)
    };
    Ok(Backups {
        stanza: told.name,
        unknown: (!ill.is_empty()).then(|| ill.join("; ")),
        identifiers,
        version: of_now.first().map(|one| one.version.clone()),
        latest: latest.map(|latest| latest.label.clone()),
        ended: latest.and_then(|latest| {
            let at = jiff::Timestamp::from_second(latest.timestamp.stop).ok()?;
            Some(at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        }),
        of: of.map(|one| one.identifier.to_string()),
        wal: told.archive.iter().filter(current).filter_map(|one| one.max.clone()).max(),
    })
}

/// A command with what looks like a password in it hidden: `AWS_SECRET_KEY=••••••`.
pub(super) fn without_secrets(command: &str) -> String {
    let hidden = |word: &str| match word.split_once('=') {
        Some((name, _))
            if ["pass", "secret", "key", "token"].iter().any(|one| name.to_lowercase().contains(one)) =>
        {
            format!("{name}=••••••")
        }
        _ => word.to_owned(),
    };
    command.split(' ').map(hidden).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// pgBackRest 2.45, after `stanza-upgrade` to a new cluster.
    const UPGRADED: &str = include_str!("archive_upgraded.json");
    /// The same with a repository on a host that doesn't answer.
    const NO_ROUTE: &str = r#"[{"archive":[],"backup":[],"cipher":"none","db":[],"name":"demo","repo":[{"cipher":"none","key":1,"status":{"code":99,"message":"[UnknownError] remote-0 process on '198.18.0.77' terminated unexpectedly [255]: ssh: connect to host 198.18.0.77 port 22: No route to host"}}],"status":{"code":99,"lock":{"backup":{"held":false}},"message":"other"}}]"#;

    #[test]
    fn of_an_upgraded_stanza_the_last_cluster_counts_and_the_backup_is_of_the_one_before() {
        let found = read(UPGRADED, "demo").unwrap();
        assert_eq!(found.identifiers, ["7714184107589040357"]);
        assert_eq!((found.version.as_deref(), found.wal.as_deref()), (Some("15"), None));
        assert_eq!(
            (found.latest.as_deref(), found.of.as_deref()),
            (Some("20261201-041352F"), Some("7714183986274822101"))
        );
        assert_eq!(found.ended.as_deref(), Some("2026-12-01 04:13:56 UTC"));
        assert_eq!((found.unknown.clone(), found.in_the_way("7714184107589040357")), (None, None));
        let why = found.in_the_way("7").unwrap();
        assert!(
            why.contains("takes WAL of 7714184107589040357") && why.contains("--stanza=demo stanza-upgrade"),
            "{why}"
        );
        assert!(read(UPGRADED, "other").unwrap_err().contains("no stanza other"));
    }

    #[test]
    fn a_repository_that_does_not_answer_says_why() {
        let found = read(NO_ROUTE, "demo").unwrap();
        assert!(found.in_the_way("7").unwrap().contains("No route to host"));
        assert_eq!(found.of_another("7"), None, "what isn't known is no other cluster's");
        assert!(read("ERROR", "demo").unwrap_err().contains("can't be read"));
    }

    #[test]
    fn the_command_is_found_where_patroni_takes_it_from_and_the_stanza_in_it() {
        let file = "postgresql:\n  parameters:\n    archive_mode: on\n    archive_command: 'pgbackrest --stanza=demo archive-push %p'\n";
        let command = || Some("pgbackrest --stanza=demo archive-push %p".to_owned());
        let found = configured(file, None);
        assert_eq!((found.command.clone(), found.pgbackrest, found.off_by), (command(), command(), None));
        let (off, _) = ARCHIVING.turned_off(file, &[], "0123456789ab").unwrap();
        let found = configured(&off, None);
        assert_eq!((found.command, found.off_by.as_deref()), (command(), Some("0123456789ab")));
        let bootstrap = "bootstrap:\n  dcs:\n    postgresql:\n      parameters: {archive_mode: 'on', archive_command: cp}\npostgresql: {}\n";
        assert_eq!(configured(bootstrap, None).command.as_deref(), Some("cp"));
        assert_eq!(configured(bootstrap, Some(&json!({}))), Configured::default(), "it has begun long ago");
        assert_eq!(word("pgbackrest --stanza \"a b\"", "--stanza").as_deref(), Some("a"));
        assert_eq!(word("pgbackrest --stanza-x=1 --stanza=demo", "--stanza").as_deref(), Some("demo"));
        assert!(
            info("/opt/pgbackrest --repo1-path=/r --stanza=d push", "d", Duration::from_secs(10))
                .contains("-- /opt/pgbackrest --repo1-path=/r --stanza=d ")
        );
    }
}
