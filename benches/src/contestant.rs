//! What a contestant on the ladder is.

use std::time::Duration;

use anyhow::Result;

use crate::sample::Sample;

/// What is asked of a contestant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests on their way at any time.
    pub(crate) in_flight: usize,
    /// Bytes of a request's payload, and of its reply's.
    pub(crate) size: usize,
    /// How long to measure.
    pub(crate) duration: Duration,
}

/// One way to answer requests, measured by [`ladder`](crate::ladder).
pub(crate) trait Contestant {
    /// Its name on the ladder.
    fn name(&self) -> &'static str;

    /// Starts whatever answers, and returns when it can. The value returned asks it, and ends it
    /// when dropped.
    fn start(&self) -> Result<Box<dyn Running>>;
}

/// A contestant that is ready to answer.
pub(crate) trait Running {
    /// Keeps `load.in_flight` requests on their way for `load.duration`. Called once to warm up
    /// and once to measure.
    fn run(&mut self, load: &Load) -> Result<Sample>;
}
