//! Logging in with keys: those that an agent holds, and those in files.

use std::path::Path;
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, load_public_key, load_secret_key};
use tokio::net::UnixStream;

use super::connect::Client;
use super::settings::{Identity, Target};
use crate::host::transport::Failure;

/// What was tried, for the error where nothing helped.
#[derive(Default)]
struct Tried {
    offered: usize,
    notes: Vec<String>,
    encrypted: Option<String>,
}

/// Logs in, trying in order: keys named for this host that the agent holds, key files, the agent's others.
///
/// A server ends a connection after a few keys (`MaxAuthTries`, 6), so those that were named come first.
pub(super) async fn login(handle: &mut Handle<Client>, target: &Target) -> Result<(), Failure> {
    let mut tried = Tried::default();
    let hash = handle.best_supported_rsa_hash().await.ok().flatten().flatten();
    let mut agent = Agent::open(target, &mut tried).await;
    let named: Vec<PublicKey> = target.identities.iter().filter_map(|i| public_half(&i.path)).collect();
    let (first, others): (Vec<_>, Vec<_>) =
        agent.keys.drain(..).partition(|key| named.iter().any(|n| n.key_data() == key.key_data()));

    for key in &first {
        if agent.offer(handle, target, key, hash, &mut tried).await? {
            return Ok(());
        }
    }
    for identity in &target.identities {
        let held = public_half(&identity.path)
            .is_some_and(|public| first.iter().any(|key| key.key_data() == public.key_data()));
        if !held && offer_file(handle, target, identity, hash, &mut tried).await? {
            return Ok(());
        }
    }
    if !target.identities_only {
        for key in &others {
            if agent.offer(handle, target, key, hash, &mut tried).await? {
                return Ok(());
            }
        }
    }
    Err(tried.failure(target))
}

/// The public key that belongs to a private key's file, without needing its passphrase.
fn public_half(path: &Path) -> Option<PublicKey> {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    load_public_key(public).ok()
}

async fn offer_file(
    handle: &mut Handle<Client>,
    target: &Target,
    identity: &Identity,
    hash: Option<HashAlg>,
    tried: &mut Tried,
) -> Result<bool, Failure> {
    let path = identity.path.display();
    let key = match load_secret_key(&identity.path, None) {
        Ok(key) => key,
        Err(russh::keys::Error::IO(error)) => {
            if identity.named {
                tried.notes.push(format!("{path}: {}", io_text(&error)));
            }
            return Ok(false);
        }
        Err(error) => {
            let encrypted = matches!(error, russh::keys::Error::KeyIsEncrypted)
                || std::fs::read_to_string(&identity.path).is_ok_and(|text| text.contains("ENCRYPTED"));
            if encrypted {
                tried.notes.push(format!("{path} has a passphrase"));
                tried.encrypted.get_or_insert(path.to_string());
            } else {
                tried.notes.push(format!("{path}: {error}"));
            }
            return Ok(false);
        }
    };
    tried.offered += 1;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
    let answer = handle.authenticate_publickey(&target.user, key).await;
    accepted(answer.map_err(|error| error.to_string()), tried, &path.to_string())
}

fn io_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Reads the server's answer to one key.
fn accepted(answer: Result<AuthResult, String>, tried: &mut Tried, name: &str) -> Result<bool, Failure> {
    match answer {
        Ok(AuthResult::Success) => Ok(true),
        Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods.is_empty() => {
            Err(Failure::unreachable(format!("the server ended the login after {} keys", tried.offered))
                .with_hint("set IdentitiesOnly yes and name the right key for this host"))
        }
        Ok(AuthResult::Failure { partial_success: true, .. }) => {
            Err(Failure::unreachable("the server wants more than a key to log in"))
        }
        Ok(AuthResult::Failure { .. }) => {
            tried.notes.push(format!("{name} was not accepted"));
            Ok(false)
        }
        Err(error) => {
            tried.notes.push(format!("{name}: {error}"));
            Ok(false)
        }
    }
}

/// The agent and the keys it holds; none where there is no agent.
struct Agent {
    client: Option<AgentClient<UnixStream>>,
    keys: Vec<PublicKey>,
}

impl Agent {
    async fn open(target: &Target, tried: &mut Tried) -> Self {
        let none = Self { client: None, keys: Vec::new() };
        let Some(path) = &target.agent else { return none };
        let opened = async {
            let mut client = AgentClient::connect_uds(path).await?;
            let identities = client.request_identities().await?;
            Ok::<_, russh::keys::Error>((client, identities))
        };
        match opened.await {
            Ok((client, identities)) => {
                let key = |identity| match identity {
                    AgentIdentity::PublicKey { key, .. } => Some(key),
                    AgentIdentity::Certificate { .. } => None,
                };
                Self { client: Some(client), keys: identities.into_iter().filter_map(key).collect() }
            }
            Err(error) => {
                tried.notes.push(format!("the agent at {} gives no answer: {error}", path.display()));
                none
            }
        }
    }

    async fn offer(
        &mut self,
        handle: &mut Handle<Client>,
        target: &Target,
        key: &PublicKey,
        hash: Option<HashAlg>,
        tried: &mut Tried,
    ) -> Result<bool, Failure> {
        let Some(client) = &mut self.client else { return Ok(false) };
        tried.offered += 1;
        let hash = if key.algorithm().is_rsa() { hash } else { None };
        let answer = handle.authenticate_publickey_with(&target.user, key.clone(), hash, client).await;
        let name = format!("the agent's key {}", key.fingerprint(HashAlg::Sha256));
        accepted(answer.map_err(|error| format!("{error:?}")), tried, &name)
    }
}

impl Tried {
    fn failure(self, target: &Target) -> Failure {
        let notes = if self.notes.is_empty() { "no key was found".to_owned() } else { self.notes.join("; ") };
        let failure = Failure::unreachable(format!("the login as {} was refused: {notes}", target.user));
        match self.encrypted {
            Some(path) => failure.with_hint(format!("`ssh-add {path}` unlocks it for an agent")),
            None => failure.with_hint(format!(
                "`ssh -v -p {} {}@{}` shows what OpenSSH would try",
                target.port, target.user, target.host
            )),
        }
    }
}
