//! What the frames of one link mean: asks and their answers, also in parts, large messages in pieces,
//! credit.
//!
//! No I/O, no clock, no task: commands and frames go in, frames for the output buffer and events for
//! the receiver come out. [`super::driver`] carries them; it calls
//! - [`Core::on_command`] for each command of a handle, then [`Core::pump`] to fill the output buffer,
//! - [`Core::on_body`] for each frame body that was read, then [`Core::deliver`],
//! - [`Core::on_tick`] now and then while [`Core::has_asks`],
//! - [`Core::on_close`] once, at the end.
//!
//! # What always holds
//! - Every ask is answered exactly once: by its reply, a failure, its deadline, or the end of the link.
//!   One that takes parts gets them before that, in their order, and none afterwards.
//! - Parts that the asker has not taken stay within the window of their stream. A peer that sends more,
//!   or gives back what it was not sent, has broken the protocol.
//! - A stream's parts and its end are one pair: a large part holds up its own stream and nobody else.
//! - A stream that is answered here may send until its reply or failure, the peer's cancellation or the
//!   end of the link, whichever comes first; who waits for its window hears of each.
//! - What one task sends to one actor leaves in order; a message larger than a chunk holds up only
//!   later messages of the same task to the same actor.
//! - Units taken for a message are given back once: on its answer (ask), on the peer's credit (tell).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use slab::Slab;

use super::{
    Command, Lane, Service, Waiting,
    courier::{Answer, Courier},
    parts::{Window, part_units},
};
use crate::{
    frame::{self, CHUNK, Frame, FrameError, MAX_TYPES, OutBuf},
    inbound::{AskFailure, Failure, FailureCode},
    payload::{Fingerprint, MAX_MESSAGE, Payload},
    trace::Trace,
};

/// Large messages of one link that are on their way in pieces at the same time; more wait.
pub(crate) const MAX_BULK: usize = 8;
/// Bytes of pieces that are put into the output buffer at once, so that a small message waits for
/// no more than these.
const BULK_BATCH: usize = 128 << 10;
/// Traces whose asks have not come yet; beyond it they are forgotten, and the asks are part of none.
const MAX_TRACES: usize = 4096;
/// The longest failure text that is sent, in bytes.
const MAX_DETAIL: usize = 4096;

/// What came in and is for somebody else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Tell {
        to: u64,
        payload: Payload,
        units: u32,
    },
    /// With a window where it is to be answered in parts.
    Ask {
        id: u64,
        to: u64,
        accept: Fingerprint,
        deadline_ms: u32,
        window: Option<Arc<Window>>,
        trace: Option<Trace>,
        payload: Payload,
    },
    Cancel {
        id: u64,
    },
    Credit {
        to: u64,
        units: u32,
    },
    Post {
        service: Service,
        body: Bytes,
    },
    Datagram(Bytes),
    Types(Vec<Fingerprint>),
    /// The peer leaves; `idle` where it has answered all that it ever began.
    Goodbye {
        idle: bool,
        reason: String,
    },
}

/// A breach of the protocol by the peer; the link ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the peer broke the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the peer broke the protocol: message of more than {MAX_MESSAGE} bytes")]
    TooLarge,
    #[error("the peer broke the protocol: more than {MAX_BULK} large messages at once")]
    TooMany,
    #[error("the peer broke the protocol: {0} in the middle of a conversation")]
    Misplaced(&'static str),
    #[error("the peer broke the protocol: {0} beyond the window of a stream")]
    Window(&'static str),
}

struct Pending {
    generation: u32,
    lane: Arc<Lane>,
    units: u32,
    deadline: Instant,
    waiting: Waiting,
}

/// A stream that is answered here; once this is gone, nobody waits for its window.
struct Serving {
    window: Arc<Window>,
    /// Units of parts that went into the output buffer and did not come back.
    sent: u32,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.window.close();
    }
}

/// What is to be counted when a frame has gone into the output buffer.
#[derive(Clone, Copy)]
enum Due {
    Nothing,
    /// Units of the link's budget.
    Budget(u32),
    /// Units of a stream's window.
    Part {
        id: u64,
        units: u32,
    },
}

/// The sending task and the receiving actor: what stays in order.
type Pair = (u64, u64);

/// Frames of one pair that wait behind a large one.
struct Bulk {
    id: u32,
    queue: VecDeque<Piece>,
}

enum Piece {
    /// The rest of a large frame body.
    Large { rest: Bytes, then: Bytes, due: Due },
    /// A small frame behind it.
    Small { frame: Frame, due: Due },
}

#[derive(Default)]
pub(crate) struct Core {
    asks: Slab<Pending>,
    generation: u32,
    /// Streams of the peer that are answered here, by the ids of their asks: as many as it has units
    /// of lanes for.
    serving: HashMap<u64, Serving>,
    bulk: HashMap<Pair, Bulk>,
    turns: VecDeque<Pair>,
    next_bulk: u32,
    inbound: HashMap<u32, BytesMut>,
    /// Traces of asks that are still to come.
    traces: HashMap<u64, Trace>,
    pub(crate) out: OutBuf,
    /// Units and control messages in `out`, to be given back when it is written.
    pub(crate) out_units: usize,
    pub(crate) out_posts: usize,
    /// Messages in `out`, and those that were read, since they were counted last.
    pub(crate) out_messages: usize,
    pub(crate) in_messages: usize,
    /// Answers that came in, by the courier that takes them.
    answers: Vec<(Courier, Vec<Answer>)>,
    /// Credit for tells, collected to go out as one frame for each actor.
    credit: Vec<(u64, u32)>,
}

impl Core {
    /// Whether an ask waits for its answer.
    pub(crate) fn has_asks(&self) -> bool {
        !self.asks.is_empty()
    }

    /// Takes a command. `Close` is the driver's.
    pub(crate) fn on_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Tell { lane, from, payload, units } => {
                self.out_messages += 1;
                let to = lane.actor();
                self.send((from, to), Frame::Tell { to, payload }, Due::Budget(units));
            }
            Command::Ask(ask) => {
                self.out_messages += 1;
                let to = ask.lane.actor();
                self.generation = self.generation.wrapping_add(1);
                let left = ask.deadline.saturating_duration_since(now);
                let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
                let generation = self.generation;
                let parts = matches!(ask.waiting, Waiting::Parts(_));
                let index = self.asks.insert(Pending {
                    generation,
                    lane: ask.lane,
                    units: ask.units,
                    deadline: ask.deadline,
                    waiting: ask.waiting,
                });
                let id = (u64::from(generation) << 32) | index as u64;
                if let Some(trace) = ask.trace {
                    // At once, so that it is there before the ask, however long that waits for its turn.
                    self.out.push(Frame::Trace { id, trace: *trace });
                }
                let (accept, payload) = (ask.accept, ask.payload);
                let frame = Frame::Ask { id, to, accept, deadline_ms, parts, payload };
                self.send((ask.from, to), frame, Due::Budget(ask.units));
            }
            // An answer has no order with anything but its own parts: each is a pair of its own.
            Command::Reply { id, payload } => {
                self.out_messages += 1;
                self.served(id);
                self.send((id, 0), Frame::Reply { id, payload }, Due::Nothing);
            }
            Command::Part { id, payload } => {
                // Where the asker has gone meanwhile nobody would take it.
                if self.serving.contains_key(&id) {
                    self.out_messages += 1;
                    let units = part_units(&payload);
                    self.send((id, 0), Frame::Part { id, payload }, Due::Part { id, units });
                }
            }
            Command::More { id, units } => {
                if let Some(Pending { waiting: Waiting::Parts(inlet), .. }) = self.pending(id) {
                    inlet.give_back(units);
                    self.out.push(Frame::More { id, units });
                }
            }
            Command::Fail { id, failure } => {
                self.served(id);
                let mut detail = failure.detail;
                detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
                let frame = Frame::Fail {
                    id,
                    code: failure.code as u8,
                    retry_after_ms: failure.retry_after_ms,
                    detail: detail.into(),
                };
                self.send((id, 0), frame, Due::Nothing);
            }
            Command::Credit { to, units } => match self.credit.iter_mut().find(|c| c.0 == to) {
                Some(entry) => entry.1 = entry.1.saturating_add(units),
                None => self.credit.push((to, units)),
            },
            Command::Post { service, body } => {
                self.out_posts += 1;
                // One pair for each service keeps its messages in order; actors' numbers are no sender's.
                let pair = (u64::MAX, service as u64);
                let frame = Frame::Post { service: service as u8, body };
                self.send(pair, frame, Due::Nothing);
            }
            Command::Datagram(body) => {
                self.out_posts += 1;
                self.out.push(Frame::Datagram(body));
            }
            Command::Types(types) => {
                for part in types.chunks(MAX_TYPES) {
                    self.out.push(Frame::Types(part.to_vec()));
                }
            }
            Command::Close(_) => {}
        }
    }

    fn send(&mut self, pair: Pair, frame: Frame, due: Due) {
        let large = frame.body_len() > CHUNK;
        // The common case: nothing large is under way.
        if !large && (self.bulk.is_empty() || !self.bulk.contains_key(&pair)) {
            self.out.push(frame);
            self.count(due);
            return;
        }
        let piece = if large {
            let mut head = BytesMut::with_capacity(64);
            let then = frame.into_parts(&mut head);
            Piece::Large { rest: head.freeze(), then, due }
        } else {
            Piece::Small { frame, due }
        };
        let bulk = self.bulk.entry(pair).or_insert_with(|| {
            self.turns.push_back(pair);
            self.next_bulk = self.next_bulk.wrapping_add(1);
            Bulk { id: self.next_bulk, queue: VecDeque::new() }
        });
        bulk.queue.push_back(piece);
    }

    /// Puts credit and the next pieces of large messages into the output buffer. Returns whether
    /// more pieces wait.
    pub(crate) fn pump(&mut self) -> bool {
        for (to, units) in self.credit.drain(..) {
            self.out.push(Frame::Credit { to, units });
        }
        let start = self.out.len();
        let mut turn = 0;
        // Only the first few pairs take turns, so that the peer holds few unfinished messages.
        while !self.turns.is_empty() && self.out.len() - start < BULK_BATCH {
            if turn >= self.turns.len().min(MAX_BULK) {
                turn = 0;
            }
            let pair = self.turns[turn];
            if self.emit(pair) {
                turn += 1;
            } else {
                self.bulk.remove(&pair);
                self.turns.remove(turn);
            }
        }
        !self.turns.is_empty()
    }

    /// Counts what a frame took that is in the output buffer now.
    fn count(&mut self, due: Due) {
        match due {
            Due::Nothing => {}
            Due::Budget(units) => self.out_units += units as usize,
            Due::Part { id, units } => {
                if let Some(serving) = self.serving.get_mut(&id) {
                    serving.sent += units;
                }
            }
        }
    }

    /// An ask of the peer has its answer: the end of its stream, if it has one.
    fn served(&mut self, id: u64) {
        if !self.serving.is_empty() {
            self.serving.remove(&id);
        }
    }

    /// Emits one piece of a pair; whether more wait.
    fn emit(&mut self, pair: Pair) -> bool {
        let Some(bulk) = self.bulk.get_mut(&pair) else { return false };
        let mut counted = Due::Nothing;
        match bulk.queue.pop_front() {
            None => return false,
            Some(Piece::Small { frame, due }) => {
                self.out.push(frame);
                counted = due;
            }
            Some(Piece::Large { mut rest, mut then, due }) => {
                let body = rest.split_to(rest.len().min(CHUNK));
                if rest.is_empty() {
                    rest = std::mem::take(&mut then);
                }
                let last = rest.is_empty();
                self.out.push(Frame::Chunk { lane: bulk.id, last, body });
                if last {
                    counted = due;
                } else {
                    bulk.queue.push_front(Piece::Large { rest, then, due });
                }
            }
        }
        let more = !bulk.queue.is_empty();
        self.count(counted);
        more
    }

    /// Takes a frame body that was read.
    pub(crate) fn on_body(&mut self, body: Bytes) -> Result<Option<Event>, ProtocolError> {
        match frame::parse(body)? {
            None => Ok(None),
            Some(Frame::Chunk { lane, last, body }) => {
                if !self.inbound.contains_key(&lane) && self.inbound.len() >= MAX_BULK {
                    return Err(ProtocolError::TooMany);
                }
                let whole = self.inbound.entry(lane).or_default();
                if whole.len() + body.len() > MAX_MESSAGE + 64 {
                    return Err(ProtocolError::TooLarge);
                }
                whole.extend_from_slice(&body);
                if !last {
                    return Ok(None);
                }
                let whole = self.inbound.remove(&lane).unwrap_or_default().freeze();
                match frame::parse(whole)? {
                    Some(Frame::Chunk { .. }) => Err(ProtocolError::Misplaced("a chunk of chunks")),
                    Some(frame) => self.on_frame(frame),
                    None => Ok(None),
                }
            }
            Some(frame) => self.on_frame(frame),
        }
    }

    fn on_frame(&mut self, frame: Frame) -> Result<Option<Event>, ProtocolError> {
        Ok(Some(match frame {
            Frame::Reply { id, payload } => {
                self.in_messages += 1;
                self.answer(id, Ok(payload));
                return Ok(None);
            }
            Frame::Fail { id, code, retry_after_ms, detail } => {
                let failure = Failure {
                    code: FailureCode::from_wire(code),
                    retry_after_ms,
                    detail: String::from_utf8_lossy(&detail).into_owned(),
                };
                self.answer(id, Err(AskFailure::Failed(failure)));
                return Ok(None);
            }
            Frame::Tell { to, payload } => {
                self.in_messages += 1;
                let units = super::units_of(&payload);
                Event::Tell { to, payload, units }
            }
            Frame::Ask { id, to, accept, deadline_ms, parts, payload } => {
                self.in_messages += 1;
                let window = parts.then(Window::new);
                if let Some(window) = window.clone() {
                    self.serving.insert(id, Serving { window, sent: 0 });
                }
                let trace = if self.traces.is_empty() { None } else { self.traces.remove(&id) };
                Event::Ask { id, to, accept, deadline_ms, window, trace, payload }
            }
            Frame::Trace { id, trace } => {
                // Asks that were cancelled before they were sent leave theirs.
                if self.traces.len() == MAX_TRACES {
                    self.traces.clear();
                }
                self.traces.insert(id, trace);
                return Ok(None);
            }
            Frame::Part { id, payload } => {
                self.in_messages += 1;
                let within = match self.pending(id) {
                    Some(Pending { waiting: Waiting::Parts(inlet), .. }) => inlet.part(id, payload),
                    Some(_) => return Err(ProtocolError::Misplaced("a part of a single answer")),
                    // It crossed the cancellation.
                    None => true,
                };
                return if within { Ok(None) } else { Err(ProtocolError::Window("a part")) };
            }
            Frame::More { id, units } => {
                // Of a stream that has ended nothing is counted any more.
                if let Some(serving) = self.serving.get_mut(&id) {
                    let left = serving.sent.checked_sub(units);
                    serving.sent = left.ok_or(ProtocolError::Window("units given back"))?;
                    serving.window.give_back(units);
                }
                return Ok(None);
            }
            Frame::Cancel { id } => {
                self.traces.remove(&id);
                self.served(id);
                Event::Cancel { id }
            }
            Frame::Credit { to, units } => Event::Credit { to, units },
            Frame::Post { service, body } => match Service::from_wire(service) {
                Some(service) => Event::Post { service, body },
                None => return Ok(None),
            },
            Frame::Datagram(body) => Event::Datagram(body),
            Frame::Types(types) => Event::Types(types),
            Frame::Goodbye { idle, reason } => {
                Event::Goodbye { idle, reason: String::from_utf8_lossy(&reason).into_owned() }
            }
            Frame::Hello(_) => return Err(ProtocolError::Misplaced("a hello")),
            Frame::Refuse { .. } => return Err(ProtocolError::Misplaced("a refusal")),
            Frame::Chunk { .. } => return Err(ProtocolError::Misplaced("a chunk")),
        }))
    }

    /// The ask of that id, if it still waits.
    fn pending(&mut self, id: u64) -> Option<&mut Pending> {
        self.asks.get_mut(index_of(id)).filter(|ask| ask.generation == generation_of(id))
    }

    fn answer(&mut self, id: u64, answer: Result<Payload, AskFailure>) {
        if self.pending(id).is_none() {
            return;
        }
        let ask = self.asks.remove(index_of(id));
        ask.lane.give_back(ask.units);
        match ask.waiting {
            Waiting::One { slot, courier: Some(courier) } => {
                match self.answers.iter_mut().find(|(other, _)| other.is(&courier)) {
                    Some((_, answers)) => answers.push((slot, answer)),
                    None => self.answers.push((courier, vec![(slot, answer)])),
                }
            }
            // The end of a stream goes where its parts went.
            waiting => waiting.give(answer),
        }
    }

    /// Gives the answers that came in to those who wait; to be called when all frames that were read
    /// have been taken.
    pub(crate) fn deliver(&mut self) {
        for (courier, answers) in self.answers.drain(..) {
            courier.deliver(answers);
        }
    }

    /// Ends asks whose deadline has passed or whose asker has gone.
    pub(crate) fn on_tick(&mut self, now: Instant) {
        let over: Vec<usize> = self
            .asks
            .iter()
            .filter(|(_, ask)| ask.deadline <= now || ask.waiting.is_closed())
            .map(|(index, _)| index)
            .collect();
        for index in over {
            let ask = self.asks.remove(index);
            ask.lane.give_back(ask.units);
            self.out.push(Frame::Cancel { id: (u64::from(ask.generation) << 32) | index as u64 });
            ask.waiting.give(Err(AskFailure::Deadline));
        }
    }

    /// Answers each ask in flight with that failure, and tells streams that are answered here that
    /// nobody waits for them.
    pub(crate) fn fail_asks(&mut self, failure: &AskFailure) {
        self.deliver();
        for ask in self.asks.drain() {
            ask.waiting.give(Err(failure.clone()));
        }
        self.serving.clear();
    }

    /// Ends everything: what is in flight is lost.
    pub(crate) fn on_close(&mut self, reason: &str) {
        self.fail_asks(&AskFailure::Lost(reason.to_owned()));
        self.bulk.clear();
        self.turns.clear();
        self.inbound.clear();
    }
}

/// The low half of an id is an index, the high half tells later uses of the same place apart.
fn index_of(id: u64) -> usize {
    (id & 0xffff_ffff) as usize
}

fn generation_of(id: u64) -> u32 {
    (id >> 32) as u32
}

#[cfg(test)]
mod tests;
