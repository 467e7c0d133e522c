//! A real actor of a real node behind a gateway: customers as resources, bytes, and replies in parts.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper_util::rt::TokioIo;
use layercake_gateway::{Drained, Gateway, GatewayConfig, Named};
use layercake_macros::{actor, data, message};
use layercake_node::{
    Blob, Context, Node, NodeConfig, Outlet, Upload, current_trace,
    service::{Service, of_actor},
};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::client::soon;

#[data]
#[derive(Clone, Debug)]
pub(crate) struct Customer {
    name: String,
    #[arg(default = 1, min = 1)]
    version: u32,
}

#[data]
pub(crate) enum Refusal {
    #[status(404)]
    NotFound,
    #[status(409)]
    Taken {
        id: u32,
    },
    Odd,
}

#[message(reply = BTreeMap<String, Customer>, get = "/customers")]
struct List {
    #[arg(default)]
    name: Option<String>,
}

#[message(reply = Result<Customer, Refusal>, get = "/customers/{id}", etag = "version")]
struct Show {
    id: u32,
}

#[message(reply = Result<u32, Refusal>, post = "/customers", status = 201)]
struct Create {
    #[arg(header = "x-id")]
    id: u32,
    #[arg(body)]
    customer: Customer,
}

#[message(reply = Result<(), Refusal>, put = "/customers/{id}", idempotent)]
struct Change {
    id: u32,
    #[arg(query, default)]
    force: bool,
    name: String,
}

#[message(reply = Result<(), Refusal>, delete = "/customers/{id}", status = 204)]
struct Remove {
    id: u32,
}

/// Turns bytes round.
#[message(reply = Blob, post = "/turned", consumes = "image/*", produces = "image/*")]
struct Turn {
    #[arg(default)]
    times: u32,
    #[arg(body)]
    image: Blob,
}

#[message(reply = Blob, get = "/pictures/{name}")]
struct Picture {
    name: String,
}

#[data]
struct Pair {
    one: Blob,
}

#[message(reply = Pair)]
struct Within {}

#[message(reply = u64, put = "/sums")]
struct Sum {
    #[arg(body)]
    numbers: Upload,
}

#[message(stream = Bytes, put = "/echo", produces = "video/mp4")]
struct Echo {
    #[arg(body)]
    film: Upload,
}

#[message(stream = u32, get = "/count/{to}", deadline = "20s")]
struct Count {
    to: u32,
    /// Where it fails.
    #[arg(default)]
    fail_at: Option<u32>,
}

/// Which trace the handler is part of.
#[message(reply = Option<String>, get = "/trace")]
struct Which {}

#[derive(Clone, Default)]
pub(crate) struct Shop {
    customers: BTreeMap<u32, Customer>,
    /// Streams that were given up.
    pub(crate) gone: Arc<AtomicUsize>,
}

#[actor]
impl Shop {
    async fn list(&mut self, List { name }: List) -> BTreeMap<String, Customer> {
        let fits = |c: &Customer| name.as_ref().is_none_or(|name| c.name == *name);
        let found = self.customers.iter().filter(|(_, c)| fits(c));
        found.map(|(id, customer)| (id.to_string(), customer.clone())).collect()
    }

    async fn show(&mut self, Show { id }: Show) -> Result<Customer, Refusal> {
        self.customers.get(&id).cloned().ok_or(Refusal::NotFound)
    }

    async fn create(&mut self, Create { id, customer }: Create) -> Result<u32, Refusal> {
        if self.customers.contains_key(&id) {
            return Err(Refusal::Taken { id });
        }
        if customer.name.is_empty() {
            return Err(Refusal::Odd);
        }
        self.customers.insert(id, customer);
        Ok(id)
    }

    async fn change(&mut self, Change { id, force, name }: Change) -> Result<(), Refusal> {
        if force {
            self.customers.entry(id).or_insert(Customer { name: String::new(), version: 0 });
        }
        let customer = self.customers.get_mut(&id).ok_or(Refusal::NotFound)?;
        customer.name = name;
        customer.version += 1;
        Ok(())
    }

    async fn remove(&mut self, Remove { id }: Remove) -> Result<(), Refusal> {
        self.customers.remove(&id).map(|_| ()).ok_or(Refusal::NotFound)
    }

    async fn turn(&mut self, Turn { times, image }: Turn) -> Blob {
        let mut bytes = image.bytes.to_vec();
        (0..=times).for_each(|_| bytes.reverse());
        Blob::new(image.media_type, bytes)
    }

    async fn picture(&mut self, Picture { name }: Picture) -> Blob {
        Blob::new("image/svg+xml", "<svg/>".repeat(1_000)).with_etag(name)
    }

    async fn within(&mut self, _: Within) -> Pair {
        Pair { one: Blob::new("a/b", "bytes") }
    }

    async fn which(&mut self, _: Which) -> Option<String> {
        current_trace().map(|trace| format!("{:032x}", trace.id))
    }

    async fn sum(&mut self, Sum { mut numbers }: Sum) -> u64 {
        let mut sum = 0;
        while let Some(Ok(part)) = numbers.next().await {
            sum += part.iter().map(|b| u64::from(*b)).sum::<u64>();
        }
        sum
    }

    async fn echo(&mut self, Echo { film }: Echo, out: Outlet<Bytes>, _: &mut Context<Self>) {
        tokio::spawn(echo(film, out));
    }

    async fn count(&mut self, count: Count, mut out: Outlet<u32>, _: &mut Context<Self>) {
        let gone = self.gone.clone();
        tokio::spawn(async move {
            for number in 0..count.to {
                if count.fail_at == Some(number) {
                    return out.fail("as told");
                }
                if out.send(number).await.is_err() {
                    gone.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
            out.finish();
        });
    }
}

async fn echo(mut film: Upload, mut out: Outlet<Bytes>) {
    while let Some(part) = film.next().await {
        match part {
            Ok(part) => {
                if out.send(part).await.is_err() {
                    return;
                }
            }
            Err(error) => return out.fail(&error.to_string()),
        }
    }
    out.finish();
}

/// A gateway that runs before a shop.
pub(crate) struct Open {
    pub(crate) addr: SocketAddr,
    pub(crate) gone: Arc<AtomicUsize>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Drained>,
    node: Node,
    _folder: tempfile::TempDir,
}

impl Open {
    pub(crate) async fn now() -> Self {
        Self::with(&[""], |_| {}).await
    }

    /// As many shops as there are names.
    pub(crate) async fn with(names: &[&str], change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mesh = Some(folder.path().join("mesh"));
        let node = Node::start_with(NodeConfig { mesh, ..NodeConfig::default() }).await.unwrap();
        let mut config = GatewayConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        change(&mut config);
        let shop = Shop::default();
        let gone = shop.gone.clone();
        let shops = names.iter().map(|name| {
            let service: Arc<dyn Service> = Arc::new(of_actor(node.spawn(shop.clone())));
            Named { name: (*name).into(), service }
        });
        let shops: Vec<_> = shops.collect();
        let gateway = Gateway::before(config, Arc::new(shops)).await.unwrap().on(node.clone());
        let shutdown = CancellationToken::new();
        let addr = gateway.local_addr();
        let task = tokio::spawn(gateway.run(shutdown.clone()));
        Self { addr, gone, shutdown, task, node, _folder: folder }
    }

    /// Sends a request over a connection of its own.
    pub(crate) async fn ask<B>(&self, request: Request<B>) -> Response<hyper::body::Incoming>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = soon("handshake", handshake).await.unwrap();
        tokio::spawn(connection);
        soon("an answer", sender.send_request(request)).await.unwrap()
    }

    /// Sends a request: status, body, and the whole head.
    pub(crate) async fn say(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Told {
        let mut request = Request::builder().method(method).uri(path).header("host", "shop");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.ask(request.body(Full::new(body.into())).unwrap()).await;
        let (head, body) = answer.into_parts();
        let body = soon("a body", body.collect()).await.unwrap().to_bytes();
        Told { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: &str) -> Told {
        self.say(method, path, &[("content-type", "application/json")], body.to_owned()).await
    }

    pub(crate) async fn close(self) {
        self.shutdown.cancel();
        let _ = soon("drain", self.task).await.unwrap();
        self.node.close().await;
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}
