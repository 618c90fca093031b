//! The script of a command: run in its attempt's own process, or as a transient unit that survives it.
//!
//! A command's script, environment and input may hold secrets. They come down standard input, and stand
//! on no command line; what a unit must find later lies in a file that only root reads, removed as soon
//! as it was opened.

use flow_core::step::Attempt;

use super::change::{absolute, printable};
use crate::host::shell::quote;
use crate::host::{Command, Reply};

/// Seconds between two signs of life of who waits for a unit. The first sign after a lost connection
/// ends the waiting on the host.
const HEARTBEAT: u32 = 10;

/// The command as one script: environment, directory, then its own text.
fn body(command: &Command) -> Result<String, String> {
    let mut body = String::from("umask 022; LC_ALL=C.UTF-8; export LC_ALL\n");
    for (name, value) in &command.environment {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(legal) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("not a variable's name: {name:?}"));
        }
        let value = printable(value.reveal()).map_err(|_| format!("a NUL character in {name}"))?;
        body.push_str(&format!("{name}={value}; export {name}\n"));
    }
    match &command.directory {
        Some(directory) => body.push_str(&format!("cd -- {} || exit 1\n", absolute(directory)?)),
        None => body.push_str("cd -- \"${HOME:-/}\" 2>/dev/null || cd /\n"),
    }
    if command.silent {
        // In the shell that reads the script: what that shell says of the script is dropped too.
        body.push_str("exec >/dev/null 2>&1\n");
    }
    body.push_str(&command.script);
    body.push('\n');
    if body.contains('\0') {
        return Err("a script can't hold a NUL character".into());
    }
    Ok(body)
}

/// Reads a script to its end, then runs it with file 6 as its standard input.
const INNER: &str = "s=$(cat); exec <&6 6<&-; eval \"$s\"";

/// Runs the script that comes on standard input as the command's user, with file 6 as its own input.
fn as_user(command: &Command) -> Result<String, String> {
    let Some(user) = command.user.as_deref().filter(|user| *user != "root") else {
        return Ok(format!("HOME=/root USER=root LOGNAME=root sh -c {}\n", quote(INNER)));
    };
    let user = printable(user)?;
    Ok(format!(
        "u={user}; h=$(getent passwd -- \"$u\") || {{ echo \"no such user: $u\" >&2; exit 1; }}\n\
         h=${{h%:*}}; HOME=${{h##*:}} USER=$u LOGNAME=$u runuser -u \"$u\" -- sh -c {}\n",
        quote(INNER)
    ))
}

/// A command and what it reads, to stand after the guard.
pub(super) fn attached(command: &Command) -> Result<(String, Vec<u8>), String> {
    let body = body(command)?;
    let input = command.stdin.as_ref().map(|s| s.reveal().as_bytes().to_vec()).unwrap_or_default();
    let spool = if command.stdin.is_some() {
        // Read whole first: half a secret must not be taken for one.
        format!(
            "i=\"$A.in\"; cat >\"$i\" || exit 1; exec 6<\"$i\"; n=$(stat -c %s \"$i\"); rm -f \"$i\"\n\
             [ \"$n\" = {} ] || exit 1\n",
            input.len()
        )
    } else {
        "exec 6</dev/null\n".to_owned()
    };
    let script = format!(
        "{spool}{feed} | {{ {user} }}\nexit $?\n",
        feed = format_args!("printf '%s' {}", force_quote(&body)),
        user = as_user(command)?,
    );
    Ok((script, input))
}

fn force_quote(text: &str) -> String {
    let quoted = quote(text);
    if quoted.starts_with('\'') { quoted } else { format!("'{quoted}'") }
}

/// A command as a unit of the attempt's name: starts it unless it runs or has run, and waits for its end.
///
/// Its input is the unit's script. Everything after the guard's verdict on standard output is a line of
/// signs of life, a line with the exit status (or `none`), and the command's output.
pub(super) fn detached(by: &Attempt, command: &Command) -> Result<(String, Vec<u8>), String> {
    if command.stdin.is_some() {
        return Err("a command that survives the connection has no standard input".into());
    }
    let name = by.name();
    let earlier = name.rsplit_once('-').filter(|_| by.number > 1).map(|(base, _)| base);
    let forget = earlier.map_or(String::new(), |base| {
        let before = format!("\"$R/attempts/{base}-{}\"", by.number - 1);
        format!("rm -f {before}.rc {before}.out {before}.err\n")
    });
    let unit = format!(
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH; umask 077\n\
         exec 9>>\"$1\"; flock 9; exec 7<\"$1.cmd\" 6</dev/null; rm -f \"$1.cmd\" \"$1.sh\"\n\
         exec >\"$1.out\" 2>\"$1.err\" </dev/null\n\
         ( {} ) <&7\n\
         echo $? >\"$1.rc.new\"; mv -f \"$1.rc.new\" \"$1.rc\"\n",
        as_user(command)?
    );
    let body = body(command)?;
    let script = format!(
        "active() {{ case $(systemctl is-active {name}.service 2>/dev/null) in active|activating|deactivating|reloading) return 0;; esac; return 1; }}\n\
         if [ -n \"$mine\" ] && [ ! -e \"$A.rc\" ] && ! active; then\n\
         {forget}printf '%s' {unit} >\"$A.sh\" && cat >\"$A.cmd\" || exit 1\n\
         [ \"$(stat -c %s \"$A.cmd\")\" = {size} ] || exit 1\n\
         systemd-run --quiet --collect --unit={name} --service-type=exec --property=KillMode=mixed \
         -- /bin/sh \"$A.sh\" \"$A\" || {{ rm -f \"$A.sh\" \"$A.cmd\"; echo; echo failed; exit 0; }}\n\
         fi\n\
         exec 9>&-\n\
         exec 5<\"$A\"; idle=0\n\
         while :; do\n\
         if flock -s -w {HEARTBEAT} 5; then\n\
         [ ! -e \"$A.rc\" ] || break\n\
         active || {{ [ -e \"$A.rc\" ] || idle=$((idle + 1)); [ $idle -lt 3 ] || break; }}\n\
         flock -u 5; sleep 0.1\n\
         else printf .; fi\n\
         done\n\
         echo\n\
         if [ -e \"$A.rc\" ]; then cat \"$A.rc\" \"$A.out\"; cat \"$A.err\" >&2; else echo none; cat \"$A.err\" >&2; fi\n",
        unit = force_quote(&unit),
        size = body.len(),
    );
    Ok((script, body.into_bytes()))
}

/// What a detached command's script wrote, read as the command's own reply.
///
/// # Errors
/// Why there is none: the unit did not start, or was ended before it could say how.
pub(super) fn read_detached(name: &str, reply: Reply) -> Result<Reply, String> {
    let mut lines = reply.stdout.splitn(3, |&b| b == b'\n');
    let (_signs, status, stdout) = (lines.next(), lines.next().unwrap_or_default(), lines.next());
    match std::str::from_utf8(status).unwrap_or_default() {
        "none" => Err(format!("the unit {name} was ended before its command was")),
        "failed" => Err(format!("the unit {name} can't be started: {}", super::guard::reason(&reply))),
        code => match code.parse() {
            Ok(code) => Ok(Reply { code, stdout: stdout.unwrap_or_default().to_vec(), stderr: reply.stderr }),
            Err(_) => Err(format!("the unit {name} left no result: {}", super::guard::reason(&reply))),
        },
    }
}
