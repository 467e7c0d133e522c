//! What came of dials, and what does not work: told once, kept in a list, and asked for.

use layercake_wire::{DialError, Link, Service};
use tokio::sync::oneshot;

use super::{Seat, Shell, post};
use crate::{
    dial::{Missing, Target},
    message::ToHost,
    trouble::{Trouble, TroubleKind},
};

/// What stands for all hosts that announce themselves and do not answer: anybody may invent such.
const ANNOUNCED: &str = "hosts that announce themselves";
impl Shell {
    pub(super) fn on_dialled(&mut self, target: Target, result: Result<Link, DialError>) {
        let about = match target {
            Target::Host(host) => host.to_string(),
            Target::Addr(addr) => addr.to_string(),
        };
        match result {
            Ok(link) if !link.is_closed() => {
                let peer = link.peer();
                self.settle(TroubleKind::Dial, &about);
                self.on_up(link);
                self.in_core(|core, _, out| core.on_dialled(target, Some(peer), out));
            }
            Err(DialError::Ourselves) => self.in_core(|core, _, _| core.on_dialled_self(target)),
            Ok(_) => self.in_core(|core, _, out| core.on_dialled(target, None, out)),
            Err(error) => {
                tracing::debug!(?target, %error, "a dial failed");
                let mut misses = None;
                self.in_core(|core, _, out| {
                    core.on_dialled(target, None, out);
                    misses = core.misses(target);
                });
                let about = match misses {
                    Some(Missing::Known) => &*about,
                    Some(Missing::Heard) => ANNOUNCED,
                    None => return,
                };
                self.trouble(TroubleKind::Dial, about, &error.to_string());
            }
        }
    }

    pub(super) fn on_troubles(&mut self, answer: oneshot::Sender<Vec<Trouble>>) {
        if let Seat::Client(link) = &self.seat {
            self.asked_troubles.retain(|_, waiting| !waiting.is_closed());
            self.next_request += 1;
            self.asked_troubles.insert(self.next_request, answer);
            post(link, Service::Directory, &ToHost::Troubles(self.next_request));
        } else {
            // What this node knows of itself is added by who asks.
            let _ = answer.send(Vec::new());
        }
    }

    /// Something does not work: told once, and kept in the list.
    pub(super) fn trouble(&self, kind: TroubleKind, about: &str, why: &str) {
        let news = self.status.troubles().note(kind, about, why, self.wall_ms());
        let meanwhile = kind.meanwhile();
        match kind {
            _ if !news => {}
            // A host that was switched off is no trouble of this one; a seed that does not answer is.
            TroubleKind::Dial if about.parse::<std::net::SocketAddr>().is_err() => {
                tracing::info!("{kind} of {about}: {why}; {meanwhile}");
            }
            _ => tracing::warn!("{kind} of {about}: {why}; {meanwhile}"),
        }
    }

    /// It works.
    pub(super) fn settle(&self, kind: TroubleKind, about: &str) {
        self.status.troubles().settle(kind, about);
    }
}
