//! A large body on its way from its client to whoever reads it.

use bytes::Bytes;
use layercake_node::UploadSender;
use tokio::time::Instant;

use crate::{
    body::{Pace, RequestBody, Unread},
    problem::{Kind, Problem},
    route,
};

/// The largest part in which it is passed on, in bytes.
const PART: usize = 256 << 10;

/// What a body of a request may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes.
    pub(crate) limit: u64,
    /// Bytes per second, at least.
    pub(crate) rate: u32,
}

/// Passes a body on while somebody reads it: as fast as both sides are. Waits for whoever reads first;
/// where they read no further, neither does this.
///
/// # Errors
/// What is wrong with the body; the reader is told that it broke off.
pub(crate) async fn pump(
    body: &mut RequestBody,
    mut to: UploadSender,
    bounds: Bounds,
) -> Result<(), Problem> {
    let Some(mut outlet) = to.wanted().await else { return Ok(()) };
    let mut pace = Pace { rate: bounds.rate, begun: Instant::now(), until: None };
    let mut count = 0;
    loop {
        let problem = match body.next(count, pace).await {
            None => {
                outlet.finish();
                return Ok(());
            }
            Some(Ok(mut data)) => {
                count += data.len() as u64;
                if count <= bounds.limit {
                    let waiting = Instant::now();
                    while !data.is_empty() {
                        let part: Bytes = data.split_to(data.len().min(PART));
                        if outlet.send(part).await.is_err() {
                            return Ok(());
                        }
                    }
                    // That its reader was slow is not the client's fault.
                    pace.begun += waiting.elapsed();
                    continue;
                }
                route::too_large(bounds.limit)
            }
            Some(Err(unread)) => unread_problem(unread, bounds.limit),
        };
        outlet.fail(&problem.detail);
        return Err(problem);
    }
}

/// What a client is told of a body that was not read to its end.
pub(crate) fn unread_problem(unread: Unread, limit: u64) -> Problem {
    match unread {
        Unread::TooLarge => route::too_large(limit),
        Unread::Late => Problem::new(Kind::SlowBody, "the body did not come within the deadline"),
        Unread::Broken => Problem::new(Kind::InvalidBody, "the body broke off"),
    }
}
