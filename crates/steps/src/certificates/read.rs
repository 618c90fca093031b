//! What stands in a certificate. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use x509_parser::prelude::{ASN1Time, GeneralName, Pem, X509Certificate, parse_x509_pem};

use super::leaf::Usage;
use crate::support::sha256;

/// What of a certificate matters here. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    der: Vec<u8>,
    pub(super) common_name: String,
    /// DNS names in small letters, addresses in their shortest form; another kind with its kind.
    pub(super) names: BTreeSet<String>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) is_authority: bool,
    /// None where neither servers nor clients may show it.
    pub(super) usage: Option<Usage>,
    /// SubjectPublicKeyInfo in DER.
    pub(super) public_key: Vec<u8>,
    /// SHA-256 of the DER form, hexadecimal.
    pub(super) fingerprint: String,
}

impl Certificate {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// What is wrong, as a fragment.
    pub(super) fn from_pem(text: &[u8]) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(text).map_err(|_| "it is not in PEM")?;
        Self::from_block(pem)
    }

    /// Reads all certificates of a PEM file: a CA's may hold several.
    ///
    /// # Errors
    /// What is wrong with one of them, as a fragment.
    pub(super) fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, String> {
        let blocks: Result<Vec<Pem>, _> = Pem::iter_from_buffer(text).collect();
        let blocks = blocks.map_err(|_| "it is not in PEM")?;
        if blocks.is_empty() {
            return Err("it is not in PEM".into());
        }
        blocks.into_iter().map(Self::from_block).collect()
    }

    fn from_block(pem: Pem) -> Result<Self, String> {
        if pem.label != "CERTIFICATE" {
            return Err(format!("it is no certificate but a {}", pem.label.to_lowercase()));
        }
        let der = pem.contents;
        let (rest, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| "it can't be read")?;
        if !rest.is_empty() {
            return Err("it can't be read".into());
        }
        let read = Self::of(&parsed)?;
        Ok(Self { fingerprint: sha256(&der), der, ..read })
    }

    fn of(parsed: &X509Certificate<'_>) -> Result<Self, String> {
        let twice = |_| "an extension stands in it twice, or can't be read";
        let names = parsed.subject_alternative_name().map_err(twice)?;
        let extended = parsed.extended_key_usage().map_err(twice)?;
        let authority = parsed.basic_constraints().map_err(twice)?;
        let (server, client) = extended.map_or((true, true), |usage| {
            let any = usage.value.any;
            (any || usage.value.server_auth, any || usage.value.client_auth)
        });
        Ok(Self {
            der: Vec::new(),
            fingerprint: String::new(),
            common_name: parsed
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            names: names
                .map(|names| names.value.general_names.iter().map(name).collect())
                .unwrap_or_default(),
            not_before: moment(&parsed.validity().not_before)?,
            not_after: moment(&parsed.validity().not_after)?,
            is_authority: authority.is_some_and(|authority| authority.value.ca),
            usage: match (server, client) {
                (true, true) => Some(Usage::Both),
                (true, false) => Some(Usage::Server),
                (false, true) => Some(Usage::Client),
                (false, false) => None,
            },
            public_key: parsed.public_key().raw.to_vec(),
        })
    }

    /// Whether it is for a name, as [`normal`] writes it; `*.example.org` is for one more label.
    pub(super) fn is_for(&self, name: &str) -> bool {
        let wild = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        self.names.contains(name) || wild.is_some_and(|wild| self.names.contains(&wild))
    }

    /// As it stands in a file.
    pub(super) fn to_pem(&self) -> String {
        let text = STANDARD.encode(&self.der);
        let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    }

    /// Whether that authority's key has signed it in the authority's name.
    pub(super) fn is_signed_by(&self, authority: &Self) -> bool {
        let (Ok((_, it)), Ok((_, authority))) = (
            x509_parser::parse_x509_certificate(&self.der),
            x509_parser::parse_x509_certificate(&authority.der),
        ) else {
            return false;
        };
        it.issuer().as_raw() == authority.subject().as_raw()
            && it.verify_signature(Some(authority.public_key())).is_ok()
    }

    #[cfg(test)]
    pub(super) fn serial(&self) -> String {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.der).unwrap();
        parsed.raw_serial_as_string()
    }
}

fn moment(time: &ASN1Time) -> Result<Timestamp, String> {
    Timestamp::from_second(time.timestamp()).map_err(|_| "its time can't be read".into())
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => normal(name),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
            let six = <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
            four.or(six).map_or_else(|_| format!("{name:?}"), |address| address.to_string())
        }
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        GeneralName::URI(name) => format!("URI:{name}"),
        other => format!("{other:?}"),
    }
}

/// A name as two that mean the same are both written.
pub(super) fn normal(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}
