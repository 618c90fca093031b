//! Becoming root: how a program is started under the login user, by itself or through sudo.
//!
//! A password goes down standard input, only after sudo's own prompt was seen, and nothing else goes
//! there until the program has said that it runs: sudo that asks for nothing must not leave a password
//! to be read as a script.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flow_core::step::Secret;
use tokio::io::AsyncWriteExt;

use crate::host::shell::{find, quote};
use crate::host::transport::{Event, Failure, Process, Transport};

/// How long sudo may take to ask or to let through.
const SUDO_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// As whom programs are started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Login {
    pub(crate) become_user: Option<Become>,
}

/// Another user, by sudo.
#[derive(Debug, Clone)]
pub(crate) struct Become {
    user: String,
    password: Option<Secret>,
    /// The password was refused: it is not tried again, lest the account be locked for it.
    refused: Arc<AtomicBool>,
}

impl Become {
    pub(crate) fn new(user: impl Into<String>, password: Option<Secret>) -> Self {
        Self { user: user.into(), password, refused: Arc::default() }
    }
}

fn wrong_password() -> Failure {
    Failure::unreachable("sudo refused the password").with_hint("check ansible_become_password")
}

impl Login {
    /// Starts `sh -c PROGRAM`. The nonce recognises sudo's prompt and the program's first word.
    pub(crate) async fn start(
        &self,
        transport: &dyn Transport,
        program: &str,
        nonce: &str,
    ) -> Result<Process, Failure> {
        match &self.become_user {
            None => transport.start(&format!("exec sh -c {}", quote(program))).await,
            Some(Become { user, password: None, .. }) => {
                let command = format!("exec sudo -n -H -u {} -- sh -c {}", quote(user), quote(program));
                transport.start(&command).await
            }
            Some(Become { refused, .. }) if refused.load(Ordering::Relaxed) => Err(wrong_password()),
            Some(Become { user, password: Some(password), refused }) => {
                let program = format!("printf 'in-{nonce}\\n'; {program}");
                let command = format!(
                    "exec sudo -S -p 'ask-{nonce}' -H -u {} -- sh -c {}",
                    quote(user),
                    quote(&program)
                );
                let mut process = transport.start(&command).await?;
                let asked = tokio::time::timeout(SUDO_LIMIT, self.let_in(&mut process, password, nonce));
                let let_in = asked.await.unwrap_or_else(|_| {
                    Err(Failure::unreachable(format!(
                        "sudo gave no answer within {} s",
                        SUDO_LIMIT.as_secs()
                    )))
                });
                if let_in.as_ref().is_err_and(|failure| *failure == wrong_password()) {
                    refused.store(true, Ordering::Relaxed);
                }
                let_in?;
                Ok(process)
            }
        }
    }

    /// Answers sudo's prompt, once, and waits until the program runs.
    async fn let_in(&self, process: &mut Process, password: &Secret, nonce: &str) -> Result<(), Failure> {
        let (prompt, ready) = (format!("ask-{nonce}"), format!("in-{nonce}\n"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (mut asked, mut status) = (0, None);
        loop {
            match process.output.next().await {
                Some(Event::Out(bytes)) => out.extend_from_slice(&bytes),
                Some(Event::Err(bytes)) => err.extend_from_slice(&bytes),
                Some(Event::Exit(code)) => status = Some(code),
                Some(Event::Eof) => {}
                None => return Err(self.explain(&String::from_utf8_lossy(&err), status)),
            }
            if find(&out, ready.as_bytes(), 0).is_some() {
                return Ok(());
            }
            while let Some(at) = find(&err, prompt.as_bytes(), 0) {
                err.drain(..at + prompt.len());
                asked += 1;
                if asked > 1 {
                    return Err(wrong_password());
                }
                let line = format!("{}\n", password.reveal());
                let sent = process.input.write_all(line.as_bytes()).await;
                if sent.is_ok() {
                    // A failure shows as the end of the output.
                    let _ = process.input.flush().await;
                }
            }
        }
    }

    /// Why a program that should run does not, from what was written to standard error and its status.
    pub(crate) fn explain(&self, error: &str, status: Option<i32>) -> Failure {
        let Some(status) = status else {
            return Failure::Lost("the connection ended before the command began".into());
        };
        let error = error.trim();
        let last = error.lines().last().unwrap_or_default().trim();
        match &self.become_user {
            None if error.is_empty() => {
                Failure::unreachable(format!("the login shell ended with status {status} and no message"))
            }
            None => Failure::unreachable(format!("the login shell ended with status {status}: {last}")),
            Some(_) if error.contains("password is required") || error.contains("terminal is required") => {
                Failure::unreachable("sudo wants a password")
                    .with_hint("set ansible_become_password, or allow sudo without one (NOPASSWD)")
            }
            Some(_) if error.contains("incorrect password") || error.contains("try again") => {
                wrong_password()
            }
            Some(become_user) => Failure::unreachable(format!("sudo to {} failed: {last}", become_user.user))
                .with_hint("`sudo -l` on the host shows what the login user may do"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use async_trait::async_trait;

    use super::*;
    use crate::host::local::LocalTransport;
    use crate::host::posix::{Paths, PosixHost};
    use crate::host::transport::Peer;
    use crate::host::{BoxStream, Host, HostError};

    /// This machine with a `sudo` of the test's own.
    #[derive(Debug)]
    struct WithSudo {
        dir: tempfile::TempDir,
        local: LocalTransport,
    }

    #[async_trait]
    impl Transport for WithSudo {
        fn name(&self) -> &str {
            "box"
        }
        fn address(&self) -> &str {
            "here"
        }
        async fn start(&self, command: &str) -> Result<Process, Failure> {
            self.local.start(&format!("PATH={}:$PATH; {command}", self.dir.path().display())).await
        }
        async fn dial(&self, address: &str, port: u16) -> Result<BoxStream, Failure> {
            self.local.dial(address, port).await
        }
        async fn peer(&self) -> Result<Peer, Failure> {
            self.local.peer().await
        }
        async fn close(&self) {}
    }

    /// A sudo that wants `right` on its standard input, up to three times, or as the body says.
    const ASKS: &str = "for n in 1 2 3; do printf '%s' \"$prompt\" >&2; IFS= read -r p; \
        [ \"$p\" = right ] && exec \"$@\"; echo 'Sorry, try again.' >&2; done; exit 1";

    async fn probe(body: &str, password: Option<&str>) -> Result<String, HostError> {
        let dir = tempfile::tempdir().unwrap();
        let (sudo, asked) = (dir.path().join("sudo"), dir.path().join("asked"));
        let options = "echo 'a lecture' >&2; prompt=; while [ $# -gt 0 ]; do case $1 in \
            -p) prompt=$2; shift 2;; -u) shift 2;; --) shift; break;; -n) ask=no; shift;; -*) shift;; *) break;; esac; done\n";
        std::fs::write(&sudo, format!("#!/bin/sh\n{options}{body}\n")).unwrap();
        std::fs::set_permissions(&sudo, std::fs::Permissions::from_mode(0o755)).unwrap();
        let transport = Arc::new(WithSudo { dir, local: LocalTransport::new("box") });
        let become_user = Become::new("root", password.map(Secret::new));
        let host = PosixHost::new(transport, Login { become_user: Some(become_user) }, Paths::default());
        let first = host.probe("cat; echo in").await;
        // A second shell; where the password was refused, sudo is not even started.
        std::fs::write(&sudo, format!("#!/bin/sh\n{options}echo asked >>{}; exit 1", asked.display()))
            .unwrap();
        if first.is_err() && password.is_some() {
            host.probe("true").await.unwrap_err();
            assert!(!asked.exists(), "a refused password was tried again");
        }
        first.map(|reply| reply.text())
    }

    fn refusal(error: HostError) -> (String, String) {
        match error {
            HostError::Unreachable { message, hint, .. } => (message, hint.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_right_password_lets_in() {
        assert_eq!(probe(ASKS, Some("right")).await.unwrap(), "in");
    }

    #[tokio::test]
    async fn a_sudo_that_does_not_ask_gets_no_password() {
        assert_eq!(probe("exec \"$@\"", Some("echo pwned")).await.unwrap(), "in");
        assert_eq!(probe("exec \"$@\"", None).await.unwrap(), "in");
    }

    #[tokio::test]
    async fn a_wrong_password_is_tried_once_and_said_to_be_wrong() {
        let (message, hint) = refusal(probe(ASKS, Some("wrong")).await.unwrap_err());
        assert_eq!(message, "sudo refused the password");
        assert_eq!(hint, "check ansible_become_password");
    }

    #[tokio::test]
    async fn a_missing_password_is_said_to_be_missing() {
        let body = "echo 'sudo: a password is required' >&2; exit 1";
        let (message, hint) = refusal(probe(body, None).await.unwrap_err());
        assert_eq!(message, "sudo wants a password");
        assert!(hint.contains("ansible_become_password"));
    }

    #[tokio::test]
    async fn what_sudo_says_else_is_passed_on() {
        let body = "echo 'op is not in the sudoers file.' >&2; exit 1";
        let (message, _) = refusal(probe(body, None).await.unwrap_err());
        assert_eq!(message, "sudo to root failed: op is not in the sudoers file.");
    }
}
