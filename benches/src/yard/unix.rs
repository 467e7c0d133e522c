//! Frames on a Unix socket: the least that two processes of one host can do.

use anyhow::Result;
use tempfile::TempDir;
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::Runtime,
};

use super::{frames, one_thread};
use crate::{
    contestant::{Contestant, Load, Running},
    other_end::{self, OtherEnd},
    sample::Sample,
};

pub(crate) const NAME: &str = "unix-frames";

pub(crate) struct Unix;

impl Contestant for Unix {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("socket");
        let server = OtherEnd::start(NAME, &[&path.to_string_lossy()])?;
        let runtime = one_thread()?;
        let stream = runtime.block_on(UnixStream::connect(path))?;
        Ok(Box::new(Client { stream, runtime, _server: server, _folder: folder }))
    }
}

struct Client {
    stream: UnixStream,
    runtime: Runtime,
    _server: OtherEnd,
    _folder: TempDir,
}

impl Running for Client {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        let (mut read, mut write) = self.stream.split();
        self.runtime.block_on(frames::drive(&mut read, &mut write, load))
    }
}

/// Answers one client.
pub(crate) fn serve(path: &str) -> Result<()> {
    one_thread()?.block_on(async {
        let listener = UnixListener::bind(path)?;
        other_end::ready(&[])?;
        let (mut stream, _) = listener.accept().await?;
        let (read, write) = stream.split();
        frames::echo(read, write).await
    })
}
