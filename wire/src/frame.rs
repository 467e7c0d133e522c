//! Frames: the units on a link, as bytes.
//!
//! A frame is a length (four bytes, little endian, of what follows), a kind (one byte) and the fields
//! of that kind. Reading is a pure function over a buffer; a length above [`MAX_FRAME`] is refused
//! before anything is allocated. A body that would make a frame larger than [`CHUNK`] is cut into
//! [`Frame::Chunk`]s by [`crate::link`], which also puts them together again.
//!
//! Checked by the tests below: golden bytes, round trips, and any bytes at all.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    payload::{Encoding, Fingerprint, Payload, Tag},
    trace::Trace,
};

/// The largest piece of a message in one frame, in bytes: small enough that others' small messages
/// wait for microseconds, large enough that the header does not count.
pub(crate) const CHUNK: usize = 32 << 10;
/// The largest frame that is read, in bytes.
pub(crate) const MAX_FRAME: usize = CHUNK + 256;
/// Fingerprints in one `Types` frame.
pub(crate) const MAX_TYPES: usize = 1024;
/// Bodies up to this size, in bytes, are copied behind their header instead of being handed on as they are:
/// copying is cheaper than one more element in a vectored write.
const INLINE: usize = 4 << 10;

/// All kinds of frames. A retired number is never used again.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const REFUSE: u8 = 2;
    pub(super) const POST: u8 = 3;
    pub(super) const TELL: u8 = 4;
    pub(super) const ASK: u8 = 5;
    pub(super) const REPLY: u8 = 6;
    pub(super) const FAIL: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const CREDIT: u8 = 9;
    pub(super) const TYPES: u8 = 10;
    pub(super) const CHUNK: u8 = 11;
    pub(super) const GOODBYE: u8 = 12;
    pub(super) const DATAGRAM: u8 = 13;
    pub(super) const ASK_PARTS: u8 = 14;
    pub(super) const PART: u8 = 15;
    pub(super) const MORE: u8 = 16;
    pub(super) const TRACE: u8 = 17;
}

/// One frame. Bodies are slices of the read buffer, never copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// First in both directions; the body is JSON, so that later versions can add to it.
    Hello(Bytes),
    /// Instead of the answering hello: why the link is not wanted.
    Refuse { code: u8, reason: Bytes },
    /// A control message between node agents.
    Post { service: u8, body: Bytes },
    /// A message that is not answered.
    Tell { to: u64, payload: Payload },
    /// A message that is answered once, by `Reply` or `Fail` with its id; `parts` says that any
    /// number of `Part`s may come before (a kind of its own on the wire).
    Ask { id: u64, to: u64, accept: Fingerprint, deadline_ms: u32, parts: bool, payload: Payload },
    /// The answer. Of an ask that takes parts it is the last one, or none at all with the tag 0.
    Reply { id: u64, payload: Payload },
    /// Why there is no answer.
    Fail { id: u64, code: u8, retry_after_ms: u32, detail: Bytes },
    /// Nobody waits for the answer any more.
    Cancel { id: u64 },
    /// Units of a lane that may be used again.
    Credit { to: u64, units: u32 },
    /// Types that the sender of this frame can decode from bincode.
    Types(Vec<Fingerprint>),
    /// A piece of a larger frame body (kind and fields) on a lane.
    Chunk { lane: u32, last: bool, body: Bytes },
    /// The sender leaves on purpose; `idle` says that it has answered all asks that it ever began.
    Goodbye { idle: bool, reason: Bytes },
    /// What QUIC would carry as a datagram, on a link that has none.
    Datagram(Bytes),
    /// A part of the answer to an ask that takes parts.
    Part { id: u64, payload: Payload },
    /// Units of parts that the asker has taken, which may be used again.
    More { id: u64, units: u32 },
    /// The trace that the ask of that id is part of; it comes before the ask. Who does not know this kind
    /// passes over it and answers all the same.
    Trace { id: u64, trace: Trace },
}

/// What is wrong with bytes that should be a frame. The link is of no use after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame of {0} bytes exceeds the limit of {MAX_FRAME} bytes")]
    TooLong(usize),
    #[error("frame of kind {0} ends early")]
    Short(u8),
    #[error("unknown encoding {0}")]
    Encoding(u8),
}

/// Takes the next whole frame body (kind and fields) off the buffer, if it is there.
pub(crate) fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Reads a frame body. `None` is a kind that this version does not know and passes over.
pub(crate) fn parse(mut body: Bytes) -> Result<Option<Frame>, FrameError> {
    if body.is_empty() {
        return Err(FrameError::Short(0));
    }
    let number = body.get_u8();
    let short = |_| FrameError::Short(number);
    let frame = match number {
        kind::HELLO => Frame::Hello(body),
        kind::REFUSE => Frame::Refuse { code: body.try_get_u8().map_err(short)?, reason: body },
        kind::POST => Frame::Post { service: body.try_get_u8().map_err(short)?, body },
        kind::TELL => Frame::Tell {
            to: body.try_get_u64_le().map_err(short)?,
            payload: payload(number, body)?,
        },
        kind::ASK | kind::ASK_PARTS => Frame::Ask {
            id: body.try_get_u64_le().map_err(short)?,
            to: body.try_get_u64_le().map_err(short)?,
            accept: Fingerprint(body.try_get_u64_le().map_err(short)?),
            deadline_ms: body.try_get_u32_le().map_err(short)?,
            parts: number == kind::ASK_PARTS,
            payload: payload(number, body)?,
        },
        kind::REPLY => Frame::Reply {
            id: body.try_get_u64_le().map_err(short)?,
            payload: payload(number, body)?,
        },
        kind::FAIL => Frame::Fail {
            id: body.try_get_u64_le().map_err(short)?,
            code: body.try_get_u8().map_err(short)?,
            retry_after_ms: body.try_get_u32_le().map_err(short)?,
            detail: body,
        },
        kind::CANCEL => Frame::Cancel { id: body.try_get_u64_le().map_err(short)? },
        kind::CREDIT => Frame::Credit {
            to: body.try_get_u64_le().map_err(short)?,
            units: body.try_get_u32_le().map_err(short)?,
        },
        kind::TYPES => Frame::Types(
            body.chunks_exact(8)
                .map(|c| Fingerprint(u64::from_le_bytes(c.try_into().unwrap_or_default())))
                .collect(),
        ),
        kind::CHUNK => Frame::Chunk {
            lane: body.try_get_u32_le().map_err(short)?,
            last: body.try_get_u8().map_err(short)? != 0,
            body,
        },
        kind::GOODBYE => {
            Frame::Goodbye { idle: body.try_get_u8().map_err(short)? == 1, reason: body }
        }
        kind::DATAGRAM => Frame::Datagram(body),
        kind::PART => Frame::Part {
            id: body.try_get_u64_le().map_err(short)?,
            payload: payload(number, body)?,
        },
        kind::MORE => Frame::More {
            id: body.try_get_u64_le().map_err(short)?,
            units: body.try_get_u32_le().map_err(short)?,
        },
        kind::TRACE => Frame::Trace {
            id: body.try_get_u64_le().map_err(short)?,
            trace: Trace {
                id: body.try_get_u128_le().map_err(short)?,
                span: body.try_get_u64_le().map_err(short)?,
                sampled: body.try_get_u8().map_err(short)? & 1 == 1,
            },
        },
        _ => return Ok(None),
    };
    Ok(Some(frame))
}

fn payload(number: u8, mut body: Bytes) -> Result<Payload, FrameError> {
    let short = |_| FrameError::Short(number);
    let tag = Tag(body.try_get_u64_le().map_err(short)?);
    let encoding = body.try_get_u8().map_err(short)?;
    let encoding = Encoding::from_wire(encoding).ok_or(FrameError::Encoding(encoding))?;
    Ok(Payload { tag, encoding, bytes: body })
}

impl Frame {
    /// Splits the frame into its head (kind and fixed fields) and its body.
    pub(crate) fn into_parts(self, head: &mut BytesMut) -> Bytes {
        match self {
            Self::Hello(body) => {
                head.put_u8(kind::HELLO);
                body
            }
            Self::Refuse { code, reason } => {
                head.put_slice(&[kind::REFUSE, code]);
                reason
            }
            Self::Post { service, body } => {
                head.put_slice(&[kind::POST, service]);
                body
            }
            Self::Tell { to, payload } => {
                head.put_u8(kind::TELL);
                head.put_u64_le(to);
                put_payload(head, payload)
            }
            Self::Ask { id, to, accept, deadline_ms, parts, payload } => {
                head.put_u8(if parts { kind::ASK_PARTS } else { kind::ASK });
                head.put_u64_le(id);
                head.put_u64_le(to);
                head.put_u64_le(accept.0);
                head.put_u32_le(deadline_ms);
                put_payload(head, payload)
            }
            Self::Reply { id, payload } => {
                head.put_u8(kind::REPLY);
                head.put_u64_le(id);
                put_payload(head, payload)
            }
            Self::Fail { id, code, retry_after_ms, detail } => {
                head.put_u8(kind::FAIL);
                head.put_u64_le(id);
                head.put_u8(code);
                head.put_u32_le(retry_after_ms);
                detail
            }
            Self::Cancel { id } => {
                head.put_u8(kind::CANCEL);
                head.put_u64_le(id);
                Bytes::new()
            }
            Self::Credit { to, units } => {
                head.put_u8(kind::CREDIT);
                head.put_u64_le(to);
                head.put_u32_le(units);
                Bytes::new()
            }
            Self::Types(types) => {
                head.put_u8(kind::TYPES);
                for fingerprint in types {
                    head.put_u64_le(fingerprint.0);
                }
                Bytes::new()
            }
            Self::Chunk { lane, last, body } => {
                head.put_u8(kind::CHUNK);
                head.put_u32_le(lane);
                head.put_u8(u8::from(last));
                body
            }
            Self::Goodbye { idle, reason } => {
                head.put_u8(kind::GOODBYE);
                head.put_u8(u8::from(idle));
                reason
            }
            Self::Datagram(body) => {
                head.put_u8(kind::DATAGRAM);
                body
            }
            Self::Part { id, payload } => {
                head.put_u8(kind::PART);
                head.put_u64_le(id);
                put_payload(head, payload)
            }
            Self::More { id, units } => {
                head.put_u8(kind::MORE);
                head.put_u64_le(id);
                head.put_u32_le(units);
                Bytes::new()
            }
            Self::Trace { id, trace } => {
                head.put_u8(kind::TRACE);
                head.put_u64_le(id);
                head.put_u128_le(trace.id);
                head.put_u64_le(trace.span);
                head.put_u8(u8::from(trace.sampled));
                Bytes::new()
            }
        }
    }

    /// The size of the body that [`into_parts`](Self::into_parts) will return, in bytes.
    pub(crate) fn body_len(&self) -> usize {
        match self {
            Self::Tell { payload, .. }
            | Self::Ask { payload, .. }
            | Self::Reply { payload, .. }
            | Self::Part { payload, .. } => payload.bytes.len(),
            Self::Hello(body)
            | Self::Refuse { reason: body, .. }
            | Self::Post { body, .. }
            | Self::Fail { detail: body, .. }
            | Self::Chunk { body, .. }
            | Self::Goodbye { reason: body, .. }
            | Self::Datagram(body) => body.len(),
            Self::Cancel { .. }
            | Self::Credit { .. }
            | Self::More { .. }
            | Self::Trace { .. }
            | Self::Types(_) => 0,
        }
    }
}

fn put_payload(head: &mut BytesMut, payload: Payload) -> Bytes {
    head.put_u64_le(payload.tag.0);
    head.put_u8(payload.encoding as u8);
    payload.bytes
}

/// Bytes on their way out: small things copied together, large bodies handed on as they are.
#[derive(Debug, Default)]
pub(crate) struct OutBuf {
    full: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl OutBuf {
    /// Appends a frame, whose body must fit one.
    pub(crate) fn push(&mut self, frame: Frame) {
        let start = self.tail.len();
        self.tail.put_u32_le(0);
        let body = frame.into_parts(&mut self.tail);
        let head = self.tail.len() - start - 4;
        debug_assert!(head + body.len() <= MAX_FRAME, "large bodies are cut into chunks first");
        let length = u32::try_from(head + body.len()).unwrap_or(u32::MAX);
        self.tail[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.len += 4 + head + body.len();
        if body.len() <= INLINE {
            self.tail.put_slice(&body);
        } else {
            self.full.push_back(self.tail.split().freeze());
            self.full.push_back(body);
        }
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes everything, as pieces in order.
    pub(crate) fn take(&mut self, into: &mut Vec<Bytes>) {
        into.extend(self.full.drain(..));
        if !self.tail.is_empty() {
            into.push(self.tail.split().freeze());
        }
        self.len = 0;
        if self.tail.capacity() < INLINE {
            self.tail.reserve(16 * INLINE);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(frame: Frame) -> Vec<u8> {
        let mut out = OutBuf::default();
        out.push(frame);
        let mut pieces = Vec::new();
        out.take(&mut pieces);
        pieces.concat()
    }

    fn payload_of(bytes: &'static [u8]) -> Payload {
        Payload { tag: Tag(0x0102), encoding: Encoding::Json, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn the_bytes_of_an_ask_do_not_change() {
        let frame = Frame::Ask {
            id: 7,
            to: 9,
            accept: Fingerprint(0xab),
            deadline_ms: 1000,
            parts: false,
            payload: payload_of(b"{}"),
        };
        #[rustfmt::skip]
        let expected = [
            40, 0, 0, 0,                  // length of what follows
            5,                            // an ask
            7, 0, 0, 0, 0, 0, 0, 0,       // id
            9, 0, 0, 0, 0, 0, 0, 0,       // to
            0xab, 0, 0, 0, 0, 0, 0, 0,    // accept
            0xe8, 3, 0, 0,                // deadline in ms
            2, 1, 0, 0, 0, 0, 0, 0,       // tag
            2,                            // JSON
            b'{', b'}',
        ];
        assert_eq!(bytes_of(frame.clone()), expected);
        // One that takes parts differs by its kind only.
        let Frame::Ask { id, to, accept, deadline_ms, payload, .. } = frame else { unreachable!() };
        let frame = Frame::Ask { id, to, accept, deadline_ms, parts: true, payload };
        let expected = [&expected[..4], &[14], &expected[5..]].concat();
        assert_eq!(bytes_of(frame), expected);
    }

    #[test]
    fn the_bytes_of_parts_and_of_a_trace_do_not_change() {
        #[rustfmt::skip]
        let expected = [
            20, 0, 0, 0,                  // length of what follows
            15,                           // a part
            7, 0, 0, 0, 0, 0, 0, 0,       // id of the ask
            2, 1, 0, 0, 0, 0, 0, 0,       // tag
            2,                            // JSON
            b'{', b'}',
        ];
        assert_eq!(bytes_of(Frame::Part { id: 7, payload: payload_of(b"{}") }), expected);
        #[rustfmt::skip]
        let expected = [
            13, 0, 0, 0,                  // length of what follows
            16,                           // more
            7, 0, 0, 0, 0, 0, 0, 0,       // id of the ask
            0x10, 1, 0, 0,                // units
        ];
        assert_eq!(bytes_of(Frame::More { id: 7, units: 0x110 }), expected);
        #[rustfmt::skip]
        let expected = [
            34, 0, 0, 0,                  // length of what follows
            17,                           // a trace
            7, 0, 0, 0, 0, 0, 0, 0,       // id of the ask
            1, 2, 0, 0, 0, 0, 0, 0,       // the whole
            0, 0, 0, 0, 0, 0, 0, 0,
            3, 0, 0, 0, 0, 0, 0, 0,       // the part
            1,                            // sampled
        ];
        let trace = Trace { id: 0x201, span: 3, sampled: true };
        assert_eq!(bytes_of(Frame::Trace { id: 7, trace }), expected);
    }

    #[test]
    fn every_kind_reads_back() {
        let frames = [
            Frame::Hello(Bytes::from_static(b"{}")),
            Frame::Refuse { code: 3, reason: Bytes::from_static(b"no") },
            Frame::Post { service: 1, body: Bytes::from_static(b"p") },
            Frame::Tell { to: 1, payload: payload_of(b"t") },
            Frame::Ask {
                id: 1,
                to: 2,
                accept: Fingerprint(3),
                deadline_ms: 4,
                parts: false,
                payload: payload_of(b"a"),
            },
            Frame::Ask {
                id: 1,
                to: 2,
                accept: Fingerprint(3),
                deadline_ms: 4,
                parts: true,
                payload: payload_of(b"a"),
            },
            Frame::Part { id: 1, payload: payload_of(b"p") },
            Frame::More { id: 1, units: 2 },
            Frame::Trace { id: 1, trace: Trace { id: 2, span: 3, sampled: true } },
            Frame::Reply { id: 1, payload: payload_of(b"") },
            Frame::Fail { id: 1, code: 2, retry_after_ms: 3, detail: Bytes::from_static(b"d") },
            Frame::Cancel { id: 1 },
            Frame::Credit { to: 1, units: 2 },
            Frame::Types(vec![Fingerprint(1), Fingerprint(2)]),
            Frame::Chunk { lane: 1, last: true, body: Bytes::from(vec![7; CHUNK]) },
            Frame::Goodbye { idle: true, reason: Bytes::from_static(b"bye") },
            Frame::Datagram(Bytes::from_static(b"gram")),
        ];
        for frame in frames {
            let mut buffer = BytesMut::from(&bytes_of(frame.clone())[..]);
            let body = split(&mut buffer).expect("well formed").expect("whole");
            assert!(buffer.is_empty());
            assert_eq!(parse(body), Ok(Some(frame)));
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_body_comes() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        assert_eq!(split(&mut buffer), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn an_unknown_kind_is_passed_over() {
        assert_eq!(parse(Bytes::from_static(&[200, 1, 2])), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Bytes::from(bytes.clone()));
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(body)) = split(&mut buffer) {
                let _ = parse(body);
            }
        }

        #[test]
        fn frames_come_out_the_same_however_the_bytes_are_cut(cut in 1_usize..64) {
            let sent: Vec<_> = (0..20).map(|id| Frame::Credit { to: id, units: 1 }).collect();
            let all: Vec<u8> = sent.iter().cloned().flat_map(bytes_of).collect();
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in all.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(body) = split(&mut buffer).expect("well formed") {
                    seen.extend(parse(body).expect("well formed"));
                }
            }
            prop_assert_eq!(seen, sent);
        }
    }
}
