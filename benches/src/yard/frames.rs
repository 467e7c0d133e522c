//! Numbered frames over an ordered stream, read and written in batches.
//!
//! A frame is the length of the payload (4 bytes, little-endian), a number (8 bytes) and the
//! payload; the reply has the same number. What has arrived is answered in one write.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    contestant::Load,
    sample::{Latencies, Sample},
};

const HEADER_LEN: usize = 12;

/// Space offered to one read.
const READ_LEN: usize = 256 * 1024;

/// The largest payload taken, in bytes.
const PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// The echo stops reading while this much waits to be written.
const UNWRITTEN_MAX: usize = 32 * 1024 * 1024;

/// Returns every frame to its sender until the stream ends.
pub(crate) async fn echo(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> Result<()> {
    let (mut arrived, mut leaving) = (BytesMut::new(), BytesMut::new());
    loop {
        arrived.reserve(READ_LEN);
        tokio::select! {
            biased; // answers first: they are what somebody waits for
            written = write.write_buf(&mut leaving), if !leaving.is_empty() => {
                ensure!(written? > 0, "the client takes no more");
            }
            len = read.read_buf(&mut arrived), if leaving.len() < UNWRITTEN_MAX => {
                if len? == 0 {
                    return Ok(());
                }
                while let Some((number, payload)) = next_frame(&mut arrived)? {
                    put_frame(&mut leaving, number, &payload);
                }
            }
        }
    }
}

/// What an asker hands over: the payload, and where the reply goes.
type Asked = (Bytes, oneshot::Sender<BytesMut>);

/// Keeps `load.in_flight` askers busy and measures. Each is a task that waits for its own reply, as
/// in any program that asks; a loop that sends the next window when a whole one has come back is
/// three times as fast and of no use to anybody.
pub(crate) async fn drive(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    load: &Load,
) -> Result<Sample> {
    ensure!(load.size <= PAYLOAD_MAX, "payloads end at {PAYLOAD_MAX} bytes");
    let payload = Bytes::from(vec![0x5a; load.size]);
    let (asks, mut queue) = mpsc::channel::<Asked>(load.in_flight);
    let start = Instant::now();
    let deadline = start + load.duration;
    let mut askers = JoinSet::new();
    for _ in 0..load.in_flight {
        askers.spawn(ask(asks.clone(), payload.clone(), deadline));
    }
    drop(asks);

    let (mut arrived, mut leaving) = (BytesMut::new(), BytesMut::new());
    let (mut batch, mut waiting) = (Vec::new(), VecDeque::new());
    let (mut next_out, mut next_in, mut open) = (0, 0, true);
    while open || !waiting.is_empty() {
        arrived.reserve(READ_LEN);
        tokio::select! {
            biased;
            written = write.write_buf(&mut leaving), if !leaving.is_empty() => {
                ensure!(written? > 0, "the server takes no more");
            }
            taken = queue.recv_many(&mut batch, load.in_flight), if open => {
                open = taken > 0;
                for (payload, slot) in batch.drain(..) {
                    put_frame(&mut leaving, next_out, &payload);
                    waiting.push_back(slot);
                    next_out += 1;
                }
            }
            len = read.read_buf(&mut arrived) => {
                ensure!(len? > 0, "the server has gone");
                while let Some((number, reply)) = next_frame(&mut arrived)? {
                    ensure!(number == next_in, "reply {number} came in place of {next_in}");
                    next_in += 1;
                    let Some(slot) = waiting.pop_front() else {
                        bail!("reply {number} is one too many")
                    };
                    let _ = slot.send(reply);
                }
            }
        }
    }
    let mut latencies = Latencies::new();
    while let Some(asker) = askers.join_next().await {
        asker??.into_iter().for_each(|latency| latencies.add(latency));
    }
    latencies.sample(start.elapsed())
}

/// Asks one after the other, and returns how long each took.
async fn ask(
    asks: mpsc::Sender<Asked>,
    payload: Bytes,
    deadline: Instant,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while Instant::now() < deadline {
        let asked = Instant::now();
        let (slot, reply) = oneshot::channel();
        ensure!(asks.send((payload.clone(), slot)).await.is_ok(), "the connection has ended");
        ensure!(reply.await?.len() == payload.len(), "a reply has another length");
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}

fn put_frame(to: &mut BytesMut, number: u64, payload: &[u8]) {
    to.reserve(HEADER_LEN + payload.len());
    to.put_u32_le(payload.len() as u32);
    to.put_u64_le(number);
    to.put_slice(payload);
}

/// Takes the first frame off, if all of it has arrived.
fn next_frame(arrived: &mut BytesMut) -> Result<Option<(u64, BytesMut)>> {
    let Some(mut header) = arrived.get(..HEADER_LEN) else { return Ok(None) };
    let (len, number) = (header.get_u32_le() as usize, header.get_u64_le());
    ensure!(len <= PAYLOAD_MAX, "a frame of {len} bytes exceeds {PAYLOAD_MAX}");
    if arrived.len() < HEADER_LEN + len {
        return Ok(None);
    }
    arrived.advance(HEADER_LEN);
    Ok(Some((number, arrived.split_to(len))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whatever_the_size_and_however_often() {
        let runtime = crate::yard::one_thread().unwrap();
        runtime.block_on(async {
            // A pipe shorter than the frames: reads and writes end in the middle of them.
            let (client, server) = tokio::io::duplex(1000);
            let (read, write) = tokio::io::split(server);
            let echo = echo(read, write);
            let (mut read, mut write) = tokio::io::split(client);
            let drive = async {
                for size in [0, 64, 5000] {
                    let load = Load { in_flight: 7, size, duration: Duration::from_millis(30) };
                    let sample = drive(&mut read, &mut write, &load).await.unwrap();
                    assert!(sample.rps > 0.0 && sample.p50 <= sample.p99, "{sample:?}");
                }
            };
            tokio::select! {
                () = drive => {}
                ended = echo => panic!("the echo ended: {ended:?}"),
            }
        });
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_it_is_stored() {
        let mut arrived = BytesMut::new();
        arrived.put_u32_le(u32::MAX);
        arrived.put_u64_le(1);
        assert!(next_frame(&mut arrived).is_err());
    }
}
