//! A service that does as its messages say.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use layercake_gateway::{Drained, Gateway, GatewayConfig};
use layercake_node::{
    Api, AskError, Message, MessageApi, schema,
    service::{Call, Reply, Service},
};
use layercake_wire::{
    id::{ActorAddr, HostId, NodeAddr, NodeId, PeerId},
    payload::{Encoding, Fingerprint, Payload, Tag},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, soon};

/// Answered with `[x,y]`.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Xy {
    x: u32,
    #[serde(default = "eight")]
    y: u32,
}

fn eight() -> u32 {
    8
}

/// Answered with the bytes in which it came.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Say {
    #[serde(default)]
    text: String,
}

/// Ends as it says.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Fail {
    with: String,
}

/// Answered once a permit of the gate is there.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Wait {}

macro_rules! message {
    ($message:ident) => {
        impl Message for $message {
            type Reply = serde_json::Value;
            const NAME: &'static str = stringify!($message);

            fn describe() -> &'static Arc<MessageApi> {
                static API: OnceLock<Arc<MessageApi>> = OnceLock::new();
                API.get_or_init(|| Arc::new(schema::describe::<Self>()))
            }
        }
    };
}
message!(Xy);
message!(Say);
message!(Fail);
message!(Wait);

pub(crate) struct Fake {
    pub(crate) api: Mutex<Api>,
    pub(crate) ready: AtomicBool,
    pub(crate) gate: Semaphore,
    /// Calls that have begun.
    pub(crate) begun: AtomicUsize,
    /// Calls whose future was dropped without an answer.
    pub(crate) cancelled: AtomicUsize,
    /// The time left to the latest call when it came.
    pub(crate) time_left: Mutex<Duration>,
}

impl Fake {
    pub(crate) fn api() -> Api {
        // A message that cannot have its path.
        let hidden = MessageApi { name: "healthz".into(), ..(**Wait::describe()).clone() };
        let known = [Xy::describe(), Say::describe(), Fail::describe(), Wait::describe()];
        let messages = known.into_iter().cloned().chain([Arc::new(hidden)]).collect();
        Api { actor: "Fake".into(), messages }
    }

    fn end(text: &str) -> Result<Bytes, AskError> {
        let peer = PeerId { host: HostId::from_bits(1), node: NodeId::from_bits(2) };
        let to = || ActorAddr { node: NodeAddr::new(peer, &[]), serial: 7 };
        let reason = || "10.1.2.3:4567 hung up".to_owned();
        let retry_after = Duration::from_millis(2_500);
        Err(match text {
            "busy" => AskError::Busy { mean: Duration::from_secs(3), retry_after },
            "overloaded" => AskError::Overloaded { pending: 99, retry_after },
            "unavailable" => AskError::Unavailable,
            "stopped" => AskError::Stopped { to: to() },
            "unreachable" => AskError::Unreachable { to: to(), reason: reason() },
            "lost" => AskError::Lost { to: to(), reason: reason() },
            "deadline" => AskError::Deadline,
            "panicked" => AskError::Panicked,
            "not-now" => AskError::NotNow { to: to(), what: reason() },
            "malformed" => AskError::Malformed { reason: "missing field `z`".into() },
            other => panic!("no failure is called {other}"),
        })
    }
}

struct Guard<'f> {
    fake: &'f Fake,
    answered: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.fake.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Service for Fake {
    fn api(&self) -> Api {
        self.api.lock().unwrap().clone()
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn call(&self, call: Call) -> Reply<'_> {
        Box::pin(async move {
            assert_eq!(call.payload.encoding, Encoding::Json);
            assert_eq!(call.accept, Fingerprint::NONE);
            let mut guard = Guard { fake: self, answered: false };
            self.begun.fetch_add(1, Ordering::SeqCst);
            *self.time_left.lock().unwrap() =
                call.deadline.saturating_duration_since(Instant::now());
            let tag = call.payload.tag;
            let result = if tag == Tag::of("Fail") {
                let fail: Fail = serde_json::from_slice(&call.payload.bytes).unwrap();
                Self::end(&fail.with)
            } else if tag == Tag::of("Wait") {
                self.gate.acquire().await.unwrap().forget();
                Ok(Bytes::from_static(b"\"done\""))
            } else if tag == Tag::of("Xy") {
                let Xy { x, y } = serde_json::from_slice(&call.payload.bytes).unwrap();
                Ok(format!("[{x},{y}]").into())
            } else {
                Ok(call.payload.bytes)
            };
            guard.answered = true;
            result.map(|bytes| Payload { tag, encoding: Encoding::Json, bytes })
        })
    }
}

/// A gateway that runs before a fake.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Drained>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = GatewayConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        change(&mut config);
        let fake = Arc::new(Fake {
            api: Mutex::new(Fake::api()),
            ready: AtomicBool::new(true),
            gate: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            time_left: Mutex::default(),
        });
        let gateway = Gateway::bind(config, fake.clone()).await.unwrap();
        let shutdown = CancellationToken::new();
        let addr = gateway.local_addr();
        let task = tokio::spawn(gateway.run(shutdown.clone()));
        Self { addr, fake, shutdown, task }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.addr).await
    }

    /// Asserts that the gateway still answers a new client.
    pub(crate) async fn still_answers(&self) {
        let answer = self.client().await.get("/Xy?x=2").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "[2,8]"));
    }

    /// Stops it and says how it ended.
    pub(crate) async fn stop(self) -> Drained {
        self.shutdown.cancel();
        soon("drain", self.task).await.unwrap()
    }
}
