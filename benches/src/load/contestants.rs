//! Ways to choose a worker: ours, and others over the same addresses.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use layercake::{Address, AskError, Pool, Scope};
use tokio::sync::oneshot;

use super::{
    report::{End, end},
    workers::{Chore, Hand, NAME, Workers},
};

/// How long an asker waits.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) type Asked<'a> = Pin<Box<dyn Future<Output = End> + Send + 'a>>;

/// Gives a request to a worker.
pub(super) trait Dispatch: Send + Sync {
    fn ask(&self, work: Duration, caller: u64) -> Asked<'_>;
}

fn chore(work: Duration) -> Chore {
    Chore { micros: u64::try_from(work.as_micros()).unwrap_or(u64::MAX) }
}

/// Our pool.
pub(super) struct Ours(pub(super) Pool<Hand>);

impl Ours {
    /// A pool over all workers that is busy above a mean response time.
    pub(super) async fn over(workers: &Workers, responsiveness: Duration) -> Result<Arc<Self>> {
        let pool = workers.node.pool::<Hand>().hosts(NAME, Scope::Host);
        let pool = pool.responsiveness(Some(responsiveness)).start().await?;
        pool.wait_for(workers.hands.len()).await;
        Ok(Arc::new(Self(pool)))
    }
}

impl Dispatch for Ours {
    fn ask(&self, work: Duration, caller: u64) -> Asked<'_> {
        Box::pin(async move {
            let request = self.0.request(chore(work)).within(PATIENCE).caller(&caller);
            end(&request.send().await)
        })
    }
}

/// One worker after the other.
pub(super) struct RoundRobin {
    hands: Vec<Address<Hand>>,
    next: AtomicUsize,
}

impl RoundRobin {
    pub(super) fn over(workers: &Workers) -> Arc<Self> {
        Arc::new(Self { hands: workers.hands.clone(), next: AtomicUsize::new(0) })
    }
}

impl Dispatch for RoundRobin {
    fn ask(&self, work: Duration, _caller: u64) -> Asked<'_> {
        Box::pin(async move {
            let hand = &self.hands[self.next.fetch_add(1, Relaxed) % self.hands.len()];
            end(&hand.ask_within(chore(work), PATIENCE).await)
        })
    }
}

/// The ancestor's: the worker that is idle longest, one request each, a queue without limit, busy by
/// the mean of the last 32 responses.
pub(super) struct Ancestor(Mutex<Spool>);

struct Spool {
    idle: VecDeque<Address<Hand>>,
    pending: VecDeque<oneshot::Sender<Option<Address<Hand>>>>,
    last: VecDeque<Duration>,
    responsiveness: Duration,
    rejected: u32,
}

/// Of so many requests to a busy one, one passes.
const BUSY_PASS_RATE: u32 = 10;

impl Ancestor {
    pub(super) fn over(workers: &Workers, responsiveness: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Spool {
            idle: workers.hands.iter().cloned().collect(),
            pending: VecDeque::new(),
            last: VecDeque::new(),
            responsiveness,
            rejected: 0,
        })))
    }

    fn spool(&self) -> std::sync::MutexGuard<'_, Spool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    /// The worker idle longest, unless the request is turned away.
    fn submit(&mut self) -> Option<Address<Hand>> {
        let count = u32::try_from(self.last.len()).unwrap_or(1).max(1);
        if self.last.iter().sum::<Duration>() / count >= self.responsiveness {
            self.rejected += 1;
            if self.rejected < BUSY_PASS_RATE {
                return None;
            }
            self.rejected = 0;
        }
        self.idle.pop_front()
    }
}

impl Dispatch for Ancestor {
    fn ask(&self, work: Duration, _caller: u64) -> Asked<'_> {
        Box::pin(async move {
            let presented = Instant::now();
            let turn = {
                let mut spool = self.spool();
                if spool.idle.is_empty() {
                    let (slot, turn) = oneshot::channel();
                    spool.pending.push_back(slot);
                    Err(turn)
                } else {
                    Ok(spool.submit())
                }
            };
            let hand = match turn {
                Ok(hand) => hand,
                Err(turn) => turn.await.unwrap_or(None),
            };
            let Some(hand) = hand else { return End::Refused };
            let outcome = hand.ask_within(chore(work), PATIENCE).await;
            let mut spool = self.spool();
            spool.idle.push_back(hand);
            if !matches!(outcome, Err(AskError::Deadline)) {
                spool.last.push_back(presented.elapsed());
                if spool.last.len() > 32 {
                    spool.last.pop_front();
                }
            }
            if let Some(slot) = spool.pending.pop_front() {
                let hand = spool.submit();
                if let Err(Some(hand)) = slot.send(hand) {
                    spool.idle.push_front(hand);
                }
            }
            end(&outcome)
        })
    }
}
