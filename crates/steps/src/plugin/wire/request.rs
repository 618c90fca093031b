//! What flow writes: the request, and what it says to a call.

use flow_core::step::{Change, Output};
use serde::Serialize;
use serde_json::{Map, Value};

/// A request of flow's, the first line that a plugin reads.
#[derive(Serialize)]
pub struct Request<'r> {
    /// The version of the protocol.
    pub flow: u32,
    /// Repeated in each message that belongs to it.
    pub id: u64,
    /// `describe`, `check`, `apply`, `resolve` or `undo`.
    pub verb: &'static str,
    /// What is to be done, with every verb but `describe`.
    #[serde(flatten)]
    pub work: Option<Work<'r>>,
}

/// A task.
#[derive(Clone, Serialize)]
pub struct Work<'r> {
    /// The step type.
    pub step: &'r str,
    /// Its arguments, secrets included.
    pub arguments: &'r Map<String, Value>,
    /// The task's full name.
    pub task: &'r str,
    /// The host's name in the inventory; null at the operator's place.
    pub host: Option<&'r str>,
    /// The run's id.
    pub run: &'r str,
    /// The name of this attempt: for whatever outlives the plugin.
    pub attempt: &'r str,
    /// True while only looking, as `flow plan` does.
    pub planning: bool,
    /// The recorded change; null with `check`.
    pub change: Option<&'r Change>,
    /// With `undo`: what `apply` left, null where it left no answer.
    pub output: Option<&'r Output>,
}

/// What flow answers to a call.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done.
    Result(Value),
    /// It was not.
    Error(String),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::PROTOCOL;
    use super::*;

    #[test]
    fn requests_and_replies_are_one_line_each() {
        let arguments = json!({ "path": "/x\ny" });
        let work = Work {
            step: "line.present",
            arguments: arguments.as_object().unwrap(),
            task: "a@web1",
            host: Some("web1"),
            run: "0123456789ab",
            attempt: "flow-0123456789ab-a",
            planning: false,
            change: None,
            output: None,
        };
        let request = Request { flow: PROTOCOL, id: 3, verb: "check", work: Some(work) };
        insta::assert_snapshot!(serde_json::to_string(&request).unwrap(), @r#"{"flow":1,"id":3,"verb":"check","step":"line.present","arguments":{"path":"/x\ny"},"task":"a@web1","host":"web1","run":"0123456789ab","attempt":"flow-0123456789ab-a","planning":false,"change":null,"output":null}"#);
        insta::assert_snapshot!(serde_json::to_string(&Reply::Result(json!({ "code": 0 }))).unwrap(), @r#"{"result":{"code":0}}"#);
    }
}
