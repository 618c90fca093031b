//! A service with TLS at the other end of a stream in memory.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const ADDRESS: &str = "198.18.0.11";

/// A certificate and its key.
struct Own {
    cert: String,
    key: String,
}

struct Ca {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap().pem();
        Self { cert, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, change: impl Fn(&mut CertificateParams)) -> Own {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![ADDRESS.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        Own { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

fn files(own: bool) -> TlsFiles {
    let at = |name: &str| own.then(|| name.to_owned());
    TlsFiles { ca: "/c/ca.crt".into(), cert: at("/c/own.crt"), key: at("/c/own.key") }
}

fn client(ca: &Ca, own: Option<&Own>) -> Tls {
    let cert = own.map(|own| own.cert.as_bytes());
    let key = own.map(|own| own.key.as_bytes());
    Tls::new(&files(own.is_some()), Some(ca.cert.as_bytes()), cert, key, b"").unwrap()
}

fn store(ca: &Ca) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert.as_bytes()).unwrap()).unwrap();
    roots
}

/// One byte to and fro over TLS; what stood in the way otherwise.
async fn talk(client: &Tls, service: &Own, clients_of: Option<&Ca>) -> Result<(), String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let provider = Arc::new(ring::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = match clients_of {
        None => builder.unwrap().with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store(ca)), provider);
            builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(service.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(service.key.as_bytes()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    tokio::spawn(async move {
        if let Ok(mut stream) = acceptor.accept(far).await {
            let byte = stream.read_u8().await.unwrap();
            stream.write_u8(byte).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let mut stream = client.handshake(Box::new(near), ADDRESS).await.map_err(|failure| match failure {
        Failure::Refused(why) => why,
        other => format!("{other:?}"),
    })?;
    let exchanged = async {
        stream.write_u8(7).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    match exchanged.await {
        Ok(byte) => {
            assert_eq!(byte, 7);
            Ok(())
        }
        Err(error) => Err(client.explain(&error, ADDRESS).unwrap_or_else(|| error.to_string())),
    }
}

#[tokio::test]
async fn a_service_of_the_ca_is_spoken_to_also_where_it_wants_a_client_s_certificate() {
    let ca = Ca::new();
    let (service, own) = (ca.leaf(|_| ()), ca.leaf(|_| ()));
    talk(&client(&ca, None), &service, None).await.unwrap();
    talk(&client(&ca, Some(&own)), &service, Some(&ca)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_the_service_s_is_refused_with_what_to_do() {
    let (ca, other) = (Ca::new(), Ca::new());
    let service = ca.leaf(|_| ());
    let why = talk(&client(&other, None), &service, None).await.unwrap_err();
    assert!(why.contains("not signed by the CA in /c/ca.crt"), "{why}");
    let named = ca.leaf(|params| *params = CertificateParams::new(vec!["198.18.0.12".to_owned()]).unwrap());
    let why = talk(&client(&ca, None), &named, None).await.unwrap_err();
    assert!(why.contains("not made out to 198.18.0.11"), "{why}");
    let old = ca.leaf(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let why = talk(&client(&ca, None), &old, None).await.unwrap_err();
    assert!(why.contains("has expired: renew it"), "{why}");
}

#[tokio::test]
async fn a_client_that_the_service_does_not_trust_is_told_so() {
    let (ca, other) = (Ca::new(), Ca::new());
    let service = ca.leaf(|_| ());
    let why = talk(&client(&ca, None), &service, Some(&ca)).await.unwrap_err();
    assert!(why.contains("refuses a client without a certificate"), "{why}");
    let strange = other.leaf(|_| ());
    let why = talk(&client(&ca, Some(&strange)), &service, Some(&ca)).await.unwrap_err();
    assert!(why.contains("refuses the client certificate /c/own.crt"), "{why}");
}

#[tokio::test]
async fn a_service_without_tls_is_told_as_such() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.map(|()| far) });
    let failure = client(&Ca::new(), None).handshake(Box::new(near), ADDRESS).await.err().unwrap();
    assert_eq!(failure, Failure::Refused("it doesn't speak TLS: is it configured to?".into()));
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (one, two) = (ca.leaf(|_| ()), other.leaf(|_| ()));
    let loaded = |ca: Option<&str>, cert: &str, key: &str| {
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        let (cert, key) = (bytes(cert), bytes(key));
        Tls::new(&files(true), ca.map(str::as_bytes), cert.as_deref(), key.as_deref(), b"").err()
    };
    assert_eq!(loaded(Some(&ca.cert), &one.cert, &one.key), None);
    assert_eq!(loaded(None, &one.cert, &one.key).unwrap(), "there is no /c/ca.crt");
    assert!(loaded(Some("x"), &one.cert, &one.key).unwrap().starts_with("/c/ca.crt holds no certificate"));
    assert!(loaded(Some(&ca.cert), &one.cert, "x").unwrap().starts_with("/c/own.key holds no key"));
    let strange = loaded(Some(&ca.cert), &one.cert, &two.key).unwrap();
    assert!(strange.starts_with("/c/own.crt and /c/own.key don't belong together"), "{strange}");
}

#[test]
fn paths_are_absolute_and_a_key_has_its_certificate() {
    assert_eq!(files(true).validate(), Ok(()));
    assert!(TlsFiles { ca: "ca.crt".into(), ..files(true) }.validate().is_err());
    assert!(TlsFiles { cert: None, ..files(true) }.validate().is_err());
}
