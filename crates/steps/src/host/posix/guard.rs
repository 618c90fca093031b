//! What stands before every change on a host: the lock verified under `flock`, the attempt made known.
//!
//! Two kinds of files. `LIB/lock` says who holds the host (its first line is `RUN EPOCH`, for sh, the
//! rest a [`LockClaim`] as JSON); it is replaced whole, so what is flocked is `LIB/lock.flock`, which
//! never is. `RUN/attempts/NAME` is flocked by an attempt's processes, which all inherit it, for as
//! long as one lives. `LIB` survives a reboot, `RUN` does not, just as processes don't.
//!
//! A change verifies the lock and flocks its attempt while it holds the lock's flock shared, and gives
//! that back before it begins. A run taken over from another process, or by force, looks at attempts
//! after that; so it sees each change that got through before it, and none gets through later.
//!
//! An attempt that was looked for and is not alive is closed by `RUN/attempts/NAME.over`: a request of it
//! may still be on its way, and must not begin once the attempt was settled. `crates/core/tests/model`
//! checks that these rules are enough.

use flow_core::step::Attempt;

use crate::host::shell::quote;
use crate::host::{HostError, LockClaim, Reply};

/// Where the two kinds of files are.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Lost at a reboot.
    pub(crate) run: String,
    /// Survives a reboot.
    pub(crate) lib: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self { run: "/run/flow".into(), lib: "/var/lib/flow".into() }
    }
}

impl Paths {
    /// Both kinds below one folder, for a machine that stands for several hosts.
    pub(crate) fn below(folder: &str) -> Self {
        let folder = folder.trim_end_matches('/');
        Self { run: format!("{folder}/run"), lib: folder.to_owned() }
    }
}

/// Seconds to wait for the lock's flock, which is only ever held for moments.
const LOCK_WAIT: u32 = 15;

impl Paths {
    /// Variables and functions that every guarded script begins with.
    ///
    /// `say` writes the verdict, the first line of the script's output; `stop` ends with one.
    fn preamble(&self) -> String {
        format!(
            "umask 077\nR={} L={}\n\
             say() {{ printf 'flow:%s\\n' \"$*\"; }}\n\
             stop() {{ say \"$@\"; exit 0; }}\n",
            quote(&self.run),
            quote(&self.lib)
        )
    }

    /// Takes the lock's flock (`-s` or `-x`) as file 8 and reads who holds it.
    fn read_lock(&self, mode: &str) -> String {
        format!(
            "[ -d \"$L\" ] || mkdir -p \"$L\" || exit 1\n\
             exec 8>>\"$L/lock.flock\"\n\
             flock {mode} -w {LOCK_WAIT} 8 || stop busy\n\
             held= epoch=\n\
             if [ -e \"$L/lock\" ]; then read -r held epoch <\"$L/lock\" || :; [ -n \"$held\" ] || stop unreadable \"$L/lock\"; fi\n"
        )
    }

    /// Ends with the verdict `fenced` or `locked` unless run and epoch are the lock's.
    fn verify(&self, by: &Attempt) -> String {
        format!(
            "{}[ -n \"$held\" ] || stop fenced\n\
             [ \"$held\" = {} ] || {{ say locked; tail -n +2 \"$L/lock\"; exit 0; }}\n\
             [ \"$epoch\" = {} ] || stop fenced\n",
            self.read_lock("-s"),
            quote(by.run.as_str()),
            by.epoch
        )
    }

    /// Everything before a change: ends with a verdict, or goes on with the attempt flocked as file 9.
    pub(crate) fn guard(&self, by: &Attempt) -> String {
        let known = self.known(by);
        format!("{known}flock -w 2 9 || stop alive\n[ ! -e \"$A.over\" ] || stop over\nexec 8>&-\nsay ok\n")
    }

    /// The same for a command that may be under way already: `$mine` is set where it is not.
    pub(crate) fn guard_or_join(&self, by: &Attempt) -> String {
        format!(
            "{}mine=; flock -w 1 9 && mine=1\n\
             [ -z \"$mine\" ] || [ -e \"$A.rc\" ] || [ ! -e \"$A.over\" ] || stop over\n\
             exec 8>&-\nsay ok\n",
            self.known(by)
        )
    }

    /// The lock verified, and the attempt's file opened as file 9.
    fn known(&self, by: &Attempt) -> String {
        format!(
            "{}{}A=\"$R/attempts/\"{}\n\
             [ -d \"$R/attempts\" ] || mkdir -p \"$R/attempts\" || exit 1\n\
             exec 9>>\"$A\"\n",
            self.preamble(),
            self.verify(by),
            quote(&by.name())
        )
    }

    /// The lock verified and nothing else; the verdict `ok` if it holds.
    pub(crate) fn fence(&self, by: &Attempt) -> String {
        format!("{}{}say ok\n", self.preamble(), self.verify(by))
    }

    /// Takes the lock, or renews it with a higher epoch.
    pub(crate) fn lock(&self, claim: &LockClaim) -> Result<String, serde_json::Error> {
        let content = format!("{} {}\n{}\n", claim.run, claim.epoch, serde_json::to_string(claim)?);
        Ok(format!(
            "{}{}[ -z \"$held\" ] || [ \"$held\" = {run} ] || {{ say locked; tail -n +2 \"$L/lock\"; exit 0; }}\n\
             [ -z \"$held\" ] || [ {epoch} -gt \"$epoch\" ] || stop fenced\n\
             printf '%s' {content} >\"$L/lock.new\" && sync \"$L/lock.new\" && \
             mv -fT \"$L/lock.new\" \"$L/lock\" && sync \"$L\" || exit 1\nsay ok\n",
            self.preamble(),
            self.read_lock("-x"),
            run = quote(&claim.run),
            epoch = claim.epoch,
            content = quote(&content),
        ))
    }

    /// The attempts of a run that are alive, one a line.
    pub(crate) fn alive(&self, run: &str) -> String {
        format!("R={} held={}\n{}", quote(&self.run), quote(run), each_alive("echo \"$n\""))
    }

    /// Gives the lock back; by force in the place of whichever process of the run holds it, unless an
    /// attempt of the run is alive.
    pub(crate) fn unlock(&self, claim: &LockClaim, force: bool) -> String {
        let may = if force {
            each_alive("{ say at-work; printf '%s' \"$n\"; exit 0; }")
        } else {
            format!("[ \"$epoch\" -le {} ] || stop fenced\n", claim.epoch)
        };
        format!(
            "{}{}[ -n \"$held\" ] || stop ok\n\
             [ \"$held\" = {run} ] || {{ say locked; tail -n +2 \"$L/lock\"; exit 0; }}\n{may}rm -f \"$L/lock\" && sync \"$L\" || exit 1\nsay ok\n",
            self.preamble(),
            self.read_lock("-x"),
            run = quote(&claim.run),
        )
    }

    /// The lock's holder as JSON; nothing where it is free.
    pub(crate) fn holder(&self) -> String {
        format!("if [ -e {0}/lock ]; then tail -n +2 {0}/lock; fi", quote(&self.lib))
    }
}

/// Does something for each attempt of the run `$held` that is alive, whose name is `$n`.
fn each_alive(what: &str) -> String {
    format!(
        "for f in \"$R/attempts/flow-$held-\"*; do\n\
         n=${{f##*/}}; case $n in *.*) continue;; esac; [ -e \"$f\" ] || continue\n\
         if (exec 9<\"$f\"; flock -s -n 9); then\n\
         case $(systemctl is-active -- \"$n.service\" 2>/dev/null) in\n\
         active|activating|deactivating|reloading) {what};; esac\n\
         else {what}; fi\n\
         done\n"
    )
}

/// Takes the verdict off a guarded script's reply: what is left is the output of what it guards.
pub(crate) fn verdict(host: &str, by: &str, mut reply: Reply) -> Result<Reply, HostError> {
    let failed = |message: String, detail: Option<String>| {
        Err(HostError::Failed { host: host.to_owned(), message, detail })
    };
    let line = reply.stdout.strip_prefix(b"flow:").and_then(|rest| {
        let end = rest.iter().position(|&b| b == b'\n')?;
        Some((String::from_utf8_lossy(&rest[..end]).into_owned(), rest[end + 1..].to_vec()))
    });
    let Some((verdict, rest)) = line else {
        let reason = reason(&reply);
        return failed(format!("can't prepare the change: {reason}"), Some(reply.error_text()));
    };
    match verdict.as_str() {
        "ok" => {
            reply.stdout = rest;
            Ok(reply)
        }
        "fenced" => Err(HostError::Fenced { host: host.to_owned() }),
        "locked" => match serde_json::from_slice(&rest) {
            Ok(holder) => Err(HostError::Locked { host: host.to_owned(), holder: Box::new(holder) }),
            Err(_) => failed("the host is locked by another run, and its lock can't be read".into(), None),
        },
        "busy" => failed(format!("the host's lock was busy for {LOCK_WAIT} s"), None),
        "alive" => failed(format!("an earlier process of {by} is still at work"), None),
        "over" => failed(format!("{by} was settled before this request of it arrived"), None),
        "at-work" => {
            let name = String::from_utf8_lossy(&rest).into_owned();
            failed(format!("the lock is kept: {name} is still at work on the host"), None)
        }
        other => match other.strip_prefix("unreadable ") {
            Some(path) => failed(format!("the host's lock file is empty: {path}"), None),
            None => failed(format!("an unknown verdict: {other}"), None),
        },
    }
}

/// Why a command failed: the last line it wrote to standard error without the tool's name, or its status.
pub(crate) fn reason(reply: &Reply) -> String {
    let text = reply.error_text();
    let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) else {
        return format!("exit status {}", reply.code);
    };
    let line = line.trim();
    match line.split_once(": ") {
        Some((tool, rest)) if !tool.contains(' ') && !tool.contains('/') => rest.to_owned(),
        _ => line.to_owned(),
    }
}
