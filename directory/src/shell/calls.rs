//! What is asked of the directory, and waits while its host directory is behind.

use tokio::sync::oneshot;

use super::{Published, Seat, Shell};
use crate::service::{NotSubscribed, PublishCall, SubscribeCall};

/// Calls that wait before those that are over are swept out.
pub(super) const CALLS: usize = 1024;

/// Something that is asked of the directory.
pub(super) enum Call {
    Publish(PublishCall),
    Subscribe(SubscribeCall),
}

impl Call {
    /// Whether nobody waits for it any more.
    fn is_over(&self) -> bool {
        match self {
            Self::Publish(call) => call.answer.is_closed(),
            Self::Subscribe(call) => call.answer.is_closed(),
        }
    }
}

impl Shell {
    /// While the host directory is behind, calls wait in order.
    pub(super) fn on_call(&mut self, call: Call) {
        if self.calls.is_empty() && !self.agent.is_ahead() {
            return self.on_next_call(call);
        }
        // Those who do not wait any more are swept out, lest they pile up.
        if self.calls.len() >= self.calls_swept {
            self.calls.retain(|call| !call.is_over());
            self.calls_swept = CALLS.max(2 * self.calls.len());
        }
        self.calls.push_back(call);
    }

    pub(super) fn on_next_call(&mut self, call: Call) {
        match call {
            _ if call.is_over() => {}
            Call::Publish(call) => self.on_publish(call),
            Call::Subscribe(call) => self.on_subscribe(call),
        }
    }

    pub(super) fn on_sync(&mut self, answer: oneshot::Sender<()>) {
        if self.syncing.len() >= self.syncing_swept {
            let over = self.syncing.extract_if(|_, waiting| waiting.is_closed());
            over.for_each(|(id, _)| self.agent.forget_sync(id));
            self.syncing_swept = CALLS.max(2 * self.syncing.len());
        }
        if matches!(self.seat, Seat::None) {
            let _ = answer.send(());
            return;
        }
        self.next_request += 1;
        let id = self.next_request;
        self.syncing.insert(id, answer);
        self.in_agent(|agent, out| agent.sync(id, out));
    }

    fn on_publish(&mut self, call: PublishCall) {
        let PublishCall { draft, waits, answer } = call;
        let addr = self.endpoint.addr();
        let wall = self.wall_ms();
        let serial = self.in_agent(|agent, out| agent.publish(draft, waits, addr, wall, out));
        self.published.insert(serial, Published { standing: None, answer: Some(answer) });
        self.seek_if_needed();
    }

    fn on_subscribe(&mut self, call: SubscribeCall) {
        let SubscribeCall { id, pattern, scope, feed, answer } = call;
        self.feeds.insert(id, feed);
        let room = self.in_agent(|agent, out| agent.subscribe(id, pattern, scope, out));
        if !room {
            self.feeds.remove(&id);
        }
        let answered = answer.send(if room { Ok(()) } else { Err(NotSubscribed::TooMany) });
        if room && answered.is_err() {
            self.feeds.remove(&id);
            self.in_agent(|agent, out| agent.unsubscribe(id, out));
        }
        self.seek_if_needed();
    }
}
