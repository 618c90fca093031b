//! What holds for whatever is done.

use flow_steps::host::Ownership;
use flow_steps::host::sim::{Fault, FaultKind, FileTree, NodeKind, Release};
use proptest::prelude::*;

use crate::support::*;

#[derive(Debug, Clone)]
enum Act {
    Write(String),
    Make(String),
    Rename(String, String),
    Remove(String),
    RemoveTree(String),
    Link(String, String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|p| format!("/{}", p.join("/")))
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        path().prop_map(Act::Write),
        path().prop_map(Act::Make),
        (path(), path()).prop_map(|(from, to)| Act::Rename(from, to)),
        path().prop_map(Act::Remove),
        path().prop_map(Act::RemoveTree),
        (path(), path()).prop_map(|(path, target)| Act::Link(path, target)),
    ]
}

fn perform(tree: &mut FileTree, act: &Act) -> bool {
    let none = Ownership::default();
    match act {
        Act::Write(path) => tree.write(path, "x", &none).is_ok(),
        Act::Make(path) => tree.make_directory(path, &none).is_ok(),
        Act::Rename(from, to) => tree.rename(from, to).is_ok(),
        Act::Remove(path) => tree.remove_file(path).is_ok(),
        Act::RemoveTree(path) => tree.remove_tree(path),
        Act::Link(path, target) => tree.symlink(path, target).is_ok(),
    }
}

proptest! {
    #[test]
    fn whatever_is_done_every_file_stands_in_a_directory_and_no_inode_twice(acts in prop::collection::vec(act(), 0..40)) {
        let mut tree = FileTree::default();
        for act in &acts {
            let before = tree.clone();
            if !perform(&mut tree, act) && !matches!(act, Act::Make(_)) {
                prop_assert_eq!(&tree, &before, "a refused act changes nothing");
            }
        }
        let mut inodes: Vec<u64> = tree.nodes().map(|(_, node)| node.inode).collect();
        let count = inodes.len();
        inodes.sort_unstable();
        inodes.dedup();
        prop_assert_eq!(inodes.len(), count);
        for (path, _) in tree.nodes().filter(|(path, _)| *path != "/") {
            let above = path.rsplit_once('/').map(|(above, _)| if above.is_empty() { "/" } else { above }).unwrap();
            let parent = tree.nodes().find(|(path, _)| *path == above);
            prop_assert!(parent.is_some_and(|(_, node)| node.kind == NodeKind::Directory), "{path} stands in nothing");
        }
        let stored = serde_json::to_string(&tree).unwrap();
        prop_assert_eq!(serde_json::from_str::<FileTree>(&stored).unwrap(), tree);
    }
}

#[tokio::test]
async fn an_interrupted_deployment_that_was_ended_has_the_outline_of_an_undisturbed_one() {
    let (_first, undisturbed, _hosts) = deployed(Release::Bookworm).await;
    let (_second, world) = bare(Release::Bookworm);
    world
        .inject(Fault::at("patroni2", "make-directory /etc/postgresql-common", FaultKind::LoseAnswer))
        .unwrap();
    let host = locked(&world, "patroni2").await;
    assert!(host.change(&by(), &directory("/etc/postgresql-common")).await.is_err());
    let hosts = deploy(&world, Release::Bookworm).await;
    assert_eq!(world.state().unwrap().outline(), undisturbed.state().unwrap().outline());
    assert_eq!(world.state().unwrap().effect_counts(), undisturbed.state().unwrap().effect_counts());
    hosts[0].change(&by(), &write("/srv/more", "")).await.unwrap();
    assert_ne!(world.state().unwrap().outline(), undisturbed.state().unwrap().outline());
}
