//! The laws of the file tree.

use super::*;

fn tree() -> FileTree {
    let mut tree = FileTree::default();
    tree.make_directory("/var/lib/pg/main/global", &Ownership::default()).unwrap();
    tree.write("/var/lib/pg/main/PG_VERSION", "15\n", &Ownership::default()).unwrap();
    tree.make_directory("/srv", &Ownership::default()).unwrap();
    tree
}

#[test]
fn a_renamed_directory_keeps_its_inode_and_takes_what_is_below() {
    let mut tree = tree();
    let inode = tree.stat("/var/lib/pg/main").unwrap().inode;
    tree.rename("/var/lib/pg/main", "/var/lib/pg/main.old").unwrap();
    assert_eq!(tree.stat("/var/lib/pg/main"), None);
    assert_eq!(tree.stat("/var/lib/pg/main.old").unwrap().inode, inode);
    assert_eq!(tree.text("/var/lib/pg/main.old/PG_VERSION"), Some("15\n"));
}

#[test]
fn a_rename_is_refused_across_devices_onto_something_and_of_a_mount_point() {
    let mut tree = tree();
    tree.mounts.insert("/srv".to_owned(), 2);
    assert!(tree.rename("/var/lib/pg/main", "/srv/main").unwrap_err().contains("cross-device"));
    assert!(tree.rename("/var/lib/pg/main", "/srv").unwrap_err().contains("File exists"));
    tree.mounts.insert("/var/lib/pg/main".to_owned(), 3);
    assert!(tree.rename("/var/lib/pg/main", "/var/lib/pg/x").unwrap_err().contains("busy"));
}

#[test]
fn links_on_the_way_are_followed_and_a_loop_is_an_error() {
    let mut tree = tree();
    tree.symlink("/data", "/var/lib/pg").unwrap();
    assert_eq!(tree.text("/data/main/PG_VERSION"), Some("15\n"));
    assert_eq!(tree.stat("/data").unwrap().kind, FileKind::Symlink);
    tree.symlink("/loop", "loop").unwrap();
    assert!(tree.read("/loop/x").unwrap_err().contains("Too many levels"));
}

#[test]
fn bytes_that_are_no_text_survive_the_file() {
    let mut tree = tree();
    tree.write("/srv/raw", [0xff, 0x00, 0xfe], &Ownership::default()).unwrap();
    let text = serde_json::to_string(&tree).unwrap();
    assert_eq!(serde_json::from_str::<FileTree>(&text).unwrap(), tree);
}

#[test]
fn a_directory_lists_its_own_names_only() {
    let tree = tree();
    assert_eq!(tree.list("/var/lib/pg/main").unwrap(), ["PG_VERSION", "global"]);
    assert_eq!(tree.list("/").unwrap(), ["srv", "var"]);
    assert_eq!(tree.list("/nowhere"), None);
}
