//! One script that looks at the data directory, its disks and the PostgreSQL on it, and how its answer is read.
//!
//! One round trip, each part with a time limit of its own: a disk that hangs costs seconds, not the look.

use serde_json::Value;

use super::seen::{Archiver, Aside, Disk, Place, Says, Server, Slot};
use crate::host::quote;
use crate::patroni::archive::without_secrets;

/// Asked of PostgreSQL 13 and newer, on a primary as on a replica.
const QUERY: &str = "\
with here as (select case when pg_is_in_recovery() \
 then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) else pg_current_wal_lsn() end as lsn), \
told as (select name, (array_agg(setting order by seqno desc))[1] as setting from pg_file_settings where error is null group by name) \
select json_build_object(\
'recovery', pg_is_in_recovery(), \
'position', pg_wal_lsn_diff(here.lsn, '0/0')::bigint, \
'replayed', pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint, \
'replayed_at', to_char(pg_last_xact_replay_timestamp() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS'), \
'receiver', (select status from pg_stat_wal_receiver), \
'slots', coalesce((select json_agg(json_build_object('name', slot_name, 'kind', slot_type, 'active', active, \
 'held', pg_wal_lsn_diff(here.lsn, restart_lsn)::bigint, 'state', wal_status)) from pg_replication_slots where not temporary), '[]'), \
'archiver', (select json_build_object('mode', current_setting('archive_mode'), \
 'command', coalesce(nullif(current_setting('archive_library', true), ''), current_setting('archive_command')), \
 'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), 'failures', failed_count, \
 'failed_file', last_failed_wal, \
 'failed_at', to_char(last_failed_time at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS'), \
 'archived_at', to_char(last_archived_time at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS'), \
 'waiting', (select count(*) from pg_ls_archive_statusdir() where name like '%.ready')) \
 from pg_stat_archiver where current_setting('archive_mode') <> 'off'), \
'restart', coalesce((select json_agg(name order by name) from pg_settings left join told using (name) where pending_restart \
 or (source = 'command line' and lower(told.setting) <> lower(pg_settings.setting))), '[]'), \
'slot_limit', (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size')) from here";

/// The script. It changes nothing; what PostgreSQL is asked runs in a read-only transaction as the data's owner.
pub(super) fn script(data_dir: &str, bin_dir: &str) -> String {
    let bin = if bin_dir.is_empty() { "/usr/bin" } else { bin_dir };
    format!(
        r#"# What is at the place of the data directory.
cd /; LC_ALL=C; export LC_ALL
d={d}; b={b}; w=$d/pg_wal; began=$(date +%s)
disk() {{
  p=$2; while [ ! -e "$p" ]; do p=${{p%/*}}; [ -n "$p" ] || p=/; done
  o=$(timeout 3 df -B1 --output=size,avail,target -- "$p") && printf 'disk %s %s\n' "$1" "$(printf '%s\n' "$o" | tail -n 1)"
}}
disk data "$d"; disk wal "$w"
[ ! -f "$d/PG_VERSION" ] || printf 'version %s\n' "$(head -c 20 "$d/PG_VERSION")"
[ ! -f "$d/global/pg_control" ] || echo control
[ ! -x "$b/postgres" ] || printf 'programs %s\n' "$(timeout 3 "$b/postgres" --version)"
if [ -r "$d/postmaster.pid" ]; then
  {{ read -r pid; read -r _; read -r _; read -r port; read -r socket; }} <"$d/postmaster.pid"
  if kill -0 "$pid" 2>/dev/null; then
    o=$(PGCONNECT_TIMEOUT=2 PGAPPNAME=flow PGOPTIONS='-c statement_timeout=2s -c default_transaction_read_only=on' \
      timeout 3 runuser -u "$(stat -c %U -- "$d")" -- "$b/psql" -XqAtw -h "${{socket:-127.0.0.1}}" -p "$port" -U postgres -d postgres \
      -c {query} 2>&1) && printf 'says %s\n' "$o" || printf 'silent %s\n' "$(printf '%s\n' "$o" | tail -n 1)"
  fi
fi
for c in "$d".*; do
  [ -d "$c" ] && [ ! -L "$c" ] || continue
  n=
  [ $(($(date +%s) - began)) -ge 3 ] || n=$(timeout 1 du -sxB1 -- "$c" 2>/dev/null | cut -f1)
  printf 'aside %s %s\n' "${{n:--}}" "$c"
done
echo end
"#,
        d = quote(data_dir),
        b = quote(bin.trim_end_matches('/')),
        query = quote(QUERY),
    )
}

/// What the script said; none where it didn't come to its end.
pub(super) fn read(data_dir: &str, text: &str) -> Option<(Place, Server)> {
    let mut place = Place { directory: data_dir.to_owned(), ..Place::default() };
    let (mut server, mut whole) = (Server::Stopped, false);
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "disk" => place.disks.extend(disk(rest)),
            "version" => place.version = Some(rest.trim().to_owned()).filter(|version| is_version(version)),
            "control" => place.control = true,
            "programs" => place.programs = major(rest),
            "says" => {
                server = says(rest).map_or_else(
                    || Server::Unknown("its answer can't be read".to_owned()),
                    |says| Server::Says(Box::new(says)),
                );
            }
            "silent" => server = Server::Unknown(if rest.is_empty() { "no answer" } else { rest }.to_owned()),
            "aside" => place.copies.extend(aside(rest)),
            "end" => whole = true,
            _ => {}
        }
    }
    whole.then_some((place, server))
}

/// `15`, or `9.6`; half made, the file may hold anything.
fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn disk(text: &str) -> Option<Disk> {
    let (holds, rest) = text.split_once(' ')?;
    let mut words = rest.split_whitespace();
    let (size, free) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mount = words.collect::<Vec<_>>().join(" ");
    Some(Disk { holds: holds.to_owned(), mount, size, free })
}

fn aside(text: &str) -> Option<Aside> {
    let (bytes, path) = text.split_once(' ')?;
    Some(Aside { path: path.to_owned(), bytes: bytes.parse().ok() })
}

/// `postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)`: 15.
fn major(text: &str) -> Option<String> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then_some(digits)
}

fn says(text: &str) -> Option<Says> {
    let told: Value = serde_json::from_str(text).ok()?;
    let words = |of: &Value, name: &str| of[name].as_str().map(str::to_owned);
    let number = |of: &Value, name: &str| of[name].as_i64().and_then(|number| u64::try_from(number).ok());
    let slot = |slot: &Value| {
        Some(Slot {
            name: words(slot, "name")?,
            kind: words(slot, "kind")?,
            active: slot["active"].as_bool()?,
            held: number(slot, "held"),
            state: words(slot, "state"),
        })
    };
    let archiver = |archiver: &Value| {
        Some(Archiver {
            mode: words(archiver, "mode")?,
            command: without_secrets(&words(archiver, "command").unwrap_or_default()),
            failing: archiver["failing"].as_bool()?,
            failures: number(archiver, "failures").unwrap_or(0),
            failed_file: words(archiver, "failed_file"),
            failed_at: words(archiver, "failed_at"),
            archived_at: words(archiver, "archived_at"),
            waiting: number(archiver, "waiting").unwrap_or(0),
        })
    };
    Some(Says {
        recovery: told["recovery"].as_bool()?,
        position: number(&told, "position"),
        replayed: number(&told, "replayed"),
        replayed_at: words(&told, "replayed_at"),
        receiver: words(&told, "receiver"),
        slots: told["slots"].as_array()?.iter().filter_map(slot).collect(),
        archiver: archiver(&told["archiver"]),
        restart: told["restart"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        slot_limit: told["slot_limit"].as_i64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "disk data 1000 250 /var/lib/postgresql\ndisk wal 10 1 /my wal\nversion 15\ncontrol\n\
        programs postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)\n\
        says {\"recovery\" : false, \"position\" : 117440512, \"replayed\" : null, \"replayed_at\" : null, \"receiver\" : null, \
        \"slots\" : [{\"name\" : \"old\", \"kind\" : \"physical\", \"active\" : false, \"held\" : 99, \"state\" : \"reserved\"}], \
        \"archiver\" : {\"mode\" : \"on\", \"command\" : \"S3_KEY=abc push %p\", \"failing\" : true, \"failures\" : 7, \
        \"failed_file\" : \"0001\", \"failed_at\" : \"2026-01-02 03:04:05\", \"archived_at\" : null, \"waiting\" : 3}, \
        \"restart\" : [\"max_connections\"], \"slot_limit\" : -1}\n\
        aside 4096 /d/main.failed\naside - /d/main.set-aside-1\nend\n";

    #[test]
    fn the_script_s_answer_is_read() {
        let (place, server) = read("/d/main", TEXT).unwrap();
        assert_eq!((place.version.as_deref(), place.programs.as_deref()), (Some("15"), Some("15")));
        assert!(place.control);
        assert_eq!((place.disks[0].free, place.disks[1].mount.as_str()), (250, "/my wal"));
        assert_eq!((place.copies[0].bytes, place.copies[1].bytes), (Some(4096), None));
        let Server::Says(says) = server else { panic!("{server:?}") };
        assert_eq!((says.slots[0].held, says.slots[0].active), (Some(99), false));
        let archiver = says.archiver.unwrap();
        assert!(archiver.failing && archiver.waiting == 3);
        assert_eq!(archiver.command, "S3_KEY=•••••• push %p");
        assert_eq!((says.restart, says.position), (vec!["max_connections".to_owned()], Some(117_440_512)));
    }

    #[test]
    fn an_answer_that_was_cut_short_is_none() {
        assert_eq!(read("/d/main", TEXT.strip_suffix("end\n").unwrap()), None);
        assert_eq!(read("/d/main", "version half\nend\n").unwrap().0.version, None);
        let (_, server) = read("/d/main", "silent psql: error: connection refused\nend\n").unwrap();
        assert_eq!(server, Server::Unknown("psql: error: connection refused".into()));
        assert_eq!(read("/d/main", "end\n").unwrap().1, Server::Stopped);
    }
}
