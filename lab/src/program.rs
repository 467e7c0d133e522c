//! A running program and what it has said so far.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write as _},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

use crate::tool;

/// Lines kept of one program; the oldest go first.
const LINES_MAX: usize = 100_000;

/// The longest line, in bytes; what is longer comes in pieces.
const LINE_MAX: u64 = 64 * 1024;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output, without its line break; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// Where it was written.
    pub source: Source,
    /// What it says.
    pub text: String,
}

/// A started program, its output gathered by threads. Killed on drop, with its process group.
#[derive(Debug)]
pub struct Program {
    shown: String,
    pid: Pid,
    shared: Arc<Shared>,
    input: Mutex<Option<ChildStdin>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// Pipes at their end; a pipe that a descendant holds stays open.
    closed: u8,
    ended: Option<(Instant, ExitStatus)>,
}

impl Program {
    /// Starts the command with no input, in a process group of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self::start_by(command, Stdio::null())
    }

    /// As [`start`](Self::start), with an input that [`say`](Self::say) writes to.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_listening(command: &mut Command) -> Self {
        Self::start_by(command, Stdio::piped())
    }

    fn start_by(command: &mut Command, input: Stdio) -> Self {
        let shown = tool::show(command);
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|cause| panic!("cannot start `{shown}`: {cause}"));
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Shared::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        gather(stdout, Source::Stdout, Arc::clone(&shared));
        gather(stderr, Source::Stderr, Arc::clone(&shared));
        let input = Mutex::new(child.stdin.take());
        let waiter = Arc::clone(&shared);
        thread::spawn(move || wait(child, pid, &waiter));
        Self { shown, pid, shared, input }
    }

    /// The process id, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Writes a line to its input.
    ///
    /// # Panics
    /// When it has none, or does not take it.
    pub fn say(&self, line: &str) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let input = input.as_mut().unwrap_or_else(|| panic!("`{}` has no input", self.shown));
        if let Err(cause) = writeln!(input, "{line}") {
            panic!("`{}` does not take `{line}`: {cause}", self.shown);
        }
    }

    /// Everything said so far.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lock().lines.iter().cloned().collect()
    }

    /// Waits for a line on either output that `wanted` accepts, from the first line on; returns it
    /// and when it was read.
    ///
    /// # Panics
    /// When none has come `within` this time or the program has ended without; the message has
    /// all its output.
    pub fn wait_line(&self, wanted: impl Fn(&str) -> bool, within: Duration) -> (Instant, String) {
        self.wait(within, "the wanted line", |state| find(state, None, &wanted))
    }

    /// As [`wait_line`](Self::wait_line), but passes over what was read before `since`.
    pub fn wait_line_since(
        &self,
        since: Instant,
        wanted: impl Fn(&str) -> bool,
        within: Duration,
    ) -> (Instant, String) {
        self.wait(within, "the wanted line", |state| find(state, Some(since), &wanted))
    }

    /// When and how it ended; none while it runs.
    pub fn ended(&self) -> Option<(Instant, ExitStatus)> {
        self.shared.lock().ended
    }

    /// Waits for its end; returns when and how it came. What it said last may not have been read by
    /// then: wait for that with [`wait_line`](Self::wait_line).
    ///
    /// # Panics
    /// When it still runs after this time; the message has all its output.
    pub fn wait_end(&self, within: Duration) -> (Instant, ExitStatus) {
        self.wait(within, "its end", |state| state.ended)
    }

    /// Sends a signal to the program alone. Nothing happens if it has ended.
    ///
    /// # Panics
    /// When there is no such signal.
    pub fn signal(&self, number: i32) {
        let signal = Signal::from_named_raw(number).unwrap_or_else(|| panic!("no signal {number}"));
        // Under the lock the pid is not awaited, so it cannot have passed to somebody else.
        let state = self.shared.lock();
        if state.ended.is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    fn wait<T>(
        &self,
        within: Duration,
        what: &str,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let over = state.ended.is_some() && state.closed == 2;
            let left = deadline.saturating_duration_since(Instant::now());
            if over || left.is_zero() {
                let output = self.report(&state);
                drop(state);
                panic!("no sign of {what} within {within:?} {output}");
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn report(&self, state: &State) -> String {
        let mut report = format!("from `{}` (pid {}, ", self.shown, self.pid());
        let _ = match state.ended {
            Some((_, status)) => writeln!(report, "ended with {status}), which said:"),
            None => writeln!(report, "still running), which said:"),
        };
        for line in &state.lines {
            let _ = writeln!(report, "  {:?}: {}", line.source, line.text);
        }
        report
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let state = self.shared.lock();
        // Its pid is ours until it is awaited. After that the group may still have members, and
        // is ours unless the pid has a new owner.
        let pid_is_free = !PathBuf::from(format!("/proc/{}", self.pid())).exists();
        if state.ended.is_none() || pid_is_free {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        let deadline = Duration::from_secs(5);
        let _ = self.shared.changed.wait_timeout_while(state, deadline, |s| s.ended.is_none());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

fn find(
    state: &State,
    since: Option<Instant>,
    wanted: impl Fn(&str) -> bool,
) -> Option<(Instant, String)> {
    let recent = |line: &&Line| since.is_none_or(|since| line.at >= since);
    let line = state.lines.iter().filter(recent).find(|line| wanted(&line.text))?;
    Some((line.at, line.text.clone()))
}

fn gather(pipe: impl Read + Send + 'static, source: Source, shared: Arc<Shared>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while matches!(reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes), Ok(1..)) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            bytes.clear();
            shared.change(|state| {
                if state.lines.len() == LINES_MAX {
                    state.lines.pop_front();
                }
                state.lines.push_back(Line { at: Instant::now(), source, text });
            });
        }
        shared.change(|state| state.closed += 1);
    });
}

/// Notes the end at once, so that no ended program lingers as one that seems to live.
fn wait(mut child: Child, pid: Pid, shared: &Shared) {
    // First without taking the status: the pid must not be set free before the lock is held.
    while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        .is_err_and(|cause| cause == rustix::io::Errno::INTR)
    {}
    shared.change(|state| {
        let status = child.wait().expect("the child is awaited nowhere else");
        state.ended = Some((Instant::now(), status));
    });
}
