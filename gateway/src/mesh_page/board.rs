//! Gathers what is shown, once for all who look, and only while somebody does.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use layercake_node::{Node, directory::Network};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    feed::Feed,
    picture::{Entry, Picture, Snapshot, Stories},
};
use crate::problem::{Kind, Problem};

/// How many may look at a time.
pub(super) const MAX_VIEWERS: usize = 32;
/// How often the mesh is asked while somebody looks.
const PERIOD: Duration = Duration::from_millis(500);
/// How often at most, when something happens.
const HASTE: Duration = Duration::from_millis(100);
/// A mesh that takes long to answer is asked as much more rarely, and a picture that takes long to write is
/// written as much more rarely: so many times what it took.
const REST: u32 = 4;
/// How often at most the picture is written, however much happens.
const SOON: Duration = Duration::from_millis(20);
/// After so long without a viewer events are not followed any more either. Who comes back before has the
/// log of meanwhile.
const LINGER: Duration = Duration::from_secs(600);
/// A feed without news says that it is still there, so that a proxy does not end it.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long `/mesh/data` waits for a snapshot.
const DATA_TIME: Duration = Duration::from_secs(6);

/// See the module.
pub(super) struct Board {
    node: Node,
    began: Instant,
    state: Mutex<State>,
    /// The picture has changed since it was written.
    stale: Notify,
    /// Counts changes of what is shown.
    changed: watch::Sender<u64>,
    /// Somebody has come, or something has happened.
    wake: Notify,
    places: Arc<Semaphore>,
    closing: CancellationToken,
}

#[derive(Default)]
struct State {
    picture: Picture,
    /// The picture as JSON, as it was lately; none while there is no snapshot.
    view: Option<Bytes>,
    gathers: bool,
}

/// A place before the board. Dropped, the viewer has gone.
struct Viewer {
    _place: OwnedSemaphorePermit,
}

/// The picture as the page and programs read it.
#[derive(Serialize)]
struct View {
    mesh: String,
    version: &'static str,
    /// The node that shows it.
    viewer: String,
    trouble: Option<String>,
    #[serde(flatten)]
    network: Arc<Network>,
    /// What nodes tell of themselves, by node.
    stories: Arc<Stories>,
    /// Nodes that have gone lately.
    gone: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<Entry>>,
}

impl View {
    /// Writes it, on a thread for such work: it may be megabytes.
    async fn write(self) -> Option<Bytes> {
        let written = spawn_blocking(move || serde_json::to_vec(&self)).await.ok()?;
        written
            .inspect_err(|error| tracing::error!(%error, "the mesh page cannot be written"))
            .ok()
            .map(Bytes::from)
    }
}

impl Board {
    /// The board of a node, until `closing`.
    pub(super) fn new(node: Node, closing: CancellationToken) -> Self {
        Self {
            node,
            began: Instant::now(),
            state: Mutex::default(),
            stale: Notify::new(),
            changed: watch::Sender::default(),
            wake: Notify::new(),
            places: Arc::new(Semaphore::new(MAX_VIEWERS)),
            closing,
        }
    }

    /// Events for one more viewer.
    pub(super) fn feed(self: &Arc<Self>) -> Result<Feed, Problem> {
        let viewer = self.enter()?;
        // One piece on its way: who reads slowly gets the latest when it is ready for it.
        let (pieces, feed) = mpsc::channel(1);
        let board = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = board.show(viewer, &pieces) => {}
                () = pieces.closed() => {}
                () = board.node.stopping() => {}
                () = board.closing.cancelled() => {}
            }
        });
        Ok(Feed(feed))
    }

    /// Everything once.
    pub(super) async fn data(self: &Arc<Self>) -> Result<Bytes, Problem> {
        let mut changed = self.changed.subscribe();
        let _viewer = self.enter()?;
        let there =
            async { while self.state.lock().view.is_none() && changed.changed().await.is_ok() {} };
        let _elapsed = timeout(DATA_TIME, there).await;
        let (view, why) = {
            let picture = &self.state.lock().picture;
            let log = picture.log_after(0).into_iter().cloned().collect();
            (self.view(picture, Some(log)), picture.trouble().map(str::to_owned))
        };
        let written = match view {
            Some(view) => view.write().await,
            None => None,
        };
        written.ok_or_else(|| {
            let why = why.as_deref().unwrap_or("the directory does not answer");
            Problem::new(Kind::Unavailable, format!("the mesh cannot be shown: {why}"))
        })
    }

    fn enter(self: &Arc<Self>) -> Result<Viewer, Problem> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{MAX_VIEWERS} look at the mesh page already, which is the limit");
            Problem::new(Kind::Overloaded, detail)
        })?;
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.gathers, true) {
            tokio::spawn(self.clone().gather());
        }
        self.wake.notify_one();
        Ok(Viewer { _place: place })
    }

    fn viewers(&self) -> usize {
        MAX_VIEWERS - self.places.available_permits()
    }

    /// Keeps the picture up to date, until nobody has looked for long.
    async fn gather(self: Arc<Self>) {
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = self.follow() => {}
            () = self.survey() => {}
            () = self.write() => {}
        }
    }

    /// Notes what happens.
    async fn follow(&self) {
        let mut events = self.node.network_events();
        while let Some(event) = events.next().await {
            let now = self.began.elapsed();
            self.change(|picture| picture.on_event(event, now));
            self.wake.notify_one();
        }
    }

    /// Takes snapshots while somebody looks.
    async fn survey(&self) {
        loop {
            if self.viewers() == 0 && !self.is_wanted_again().await {
                return;
            }
            let begun = Instant::now();
            let snapshot = match self.node.network().await {
                Ok(network) => spawn_blocking(|| Snapshot::read(network))
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let now = self.began.elapsed();
            self.change(|picture| match snapshot {
                Ok(snapshot) => picture.on_snapshot(snapshot, now),
                Err(why) => picture.on_trouble(why),
            });
            let took = begun.elapsed();
            let rest = (took * REST).max(HASTE);
            sleep(rest.saturating_sub(took)).await;
            let _elapsed = timeout(PERIOD.saturating_sub(rest), self.wake.notified()).await;
        }
    }

    /// Waits for somebody to look; `false` if nobody comes.
    async fn is_wanted_again(&self) -> bool {
        {
            let mut state = self.state.lock();
            state.picture.fade();
            state.view = None;
        }
        let somebody = async {
            while self.viewers() == 0 {
                self.wake.notified().await;
            }
        };
        if timeout(LINGER, somebody).await.is_ok() {
            return true;
        }
        // Under the lock under which viewers enter: who comes now is seen, or begins it anew.
        let mut state = self.state.lock();
        state.gathers = self.viewers() > 0;
        if !state.gathers {
            // A log with a hole in it would not say so.
            state.picture = Picture::default();
        }
        state.gathers
    }

    fn change(&self, change: impl FnOnce(&mut Picture)) {
        change(&mut self.state.lock().picture);
        self.stale.notify_one();
    }

    /// Writes the picture when it has changed.
    async fn write(&self) {
        loop {
            self.stale.notified().await;
            let begun = Instant::now();
            let view = self.view(&self.state.lock().picture, None);
            if let Some(view) = view {
                let written = view.write().await;
                let mut state = self.state.lock();
                // Unless it has faded meanwhile.
                if state.picture.network().is_some() {
                    state.view = written;
                }
            }
            self.changed.send_modify(|count| *count += 1);
            let took = begun.elapsed();
            sleep((took * REST).max(SOON).saturating_sub(took)).await;
        }
    }

    /// What is to be written; nothing while there is no snapshot.
    fn view(&self, picture: &Picture, log: Option<Vec<Entry>>) -> Option<View> {
        Some(View {
            mesh: self.node.mesh().id().name.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            viewer: self.node.peer().node.to_string(),
            trouble: picture.trouble().map(str::to_owned),
            network: picture.network()?.clone(),
            stories: picture.stories().clone(),
            gone: picture.gone(),
            log,
        })
    }

    /// Tells one viewer what there is, and then what changes.
    async fn show(&self, _viewer: Viewer, pieces: &mpsc::Sender<Bytes>) {
        let mut changed = self.changed.subscribe();
        let (mut logged, mut shown) = (0, None::<Bytes>);
        // A browser that has lost us tries again after a second.
        let mut piece = b"retry: 1000\nevent: begin\ndata: {}\n\n".to_vec();
        loop {
            changed.mark_unchanged();
            {
                let state = self.state.lock();
                let entries = state.picture.log_after(logged);
                if !entries.is_empty() {
                    logged = state.picture.logged();
                    write_event(
                        &mut piece,
                        "log",
                        &serde_json::to_vec(&entries).unwrap_or_default(),
                    );
                }
                if let Some(view) = state.view.as_ref().filter(|view| shown.as_ref() != Some(*view))
                {
                    write_event(&mut piece, "view", view);
                    shown = Some(view.clone());
                }
            }
            if !piece.is_empty() && pieces.send(std::mem::take(&mut piece).into()).await.is_err() {
                return;
            }
            match timeout(HEARTBEAT, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_elapsed) => piece = b": still here\n\n".to_vec(),
            }
        }
    }
}

/// Writes a server-sent event; the data is JSON on one line.
fn write_event(piece: &mut Vec<u8>, event: &str, data: &[u8]) {
    piece.extend_from_slice(b"event: ");
    piece.extend_from_slice(event.as_bytes());
    piece.extend_from_slice(b"\ndata: ");
    piece.extend_from_slice(data);
    piece.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So long on the paused clock: whatever is due within it happens at its time, which `advance` would
    /// leap over.
    async fn pass(time: Duration) {
        sleep(time).await;
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let waiting = async {
            while !is_so() {
                pass(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(Duration::from_secs(30), waiting).await.is_ok(), "not in time: {what}");
    }

    async fn board() -> Arc<Board> {
        let node = layercake_node::testing::alone().await.expect("a node");
        Arc::new(Board::new(node, CancellationToken::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_looks_nothing_is_gathered_and_who_comes_back_has_the_log() {
        let board = board().await;
        let rounds = || *board.changed.borrow();
        pass(Duration::from_secs(60)).await;
        assert_eq!(rounds(), 0, "nobody has come");

        let (one, other) = (board.feed().expect("a place"), board.feed().expect("a place"));
        until("some rounds", || rounds() > 5).await;
        let (before, begun) = (rounds(), Instant::now());
        until("some more", || rounds() >= before + 10).await;
        assert!(begun.elapsed() >= PERIOD * 9, "one round for all who look");
        drop(one);
        until("rounds for who is left", || rounds() > before + 15).await;

        drop(other);
        until("nobody is left", || board.viewers() == 0).await;
        until("the last round", || board.state.lock().view.is_none()).await;
        let last = rounds();
        pass(LINGER / 2).await;
        assert_eq!(rounds(), last, "nobody looks");
        assert!(board.state.lock().gathers, "but events are followed");
        let again = board.feed().expect("a place");
        until("another round", || rounds() > last).await;
        drop(again);
        pass(LINGER).await;
        until("events are not followed for ever", || !board.state.lock().gathers).await;
        assert_eq!(board.state.lock().picture.logged(), 0, "nor are old ones told for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_does_not_read_holds_one_piece_and_gets_the_latest() {
        let board = board().await;
        let _other = board.feed().expect("a place");
        until("a picture", || board.state.lock().view.is_some()).await;
        let mut feed = board.feed().expect("a place");
        until("many rounds", || *board.changed.borrow() > 50).await;
        let mut piece = || feed.0.try_recv().ok();
        let first = piece().expect("one piece");
        assert!(first.starts_with(b"retry: 1000\nevent: begin"), "{first:?}");
        assert_eq!(piece(), None, "one at a time");
        pass(PERIOD).await;
        let next = piece().expect("the next one");
        assert_eq!(next.windows(11).filter(|w| w == b"event: view").count(), 1, "{next:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_happens_the_picture_is_written_now_and_then() {
        let board = board().await;
        let _feed = board.feed().expect("a place");
        until("a picture", || board.state.lock().view.is_some()).await;
        let before = *board.changed.borrow();
        for _ in 0..1000 {
            board.change(|_| {});
            pass(Duration::from_millis(1)).await;
        }
        let written = *board.changed.borrow() - before;
        assert!((10..=52).contains(&written), "{written} times in a second");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_gateway_is_the_end_of_every_feed() {
        let board = board().await;
        let mut feed = board.feed().expect("a place");
        board.closing.cancel();
        let ended = async { while feed.0.recv().await.is_some() {} };
        timeout(Duration::from_secs(1), ended).await.expect("ends");
    }
}
