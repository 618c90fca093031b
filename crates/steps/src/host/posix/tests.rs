//! Every verb against a real shell on this machine; what needs systemd is tested where there is one.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use flow_core::run::{RunId, TaskName};
use futures_util::future::join_all;
use jiff::Timestamp;

use super::*;
use crate::host::local::LocalTransport;
use crate::host::{Content, FileKind, Ownership};
use crate::system::File;
use crate::testing::{RUN, on_real};
use flow_core::step::{Check, Context, Step};

struct Place {
    host: PosixHost,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let paths = Paths { run: path("run it"), lib: path("lib it") };
        let host = PosixHost::new(Arc::new(LocalTransport::new("here")), Login::default(), paths);
        Self { host, dir }
    }

    async fn locked() -> Self {
        let place = Self::new();
        place.host.lock(&claim("r1", 1)).await.unwrap();
        place
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

fn claim(run: &str, epoch: u64) -> LockClaim {
    let since = Timestamp::from_second(1_700_000_000).unwrap();
    LockClaim {
        run: run.into(),
        workflow: "it's $HOME".into(),
        owner: "me@here (pid 1)".into(),
        epoch,
        since,
    }
}

fn attempt(run: &str, epoch: u64, number: u32) -> Attempt {
    Attempt { run: RunId::from_text(run), task: TaskName::new("do/it", Some("here")), number, epoch }
}

fn write(path: &str, content: &str, ownership: Ownership) -> HostChange {
    HostChange::WriteFile { path: path.into(), content: Content(content.into()), ownership }
}

#[tokio::test]
async fn outputs_and_statuses_of_many_probes_stay_apart() {
    let place = Place::new();
    let scripts: Vec<String> = (0..60)
        .map(|n| match n % 6 {
            0 => format!("printf out{n}; printf err{n} >&2; exit {n}"),
            1 => "exec false".into(),
            2 => "echo \"unclosed".into(),
            3 => "printf '\\000\\377\\n\\n'".into(),
            4 => "cat; echo after".into(),
            _ => "set -e; x=1; cd /tmp; false; echo never".into(),
        })
        .collect();
    let replies = join_all(scripts.iter().map(|script| place.host.probe(script))).await;
    for (n, reply) in replies.into_iter().enumerate() {
        let reply = reply.unwrap();
        match n % 6 {
            0 => {
                assert_eq!(reply.code as usize, n);
                assert_eq!(reply.text(), format!("out{n}"));
                assert_eq!(reply.error_text(), format!("err{n}"));
            }
            1 => assert_eq!((reply.code, reply.stdout.len()), (1, 0)),
            2 => assert!(reply.code != 0 && !reply.stderr.is_empty()),
            3 => assert_eq!(reply.stdout, b"\0\xff\n\n"),
            4 => assert_eq!(reply.text(), "after"),
            _ => assert_eq!((reply.code, reply.stdout.len()), (1, 0)),
        }
    }
}

#[tokio::test]
async fn huge_output_does_not_hold_up_others() {
    let place = Place::new();
    let (big, small) =
        tokio::join!(place.host.probe("head -c 5000000 /dev/zero"), place.host.probe("echo small"));
    assert_eq!(big.unwrap().stdout.len(), 5_000_000);
    assert_eq!(small.unwrap().text(), "small");
}

#[tokio::test]
async fn a_probe_that_takes_too_long_is_lost_and_those_behind_it_are_answered() {
    let place = Place::new();
    let slow = place.host.shell.run("sleep 600", std::time::Duration::from_millis(200));
    let (slow, next) = tokio::join!(slow, place.host.probe("echo next"));
    assert!(matches!(slow, Err(Failure::Lost(_))));
    assert_eq!(next.unwrap().text(), "next");
}

#[tokio::test]
async fn a_probe_that_kills_its_shell_is_lost_and_others_are_answered() {
    let place = Place::new();
    let (killer, next) = tokio::join!(place.host.probe("kill -9 $$"), place.host.probe("echo next"));
    assert!(matches!(killer, Err(HostError::Lost { .. })));
    assert_eq!(next.unwrap().text(), "next");
}

#[tokio::test]
async fn files_are_written_whole_with_owner_and_mode_and_seen_again() {
    let place = Place::locked().await;
    let path = place.path("it's a \"file\"\n$x");
    let by = attempt("r1", 1, 1);
    let secret = Ownership { mode: Some(0o640), ..Ownership::default() };
    place.host.change(&by, &write(&path, "one\0\n\n", secret)).await.unwrap();
    assert_eq!(place.host.read(&path, 100).await.unwrap().unwrap(), b"one\0\n\n");
    let stat = place.host.stat(&path).await.unwrap().unwrap();
    assert_eq!((stat.kind, stat.mode, stat.size), (FileKind::File, 0o640, 6));
    assert_eq!(stat.inode, std::fs::metadata(&path).unwrap().ino());

    place.host.change(&by, &write(&path, "two", Ownership::default())).await.unwrap();
    assert_eq!(place.host.stat(&path).await.unwrap().unwrap().mode, 0o640, "what was there is kept");
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    let left = place.host.list(place.dir.path().to_str().unwrap()).await.unwrap().unwrap();
    assert_eq!(left, ["it's a \"file\"\n$x", "lib it", "run it"]);
}

#[tokio::test]
async fn new_files_and_directories_get_the_usual_modes() {
    let place = Place::locked().await;
    let by = attempt("r1", 1, 1);
    let (file, directory) = (place.path("a/b/f"), place.path("a/b"));
    let make = HostChange::MakeDirectory {
        path: directory.clone(),
        ownership: Ownership { mode: Some(0o750), ..Ownership::default() },
    };
    place.host.change(&by, &make).await.unwrap();
    place.host.change(&by, &write(&file, "", Ownership::default())).await.unwrap();
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&place.path("a")), mode(&directory), mode(&file)), (0o755, 0o750, 0o644));
}

#[tokio::test]
async fn failures_say_what_and_why() {
    let place = Place::locked().await;
    let by = attempt("r1", 1, 1);
    let owner = Ownership { owner: Some("no-such-user".into()), ..Ownership::default() };
    let tmp = place.path("f");
    for (change, part) in [
        (
            write("/nowhere/at/all", "", Ownership::default()),
            "can't write /nowhere/at/all: no such directory: /nowhere/at",
        ),
        (write("relative", "", Ownership::default()), "not an absolute path"),
        (write(&tmp, "", owner), "invalid user"),
        (write("/dev/full/x", "", Ownership::default()), "no such directory: /dev/full"),
        (HostChange::RemoveFile { path: place.dir.path().to_str().unwrap().into() }, "Is a directory"),
    ] {
        let error = place.host.change(&by, &change).await.unwrap_err().to_string();
        assert!(error.starts_with("here: ") && error.contains(part), "{error}");
    }
    assert!(!std::path::Path::new(&tmp).exists());
}

#[tokio::test]
async fn a_rename_keeps_the_inode_and_overwrites_nothing() {
    let place = Place::locked().await;
    let by = attempt("r1", 1, 1);
    let (from, to) = (place.path("data dir"), place.path("data.aside"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(place.path("data dir/f"), "x").unwrap();
    let inode = std::fs::metadata(&from).unwrap().ino();
    let change = HostChange::Rename { from: from.clone(), to: to.clone() };
    place.host.change(&by, &change).await.unwrap();
    assert_eq!(place.host.stat(&to).await.unwrap().unwrap().inode, inode);

    let again = place.host.change(&by, &change).await.unwrap_err().to_string();
    assert!(again.contains("no such file or directory"), "{again}");
    std::fs::create_dir(&from).unwrap();
    let over = place.host.change(&by, &change).await.unwrap_err().to_string();
    assert!(over.contains("it exists"), "{over}");
    assert!(std::path::Path::new(&from).exists());
    let across = HostChange::Rename { from: from.clone(), to: "/dev/shm/flow-test-across".into() };
    let across = place.host.change(&by, &across).await.unwrap_err().to_string();
    assert!(across.contains("different file systems"), "{across}");
}

#[tokio::test]
async fn a_file_is_replaced_by_one_beside_it_and_by_nothing_else() {
    let place = Place::locked().await;
    let by = attempt("r1", 1, 1);
    let (path, from, directory) = (place.path("it's"), place.path("new it's"), place.path("directory"));
    std::fs::write(&path, "old").unwrap();
    std::fs::write(&from, "new").unwrap();
    std::fs::create_dir(&directory).unwrap();
    let inode = std::fs::metadata(&from).unwrap().ino();
    let replace = |path: &str, from: &str| HostChange::Replace { path: path.into(), from: from.into() };
    for (change, part) in [
        (replace(&path, &place.path("missing")), "no such file"),
        (replace(&path, &directory), "no such file"),
        (replace(&directory, &from), "it is a directory"),
        (replace("/dev/shm/flow-test-across", &from), "not in one directory"),
    ] {
        let error = place.host.change(&by, &change).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    place.host.change(&by, &replace(&path, &from)).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    assert!(!std::path::Path::new(&from).exists());
}

#[tokio::test]
async fn a_real_program_decides_whether_new_content_takes_a_file_s_place() {
    let Place { host, dir } = Place::new();
    host.lock(&claim(RUN, 1)).await.unwrap();
    let cx = on_real(Arc::new(host));
    let path = dir.path().join("it's a.cfg");
    let names = || {
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap()).filter(|name| !name.ends_with(" it"));
        names.collect::<Vec<_>>()
    };
    std::fs::write(&path, "port 1\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    // Sees the content and the mode that the file is to have.
    let script = "stat -c %a \"$1\" | grep -q 604 && grep -q '^port [0-9]' \"$1\" && exit 0\n\
                  echo \"$1: line 1: a number was expected\" >&2; echo bad >&2; exit 9";
    let step = |content: &str, program: &str| -> File {
        let validate = serde_json::json!([program, "-c", script, "sh", "%s"]);
        let with = serde_json::json!({ "path": path, "content": content, "validate": validate });
        serde_json::from_value(with).unwrap()
    };
    let apply = |step: File, cx: Context| async move {
        let Check::Pending(change) = step.check(&cx).await.unwrap() else { panic!("nothing to do") };
        step.apply(&cx, &change).await
    };

    let error = apply(step("port x\n", "sh"), cx.clone()).await.unwrap_err();
    assert!(error.message.ends_with("`sh` refuses the new content: exit status 9: bad"), "{error}");
    assert!(error.detail.unwrap().contains("line 1: a number was expected"));
    let error = apply(step("port 2\n", "no-such-program"), cx.clone()).await.unwrap_err();
    assert!(error.message.contains("`no-such-program`, or what it calls, is not on the host"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"port 1\n");
    assert_eq!(names(), ["it's a.cfg"]);

    // A new one, since a former one is kept outside of this test's folder. What a killed attempt left is
    // no hindrance.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(dir.path().join(".flow-new.it's a.cfg"), "half").unwrap();
    let accepted = File { mode: Some("0604".into()), ..step("port 2\n", "sh") };
    apply(accepted, cx).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"port 2\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o604);
    assert_eq!(names(), ["it's a.cfg"]);
}

#[tokio::test]
async fn links_are_made_replaced_and_seen() {
    let place = Place::locked().await;
    let by = attempt("r1", 1, 1);
    let path = place.path("link");
    for target in ["first", "second target\n"] {
        let change = HostChange::Symlink { path: path.clone(), target: target.into() };
        place.host.change(&by, &change).await.unwrap();
        let stat = place.host.stat(&path).await.unwrap().unwrap();
        assert_eq!((stat.kind, stat.target.as_deref()), (FileKind::Symlink, Some(target)));
    }
    place.host.change(&by, &HostChange::RemoveFile { path: path.clone() }).await.unwrap();
    place.host.change(&by, &HostChange::RemoveFile { path: path.clone() }).await.unwrap();
    assert_eq!(place.host.stat(&path).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_not_there_is_none() {
    let place = Place::new();
    let path = place.path("nothing/here");
    assert_eq!(place.host.stat(&path).await.unwrap(), None);
    assert_eq!(place.host.read(&path, 10).await.unwrap(), None);
    assert_eq!(place.host.list(&path).await.unwrap(), None);
    assert_eq!(place.host.lock_holder().await.unwrap(), None);
    assert_eq!(place.host.attempt(&attempt("r1", 1, 1)).await.unwrap(), AttemptState::Absent);
}

#[tokio::test]
async fn a_file_longer_than_the_limit_is_an_error() {
    let place = Place::new();
    std::fs::write(place.path("f"), "12345").unwrap();
    assert_eq!(place.host.read(&place.path("f"), 5).await.unwrap().unwrap(), b"12345");
    assert!(place.host.read(&place.path("f"), 4).await.is_err());
}

#[tokio::test]
async fn a_lock_is_one_run_s_and_a_higher_epoch_s() {
    let place = Place::new();
    let host = &place.host;
    let unlocked =
        host.change(&attempt("r1", 1, 1), &write(&place.path("f"), "", Ownership::default())).await;
    assert!(matches!(unlocked, Err(HostError::Fenced { .. })));
    host.lock(&claim("r1", 3)).await.unwrap();
    assert_eq!(host.lock_holder().await.unwrap(), Some(claim("r1", 3)));
    assert!(
        matches!(host.lock(&claim("r2", 9)).await, Err(HostError::Locked { holder, .. }) if *holder == claim("r1", 3))
    );
    for epoch in [2, 3] {
        assert!(matches!(host.lock(&claim("r1", epoch)).await, Err(HostError::Fenced { .. })), "{epoch}");
    }
    host.fence(&attempt("r1", 3, 1)).await.unwrap();
    host.lock(&claim("r1", 10)).await.unwrap();
    let before = host.change(&attempt("r1", 3, 1), &write(&place.path("f"), "", Ownership::default())).await;
    assert!(matches!(before, Err(HostError::Fenced { .. })));
    assert!(matches!(host.fence(&attempt("r2", 10, 1)).await, Err(HostError::Locked { .. })));
    assert!(matches!(host.unlock(&claim("r1", 3), false).await, Err(HostError::Fenced { .. })));
    assert!(matches!(host.unlock(&claim("r2", 3), false).await, Err(HostError::Locked { .. })));
    host.unlock(&claim("r1", 10), false).await.unwrap();
    host.unlock(&claim("r1", 10), false).await.unwrap();
    assert_eq!(host.lock_holder().await.unwrap(), None);
    assert!(!std::path::Path::new(&place.path("f")).exists());
}

#[tokio::test]
async fn a_request_that_arrives_after_its_attempt_was_settled_changes_nothing() {
    let place = Place::locked().await;
    let (late, next) = (attempt("r1", 1, 1), attempt("r1", 1, 2));
    // The connection was lost, nothing of the attempt is to be seen: it counts as not done.
    assert_eq!(place.host.attempt(&late).await.unwrap(), AttemptState::Absent);
    let path = place.path("f");
    let write = |text: &str| write(&path, text, Ownership::default());
    for refused in [
        place.host.change(&late, &write("late")).await.unwrap_err(),
        place.host.run(&late, &Command::new("true")).await.unwrap_err(),
    ] {
        assert!(refused.to_string().contains("was settled before"), "{refused}");
    }
    assert!(!std::path::Path::new(&path).exists());
    assert_eq!(place.host.attempt(&late).await.unwrap(), AttemptState::Ended(None));
    place.host.change(&next, &write("next")).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"next");
}

#[tokio::test]
async fn a_command_gets_its_input_environment_and_directory_and_shows_none_of_them() {
    let place = Place::locked().await;
    let by = attempt("r1", 1, 1);
    let command = Command {
        script: "cat; printf '|%s|' \"$PASS\"; pwd; tr '\\0' '\\n' </proc/*/cmdline 2>/dev/null; for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; done; exit 7".into(),
        stdin: Some(flow_core::step::Secret::new("hidden-input\n")),
        environment: [("PASS".to_owned(), flow_core::step::Secret::new("hidden'word"))].into(),
        directory: Some("/usr".into()),
        ..Command::default()
    };
    let reply = place.host.run(&by, &command).await.unwrap();
    assert_eq!(reply.code, 7);
    let text = reply.text();
    assert!(text.starts_with("hidden-input\n|hidden'word|/usr\n"), "{text}");
    assert_eq!(text.matches("hidden").count(), 2, "a secret stands on a command line");
}

#[tokio::test]
async fn what_a_silent_command_writes_is_dropped_on_the_host() {
    let place = Place::locked().await;
    let run = |script: &str| Command { script: script.into(), silent: true, ..Command::default() };
    for (script, code) in [
        ("echo hidden; echo hidden >&2; sh -c 'echo hidden'; exit 3", 3),
        ("hidden-command", 127),
        ("echo hidden >&2; ${x?hidden}", 2),
        ("echo 'hidden", 2),
    ] {
        let reply = place.host.run(&attempt("r1", 1, 1), &run(script)).await.unwrap();
        assert_eq!(reply, Reply { code, ..Reply::default() }, "{script}");
    }
}

#[tokio::test]
async fn a_command_runs_as_another_user() {
    let place = Place::locked().await;
    let run = |user: &str| Command {
        script: "id -un; pwd; echo $HOME".into(),
        user: Some(user.into()),
        ..Command::default()
    };
    let reply = place.host.run(&attempt("r1", 1, 1), &run("nobody")).await.unwrap();
    assert!(reply.text().starts_with("nobody\n"), "{reply:?}");
    let reply = place.host.run(&attempt("r1", 1, 1), &run("no-such")).await.unwrap();
    assert!(!reply.success() && reply.error_text().contains("no such user: no-such"), "{reply:?}");
}

#[tokio::test]
async fn an_attempt_is_known_to_run_until_its_last_process_has_ended() {
    let place = Place::locked().await;
    let by = attempt("r1", 1, 1);
    let fifo = place.path("fifo");
    let script = format!("mkfifo {0}; cat {0} >/dev/null 2>&1 & echo started", quote_path(&fifo));
    let reply = place.host.run(&by, &Command::new(script)).await.unwrap();
    assert_eq!(reply.text(), "started");
    assert_eq!(place.host.attempt(&by).await.unwrap(), AttemptState::Running);
    let again = place.host.run(&by, &Command::new("true")).await.unwrap_err().to_string();
    assert!(again.contains("still at work"), "{again}");
    assert_eq!(place.host.alive("r1").await.unwrap(), [by.name()]);
    assert!(place.host.alive("r").await.unwrap().is_empty(), "of another run");
    let another = place.host.unlock(&claim("r2", 1), true).await;
    assert!(matches!(another, Err(HostError::Locked { .. })), "a lock that changed hands meanwhile is left");
    let mut theirs = claim("r1", 1);
    theirs.owner = "other".into();
    let refused = place.host.unlock(&theirs, true).await.unwrap_err().to_string();
    assert!(refused.contains("still at work"), "{refused}");

    std::fs::write(&fifo, "end").unwrap();
    while place.host.attempt(&by).await.unwrap() == AttemptState::Running {
        tokio::task::yield_now().await;
    }
    assert_eq!(place.host.attempt(&by).await.unwrap(), AttemptState::Ended(None));
    assert!(place.host.alive("r1").await.unwrap().is_empty());
    place.host.unlock(&theirs, true).await.unwrap();
    assert_eq!(place.host.lock_holder().await.unwrap(), None);
}

fn quote_path(path: &str) -> String {
    crate::host::quote(path)
}

#[tokio::test]
async fn several_tasks_make_one_directory_at_once() {
    let place = Place::locked().await;
    let task = |number: u32| TaskName::new(&format!("step{number}"), Some("here"));
    let tasks: Vec<_> = (1..=8).map(|n| Attempt { task: task(n), ..attempt("r1", 1, 1) }).collect();
    for round in 0..8 {
        let path = place.dir.path().join(format!("former{round}")).to_str().unwrap().to_owned();
        let make = HostChange::MakeDirectory { path, ownership: Ownership::default() };
        let all = tasks.iter().map(|by| place.host.change(by, &make));
        futures_util::future::try_join_all(all).await.unwrap();
    }
}

#[tokio::test]
async fn processes_are_found_by_name_text_and_directory() {
    let place = Place::new();
    let mut child =
        std::process::Command::new("sleep").arg("86399").current_dir(place.dir.path()).spawn().unwrap();
    let pid = child.id();
    let found = |query: ProcessQuery| {
        let host = &place.host;
        async move {
            host.processes(&query).await.unwrap().iter().any(|p| p.pid == pid && p.command == "sleep 86399")
        }
    };
    let directory = Some(place.dir.path().to_str().unwrap().to_owned());
    assert!(found(ProcessQuery { name: Some("sleep".into()), ..ProcessQuery::default() }).await);
    assert!(found(ProcessQuery { command_contains: Some("86399".into()), ..ProcessQuery::default() }).await);
    assert!(found(ProcessQuery { directory: directory.clone(), ..ProcessQuery::default() }).await);
    assert!(!found(ProcessQuery { directory, name: Some("cat".into()), ..ProcessQuery::default() }).await);
    child.kill().unwrap();
    // Not waited for yet: a zombie is no process any more.
    let all = ProcessQuery { command_contains: Some("sleep".into()), ..ProcessQuery::default() };
    assert!(!found(all).await);
    child.wait().unwrap();
}

#[tokio::test]
async fn installed_packages_are_told_from_unknown_ones() {
    let place = Place::new();
    let names = ["dash".to_owned(), "no-such-package-at-all".to_owned()];
    let packages = place.host.packages(&names).await.unwrap();
    assert!(packages.contains_key("dash") && packages.len() == 1, "{packages:?}");
}

#[tokio::test]
async fn what_is_asked_before_its_turn_is_asked_once_and_what_is_asked_in_its_turn_each_time() {
    let place = Place::new();
    let asked = place.path("asked");
    let question = format!("echo >>'{asked}'; wc -l <'{asked}'");
    let ask = async || place.host.probe(&question).await.unwrap().text();
    let two = flow_core::step::early(async { tokio::join!(ask(), ask()) }).await;
    assert_eq!(two, ("1".to_owned(), "1".to_owned()));
    assert_eq!((ask().await, ask().await), ("2".to_owned(), "3".to_owned()));
}
