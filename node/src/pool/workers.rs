//! Keeps a pool's workers alive: one task for each place, or one that follows a subscription.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use layercake_directory::{Event, Publication, Scope};
use tokio::sync::mpsc;

use super::{
    GRACE, Pool,
    builder::{Kind, PoolError},
};
use crate::{
    actor::Actor,
    address::Address,
    clock, entry,
    node::STOP_GRACE,
    process::{Spec, WorkerProcess},
    restart::StandDown,
    watch::Watch,
};

/// What a place of the pool is filled with.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) stand_down: Duration,
    pub(super) publish: Option<(String, Scope)>,
}

/// A worker that runs: its address, its end, and its name while it has one here.
struct Running<A: Actor> {
    address: Address<A>,
    life: Life,
    publication: Option<Publication>,
}

enum Life {
    Here(Watch),
    Process(Box<WorkerProcess>),
}

pub(super) async fn start<A: Actor + Default>(pool: &Pool<A>, plan: Plan) -> Result<(), PoolError> {
    let count = match plan.kind {
        Kind::Tasks(n) | Kind::Threads(n) | Kind::Processes(n) => n,
        Kind::Hosts { pattern, scope } => {
            let subscription = pool.0.node.subscribe(&pattern, scope).await?;
            let follower = pool.clone();
            pool.0.tasks.spawn(async move { follow(&follower, subscription).await });
            return Ok(());
        }
    };
    if let (Kind::Processes(_), Some((name, scope))) = (&plan.kind, &plan.publish)
        && *scope > Scope::Process
    {
        // The parent is there before its workers and outlives them: as a member of the host's
        // directory it sees them die, also where it is alone with them on its host.
        let subscription = pool.0.node.subscribe_to(name, *scope).await?;
        let stop = pool.0.stop.clone();
        pool.0.tasks.spawn(async move {
            stop.cancelled().await;
            drop(subscription);
        });
    }
    // Each place says once how its first start went.
    let (first, mut firsts) = mpsc::channel(count);
    for _ in 0..count {
        let (keeper, plan, first) = (pool.clone(), plan.clone(), first.clone());
        pool.0.tasks.spawn(async move { keep(&keeper, &plan, first).await });
    }
    drop(first);
    let mut failure = "every worker kept silent".to_owned();
    let ready = tokio::time::timeout(GRACE, async {
        while let Some(started) = firsts.recv().await {
            match started {
                Ok(()) => return true,
                Err(reason) => failure = reason,
            }
        }
        false
    });
    if ready.await.unwrap_or(false) { Ok(()) } else { Err(PoolError::NoWorker(failure)) }
}

/// Keeps one place filled until the pool stops.
async fn keep<A: Actor + Default>(
    pool: &Pool<A>,
    plan: &Plan,
    first: mpsc::Sender<Result<(), String>>,
) {
    let mut restart = StandDown::new(plan.stand_down);
    let mut first = Some(first);
    loop {
        let born = clock::now();
        let reason = match begin::<A>(pool, plan).await {
            Ok(running) => {
                if let Some(first) = first.take() {
                    let _ = first.try_send(Ok(()));
                }
                match serve(pool, running).await {
                    Some(reason) => reason,
                    None => return,
                }
            }
            Err(reason) => {
                if let Some(first) = first.take() {
                    let _ = first.try_send(Err(reason.clone()));
                }
                reason
            }
        };
        pool.0.restarts.fetch_add(1, Ordering::Relaxed);
        let wait = restart.next(born.elapsed(), rand::random());
        tracing::warn!(
            worker = A::NAME,
            reason,
            in_a_row = restart.early_ends(),
            "a worker ended; starting another in {wait:?}"
        );
        tokio::select! {
            () = pool.0.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn begin<A: Actor + Default>(pool: &Pool<A>, plan: &Plan) -> Result<Running<A>, String> {
    let node = &pool.0.node;
    let (address, life): (Address<A>, _) = match plan.kind {
        Kind::Threads(_) => {
            let address = node.spawn_thread(A::default()).map_err(|e| e.to_string())?;
            let ended = node.watch(&address);
            (address, Life::Here(ended))
        }
        Kind::Processes(_) => {
            let (entry, publish) = (entry::entry_name::<A>().to_owned(), plan.publish.clone());
            let spec = Spec { entry, publish, ..Spec::default() };
            let process = WorkerProcess::start(node, spec).await;
            let process = process.map_err(|e| crate::run::chain(&e))?;
            (node.bind(process.addr.clone()), Life::Process(Box::new(process)))
        }
        Kind::Tasks(_) | Kind::Hosts { .. } => {
            let address = node.spawn(A::default());
            let ended = node.watch(&address);
            (address, Life::Here(ended))
        }
    };
    // A process publishes itself: its name must end with it.
    let publication = match (&life, &plan.publish) {
        (Life::Here(_), Some((name, scope))) => {
            Some(node.publish(name, &address, *scope).await.map_err(|e| crate::run::chain(&e))?)
        }
        _ => None,
    };
    Ok(Running { address, life, publication })
}

/// Lets a worker work until it ends, and says why, or until the pool stops.
async fn serve<A: Actor>(pool: &Pool<A>, running: Running<A>) -> Option<String> {
    let Running { address, life, publication } = running;
    let worker = pool.join(address.clone());
    let stop = &pool.0.stop;
    match life {
        Life::Here(mut ended) => {
            let reason = tokio::select! {
                exit = &mut ended => Some(exit.to_string()),
                () = stop.cancelled() => None,
            };
            drop(publication);
            if reason.is_none() {
                drain(pool).await;
                address.stop();
                ended.await;
            }
            pool.leave(worker);
            reason
        }
        Life::Process(mut process) => {
            let pid = process.pid();
            let reason = tokio::select! {
                end = process.ended() => Some(format!("process {}: {}", pid.unwrap_or(0), end.exit)),
                () = stop.cancelled() => None,
            };
            if reason.is_none() {
                drain(pool).await;
                process.stop(STOP_GRACE + Duration::from_secs(1)).await;
            }
            pool.leave(worker);
            reason
        }
    }
}

/// Waits until no request is in flight, within the grace.
async fn drain<A: Actor>(pool: &Pool<A>) {
    let idle = async {
        while pool.0.state.lock().scheduler.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(GRACE, idle).await.is_err() {
        tracing::warn!("requests were still in flight {GRACE:?} after the pool was stopped");
    }
}

/// Takes workers in as their names appear and lets them go as these vanish.
async fn follow<A: Actor>(pool: &Pool<A>, mut subscription: layercake_directory::Subscription) {
    let mut joined = HashMap::new();
    loop {
        let event = tokio::select! {
            () = pool.0.stop.cancelled() => break,
            event = subscription.next() => event,
        };
        match event {
            Some(Event::Available(record)) => {
                let address = pool.0.node.bind(record.address.clone());
                let worker = pool.join(address);
                if let Some(old) = joined.insert(record.instance, worker) {
                    pool.leave(old);
                }
            }
            Some(Event::Dropped(record, reason)) => {
                tracing::info!(name = %record.name, address = %record.address, %reason, "a worker left");
                if let Some(worker) = joined.remove(&record.instance) {
                    pool.leave(worker);
                }
            }
            None => break,
        }
    }
    drain(pool).await;
}
