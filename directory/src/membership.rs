//! Which hosts are there: the SWIM engine foca, given our identities, clock and patience.
//!
//! No clock, no socket: packets, times and the seed of its random choices come in, and effects go
//! out. What it is not for: records, which hosts send each other directly.
//!
//! A dead host is noticed in about a second (see the constants), sooner than the two seconds that
//! are promised. Two things are added to the engine:
//! - *Doubt.* When our own timers are served late, it is this host that is starved: suspects get
//!   that much more time before they are declared dead, instead of everybody being declared dead.
//! - *Silence.* When nothing was heard from anybody, no suspicion needs to be confirmed one host
//!   after the other: this host is cut off, and everybody is out of reach.
//!
//! Simulated in `membership/tests.rs` with loss, partitions and starvation.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use foca::{Config, Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, State, Timer};
use layercake_wire::{
    id::{HostId, NodeAddr, NodeId, PeerId},
    payload::{self, CodecError, Encoding},
};
use rand::{SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// How often a member is probed. With a handful of hosts each is probed by somebody within two
/// periods.
pub(crate) const PROBE_PERIOD: Duration = Duration::from_millis(200);
/// How long a probe waits for its answer before others are asked to probe: far above the round trip
/// of a LAN, also of a busy one.
pub(crate) const PROBE_WAIT: Duration = Duration::from_millis(80);
/// How long a suspect has to speak up. At 20 % loss some ten packets in either direction give it the
/// occasion.
pub(crate) const SUSPICION: Duration = Duration::from_millis(750);
/// After so long without a packet from anybody this host is cut off.
pub(crate) const SILENCE: Duration = Duration::from_millis(1500);
/// How patient the detection of failures is: within this time a host that has failed is noticed. All
/// times of it are in proportion; those above are for the usual two seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience(Duration);

impl Patience {
    pub(crate) fn new(time: Duration) -> Self {
        Self(time.clamp(MIN_PATIENCE, MAX_PATIENCE))
    }

    /// What a time for the usual patience is for this one.
    pub(crate) fn of(self, usual: Duration) -> Duration {
        usual.mul_f64(self.0.as_secs_f64() / PATIENCE.as_secs_f64())
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self(PATIENCE)
    }
}

/// The usual time within which a failed host is noticed.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The least patience: below it the delays of a busy host look like its end.
pub const MIN_PATIENCE: Duration = Duration::from_millis(500);
/// The most patience.
pub const MAX_PATIENCE: Duration = Duration::from_secs(60);
/// A timer served later than this makes the host doubt itself.
const LATE: Duration = Duration::from_millis(100);
/// For how long it does.
const DOUBT_TIME: Duration = Duration::from_secs(5);
/// The most that doubt adds to a suspect's time.
const MAX_DOUBT: Duration = Duration::from_secs(5);
/// How long a renewed identity stands before it is renewed again.
const RENEWAL_PAUSE: Duration = Duration::from_millis(200);
/// With no more members than this every packet is sent twice: among so few there is hardly anybody
/// who could probe for us, and loss would look like death.
const FEW: usize = 2;
/// The largest packet: a datagram of a link, less the byte that says what it is.
const MAX_PACKET: usize = 1099;
/// Addresses that travel with an identity; more would crowd out members.
const MAX_IDENTITY_HINTS: usize = 4;
/// What the first byte of a membership datagram is.
const PACKET: u8 = 1;

/// A host directory as a member: a later incarnation (a take-over, a restart) replaces an earlier
/// one, and a member that was declared dead wrongly comes back by a renewal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) host: HostId,
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) renewal: u16,
    hints: Vec<SocketAddr>,
}

impl Identity {
    pub(crate) fn new(addr: &NodeAddr, incarnation: u64, renewal: u16) -> Self {
        let hints = addr.hints.iter().take(MAX_IDENTITY_HINTS).copied().collect();
        let PeerId { host, node } = addr.peer;
        Self { host, node, incarnation, renewal, hints }
    }

    /// Where it may be reached.
    pub(crate) fn addr(&self) -> NodeAddr {
        NodeAddr::new(PeerId { host: self.host, node: self.node }, &self.hints)
    }

    const fn rank(&self) -> (u64, u16, u64) {
        (self.incarnation, self.renewal, self.node.to_bits())
    }
}

/// The addresses are no part of who it is.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host && self.rank() == other.rank()
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = HostId;

    fn renew(&self) -> Option<Self> {
        let renewal = self.renewal.checked_add(1)?;
        Some(Self { renewal, ..self.clone() })
    }

    fn addr(&self) -> HostId {
        self.host
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank()
    }
}

/// What should be done, and what is new.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Send a datagram to a member.
    Send { to: Identity, packet: Bytes },
    /// A host is there, or its directory has a successor.
    Up(Identity),
    /// A host has gone: it left or does not answer.
    Down(Identity),
    /// This host was declared dead and has renewed its identity: tell everybody.
    Renewed(Identity),
}

/// See the module.
pub(crate) struct Membership {
    foca: Foca<Identity, Codec, SmallRng, NoCustomBroadcast>,
    patience: Patience,
    timers: BTreeMap<(Duration, u64), (Timer<Identity>, bool)>,
    /// Of each host at most one timer waits to forget that it is down.
    forgets: BTreeMap<HostId, (Duration, u64)>,
    next_timer: u64,
    heard: Duration,
    /// When this host was last told that it is dead, and renewed its identity.
    renewed: Option<Duration>,
    doubt: Duration,
    doubt_until: Duration,
}

impl Membership {
    /// Begins alone. `seed` decides the order of probes.
    pub(crate) fn new(me: Identity, seed: u64, patience: Patience, now: Duration) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        Self {
            foca: Foca::new(me, config(patience), rng, Codec),
            patience,
            timers: BTreeMap::new(),
            forgets: BTreeMap::new(),
            next_timer: 0,
            heard: now,
            renewed: None,
            doubt: Duration::ZERO,
            doubt_until: Duration::ZERO,
        }
    }

    /// Who this host is as a member.
    pub(crate) fn me(&self) -> &Identity {
        self.foca.identity()
    }

    /// The hosts that are there, without this one.
    #[cfg(test)]
    pub(crate) fn members(&self) -> impl Iterator<Item = &Identity> {
        self.foca.iter_members().map(Member::id)
    }

    /// The latest incarnation of a host that was heard of, also when it is down.
    pub(crate) fn incarnation_of(&self, host: HostId) -> Option<u64> {
        let known = self.foca.iter_membership_state().find(|member| member.id().host == host);
        known.map(|member| member.id().incarnation)
    }

    /// How many timers wait.
    #[cfg(test)]
    pub(crate) fn timers(&self) -> usize {
        self.timers.len()
    }

    /// When [`Self::on_time`] is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let timer = self.timers.keys().next().map(|(due, _)| *due);
        let silence = (self.foca.num_members() > 0).then(|| self.heard + self.silence());
        timer.into_iter().chain(silence).min()
    }

    /// Says hello to a directory that a link leads to. Lost packets are the caller's to repeat.
    pub(crate) fn meet(&mut self, them: Identity, now: Duration, out: &mut Vec<Effect>) {
        if them.host != self.me().host {
            self.act(now, out, |foca, shell| foca.announce(them, shell));
        }
    }

    /// Takes a datagram that came over a link which proves its host.
    pub(crate) fn on_packet(
        &mut self,
        from: HostId,
        datagram: &[u8],
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let Some((&PACKET, packet)) = datagram.split_first() else { return };
        match foca::Codec::decode_header(&mut Codec, packet) {
            Ok(header) if header.src.host == from => {
                let recent = self.renewed.is_some_and(|at| now < at + RENEWAL_PAUSE);
                if recent && header.message == foca::Message::TurnUndead {
                    return; // Two that do not believe each other would do nothing else.
                }
            }
            Ok(header) => {
                tracing::warn!(host = %from, claims = %header.src.host, "a host speaks for another");
                return;
            }
            Err(error) => {
                tracing::debug!(host = %from, %error, "not a membership packet");
                return;
            }
        }
        self.heard = now;
        self.act(now, out, |foca, shell| foca.handle_data(packet, shell));
    }

    /// Serves what is due. Packets that have arrived should be handed in first.
    pub(crate) fn on_time(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let Some(due) = self.next_deadline() else { return };
        let late = now.saturating_sub(due);
        if late > LATE {
            self.doubt = (late * 3).min(MAX_DOUBT);
            self.doubt_until = now + DOUBT_TIME;
            self.heard = self.heard.max(now.saturating_sub(self.silence() / 2));
        } else if now > self.doubt_until {
            self.doubt = Duration::ZERO;
        }
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let (at, (timer, postponed)) = entry.remove_entry();
            if let Timer::RemoveDown(down) = &timer
                && self.forgets.get(&down.host) == Some(&at)
            {
                self.forgets.remove(&down.host);
            }
            let extra = match timer {
                Timer::ChangeSuspectToDown { .. } => self.doubt,
                // The answers may lie in a queue that nobody had the time to read.
                Timer::ProbeRandomMember(_) if late > LATE => LATE,
                _ => Duration::ZERO,
            };
            if !postponed && extra > Duration::ZERO {
                self.schedule(now + extra, timer, true);
            } else {
                self.act(now, out, |foca, shell| foca.handle_timer(timer, shell));
            }
        }
        if self.foca.num_members() > 0 && now >= self.heard + self.silence() {
            self.lose_all(now, out);
        }
    }

    /// This host has another identity from now on.
    pub(crate) fn become_known_as(&mut self, me: Identity, now: Duration, out: &mut Vec<Effect>) {
        self.act(now, out, |foca, shell| foca.change_identity(me, shell));
    }

    /// Leaves in order: the others need not find out.
    pub(crate) fn leave(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.act(now, out, |foca, shell| foca.leave_cluster(shell));
    }

    fn lose_all(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let gone: Vec<_> = self
            .foca
            .iter_members()
            .map(|m| Member::new(m.id().clone(), m.incarnation(), State::Down))
            .collect();
        self.act(now, out, |foca, shell| foca.apply_many(gone.into_iter(), false, shell));
    }

    fn silence(&self) -> Duration {
        self.patience.of(SILENCE)
    }

    fn schedule(&mut self, due: Duration, timer: Timer<Identity>, postponed: bool) {
        if let Timer::RemoveDown(down) = &timer {
            // A later identity of the host has taken the place of an earlier one: a host that restarts
            // again and again leaves nothing behind.
            if let Some(earlier) = self.forgets.insert(down.host, (due, self.next_timer)) {
                self.timers.remove(&earlier);
            }
        }
        self.timers.insert((due, self.next_timer), (timer, postponed));
        self.next_timer += 1;
    }

    fn act(
        &mut self,
        now: Duration,
        out: &mut Vec<Effect>,
        act: impl FnOnce(
            &mut Foca<Identity, Codec, SmallRng, NoCustomBroadcast>,
            &mut Shell<'_>,
        ) -> Result<(), foca::Error>,
    ) {
        let before = self.foca.num_members();
        let told = out.len();
        let mut shell =
            Shell { out, timers: Vec::new(), renamed: Vec::new(), twice: before <= FEW };
        // None of its errors leaves it unusable; stale packets and timers are among them.
        if let Err(error) = act(&mut self.foca, &mut shell) {
            tracing::debug!(%error, "membership");
        }
        let Shell { timers, renamed, .. } = shell;
        if out[told..].iter().any(|effect| matches!(effect, Effect::Renewed(_))) {
            self.renewed = Some(now);
        }
        for (after, timer) in timers {
            self.schedule(now + after, timer, false);
        }
        for successor in renamed {
            // The engine says nothing more where the host was there before, as far as it knew.
            if self.foca.iter_members().any(|member| *member.id() == successor) {
                out.push(Effect::Up(successor));
            }
        }
        if before == 0 {
            self.heard = now;
        }
    }
}

fn config(patience: Patience) -> Config {
    const fn often(millis: u64, members: usize) -> Option<PeriodicParams> {
        let num_members = NonZeroUsize::MIN.saturating_add(members - 1);
        Some(PeriodicParams { frequency: Duration::from_millis(millis), num_members })
    }
    Config {
        probe_period: patience.of(PROBE_PERIOD),
        probe_rtt: patience.of(PROBE_WAIT),
        num_indirect_probes: NonZeroUsize::MIN.saturating_add(2),
        max_transmissions: NonZeroU8::MIN.saturating_add(11),
        suspect_to_down_after: patience.of(SUSPICION),
        remove_down_after: Some(Duration::from_secs(600)),
        max_packet_size: NonZeroUsize::MIN.saturating_add(MAX_PACKET - 1),
        notify_down_members: true,
        periodic_announce: often(5000, 1),
        // Without it two halves of a long partition would never speak to each other again.
        periodic_announce_to_down_members: often(2000, 2),
        periodic_gossip: often(100, 3),
    }
}

/// What foca asks for, as effects.
struct Shell<'a> {
    out: &'a mut Vec<Effect>,
    timers: Vec<(Duration, Timer<Identity>)>,
    renamed: Vec<Identity>,
    twice: bool,
}

impl foca::Runtime<Identity> for Shell<'_> {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.out.push(match notification {
            Notification::MemberUp(member) => Effect::Up(member.clone()),
            Notification::MemberDown(member) => Effect::Down(member.clone()),
            Notification::Rejoin(me) => Effect::Renewed(me.clone()),
            Notification::Rename(_, successor) => {
                self.renamed.push(successor.clone());
                return;
            }
            Notification::Active | Notification::Idle | Notification::Defunct => return,
        });
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        let mut packet = BytesMut::with_capacity(1 + data.len());
        packet.put_u8(PACKET);
        packet.put_slice(data);
        let packet = packet.freeze();
        if self.twice {
            self.out.push(Effect::Send { to: to.clone(), packet: packet.clone() });
        }
        self.out.push(Effect::Send { to, packet });
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// Items as a length of two bytes and a bincode value.
#[derive(Debug, Clone, Copy)]
struct Codec;

/// Why an item of a packet is not understood or does not fit.
#[derive(Debug, thiserror::Error)]
enum ItemError {
    #[error("the packet is full")]
    Full,
    #[error("the packet is cut short")]
    Short,
    #[error(transparent)]
    Codec(#[from] CodecError),
}

fn put<T: Serialize>(item: &T, mut buf: impl BufMut) -> Result<(), ItemError> {
    let bytes = payload::encode(Encoding::Bincode, item)?;
    let length = u16::try_from(bytes.len()).map_err(|_| ItemError::Full)?;
    if buf.remaining_mut() < 2 + bytes.len() {
        return Err(ItemError::Full);
    }
    buf.put_u16(length);
    buf.put_slice(&bytes);
    Ok(())
}

fn take<T: serde::de::DeserializeOwned>(mut buf: impl Buf) -> Result<T, ItemError> {
    if buf.remaining() < 2 {
        return Err(ItemError::Short);
    }
    let length = usize::from(buf.get_u16());
    if buf.remaining() < length {
        return Err(ItemError::Short);
    }
    let bytes = buf.copy_to_bytes(length);
    Ok(payload::decode(Encoding::Bincode, &bytes)?)
}

impl foca::Codec<Identity> for Codec {
    type Error = ItemError;

    fn encode_header(
        &mut self,
        header: &foca::Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), ItemError> {
        put(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<foca::Header<Identity>, ItemError> {
        take(buf)
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), ItemError> {
        put(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, ItemError> {
        take(buf)
    }
}
