//! Numbered frames over an ordered stream, read and written in batches.
//!
//! A frame is the length of the payload (4 bytes, little-endian), a number (8 bytes) and the
//! payload; the reply has the same number. What has arrived is answered in one write.

use std::{collections::VecDeque, time::Instant};

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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

/// Keeps `load.in_flight` frames on their way and measures.
pub(crate) async fn drive(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    load: &Load,
) -> Result<Sample> {
    ensure!(load.size <= PAYLOAD_MAX, "payloads end at {PAYLOAD_MAX} bytes");
    let payload = vec![0x5a; load.size];
    let (mut arrived, mut leaving) = (BytesMut::new(), BytesMut::new());
    let mut latencies = Latencies::new();
    let start = Instant::now();
    let deadline = start + load.duration;
    let mut sent = VecDeque::with_capacity(load.in_flight);
    let (mut next_out, mut next_in) = (0, 0);
    while next_out < load.in_flight as u64 {
        put_frame(&mut leaving, next_out, &payload);
        sent.push_back(start);
        next_out += 1;
    }
    let mut measured = None;
    while !sent.is_empty() {
        arrived.reserve(READ_LEN);
        tokio::select! {
            biased;
            written = write.write_buf(&mut leaving), if !leaving.is_empty() => {
                ensure!(written? > 0, "the server takes no more");
            }
            len = read.read_buf(&mut arrived) => {
                ensure!(len? > 0, "the server has gone");
                let now = Instant::now();
                while let Some((number, reply)) = next_frame(&mut arrived)? {
                    ensure!(number == next_in, "reply {number} came in place of {next_in}");
                    ensure!(reply.len() == load.size, "reply {number} has another length");
                    next_in += 1;
                    let Some(at) = sent.pop_front() else { bail!("reply {number} is one too many") };
                    if now < deadline {
                        latencies.add(now - at);
                        put_frame(&mut leaving, next_out, &payload);
                        sent.push_back(now);
                        next_out += 1;
                    }
                }
                // What is still on its way is awaited, for the next run, but not counted.
                if now >= deadline && measured.is_none() {
                    measured = Some(now - start);
                }
            }
        }
    }
    latencies.sample(measured.unwrap_or(load.duration))
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
    use std::time::Duration;

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
