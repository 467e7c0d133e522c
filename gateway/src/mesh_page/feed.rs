//! Events to one viewer, as the body of an answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::reply::BrokenOff;

/// Events as they come, in pieces. Dropped, the viewer has gone.
pub(super) struct Feed(pub(super) mpsc::Receiver<Bytes>);

impl Stream for Feed {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| Some(Ok(piece?)))
    }
}
