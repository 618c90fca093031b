//! New content that a program looks at before it takes a file's place: `validate` of `file` and `template`.

use flow_core::step::{Context, StepError};

use crate::host::{Command, Host, Reply, quote};
use crate::support::exit_error;

/// What stands for the path of the new content among the words of a command.
const PLACEHOLDER: &str = "%s";
/// What the name of new content that waits begins with.
pub(crate) const CANDIDATE: &str = ".flow-new.";
/// Longer lines of what a program says are cut, in characters.
const LINE: usize = 400;

/// The words of a command that can look at a file.
///
/// # Errors
/// What is wrong with them.
pub(super) fn validate_words(words: &[String]) -> Result<(), String> {
    let Some(program) = words.first() else { return Ok(()) };
    if program.trim().is_empty() || program.contains('=') {
        return Err(format!("`validate` begins with a program's name, this is \"{program}\""));
    }
    if words.iter().any(|word| word.contains(PLACEHOLDER)) {
        return Ok(());
    }
    Err(format!("`validate` has no `{PLACEHOLDER}`, which stands for the path of the new content"))
}

/// Where the new content of a file waits: always the same place, so that what a cut-off attempt left
/// there is found. Its name ends as the file's does, for programs that go by that.
pub(super) fn candidate(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap_or_default();
    format!("{directory}/{CANDIDATE}{name}")
}

/// A command that says whether a file's new content will do.
pub(super) struct Validation<'a> {
    /// The file, for messages.
    pub(super) path: &'a str,
    /// The program and its arguments.
    pub(super) words: &'a [String],
    /// What it writes may hold secrets: it is dropped on the host.
    pub(super) silent: bool,
}

impl Validation<'_> {
    /// Runs the command on the new content.
    pub(super) async fn run(&self, cx: &Context, host: &dyn Host, candidate: &str) -> Result<(), StepError> {
        let words: Vec<String> =
            self.words.iter().map(|word| quote(&word.replace(PLACEHOLDER, candidate))).collect();
        let command = Command { silent: self.silent, ..Command::new(words.join(" ")) };
        let reply = host.run(cx.attempt(), &command).await?;
        if reply.success() { Ok(()) } else { Err(self.refusal(&reply)) }
    }

    fn refusal(&self, reply: &Reply) -> StepError {
        let Self { path, words, .. } = self;
        let program = words.first().map_or("", String::as_str);
        let said = exit_error(reply);
        let missing = reply.code == 127;
        let message = if missing {
            format!(
                "{path} is not written: `{program}`, or what it calls, is not on the host: {}",
                said.message
            )
        } else {
            format!("{path} is not written: `{program}` refuses the new content: {}", said.message)
        };
        let hint = if missing {
            "install it in an earlier step, or name it in `validate` by its full path"
        } else if self.silent {
            "what it wrote may hold what the file holds, and was dropped; with `diff = true` it is shown"
        } else {
            "correct the content; lines that it names are those of the new content, which is not kept"
        };
        StepError { message: cut(&message), detail: said.detail.map(|text| cut(&text)), ..said }
            .with_hint(hint)
    }
}

/// The text with long lines cut.
fn cut(text: &str) -> String {
    let cut = |line: &str| match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    };
    text.lines().map(cut).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[path = "validated_tests.rs"]
mod tests;
