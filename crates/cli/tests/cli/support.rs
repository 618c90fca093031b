//! A place to run `flow` in: a folder with an inventory of local hosts, a store, and workflows.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of one test. Its hosts are this machine, each with a lock and attempts of its own.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With `web1`, `web2` and `web3` in the group `web`.
    ///
    /// Local hosts want root, as any host does. Where the tests run as somebody else they stop here and
    /// say so.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        let hosts: String = ["web1", "web2", "web3"].map(|host| place.local_host(host)).concat();
        place.file("inventory.ini", &format!("[web]\n{hosts}"));
        place
    }

    /// A line of the inventory for a local host.
    pub(crate) fn local_host(&self, name: &str) -> String {
        let state = self.path(&format!("state-of-{name}"));
        format!("{name} ansible_connection=local flow_state_dir={}\n", state.display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text.replace("DIR", &self.folder.path().display().to_string())).unwrap();
        path
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The command line, ready to be started in this place.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.args(line.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("USER", "tester");
        command.env("TZ", "UTC").env("HOME", self.folder.path()).env("XDG_STATE_HOME", self.path("state"));
        command
    }

    /// Runs `flow` to its end.
    pub(crate) fn flow(&self, line: &str) -> Ran {
        self.flow_with(line, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn flow_with(&self, line: &str, environment: &[(&str, &str)]) -> Ran {
        self.start_with(line, environment).ended()
    }

    /// Runs `flow` at a terminal of its own, made by script(1), with this typed and then an end of file.
    /// Gives its exit code and what was seen there.
    pub(crate) fn at_a_terminal(&self, line: &str, typed: &str) -> (i32, String) {
        let flow = self.command(line);
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &format!("{} {line}", env!("CARGO_BIN_EXE_flow"))]);
        command.arg("/dev/null").current_dir(self.folder.path()).env_clear().env("SHELL", "/bin/sh");
        command.envs(flow.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let seen = self.path(&format!(".seen-{}", rand_name()));
        let kept = File::create(&seen).unwrap();
        command.stdin(Stdio::piped()).stdout(kept.try_clone().unwrap()).stderr(kept);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let code = child.wait().unwrap().code().unwrap_or(-1);
        (code, fs::read_to_string(seen).unwrap())
    }

    /// Starts `flow`; what it prints is kept until it has ended.
    pub(crate) fn start(&self, line: &str) -> Running<'_> {
        self.start_command(line, self.command(line))
    }

    /// Starts `flow` on a terminal of its own; what it prints there is its standard output.
    pub(crate) fn start_on_a_terminal(&self, line: &str) -> Running<'_> {
        self.start_on_a_terminal_with(line, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn start_on_a_terminal_with(&self, line: &str, environment: &[(&str, &str)]) -> Running<'_> {
        let mut flow = self.command(line);
        flow.envs(environment.iter().copied());
        let mut command = Command::new("script");
        let words = format!("{} {line}", env!("CARGO_BIN_EXE_flow"));
        command.args(["-qefc", &words, "/dev/null"]).current_dir(self.folder.path()).stdin(Stdio::piped());
        command.env_clear().envs(flow.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.start_command(line, command)
    }

    /// The same with variables in its environment.
    pub(crate) fn start_with(&self, line: &str, environment: &[(&str, &str)]) -> Running<'_> {
        let mut command = self.command(line);
        command.envs(environment.iter().copied());
        self.start_command(line, command)
    }

    fn start_command(&self, line: &str, mut command: Command) -> Running<'_> {
        // Files, not pipes: nothing that a command leaves behind can keep a test waiting.
        let [out, err] = ["out", "err"].map(|end| {
            let name = format!(".{end}-{:?}-{}", std::thread::current().id(), rand_name());
            self.path(&name)
        });
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Running { place: self, line: line.to_owned(), child: command.spawn().unwrap(), out, err }
    }

    /// Waits until a file is there.
    pub(crate) fn wait_for(&self, name: &str) {
        let began = Instant::now();
        while !self.has(name) {
            assert!(began.elapsed() < PATIENCE, "{name} never came to be");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The runs of the store, newest first, as `flow runs --output json` gives them.
    pub(crate) fn runs(&self) -> Vec<Value> {
        self.flow("runs --output json").document().as_array().unwrap().clone()
    }

    /// The id of the newest run.
    pub(crate) fn newest(&self) -> String {
        self.runs()[0]["id"].as_str().unwrap().to_owned()
    }

    /// Every byte of the store: database, WAL, key, claims.
    pub(crate) fn store_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut open = vec![self.path("state")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                } else {
                    bytes.extend(fs::read(entry.path()).unwrap());
                }
            }
        }
        bytes
    }
}

fn rand_name() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A `flow` that was started.
pub(crate) struct Running<'p> {
    place: &'p Place,
    line: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running<'_> {
    /// Types a line on its standard input.
    pub(crate) fn types(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// What it has written on standard output up to now.
    pub(crate) fn wrote(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    /// Waits until it has written something.
    pub(crate) fn wait_to_write(&self, text: &str) {
        let began = Instant::now();
        while !self.wrote().contains(text) {
            assert!(began.elapsed() < PATIENCE, "`{text}` was never written, but:\n{}", self.wrote());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// What it has said on standard error up to now.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Waits until it has said something.
    pub(crate) fn wait_to_say(&self, text: &str) {
        let began = Instant::now();
        while !self.said().contains(text) {
            assert!(began.elapsed() < PATIENCE, "`{text}` was never said, but:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ran {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("`flow {}` hangs; it said:\n{}", self.line, self.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Ran {
            line: self.line,
            status,
            out: fs::read_to_string(&self.out).unwrap(),
            err: fs::read_to_string(&self.err).unwrap(),
            folder: self.place.folder.path().to_owned(),
        }
    }
}

/// What a `flow` that has ended left behind. Shown, it is what a person saw, with all that differs
/// from run to run (ids, times, folders) replaced by words.
#[derive(Debug)]
pub(crate) struct Ran {
    line: String,
    status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
    folder: PathBuf,
}

impl Ran {
    /// The exit code; -1 where a signal ended it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Checks the exit code, and shows what was printed where it is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "out:\n{}\nerr:\n{}", self.out, self.err);
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}:\n{}\n{}", self.out, self.err))
    }

    /// Standard output as one JSON object a line.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<Value> {
        let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.out.lines().map(object).collect()
    }

    /// Checks that standard error holds a text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` isn't said:\n{}", self.err);
        self
    }
}

impl Ran {
    /// What a person saw, standard error first, as it was but for what differs from run to run.
    pub(crate) fn seen(&self) -> String {
        let lines = steady(&format!("{}{}", self.err, self.out), &self.folder);
        lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// The line without the code of an error: the pages in docs/errors show those (tests/cli/explain.rs).
fn without_code(line: &str) -> String {
    static FORM: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(error|failed|unknown)\[flow::[a-z-]+\]:").unwrap());
    FORM.replace(line, "$1:").into_owned()
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", steady_line(&format!("$ flow {}", self.line)))?;
        for line in steady(&self.err, &self.folder).lines() {
            writeln!(f, "{}", format!("2| {}", without_code(line)).trim_end())?;
        }
        for line in steady(&self.out, &self.folder).lines() {
            writeln!(f, "{}", format!("1| {line}").trim_end())?;
        }
        write!(f, "exit {}", self.code())
    }
}

/// The text with ids, times, owners and folders replaced, and lines on the hosts of one step, which end
/// side by side, in the order of the hosts.
fn steady(text: &str, folder: &Path) -> String {
    let text = text.replace(&folder.display().to_string(), "DIR");
    let lines: Vec<String> = text.lines().map(steady_line).collect();
    let step = |line: &String| {
        let (mark, rest) = line.split_once(' ')?;
        let task = rest.trim_start().split(' ').next()?;
        let of_task = ["changed", "ok", "failed", "skipped", "retrying"].contains(&mark);
        if of_task {
            task.split_once('@').map(|(step, host)| (step.to_owned(), host.to_owned()))
        } else {
            None
        }
    };
    let same_step = |a: &String, b: &String| step(a).zip(step(b)).is_some_and(|(a, b)| a.0 == b.0);
    let mut steady = Vec::new();
    for group in lines.chunk_by(same_step) {
        let mut group = group.to_vec();
        group.sort_by_key(|line| step(line));
        steady.extend(group);
    }
    steady.join("\n")
}

fn steady_line(line: &str) -> String {
    static FORMS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let forms = [
            (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( [A-Z]{3,5}| [+-]\d{2,4})?", "WHEN"),
            // An id is 5 characters of chance and 7 of time, and these begin with 0 until the year 3058.
            (r"\b[0-9a-hjkmnp-tv-z]{5}0[0-9a-hjkmnp-tv-z]{6}\b", "RUN"),
            (r"(resume|show|flow undo|unlock|approve|resolve) [0-9a-hjkmnp-tv-z]{4,11}\b", "$1 RUN"),
            (r"^[0-9a-hjkmnp-tv-z]{4,11} +WHEN", "RUN  WHEN"),
            (r"RUN \([0-9a-hjkmnp-tv-z]{4,11}\)", "RUN (RUN)"),
            (r"\w+@\S+ \(pid \d+\)", "OWNER"),
            (r"\bby tester@[\w.-]+", "by PERSON"),
            // How long a task took is said only where it took long, which a busy machine decides.
            (r"  \(\d+(\.\d)? s\)$", ""),
            (r"\(\d+(\.\d)? s\)$", "(SECONDS)"),
            (r" +\d+(\.\d)? s\b", " SECONDS"),
        ];
        forms.map(|(form, word)| (Regex::new(form).unwrap(), word)).into()
    });
    let mut line = line.to_owned();
    for (form, word) in FORMS.iter() {
        line = form.replace_all(&line, *word).into_owned();
    }
    line.trim_end().to_owned()
}
