//! Speaks with etcd: its JSON gateway over HTTP/1.1, at one endpoint at a time.
//!
//! Three connections, so that nothing waits behind something else: for the lease, for writes, and for
//! reading and watching. The core has at most one request under way on each. Every wait has an end;
//! what fails moves all of them on to the next endpoint and is said to the core, which decides what to
//! try again and when.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Mutex, Semaphore},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{
    EtcdConfig, EtcdTls,
    core::{Ask, Event, Failure, Granted, Pair, Said},
    json::{self, LeaseAnswer, Line, RangeAnswer, Trouble, TxnAnswer, WatchAnswer},
    tls,
};
use crate::{
    inlet::{Inlet, Input},
    trouble::chain,
};

/// How long it may take to connect.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// How long a write or a page may take. Etcd itself gives up after about seven seconds.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long an answer about the lease may take: a quarter of its time to live, within this.
const LEASE_TIME: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// Keys of one page. Each with its value is at most some 90 KiB.
const PAGE: usize = 128;
/// The longest answer, and the longest line of a watch, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Answers that wait for the directory's task; watching goes on when they are read.
const MAX_WAITING: usize = 16;
/// A watch is silent while nothing changes: when it is made sure that the other end is there, how
/// often, and how many times in vain.
const PROBE: (Duration, Duration, u32) = (Duration::from_secs(4), Duration::from_secs(2), 3);

/// See the module.
pub(crate) struct Client {
    shared: Arc<Shared>,
    lease: Arc<Lane>,
    write: Arc<Lane>,
    follow: Option<AbortHandle>,
}

struct Shared {
    endpoints: Vec<String>,
    /// The one in use, counted on without end.
    current: AtomicUsize,
    tls: Option<EtcdTls>,
    prefix: String,
    lease_time: Duration,
    inlet: Inlet,
    room: Arc<Semaphore>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(follow) = &self.follow {
            follow.abort();
        }
    }
}

type Lane = Mutex<Option<Connection>>;

/// Encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Driver = Pin<Box<http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>>>;

struct Connection {
    /// Which one was in use when it was made.
    endpoint: usize,
    sender: http1::SendRequest<Full<Bytes>>,
    /// Until it has ended.
    driver: Option<Driver>,
}

/// Why there is no answer. Each says which endpoint it was.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("cannot connect to {endpoint}: {why}")]
    Connect { endpoint: String, why: String },
    #[error("{0} does not answer in time")]
    Late(String),
    #[error("the connection to {endpoint} failed: {why}")]
    Cut { endpoint: String, why: String },
    /// It answers that it does not do it.
    #[error("{endpoint} says: {why}")]
    Refused { endpoint: String, why: String },
}

impl Client {
    pub(crate) fn new(config: &EtcdConfig, prefix: String, inlet: Inlet) -> Self {
        let shared = Shared {
            endpoints: config.endpoints.clone(),
            current: AtomicUsize::new(0),
            tls: config.tls.clone(),
            prefix,
            lease_time: (config.ttl / 4).clamp(LEASE_TIME.0, LEASE_TIME.1),
            inlet,
            room: Arc::new(Semaphore::new(MAX_WAITING)),
        };
        Self {
            shared: Arc::new(shared),
            lease: Arc::default(),
            write: Arc::default(),
            follow: None,
        }
    }

    /// Begins to do what is asked; the answer comes by the inlet.
    pub(crate) fn ask(&mut self, ask: Ask, tasks: &mut JoinSet<()>) {
        let shared = self.shared.clone();
        match ask {
            Ask::Follow { turn, after } => {
                if let Some(former) = self.follow.take() {
                    former.abort();
                }
                self.follow = Some(tasks.spawn(async move { shared.follow(turn, after).await }));
            }
            Ask::Write(txn) => {
                let lane = self.write.clone();
                tasks.spawn(async move {
                    let answer = shared
                        .call::<TxnAnswer>(&lane, "kv/txn", &json::txn(&txn), ANSWER_TIME)
                        .await;
                    shared.say(Said::Written(answer.map(Into::into).map_err(failure))).await;
                });
            }
            Ask::Grant(seconds) => {
                let body = json!({ "TTL": seconds.to_string() });
                let lane = self.lease.clone();
                tasks.spawn(async move {
                    let answer = shared.about_lease(&lane, "lease/grant", &body).await;
                    shared.say(Said::Lease(answer)).await;
                });
            }
            Ask::KeepAlive(lease) => {
                let body = json!({ "ID": signed(lease) });
                let lane = self.lease.clone();
                tasks.spawn(async move {
                    let answer = shared.about_lease(&lane, "lease/keepalive", &body).await;
                    shared.say(Said::Lease(answer)).await;
                });
            }
            Ask::Revoke(lease) => {
                let body = json!({ "ID": signed(lease) });
                let lane = self.lease.clone();
                tasks.spawn(async move {
                    let time = shared.lease_time;
                    let answer = shared.call::<Value>(&lane, "lease/revoke", &body, time).await;
                    if let Err(error) = answer {
                        tracing::debug!(%error, "the lease was not revoked; it will expire");
                    }
                    shared.say(Said::Revoked).await;
                });
            }
        }
    }
}

impl Shared {
    /// Tells the directory's task, once there is room.
    async fn say(&self, said: Said) {
        if let Ok(room) = self.room.clone().acquire_owned().await {
            self.inlet.send(Input::Etcd(said, room));
        }
    }

    async fn about_lease(
        &self,
        lane: &Lane,
        path: &str,
        body: &Value,
    ) -> Result<Option<Granted>, Failure> {
        let time = self.lease_time;
        let granted = |answer: LeaseAnswer| {
            let LeaseAnswer { id: lease, ttl: seconds } = answer;
            (lease != 0 && seconds > 0).then_some(Granted { lease, seconds })
        };
        if path == "lease/keepalive" {
            let line = self.call::<Line<LeaseAnswer>>(lane, path, body, time).await;
            return match line.map_err(failure)? {
                Line::Result(answer) => Ok(granted(answer)),
                Line::Error(trouble) => Err(Failure::Other(trouble.text())),
            };
        }
        self.call(lane, path, body, time).await.map(granted).map_err(failure)
    }

    /// One request and its answer.
    async fn call<T: DeserializeOwned>(
        &self,
        lane: &Lane,
        path: &str,
        body: &Value,
        time: Duration,
    ) -> Result<T, NoAnswer> {
        let mut lane = lane.lock().await;
        // Another one has found out that it is no good.
        lane.take_if(|connection| connection.endpoint != self.current.load(Ordering::Relaxed));
        let mut connection = match lane.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let at = connection.endpoint;
        let answer = match timeout(time, connection.call(self, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer::Late(self.endpoint(at).to_owned())),
        };
        match answer {
            Ok(bytes) => {
                *lane = Some(connection);
                serde_json::from_slice(&bytes).map_err(|error| self.odd(at, &error))
            }
            Err(error) => {
                let refused = matches!(&error, NoAnswer::Refused { why, .. } if is_verdict(why));
                if refused {
                    *lane = Some(connection);
                } else {
                    self.avoid(at);
                }
                Err(error)
            }
        }
    }

    /// Reads everything, or goes on after a revision, and tells what changes until that ends.
    async fn follow(&self, turn: u64, after: Option<u64>) {
        let mut at = self.current.load(Ordering::Relaxed);
        let end = self.try_follow(turn, after, &mut at).await;
        let said = match end {
            Ok(()) => Said::Behind { turn },
            Err(error) => {
                self.avoid(at);
                Said::Broken { turn, why: error.to_string() }
            }
        };
        self.say(said).await;
    }

    /// Ends well when what comes next has been forgotten.
    async fn try_follow(
        &self,
        turn: u64,
        after: Option<u64>,
        at: &mut usize,
    ) -> Result<(), NoAnswer> {
        let mut connection = self.connect().await?;
        *at = connection.endpoint;
        let late = NoAnswer::Late(self.endpoint(*at).to_owned());
        let mut revision = after.unwrap_or(0);
        if after.is_none() {
            let mut start = self.prefix.clone().into_bytes();
            loop {
                let body = json::range(&self.prefix, &start, PAGE, revision);
                let Ok(answer) =
                    timeout(ANSWER_TIME, connection.call(self, "kv/range", &body)).await
                else {
                    return Err(late);
                };
                let answer = match answer {
                    Err(NoAnswer::Refused { why, .. }) if why.contains("compacted") => {
                        return Ok(());
                    }
                    answer => answer?,
                };
                let page: RangeAnswer =
                    serde_json::from_slice(&answer).map_err(|error| self.odd(*at, &error))?;
                if revision == 0 {
                    revision = page.header.revision;
                }
                let pairs: Vec<Pair> = page.kvs.into_iter().map(Pair::from).collect();
                let last = pairs.last().map(|pair| pair.key.clone());
                self.say(Said::Page { turn, pairs }).await;
                match last {
                    Some(last) if page.more => start = [&last[..], &[0]].concat(),
                    _ => break,
                }
            }
            self.say(Said::Read { turn, revision }).await;
        }
        let body = json::watch(&self.prefix, revision + 1);
        let Ok(response) = timeout(ANSWER_TIME, connection.begin(self, "watch", &body)).await
        else {
            return Err(late);
        };
        self.watch(turn, response?, &mut connection).await
    }

    async fn watch(
        &self,
        turn: u64,
        response: Response<Incoming>,
        connection: &mut Connection,
    ) -> Result<(), NoAnswer> {
        let at = connection.endpoint;
        let cut = |why: String| NoAnswer::Cut { endpoint: self.endpoint(at).to_owned(), why };
        let mut body = response.into_body();
        let mut text = BytesMut::new();
        let mut events: Vec<Event> = Vec::new();
        let mut size = 0;
        loop {
            let frame = connection.drive(body.frame()).await;
            let Some(frame) = frame else { return Err(cut("the watch has ended".to_owned())) };
            let frame = frame.map_err(|error| cut(chain(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            // Only what is new may have the end of a line.
            let mut seen = text.len();
            text.extend_from_slice(&data);
            while let Some(end) = text[seen..].iter().position(|byte| *byte == b'\n') {
                let line = text.split_to(seen + end + 1);
                seen = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let answer = match serde_json::from_slice(&line) {
                    Ok(Line::Result(answer)) => answer,
                    Ok(Line::Error(trouble)) => return Err(self.refused(at, trouble.text())),
                    Err(error) => return Err(self.odd(at, &error)),
                };
                let WatchAnswer { header, created, canceled, fragment, .. } = &answer;
                if *canceled {
                    if answer.compact_revision > 0 {
                        return Ok(());
                    }
                    return Err(self.refused(at, answer.cancel_reason));
                }
                if *created {
                    let (cluster, revision) = (header.cluster_id, header.revision);
                    self.say(Said::Following { turn, cluster, revision }).await;
                }
                let more = *fragment;
                size += line.len();
                events.extend(answer.events.into_iter().map(Event::from));
                if more && size < MAX_ANSWER {
                    continue;
                }
                size = 0;
                if !events.is_empty() {
                    self.say(Said::Changed { turn, events: std::mem::take(&mut events) }).await;
                }
            }
            if text.len() > MAX_ANSWER {
                return Err(cut(format!("a line of more than {MAX_ANSWER} bytes")));
            }
        }
    }

    async fn connect(&self) -> Result<Connection, NoAnswer> {
        let at = self.current.load(Ordering::Relaxed);
        let endpoint = self.endpoint(at);
        let connecting = async {
            let stream = connect(endpoint).await.map_err(|error| error.to_string())?;
            let stream: Box<dyn Stream> = match &self.tls {
                Some(tls) => Box::new(tls::wrap(stream, endpoint, tls).await?),
                None => Box::new(stream),
            };
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))
        };
        let why = match timeout(CONNECT_TIME, connecting).await {
            Ok(Ok((sender, driver))) => {
                return Ok(Connection { endpoint: at, sender, driver: Some(Box::pin(driver)) });
            }
            Ok(Err(why)) => why,
            Err(_) => format!("nothing after {CONNECT_TIME:?}"),
        };
        self.avoid(at);
        Err(NoAnswer::Connect { endpoint: endpoint.to_owned(), why })
    }

    fn endpoint(&self, at: usize) -> &str {
        &self.endpoints[at % self.endpoints.len()]
    }

    /// An endpoint is no good: everybody goes to the next one, and where there is only one, over a new
    /// connection.
    fn avoid(&self, at: usize) {
        let next = at.wrapping_add(1);
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn refused(&self, at: usize, why: String) -> NoAnswer {
        NoAnswer::Refused { endpoint: self.endpoint(at).to_owned(), why }
    }

    fn odd(&self, at: usize, error: &serde_json::Error) -> NoAnswer {
        self.refused(at, format!("what is not understood ({error}); is it etcd 3.4 or newer?"))
    }
}

impl Connection {
    async fn begin(
        &mut self,
        shared: &Shared,
        path: &str,
        body: &Value,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let endpoint = shared.endpoint(self.endpoint);
        let cut = |why| NoAnswer::Cut { endpoint: endpoint.to_owned(), why };
        let request = Request::post(format!("/v3/{path}"))
            .header("host", endpoint)
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))
            .map_err(|error| cut(error.to_string()))?;
        let sending = self.sender.send_request(request);
        let response = drive(&mut self.driver, sending).await.map_err(|e| cut(chain(&e)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = self.collect(response).await.map_err(cut)?;
        let why = match serde_json::from_slice::<Trouble>(&text) {
            Ok(trouble) => trouble.text(),
            Err(_) if status.as_u16() == 404 => {
                format!("no such thing as /v3/{path}: is its gRPC gateway switched off?")
            }
            Err(_) => format!("status {status}"),
        };
        Err(shared.refused(self.endpoint, why))
    }

    async fn call(&mut self, shared: &Shared, path: &str, body: &Value) -> Result<Bytes, NoAnswer> {
        let response = self.begin(shared, path, body).await?;
        let endpoint = shared.endpoint(self.endpoint);
        let cut = |why| NoAnswer::Cut { endpoint: endpoint.to_owned(), why };
        self.collect(response).await.map_err(cut)
    }

    async fn collect(&mut self, response: Response<Incoming>) -> Result<Bytes, String> {
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let whole = self.drive(body.collect()).await;
        whole.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
    }

    async fn drive<T>(&mut self, talk: impl Future<Output = T>) -> T {
        drive(&mut self.driver, talk).await
    }
}

/// Lets a connection work while something waits for it.
async fn drive<T>(driver: &mut Option<Driver>, talk: impl Future<Output = T>) -> T {
    tokio::pin!(talk);
    if let Some(working) = driver {
        tokio::select! {
            biased;
            result = &mut talk => return result,
            _ = working => {}
        }
        // Whoever waits for more is told so when it is dropped.
        *driver = None;
    }
    talk.await
}

/// Tries every address of an endpoint.
async fn connect(endpoint: &str) -> std::io::Result<TcpStream> {
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host(endpoint).await?.collect();
    let stream = TcpStream::connect(&addrs[..]).await?;
    stream.set_nodelay(true)?;
    let (after, every, times) = PROBE;
    let probe = TcpKeepalive::new().with_time(after).with_interval(every).with_retries(times);
    SockRef::from(&stream).set_tcp_keepalive(&probe)?;
    Ok(stream)
}

impl Trouble {
    fn text(self) -> String {
        if self.message.is_empty() { self.error } else { self.message }
    }
}

/// Whether the whole cluster says so, and not a member that is in trouble itself.
fn is_verdict(why: &str) -> bool {
    ["not found", "compacted", "too large", "duplicate", "space exceeded"]
        .iter()
        .any(|w| why.contains(w))
}

fn failure(error: NoAnswer) -> Failure {
    match error {
        NoAnswer::Refused { why, .. } if why.contains("lease not found") => Failure::NoLease,
        error => Failure::Other(error.to_string()),
    }
}

/// Lease ids are signed to etcd.
fn signed(lease: u64) -> String {
    lease.cast_signed().to_string()
}
