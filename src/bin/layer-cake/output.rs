//! Output: facts to stdout, for people or as JSON, one record to a line.

use std::io::{self, Write};

use serde::Serialize;

/// Prints one record: its text, or one JSON object.
///
/// # Errors
/// Of stdout; a reader that has gone is no error.
pub(crate) fn record<T: Serialize>(json: bool, value: &T, text: &str) -> io::Result<()> {
    let line =
        if json { serde_json::to_string(value).unwrap_or_default() } else { text.to_owned() };
    say(&line)
}

/// Prints a line to stdout at once.
///
/// # Errors
/// Of stdout; a reader that has gone is no error.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
