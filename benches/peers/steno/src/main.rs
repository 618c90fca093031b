//! steno doing what `bench-engine once chain|wide NODES` does: nodes that do nothing, in memory.
//! Prints the seconds from the saga's creation to its end.

use std::sync::Arc;
use std::time::Instant;

use steno::{
    ActionContext, ActionError, ActionFunc, ActionRegistry, DagBuilder, InMemorySecStore, Node, SagaDag, SagaId,
    SagaName, SagaType,
};

#[derive(Debug)]
struct Nothing;

impl SagaType for Nothing {
    type ExecContextType = ();
}

async fn act(_: ActionContext<Nothing>) -> Result<(), ActionError> {
    Ok(())
}

async fn undo(_: ActionContext<Nothing>) -> Result<(), anyhow::Error> {
    Ok(())
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let shape = arguments.next().expect("chain or wide");
    let nodes: usize = arguments.next().expect("how many nodes").parse().expect("a number");
    let action = ActionFunc::new_action("noop", act, undo);
    let mut registry = ActionRegistry::new();
    registry.register(action.clone());
    let mut builder = DagBuilder::new(SagaName::new("noop"));
    let node = |n: usize| Node::action(format!("n{n}"), format!("n{n}"), action.as_ref());
    match shape.as_str() {
        "chain" => (0..nodes).for_each(|n| builder.append(node(n))),
        // A saga ends in one node.
        _ => {
            builder.append_parallel((0..nodes - 1).map(node).collect());
            builder.append(node(nodes - 1));
        }
    }
    let dag = SagaDag::new(builder.build().expect("a DAG"), serde_json::Value::Null);
    let sec = steno::sec(slog::Logger::root(slog::Discard, slog::o!()), Arc::new(InMemorySecStore::new()));
    let id = SagaId::new_v4();
    let began = Instant::now();
    let end = sec.saga_create(id, Arc::new(()), Arc::new(dag), Arc::new(registry)).await.expect("it is made");
    sec.saga_start(id).await.expect("it starts");
    assert!(end.await.kind.is_ok());
    println!("{}", began.elapsed().as_secs_f64());
}
