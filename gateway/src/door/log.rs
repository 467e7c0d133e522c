//! The access log: one line of JSON for each request.
//!
//! A thread writes it, so that a slow disk or reader holds up no request: what does not fit in the queue
//! is dropped and counted. A file that was moved away (by logrotate, say) is made anew within a second.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::AtomicU64,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use serde::{Serialize, Serializer};

/// How many lines may wait to be written.
const QUEUE: usize = 8_192;
/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last lines may take to be written.
const LAST: Duration = Duration::from_secs(1);
/// How many bytes of a path are written.
pub(super) const MAX_PATH: usize = 1_024;

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLog {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
    /// The end of a file, which is made where it is not there.
    File(PathBuf),
}

/// What a line says.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    /// When the request came.
    #[serde(serialize_with = "milliseconds")]
    pub(super) time: jiff::Timestamp,
    pub(super) client: IpAddr,
    pub(super) method: &'a str,
    /// Without the query, which may hold what nobody else may see.
    pub(super) path: &'a str,
    pub(super) protocol: &'a str,
    /// The message that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a str>,
    /// 499 where the client did not wait for the answer.
    pub(super) status: u16,
    /// The size of the answer's body; none where it is sent in parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    /// From the head of the request to the answer, in milliseconds.
    pub(super) ms: f64,
    pub(super) trace: &'a str,
}

fn milliseconds<S: Serializer>(time: &jiff::Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.3}"))
}

/// The way to the thread that writes.
pub(super) struct Writer {
    /// `None` at the end.
    queue: Option<SyncSender<Vec<u8>>>,
    dropped: Counter<u64, AtomicU64>,
    /// Ends when everything is written.
    written: Mutex<Receiver<Infallible>>,
}

impl Writer {
    /// Opens the log. Dropping the writer waits until everything is written, or [`LAST`] is over.
    pub(super) fn open(
        log: &AccessLog,
        dropped: Counter<u64, AtomicU64>,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let (path, target): (PathBuf, Target) = match log {
            AccessLog::Stdout => ("standard output".into(), Target::Plain(Box::new(io::stdout()))),
            AccessLog::Stderr => ("standard error".into(), Target::Plain(Box::new(io::stderr()))),
            AccessLog::File(path) => {
                let file = append(path).map_err(|error| (path.clone(), error))?;
                (path.clone(), Target::File { path: path.clone(), file })
            }
        };
        let ((queue, lines), (ended, written)) = (sync_channel(QUEUE), sync_channel(0));
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                let _ended = ended;
                write(target, &lines);
            })
            .map_err(|error| (path, error))?;
        Ok(Self { queue: Some(queue), dropped, written: Mutex::new(written) })
    }

    /// Writes a line, or drops it where too many wait.
    pub(super) fn write(&self, line: &Line<'_>) {
        let mut bytes = Vec::with_capacity(320);
        // Numbers and texts in memory: it cannot fail.
        if serde_json::to_writer(&mut bytes, line).is_ok() {
            bytes.push(b'\n');
            let sent = self.queue.as_ref().is_some_and(|queue| queue.try_send(bytes).is_ok());
            if !sent {
                self.dropped.inc();
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        let written = self.written.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = written.recv_timeout(LAST);
    }
}

enum Target {
    Plain(Box<dyn Write + Send>),
    File { path: PathBuf, file: File },
}

impl Target {
    fn out(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(out) => out,
            Self::File { file, .. } => file,
        }
    }

    /// Opens the file anew where another one, or none, is in its place.
    fn look(&mut self) {
        let Self::File { path, file } = self else { return };
        let here = file.metadata().map(|m| (m.dev(), m.ino()));
        let there = std::fs::metadata(&*path).map(|m| (m.dev(), m.ino()));
        if let (Ok(here), Ok(there)) = (&here, &there)
            && here == there
        {
            return;
        }
        match append(path) {
            Ok(new) => *file = new,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, %path, "the access log cannot be opened anew; the old file stays");
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes lines until there is nobody left to send any.
fn write(mut target: Target, lines: &Receiver<Vec<u8>>) {
    let (mut failed, mut looked) = (false, Instant::now());
    loop {
        let first = match lines.recv_timeout(LOOK) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if looked.elapsed() >= LOOK {
            target.look();
            looked = Instant::now();
        }
        let Some(first) = first else { continue };
        // Those that have come meanwhile go along in as few writes as may be.
        let mut out = BufWriter::with_capacity(64 << 10, target.out());
        let written = std::iter::once(first)
            .chain(lines.try_iter().take(QUEUE))
            .try_for_each(|line| out.write_all(&line))
            .and_then(|()| out.flush());
        drop(out.into_parts()); // what could not be written is not tried again
        if let Err(error) = &written
            && !failed
        {
            tracing::warn!(%error, "the access log cannot be written");
        }
        failed = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(path: &'a str) -> Line<'a> {
        Line {
            time: jiff::Timestamp::UNIX_EPOCH,
            client: IpAddr::from([192, 0, 2, 1]),
            method: "GET",
            path,
            protocol: "HTTP/1.1",
            message: Some("Xy"),
            status: 200,
            bytes: Some(5),
            ms: 0.25,
            trace: "4bf92f3577b34da6a3ce929d0e0e4736",
        }
    }

    /// The writer is a thread that tells nobody: there is only its file to look at.
    fn until(what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < end, "still waiting for: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = std::env::temp_dir().join(format!("access-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, moved) = (folder.join("log"), folder.join("log.1"));
        let log = Writer::open(&AccessLog::File(path.clone()), Counter::default()).unwrap();
        log.write(&line("/one"));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        until("the first line", || read(&path).ends_with('\n'));
        assert_eq!(
            read(&path),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000Z","client":"192.0.2.1","method":"GET","#,
                r#""path":"/one","protocol":"HTTP/1.1","message":"Xy","status":200,"bytes":5,"#,
                r#""ms":0.25,"trace":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
                "\n"
            )
        );
        std::fs::rename(&path, &moved).unwrap();
        until("a new file", || path.exists());
        log.write(&line("/two"));
        until("the second line", || read(&path).contains("/two"));
        assert!(!read(&moved).contains("/two"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_counted() {
        let ((queue, _nobody_writes), (_, written)) = (sync_channel(2), sync_channel(0));
        let log = Writer {
            queue: Some(queue),
            dropped: Counter::default(),
            written: Mutex::new(written),
        };
        for _ in 0..5 {
            log.write(&line("/"));
        }
        assert_eq!(log.dropped.get(), 3);
    }
}
