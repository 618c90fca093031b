//! The script of each look at a host, and how its answer is read. Each is one probe.

use crate::host::shell::quote;
use crate::host::{Facts, FileKind, Packages, Process, ProcessQuery, Reply, Stat, Unit};

use super::change::{absolute, printable, unit_name};
use super::guard::reason;

/// Exit status of a probe whose object isn't there.
const ABSENT: i32 = 44;

/// Says that a thing is not there, so that the probe can say so by its status.
fn absent_unless(path: &str) -> String {
    format!("[ -e {path} ] || [ -L {path} ] || exit {ABSENT}\n")
}

/// `None` for what isn't there, the reply of a look that went well, or why it did not.
fn present(what: &str, reply: Reply) -> Result<Option<Reply>, String> {
    match reply.code {
        0 => Ok(Some(reply)),
        ABSENT => Ok(None),
        _ => Err(format!("{what}: {}", reason(&reply))),
    }
}

pub(super) fn stat(path: &str) -> Result<String, String> {
    let p = absolute(path)?;
    let absent = absent_unless(&p);
    Ok(format!(
        "{absent}stat -c '%f %u %U %g %G %s %i %d' -- {p} || exit 1\n[ ! -L {p} ] || readlink -n -- {p}\n"
    ))
}

pub(super) fn read_stat(path: &str, reply: Reply) -> Result<Option<Stat>, String> {
    let Some(reply) = present(&format!("can't look at {path}"), reply)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&reply.stdout);
    let (line, target) = text.split_once('\n').unwrap_or((&text, ""));
    let parse = || {
        let mut words = line.split(' ');
        let raw = u32::from_str_radix(words.next()?, 16).ok()?;
        let owner = name_or_number(words.next()?, words.next()?);
        let group = name_or_number(words.next()?, words.next()?);
        let kind = match raw & 0o170_000 {
            0o100_000 => FileKind::File,
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Symlink,
            _ => FileKind::Other,
        };
        Some(Stat {
            kind,
            mode: raw & 0o7777,
            owner,
            group,
            size: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok()?,
            device: words.next()?.parse().ok()?,
            target: (kind == FileKind::Symlink).then(|| target.to_owned()),
        })
    };
    parse().map(Some).ok_or_else(|| format!("can't look at {path}: stat answered {line:?}"))
}

fn name_or_number(number: &str, name: &str) -> String {
    if name == "UNKNOWN" { number.to_owned() } else { name.to_owned() }
}

/// One byte more than the limit, so that a longer file shows.
pub(super) fn read(path: &str, limit: u64) -> Result<String, String> {
    let p = absolute(path)?;
    Ok(format!("[ -e {p} ] || exit {ABSENT}\nexec head -c {} -- {p}\n", limit.saturating_add(1)))
}

pub(super) fn read_bytes(path: &str, limit: u64, reply: Reply) -> Result<Option<Vec<u8>>, String> {
    let Some(reply) = present(&format!("can't read {path}"), reply)? else { return Ok(None) };
    if reply.stdout.len() as u64 > limit {
        return Err(format!("can't read {path}: it is longer than {limit} bytes"));
    }
    Ok(Some(reply.stdout))
}

/// Builtins alone: nothing is started, and names end in NUL, which no name holds.
pub(super) fn list(path: &str) -> Result<String, String> {
    let p = absolute(path)?;
    Ok(format!(
        "[ -d {p} ] || {{ [ -e {p} ] && {{ echo 'it is no directory' >&2; exit 1; }}; exit {ABSENT}; }}\n\
         cd -- {p} || exit 1\n\
         for n in * .[!.]* ..?*; do if [ -e \"$n\" ] || [ -L \"$n\" ]; then printf '%s\\0' \"$n\"; fi; done\n"
    ))
}

pub(super) fn read_list(path: &str, reply: Reply) -> Result<Option<Vec<String>>, String> {
    let Some(reply) = present(&format!("can't list {path}"), reply)? else { return Ok(None) };
    let mut names: Vec<String> = nul_separated(&reply.stdout).collect();
    names.sort();
    Ok(Some(names))
}

fn nul_separated(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    bytes.split(|&b| b == 0).filter(|n| !n.is_empty()).map(|n| String::from_utf8_lossy(n).into_owned())
}

/// The unit's properties, then the ids of all processes below its control group.
///
/// systemd's hierarchy is `/sys/fs/cgroup/systemd` (v1, hybrid) or `/sys/fs/cgroup` (v2). A stopped
/// unit may name no group though `KillMode=process` left processes in it: then its usual place is
/// looked at.
pub(super) fn unit(unit: &str) -> Result<String, String> {
    let name = unit_name(unit)?;
    Ok(format!(
        "o=$(systemctl show -p Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,InvocationID,ControlGroup -- {name}) || exit 1\n\
         printf '%s\\n\\n' \"$o\"\n\
         g=${{o##*ControlGroup=}}; g=${{g%%\n*}}; i=${{o##*Id=}}; i=${{o#*Id=}}; i=${{i%%\n*}}\n\
         [ -n \"$g\" ] || g=/system.slice/$i\n\
         for r in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do\n\
         [ -d \"$r$g\" ] || continue\n\
         set -- \"$r$g\"/cgroup.procs \"$r$g\"/*/cgroup.procs \"$r$g\"/*/*/cgroup.procs\n\
         for f in \"$@\"; do [ ! -e \"$f\" ] || cat \"$f\"; done\n\
         break; done\n"
    ))
}

pub(super) fn read_unit(unit: &str, reply: &Reply) -> Result<Unit, String> {
    if !reply.success() {
        return Err(format!("can't look at {unit}: {}", reason(reply)));
    }
    let text = reply.text();
    let (properties, processes) = text.split_once("\n\n").unwrap_or((&text, ""));
    let value = |name: &str| {
        let mut lines = properties.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    if value("LoadState").is_empty() {
        return Err(format!("can't look at {unit}: systemctl answered {properties:?}"));
    }
    Ok(Unit {
        load: value("LoadState"),
        active: value("ActiveState"),
        sub: value("SubState"),
        file_state: value("UnitFileState"),
        main_pid: value("MainPID").parse().unwrap_or(0),
        invocation: value("InvocationID"),
        processes: processes.lines().filter_map(|pid| pid.trim().parse().ok()).collect(),
    })
}

/// The names of those files, each with a NUL.
///
/// A state's time is that of its last change: systemd notes it at a start and at the end of a reload, also of one that
/// failed.
pub(super) fn written_since(unit: &str, files: &[String]) -> Result<String, String> {
    let name = unit_name(unit)?;
    let files = files.iter().map(|path| absolute(path)).collect::<Result<Vec<_>, _>>()?.join(" ");
    Ok(format!(
        "o=$(systemctl show --timestamp=us+utc -p StateChangeTimestamp -p ReloadResult -- {name}) || exit 1\n\
         t=; r=success\n\
         while IFS== read -r k v; do case $k in StateChangeTimestamp) t=$v;; ReloadResult) r=$v;; esac; done <<O\n$o\nO\n\
         set --; for f in {files}; do [ ! -e \"$f\" ] || set -- \"$@\" \"$f\"; done\n\
         [ $# != 0 ] || exit 0\n\
         if [ -z \"$t\" ] || [ \"${{r:-success}}\" != success ]; then printf '%s\\0' \"$@\"\n\
         else find -H \"$@\" -maxdepth 0 -newermt \"$t\" -print0 || exit 1; fi\n"
    ))
}

pub(super) fn read_written_since(unit: &str, reply: &Reply) -> Result<Vec<String>, String> {
    if !reply.success() {
        return Err(format!("can't tell what {unit} has read: {}", reason(reply)));
    }
    Ok(nul_separated(&reply.stdout).collect())
}

/// Every process of the machine; the query is applied to what comes back.
pub(super) fn processes(query: &ProcessQuery) -> String {
    let cwd = if query.directory.is_some() {
        "printf '\\0'\nfind /proc/[0-9]*/cwd -maxdepth 0 -printf '%h %l\\0' 2>/dev/null\n"
    } else {
        ""
    };
    format!(
        "ps -eww -o pid= -o stat= -o user:64= -o args= || exit 1\nprintf '\\0'\nps -eww -o pid= -o comm=\n{cwd}exit 0\n"
    )
}

pub(super) fn read_processes(query: &ProcessQuery, reply: &Reply) -> Result<Vec<Process>, String> {
    if !reply.success() {
        return Err(format!("can't look at the processes: {}", reason(reply)));
    }
    let text = String::from_utf8_lossy(&reply.stdout);
    let mut sections = text.splitn(3, '\0');
    let (all, names) = (sections.next().unwrap_or_default(), sections.next().unwrap_or_default());
    let directories = sections.next().unwrap_or_default();
    let named = |pid: u32| {
        names.lines().find_map(|line| {
            let (number, name) = line.trim_start().split_once(' ')?;
            (number.parse() == Ok(pid)).then(|| name.trim())
        })
    };
    let works_in =
        |pid: u32| directories.split('\0').find_map(|entry| entry.strip_prefix(&format!("/proc/{pid} ")));
    let matches = |process: &Process| {
        query.name.as_deref().is_none_or(|name| named(process.pid) == Some(cut(name)))
            && query.command_contains.as_deref().is_none_or(|text| process.command.contains(text))
            && query.directory.as_deref().is_none_or(|directory| {
                works_in(process.pid) == Some(directory) || stands_in(&process.command, directory)
            })
    };
    Ok(all.lines().filter_map(read_process).filter(matches).collect())
}

/// The kernel keeps 15 bytes of an executable's name.
fn cut(name: &str) -> &str {
    name.get(..15).unwrap_or(name)
}

/// Whether a directory is one of a command's arguments, or what an option is set to.
fn stands_in(command: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    command.split(' ').any(|word| {
        let word = word.rsplit_once('=').map_or(word, |(_, value)| value);
        word.trim_end_matches('/') == directory || word.strip_prefix("-D") == Some(directory)
    })
}

/// A line of ps; `None` for a zombie, of which nothing is left but its number.
fn read_process(line: &str) -> Option<Process> {
    let (pid, rest) = line.trim_start().split_once(' ')?;
    let (state, rest) = rest.trim_start().split_once(' ')?;
    let (user, command) = rest.trim_start().split_once(' ')?;
    (!state.starts_with('Z')).then_some(())?;
    Some(Process { pid: pid.parse().ok()?, user: user.to_owned(), command: command.trim_start().to_owned() })
}

pub(super) fn packages(names: &[String]) -> Result<String, String> {
    let words = names.iter().map(|name| printable(name)).collect::<Result<Vec<_>, _>>()?;
    // Status 1 tells only that some are not known.
    Ok(format!(
        "dpkg-query -W -f '${{db:Status-Status}} ${{Package}} ${{Version}}\\n' -- {} 2>/dev/null; [ $? -le 1 ]\n",
        words.join(" ")
    ))
}

pub(super) fn read_packages(reply: &Reply) -> Result<Packages, String> {
    if !reply.success() {
        return Err(format!("can't look at the packages: {}", reason(reply)));
    }
    let text = String::from_utf8_lossy(&reply.stdout);
    let installed = |line: &str| {
        let mut words = line.split(' ');
        (words.next()? == "installed").then_some(())?;
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(installed).collect())
}

/// In a container the kernel's boot id is the machine's, so when process 1 began is added to it.
pub(super) fn facts() -> &'static str {
    "id -u; uname -n; cat /etc/machine-id || exit 1\n\
     read -r b </proc/sys/kernel/random/boot_id; read -r s </proc/1/stat; s=${s##*) }; set -- $s; echo \"$b/${20}\"\n\
     (. /etc/os-release; printf '%s\\n%s\\n' \"$ID\" \"$VERSION_CODENAME\")\n"
}

pub(super) fn read_facts(fingerprint: String, reply: &Reply) -> Result<(u32, Facts), String> {
    let text = String::from_utf8_lossy(&reply.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let [uid, hostname, machine_id, boot_id, os_id, os_codename] = lines[..] else {
        return Err(format!("can't tell what machine it is: {}", reason(reply)));
    };
    let uid = uid.parse().map_err(|_| format!("can't tell whose shell it is: id answered {uid:?}"))?;
    let [hostname, machine_id, boot_id, os_id, os_codename] =
        [hostname, machine_id, boot_id, os_id, os_codename].map(str::to_owned);
    Ok((uid, Facts { machine_id, boot_id, key_fingerprint: fingerprint, os_id, os_codename, hostname }))
}

/// An attempt's file, whether it is flocked, its unit's state, and what a detached command left.
///
/// One that isn't running is closed, under its flock: a request of it that is still on its way, after a
/// connection was lost, finds `NAME.over` and changes nothing. So it can be tried again.
pub(super) fn attempt(run_dir: &str, name: &str) -> String {
    format!(
        "umask 077; D={}/attempts; A=$D/{name}; was=; [ ! -e \"$A\" ] || was=1\n\
         mkdir -p \"$D\" || exit 1\n\
         exec 9>>\"$A\"; flock -s -n 9 || {{ echo running; exit 0; }}\n\
         case $(systemctl is-active {name}.service 2>/dev/null) in\n\
         active|activating|deactivating|reloading) echo running; exit 0;; esac\n\
         : >>\"$A.over\" || exit 1\n\
         [ -n \"$was\" ] || {{ rm -f \"$A\"; exit {ABSENT}; }}\n\
         [ -e \"$A.rc\" ] || {{ echo ended; exit 0; }}\n\
         echo \"$(cat \"$A.rc\")\"; cat \"$A.out\"; cat \"$A.err\" >&2\n",
        quote(run_dir)
    )
}

pub(super) fn read_attempt(reply: Reply) -> Result<crate::host::AttemptState, String> {
    use crate::host::AttemptState;
    let Some(reply) = present("can't look at the attempt", reply)? else { return Ok(AttemptState::Absent) };
    let end = reply.stdout.iter().position(|&b| b == b'\n').unwrap_or(reply.stdout.len());
    let word = String::from_utf8_lossy(&reply.stdout[..end]).into_owned();
    let rest = reply.stdout.get(end + 1..).unwrap_or_default().to_vec();
    match word.as_str() {
        "running" => Ok(AttemptState::Running),
        "ended" => Ok(AttemptState::Ended(None)),
        code => match code.parse() {
            Ok(code) => Ok(AttemptState::Ended(Some(Reply { code, stdout: rest, stderr: reply.stderr }))),
            Err(_) => Err(format!("can't look at the attempt: its status is {code:?}")),
        },
    }
}
