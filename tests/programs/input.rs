//! What a program is told by a test, line by line.

use tokio::sync::mpsc;

/// Lines that wait to be read.
const LINES_MAX: usize = 64;

/// The lines of the program's input, until it ends.
pub(crate) fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(std::io::Result::ok);
        for line in lines {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
