//! What goes over a plugin's standard input and output: one JSON object a line. Pure: bytes in,
//! messages out. docs/plugins.md is the reference.

mod answers;
mod lines;
mod message;
mod request;

pub use answers::{
    ApplyAnswer, CheckAnswer, Description, ResolveAnswer, StepDescription, UndoAnswer, answer,
};
pub use lines::{LINE_LIMIT, Lines};
pub use message::{Call, Failure, Message, Says, read};
pub use request::{Reply, Request, Work};

/// The version of the protocol that this flow speaks.
pub const PROTOCOL: u32 = 1;

/// Why what a plugin wrote is no message. A fragment that fits after the plugin's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A line without an end.
    #[error("it wrote a line of more than {} MiB", LINE_LIMIT / 1024 / 1024)]
    TooLong,
    /// Not a message of the protocol.
    #[error("it wrote what is no message: {0}")]
    NoMessage(String),
    /// It has not read the request, or repeats an old answer.
    #[error("it answered request {said}; it was asked request {asked}")]
    WrongId {
        /// The number that it gave.
        said: u64,
        /// The request's.
        asked: u64,
    },
    /// There is more after the last message.
    #[error("it went on after its answer")]
    WentOn,
}
