//! Makes keys and certificates. Pure but for the random numbers of keys and serials.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;

use super::leaf::Usage;
use super::read::Certificate;

/// How far a certificate's beginning lies back: the clocks of hosts differ.
const BEFORE: SignedDuration = SignedDuration::from_hours(1);

/// A private key. It has no `Debug`, and its text is handed out for its file alone.
pub(super) struct Key(KeyPair);

impl Key {
    /// A new one: ECDSA on P-256, which every TLS library knows.
    pub(super) fn generate() -> Result<Self, String> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(Self).map_err(words("making a key"))
    }

    /// One that is made of a text: Ed25519, whose signatures are the same each time. For rehearsals.
    pub(super) fn made_of(text: &str) -> Result<Self, String> {
        // PKCS #8, version 1, for Ed25519; the seed is what follows (RFC 8410).
        const HEAD: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
        let seed = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        KeyPair::try_from([&HEAD, seed.as_ref()].concat()).map(Self).map_err(words("making a key"))
    }

    /// Reads PEM with PKCS #8 in it. None where that isn't what it is; why not is not told, since the
    /// words could hold a part of it.
    pub(super) fn from_pem(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        KeyPair::from_pem(text).ok().map(Self)
    }

    pub(super) fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Whether a certificate is about this key.
    pub(super) fn belongs_to(&self, certificate: &Certificate) -> bool {
        self.0.subject_public_key_info() == certificate.public_key
    }
}

/// What is asked for.
pub(super) struct Order<'a> {
    pub(super) common_name: &'a str,
    pub(super) names: Vec<String>,
    pub(super) usage: Usage,
    pub(super) not_after: Timestamp,
    pub(super) serial: Serial,
}

/// Where a certificate's serial number comes from.
pub(super) enum Serial {
    /// A random one. By default it is made of the key, and a certificate renewed for the same key would have the
    /// number of the former one, which RFC 5280 forbids.
    Random,
    /// Made of a text: in a rehearsal.
    Of(String),
}

/// A certificate in PEM for a key, signed by an authority.
pub(super) fn leaf(
    order: Order<'_>,
    key: &Key,
    authority_pem: &str,
    authority_key: Key,
    now: Timestamp,
) -> Result<String, String> {
    let issuer = Issuer::from_ca_cert_pem(authority_pem, authority_key.0)
        .map_err(words("reading the CA's certificate"))?;
    let mut params = params(order.common_name, order.names, now, order.not_after, &order.serial)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match order.usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    let made = params.signed_by(&key.0, &issuer).map_err(words("signing the certificate"))?;
    Ok(made.pem())
}

/// An authority's own certificate in PEM.
pub(super) fn authority(
    common_name: &str,
    key: &Key,
    now: Timestamp,
    not_after: Timestamp,
    serial: &Serial,
) -> Result<String, String> {
    let mut params = params(common_name, Vec::new(), now, not_after, serial)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(&key.0).map_err(words("signing the CA's certificate"))?;
    Ok(made.pem())
}

fn params(
    common_name: &str,
    names: Vec<String>,
    now: Timestamp,
    not_after: Timestamp,
    serial: &Serial,
) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(names).map_err(words("taking the names"))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = moment(now - BEFORE)?;
    params.not_after = moment(not_after)?;
    params.serial_number = Some(serial.number()?);
    Ok(params)
}

impl Serial {
    fn number(&self) -> Result<SerialNumber, String> {
        let mut bytes = [0; 16];
        match self {
            Self::Random => {
                SystemRandom::new().fill(&mut bytes).map_err(|_| "there are no random numbers")?;
            }
            Self::Of(text) => {
                let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                bytes.copy_from_slice(&digest.as_ref()[..16]);
            }
        }
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Ok(SerialNumber::from_slice(&bytes))
    }
}

fn moment(time: Timestamp) -> Result<OffsetDateTime, String> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| "a time out of range".into())
}

fn words(doing: &'static str) -> impl Fn(rcgen::Error) -> String {
    move |error| format!("{doing}: {error}")
}
