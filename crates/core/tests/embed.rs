//! The example in the documentation runs, and does what it says.

#[path = "../examples/embed.rs"]
#[expect(unreachable_pub, dead_code, reason = "an example is a program elsewhere")]
mod example;

#[tokio::test]
async fn the_example_is_interrupted_and_resumed_and_writes_each_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let lines = example::embed(folder.path()).await.unwrap();
    assert_eq!(lines, ["one", "two", "2 lines before this one"]);
}
