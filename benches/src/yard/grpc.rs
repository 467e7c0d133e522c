//! A unary gRPC echo with tonic: what most services between hosts are built with.
//!
//! The service is written by hand, as the generator would write it, to build without `protoc`.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use http::uri::PathAndQuery;
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::NamedService,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::one_thread;
use crate::{
    contestant::{Contestant, Load, Running},
    other_end::{self, OtherEnd},
    sample::{Latencies, Sample},
};

pub(crate) const NAME: &str = "tonic-unary";

const METHOD: PathAndQuery = PathAndQuery::from_static("/yard.Echo/Say");

/// The request and the reply.
#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    #[prost(bytes = "bytes", tag = "1")]
    payload: bytes::Bytes,
}

pub(crate) struct Grpc;

impl Contestant for Grpc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let server = OtherEnd::start(NAME, &[])?;
        let runtime = one_thread()?;
        let endpoint = Endpoint::from_shared(format!("http://{}", server.word(0)?))?;
        let channel = runtime.block_on(endpoint.tcp_nodelay(true).connect())?;
        Ok(Box::new(Client { channel, runtime, _server: server }))
    }
}

struct Client {
    channel: Channel,
    runtime: Runtime,
    _server: OtherEnd,
}

impl Running for Client {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        self.runtime.block_on(drive(&self.channel, load))
    }
}

/// As many callers as there are requests in flight, each with one call at a time.
async fn drive(channel: &Channel, load: &Load) -> Result<Sample> {
    let start = Instant::now();
    let deadline = start + load.duration;
    let payload = bytes::Bytes::from(vec![0x5a; load.size]);
    let mut callers = JoinSet::new();
    for _ in 0..load.in_flight {
        let mut client = tonic::client::Grpc::new(channel.clone());
        let payload = payload.clone();
        callers.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let asked = Instant::now();
                client.ready().await?;
                let request = Request::new(Said { payload: payload.clone() });
                let reply = client.unary(request, METHOD, ProstCodec::default()).await?;
                let reply: Said = reply.into_inner();
                ensure!(reply.payload.len() == payload.len(), "the reply has another length");
                let now = Instant::now();
                if now >= deadline {
                    return Ok(taken);
                }
                taken.push(now - asked);
            }
        });
    }
    let mut latencies = Latencies::new();
    while let Some(taken) = callers.join_next().await {
        taken.context("a caller panicked")??.into_iter().for_each(|one| latencies.add(one));
    }
    latencies.sample(load.duration)
}

/// Answers until the process ends.
pub(crate) fn serve() -> Result<()> {
    one_thread()?.block_on(async {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
        other_end::ready(&[&incoming.local_addr()?.to_string()])?;
        Ok(Server::builder().add_service(Echo).serve_with_incoming(incoming).await?)
    })
}

/// Says what it was told.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "yard.Echo";
}

impl tower_service::Service<Request<Said>> for Echo {
    type Response = Response<Said>;
    type Error = Status;
    type Future = Ready<Result<Response<Said>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Said>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl tower_service::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let codec: ProstCodec<Said, Said> = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
        })
    }
}
