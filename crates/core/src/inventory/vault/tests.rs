//! The vaults here were made by ansible-vault (ansible-core 2.19).

use proptest::prelude::*;

use super::{VaultPassword, VaultPasswords, Vaults};
use crate::step::Secret;

const STRING: &str = include_str!("string.vault");
const WITH_ID: &str = include_str!("with-id.vault");
const PASSWORD: &str = "a password of tests";

struct Given(Vec<(Option<&'static str>, &'static str)>);

impl VaultPasswords for Given {
    fn passwords(&self, _: &str) -> Result<Vec<VaultPassword>, (String, String)> {
        let one = |(id, password): &(Option<&str>, &'static str)| VaultPassword {
            id: id.map(str::to_owned),
            password: Secret::new(*password),
            source: format!("the file of {}", id.unwrap_or("all")),
        };
        Ok(self.0.iter().map(one).collect())
    }
}

fn open(text: &str, passwords: &[(Option<&'static str>, &'static str)]) -> Result<String, (String, String)> {
    Vaults::new(&Given(passwords.to_vec())).open(text, "group_vars/all.yml")
}

#[test]
fn vaults_of_both_formats_are_opened() {
    assert_eq!(open(STRING, &[(None, PASSWORD)]).unwrap(), "c0rrect horse");
    assert_eq!(open(WITH_ID, &[(None, "wrong"), (Some("prod"), "of prod")]).unwrap(), "c0rrect battery");
    // The password for another id is tried too, as Ansible does.
    assert_eq!(open(WITH_ID, &[(Some("dev"), "of prod")]).unwrap(), "c0rrect battery");
    let indented: String = STRING.lines().map(|line| format!("{line}  \r\n")).collect();
    assert_eq!(open(&indented, &[(None, PASSWORD)]).unwrap(), "c0rrect horse");
}

#[test]
fn a_wrong_password_is_told_with_where_it_is_from() {
    let (why, hint) = open(WITH_ID, &[(None, "wrong"), (Some("prod"), "wrong too")]).unwrap_err();
    assert_eq!(why, "no password opens this vault (vault id `prod`)");
    assert_eq!(hint, "the passwords tried are from the file of all, the file of prod");
    let (why, hint) = open(STRING, &[(None, "wrong")]).unwrap_err();
    assert_eq!(
        (why.as_str(), hint.as_str()),
        ("no password opens this vault", "the password tried is from the file of all")
    );
}

#[test]
fn what_is_no_vault_or_damaged_is_told() {
    for (text, part) in [
        ("$ANSIBLE_VAULT;1.0;AES\n6162\n".to_owned(), "format"),
        ("$ANSIBLE_VAULT;1.1;AES\n6162\n".to_owned(), "cipher"),
        ("$ANSIBLE_VAULT;1.1;AES256\n".to_owned(), "cut short"),
        ("$ANSIBLE_VAULT;1.1;AES256\n61626\n".to_owned(), "cut short"),
        ("$ANSIBLE_VAULT;1.1;AES256\nzz\n".to_owned(), "cut short"),
        ("$ANSIBLE_VAULTS;1.1;AES256\n61\n".to_owned(), "$ANSIBLE_VAULT"),
        (String::new(), "$ANSIBLE_VAULT"),
    ] {
        let (why, _) = open(&text, &[(None, PASSWORD)]).unwrap_err();
        assert!(why.contains(part), "{text:?}: {why}");
    }
}

#[test]
fn a_vault_cut_short_anywhere_is_an_error() {
    for end in 0..STRING.trim_end().len() {
        assert!(open(&STRING[..end], &[(None, PASSWORD)]).is_err(), "{end}");
    }
}

proptest! {
    #[test]
    fn any_text_after_the_header_is_an_error(text in "[0-9a-fA-F\n;é]{0,300}") {
        let vault = format!("$ANSIBLE_VAULT;1.1;AES256\n{text}");
        prop_assert!(open(&vault, &[(None, PASSWORD)]).is_err());
    }
}
