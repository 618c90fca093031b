//! Hosts over SSH against a real sshd on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic where a test would, and say why one is skipped"
)]

mod sshd;

use std::fs;
use std::process::Command as Process;

use flow_steps::clients::HttpRequest;
use flow_steps::host::{AttemptState, Command, Content, Host, HostChange, HostError, Ownership};
use futures_util::future::join_all;
use rand::{RngCore, SeedableRng};
use serde_json::{Value, json};
use sshd::{attempt, claim, keygen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Starts an sshd or ends the test.
macro_rules! sshd {
    ($extra:expr) => {
        match sshd::start($extra) {
            Some(sshd) => sshd,
            None => return,
        }
    };
    () => {
        sshd!("")
    };
}

fn unreachable(error: HostError) -> (String, String) {
    match error {
        HostError::Unreachable { message, hint, .. } => (message, hint.unwrap_or_default()),
        other => panic!("not unreachable: {other:?}"),
    }
}

fn with(mut vars: Value, name: &str, value: impl Into<Value>) -> Value {
    vars[name] = value.into();
    vars
}

#[tokio::test]
async fn a_known_host_is_reached_and_says_who_it_is() {
    let sshd = sshd!();
    let facts = sshd.host(sshd.vars()).await.facts().await.unwrap();
    let shown = Process::new("ssh-keygen").arg("-lf").arg(sshd.path("host_key.pub")).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains(&facts.key_fingerprint));
    assert!(!facts.hostname.is_empty() && facts.boot_id.contains('/'));
}

#[tokio::test]
async fn an_unknown_host_key_is_refused_with_the_fix() {
    let sshd = sshd!();
    fs::remove_file(sshd.path("home/.ssh/known_hosts")).unwrap();
    let (message, hint) = unreachable(sshd.host(sshd.vars()).await.facts().await.unwrap_err());
    assert!(message.starts_with("the host key is unknown: it shows ed25519 SHA256:"), "{message}");
    assert!(hint.contains(&format!("ssh-keyscan -p {} 127.0.0.1 >> ", sshd.port)), "{hint}");

    let lax = with(sshd.vars(), "ansible_ssh_common_args", "-o StrictHostKeyChecking=no");
    let (message, _) = unreachable(sshd.host(lax).await.facts().await.unwrap_err());
    assert!(
        message.contains("StrictHostKeyChecking is turned off for it, which flow does not follow"),
        "{message}"
    );
}

#[tokio::test]
async fn a_changed_host_key_is_refused_with_both_fingerprints() {
    let sshd = sshd!();
    sshd.know(&sshd.path("home/.ssh/known_hosts"), "user_key.pub");
    let (message, hint) = unreachable(sshd.host(sshd.vars()).await.facts().await.unwrap_err());
    assert!(
        message.starts_with("the host key has changed") && message.matches("SHA256:").count() == 2,
        "{message}"
    );
    assert!(hint.contains(&format!("ssh-keygen -R '[127.0.0.1]:{}'", sshd.port)), "{hint}");
}

#[tokio::test]
async fn hashed_names_and_other_files_are_found() {
    let sshd = sshd!();
    let (usual, other) = (sshd.path("home/.ssh/known_hosts"), sshd.path("other"));
    fs::rename(&usual, &other).unwrap();
    assert!(Process::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&other).status().unwrap().success());
    assert!(fs::read_to_string(&other).unwrap().starts_with("|1|"));
    sshd.host(sshd.vars()).await.facts().await.unwrap_err();
    let args = format!("-o 'UserKnownHostsFile {} {}'", usual.display(), other.display());
    sshd.host(with(sshd.vars(), "ansible_ssh_common_args", args)).await.facts().await.unwrap();
}

#[tokio::test]
async fn of_several_host_keys_the_known_kind_is_asked_for() {
    let sshd = sshd!();
    let second = sshd.path("ecdsa_key");
    keygen(&second, "ecdsa", "");
    let more = sshd!(&format!("HostKey {}\n", second.display()));
    let key = fs::read_to_string(sshd.path("ecdsa_key.pub")).unwrap();
    fs::write(more.path("home/.ssh/known_hosts"), format!("[127.0.0.1]:{} {key}", more.port)).unwrap();
    more.host(more.vars()).await.facts().await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_not_accepted_is_named() {
    let sshd = sshd!();
    keygen(&sshd.path("wrong"), "ed25519", "");
    let vars = with(sshd.vars(), "ansible_ssh_private_key_file", sshd.text("wrong"));
    let (message, hint) = unreachable(sshd.host(vars).await.facts().await.unwrap_err());
    assert!(
        message.contains("the login as root was refused") && message.contains("/wrong was not accepted"),
        "{message}"
    );
    assert!(hint.contains("ssh -v"), "{hint}");
}

#[tokio::test]
async fn a_key_with_a_passphrase_works_through_an_agent_and_else_says_so() {
    let sshd = sshd!();
    keygen(&sshd.path("locked"), "ed25519", "passphrase");
    fs::copy(sshd.path("locked.pub"), sshd.path("authorized_keys")).unwrap();
    let vars = with(sshd.vars(), "ansible_ssh_private_key_file", sshd.text("locked"));
    let (message, hint) = unreachable(sshd.host(vars.clone()).await.facts().await.unwrap_err());
    assert!(message.contains("/locked has a passphrase"), "{message}");
    assert!(hint.starts_with("`ssh-add "), "{hint}");

    let socket = sshd.path("agent");
    let mut agent = Process::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    let askpass = sshd.path("askpass");
    fs::write(&askpass, "#!/bin/sh\necho passphrase\n").unwrap();
    fs::set_permissions(&askpass, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let added = Process::new("ssh-add")
        .arg(sshd.path("locked"))
        .env("SSH_AUTH_SOCK", &socket)
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env("DISPLAY", ":0")
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    let mut environment = sshd.environment();
    environment.agent = Some(socket);
    let reached = sshd.host_with(environment, vars).await.facts().await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    reached.unwrap();
}

#[tokio::test]
async fn a_jump_host_is_passed_through_and_named_when_it_fails() {
    let (inner, jump) = (sshd!(), sshd!());
    // The jump host is described by ssh_config alone, as `ssh -J` has it.
    let known = inner.path("home/.ssh/known_hosts");
    let jump_key = fs::read_to_string(jump.path("host_key.pub")).unwrap();
    let both = format!("{}[127.0.0.1]:{} {jump_key}", fs::read_to_string(&known).unwrap(), jump.port);
    fs::write(&known, both).unwrap();
    let config = format!(
        "Host gate\n HostName 127.0.0.1\n Port {}\n User root\n IdentityFile {}\n",
        jump.port,
        jump.text("user_key")
    );
    fs::write(inner.path("home/.ssh/config"), config).unwrap();
    let vars = with(inner.vars(), "ansible_ssh_common_args", "-o ProxyJump=gate");
    let host = inner.host(vars.clone()).await;
    host.facts().await.unwrap();
    // What the inner sshd sees is a connection from the jump host's process.
    assert!(fs::read_to_string(jump.path("log")).unwrap().contains("Accepted publickey"));

    fs::write(jump.path("authorized_keys"), "").unwrap();
    let (message, _) = unreachable(inner.host(vars).await.facts().await.unwrap_err());
    assert!(
        message.starts_with(&format!("jump host 127.0.0.1:{}: the login as root was refused", jump.port)),
        "{message}"
    );
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_an_error_with_name_and_address() {
    let sshd = sshd!();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = sshd.host(with(sshd.vars(), "ansible_port", port)).await;
    let replies = join_all((0..3).map(|_| host.probe("true"))).await;
    for reply in replies {
        let text = reply.unwrap_err().to_string();
        assert_eq!(text, format!("box (127.0.0.1:{port}) can't be reached: connection refused"));
    }
}

#[tokio::test]
async fn any_bytes_come_back_over_the_connection() {
    let sshd = sshd!();
    let host = sshd.host(sshd.vars()).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let contents: Vec<Vec<u8>> = (0..40)
        .map(|n| {
            let mut bytes = vec![0; n * n * 37];
            random.fill_bytes(&mut bytes);
            bytes
        })
        .collect();
    for (n, content) in contents.iter().enumerate() {
        fs::write(sshd.path(&format!("bytes{n}")), content).unwrap();
    }
    let scripts: Vec<_> =
        (0..40).map(|n| format!("cat {0}; cat {0} >&2; exit {n}", sshd.text(&format!("bytes{n}")))).collect();
    let replies = join_all(scripts.iter().map(|script| host.probe(script))).await;
    for (n, (reply, content)) in replies.into_iter().zip(&contents).enumerate() {
        let reply = reply.unwrap();
        assert_eq!((reply.code as usize, &reply.stdout, &reply.stderr), (n, content, content));
    }
}

#[tokio::test]
async fn large_files_go_there_and_back_and_many_commands_at_once_share_the_connection() {
    let sshd = sshd!();
    let host = sshd.host(sshd.vars()).await;
    host.lock(&claim("r1", 1)).await.unwrap();
    let mut content = vec![0; 5_000_000];
    rand::rngs::StdRng::seed_from_u64(1).fill_bytes(&mut content);
    let path = sshd.text("large");
    let change = HostChange::WriteFile {
        path: path.clone(),
        content: Content(content.clone()),
        ownership: Ownership::default(),
    };
    host.change(&attempt("r1", 1, 1), &change).await.unwrap();
    assert!(host.read(&path, 6_000_000).await.unwrap().unwrap() == content);

    let attempts: Vec<_> = (100..130).map(|n| attempt("r1", 1, n)).collect();
    let commands: Vec<_> = (100..130).map(|n| Command::new(format!("echo {n}; exit 3"))).collect();
    let replies = join_all(attempts.iter().zip(&commands).map(|(by, command)| host.run(by, command))).await;
    for (n, reply) in (100..130).zip(replies) {
        let reply = reply.unwrap();
        assert_eq!((reply.text(), reply.code), (n.to_string(), 3));
    }
}

/// The process of sshd that serves a host's connection.
async fn session(host: &dyn Host) -> String {
    host.probe("echo $PPID").await.unwrap().text()
}

fn kill(pid: &str) {
    assert!(Process::new("kill").args(["-9", pid]).status().unwrap().success());
}

#[tokio::test]
async fn looks_go_on_after_a_lost_connection() {
    let sshd = sshd!();
    let host = sshd.host(sshd.vars()).await;
    let before = session(&*host).await;
    kill(&before);
    let after = session(&*host).await;
    assert_ne!(before, after);
}

#[tokio::test]
async fn a_connection_lost_while_a_command_runs_is_lost_and_its_attempt_is_known_to_run() {
    let sshd = sshd!();
    let host = sshd.host(sshd.vars()).await;
    host.lock(&claim("r1", 1)).await.unwrap();
    let by = attempt("r1", 1, 1);
    let (begun, go) = (sshd.text("begun"), sshd.text("go"));
    assert!(Process::new("mkfifo").arg(&go).status().unwrap().success());
    let command = Command::new(format!("echo > {begun}; read x < {go}; echo done > {begun}"));
    let pid = session(&*host).await;
    let run = host.run(&by, &command);
    let cut = async {
        while host.stat(&begun).await.unwrap().is_none() {}
        kill(&pid);
    };
    let (lost, ()) = tokio::join!(run, cut);
    assert!(matches!(lost, Err(HostError::Lost { .. })), "{lost:?}");
    assert_eq!(host.attempt(&by).await.unwrap(), AttemptState::Running);
    let again = host.run(&by, &command).await.unwrap_err();
    assert!(matches!(again, HostError::Failed { .. }), "{again:?}");

    fs::write(&go, "x\n").unwrap();
    while host.attempt(&by).await.unwrap() == AttemptState::Running {}
    assert_eq!(host.attempt(&by).await.unwrap(), AttemptState::Ended(None));
    assert_eq!(fs::read_to_string(&begun).unwrap(), "done\n");
}

#[tokio::test]
async fn of_two_processes_one_gets_the_lock_and_a_higher_epoch_fences_the_other_off() {
    let sshd = sshd!();
    let (one, two) = (sshd.host(sshd.vars()).await, sshd.host(sshd.vars()).await);
    let (mine, theirs) = (claim("r1", 1), claim("r2", 1));
    let (a, b) = tokio::join!(one.lock(&mine), two.lock(&theirs));
    assert_eq!(a.is_ok() as u8 + b.is_ok() as u8, 1, "{a:?} {b:?}");
    let (winner, loser) = if a.is_ok() { (&one, b) } else { (&two, a) };
    let holder = winner.lock_holder().await.unwrap().unwrap();
    assert!(matches!(loser, Err(HostError::Locked { holder: h, .. }) if *h == holder));

    let run = holder.run.as_str();
    let write = HostChange::WriteFile {
        path: sshd.text("f"),
        content: Content(b"x".to_vec()),
        ownership: Ownership::default(),
    };
    winner.change(&attempt(run, 1, 1), &write).await.unwrap();
    two.lock(&claim(run, 2)).await.unwrap();
    fs::remove_file(sshd.path("f")).unwrap();
    for by in [attempt(run, 1, 1), attempt(run, 3, 1)] {
        assert!(matches!(winner.change(&by, &write).await, Err(HostError::Fenced { .. })));
        assert!(matches!(winner.run(&by, &Command::new("true")).await, Err(HostError::Fenced { .. })));
        assert!(matches!(winner.fence(&by).await, Err(HostError::Fenced { .. })));
    }
    assert!(!sshd.path("f").exists());
    winner.change(&attempt(run, 2, 1), &write).await.unwrap();
}

#[tokio::test]
async fn a_password_that_sudo_does_not_ask_for_is_never_read_as_a_script() {
    let sshd = sshd!();
    if !std::path::Path::new("/usr/bin/sudo").exists() {
        println!("skipped: sudo is missing");
        return;
    }
    // root is not asked by sudo.
    let vars = with(
        with(sshd.vars(), "ansible_become", true),
        "ansible_become_password",
        format!("touch {}; ", sshd.text("pwned")),
    );
    let host = sshd.host(vars).await;
    assert_eq!(host.probe("id -un; cat").await.unwrap().text(), "root");
    host.lock(&claim("r1", 1)).await.unwrap();
    let reply = host.run(&attempt("r1", 1, 1), &Command::new("cat; echo $SUDO_USER")).await.unwrap();
    assert_eq!((reply.text().as_str(), reply.code), ("root", 0));
    assert!(!sshd.path("pwned").exists());
}

#[tokio::test]
async fn services_are_reached_through_the_connection() {
    let sshd = sshd!();
    let host = sshd.host(sshd.vars()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let n = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbody").await.unwrap();
        String::from_utf8(request[..n].to_vec()).unwrap()
    });
    let request = HttpRequest {
        method: "PATCH",
        address: "127.0.0.1".into(),
        port,
        path: "/config?x=1".into(),
        body: Some(json!({ "ttl": 30 })),
        basic_auth: Some(("user".into(), flow_core::step::Secret::new("pass"))),
        tls: None,
        timeout: std::time::Duration::from_secs(30),
    };
    let reply = host.http(&request).await.unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (503, b"body".as_slice()));
    let sent = server.await.unwrap().to_lowercase();
    for part in ["patch /config?x=1 http/1.1", "authorization: basic dxnlcjpwyxnz", "{\"ttl\":30}"] {
        assert!(sent.contains(part), "{sent}");
    }

    let socket = sshd.text("socket");
    let unix = tokio::net::UnixListener::bind(&socket).unwrap();
    let mut stream = host.dial(&socket, 0).await.unwrap();
    unix.accept().await.unwrap().0.write_all(b"hello").await.unwrap();
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");

    drop(unix);
    let closed = host.dial(&socket, 0).await.err().unwrap().to_string();
    assert!(closed.contains(&format!("can't connect to {socket}: nothing answers there")), "{closed}");
}
