//! Running one script in a process of its own: what every change and every long command goes through.
//!
//! Only a constant program and a nonce stand on a command line. The script comes down standard input,
//! and is run only if it arrived whole; what follows it is the script's own input.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::Login;
use crate::host::Reply;
use crate::host::shell::{find, nonce, quote};
use crate::host::transport::{Event, Failure, Output, Transport};

/// How long output may stay silent after the exit status: a child left behind may hold it open.
const LINGER: Duration = Duration::from_secs(2);

/// Runs a script and gives its whole reply, from its own first byte on.
///
/// # Errors
/// `Unreachable` where it was certainly not begun; `Lost` where that can't be told.
pub(crate) async fn execute(
    transport: &dyn Transport,
    login: &Login,
    script: &str,
    input: &[u8],
) -> Result<Reply, Failure> {
    if script.contains('\0') {
        return Err(Failure::Refused("a script can't hold a NUL character".into()));
    }
    let nonce = nonce();
    let script = wrapped(script, &nonce);
    let process = login.start(transport, &program(&script, &nonce), &nonce).await?;
    let mut stdin = process.input;
    let write = async move {
        let whole = async {
            stdin.write_all(script.as_bytes()).await?;
            stdin.write_all(input).await?;
            stdin.shutdown().await
        };
        // A script that ends without reading its input is no failure of its own.
        let _ = whole.await;
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let heard = tokio::select! {
        heard = listen(process.output) => heard,
        () = write => return Err(Failure::Lost("the connection ended".into())),
    };
    heard.reply(login, &nonce)
}

/// The script with its first words and its last one.
fn wrapped(script: &str, nonce: &str) -> String {
    format!("printf '{nonce}\\n'; printf '{nonce}\\n' >&2\n{script}\n#{nonce}")
}

/// What reads the script and runs it, if its last word is there.
fn program(script: &str, nonce: &str) -> String {
    let read = format!("s=$(dd bs={} count=1 iflag=fullblock 2>/dev/null)", script.len());
    format!(
        "LC_ALL=C.UTF-8;PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin;export LC_ALL PATH;\
         {read};case $s in *{})eval \"$s\";;*)exit 255;;esac",
        quote(nonce)
    )
}

/// All that came from a process.
#[derive(Debug, Default)]
struct Heard {
    out: Vec<u8>,
    err: Vec<u8>,
    status: Option<i32>,
}

async fn listen(mut output: Box<dyn Output>) -> Heard {
    let mut heard = Heard::default();
    let mut ended = false;
    loop {
        let event = if heard.status.is_some() {
            // The status may come before the rest of the output.
            match tokio::time::timeout(LINGER, output.next()).await {
                Ok(event) => event,
                Err(_) => return heard,
            }
        } else {
            output.next().await
        };
        match event {
            Some(Event::Out(bytes)) => heard.out.extend_from_slice(&bytes),
            Some(Event::Err(bytes)) => heard.err.extend_from_slice(&bytes),
            Some(Event::Exit(code)) => heard.status = Some(code),
            Some(Event::Eof) => ended = true,
            None => return heard,
        }
        if ended && heard.status.is_some() {
            return heard;
        }
    }
}

impl Heard {
    fn reply(self, login: &Login, nonce: &str) -> Result<Reply, Failure> {
        let mark = format!("{nonce}\n");
        let after =
            |bytes: &[u8]| find(bytes, mark.as_bytes(), 0).map(|at| bytes[at + mark.len()..].to_vec());
        match (after(&self.out), self.status) {
            (Some(stdout), Some(code)) => {
                Ok(Reply { code, stdout, stderr: after(&self.err).unwrap_or(self.err) })
            }
            (Some(_), None) => Err(Failure::Lost("the connection ended while the command ran".into())),
            (None, None) => Err(Failure::Lost("the connection ended".into())),
            (None, status) => {
                let error = if self.err.is_empty() { &self.out } else { &self.err };
                Err(login.explain(&String::from_utf8_lossy(error), status))
            }
        }
    }
}
