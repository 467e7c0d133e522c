#![doc = include_str!("../README.md")]

mod http;

pub use http::{Http, HttpError, NodeHttp};
pub use layercake_directory::{
    About, Claim, DEFAULT_PORT, DISCOVERY_VARIABLE, DirectoryConfig, DropReason, Engine,
    EngineError, EtcdConfig, EtcdTls, Event, FENCES, FenceGuard, Fences, Group, GroupError,
    HostState, HostView, Name, Network, NetworkChange, NetworkEvent, NetworkEvents, NetworkHost,
    NetworkNode, NetworkRecord, NetworkSubscription, NoNetwork, NoPong, NotPublished,
    NotSubscribed, Pattern, Publication, Record, Route, SEEDS_FILE, SEEDS_VARIABLE, Scope, Session,
    Stale, Subscription, Transport, Trouble, TroubleKind,
};
pub use layercake_gateway::{
    AccessLog, Allowed, Cidr, Drained, FollowError, GatewayConfig, KeyTooShort, MeshPage, NoCidr,
    NoWebOrigin, PageKey, Rate, TlsFiles, WebOrigin,
};
pub use layercake_macros::{actor, data, entry, machine, mail, main, message, states};
#[doc(hidden)]
pub use layercake_node::__private;
pub use layercake_node::{
    ASK_DEADLINE, Accepts, Actor, ActorStatus, Address, Agent, AnyAddress, AnyFeed, AnyPool,
    Anything, Api, AskError, ByFunction, ByHandlers, Carrier, ChildEnded, CommandBuilder, Context,
    DEAD_LETTERS, Data, DeadLetter, DeadLetters, Entry, EntryApi, Exit, FromArgs, Gone, Inbox,
    JOBS, Letters, Limits, Listen, MAILBOX, MAX_CHILDREN, MAX_OUTPUT, Machine, Mail, MeshPool,
    Message, MessageApi, NoArgs, NoMail, NoMessages, Node, NodeConfig, NodeError, NodeStory,
    Outcome, Outlet, Packet, Parcel, PingError, Pool, PoolBuilder, PoolError, Priority,
    ProcessBuilder, ProcessError, Program, PublishError, Replies, Reply, Restart, Running,
    STOP_GRACE, STREAM, STREAM_DEADLINE, Spawn, Strategy, SubscribeError, SuperviseError,
    Supervisor, SupervisorBuilder, TellError, Timer, Unknown, Watch, Why, args, current_trace,
    error_chain, front_runtime, log_to_stderr, pool, pools_of, retry, run_as_worker, run_front,
    run_main, run_main_on, run_main_with, run_until_stopped, schema, service, story_of, testing,
    wire,
};
pub use layercake_node::{
    Blob, Bytes, Span, Upload, UploadSender, http as http_api, pool::PoolStatus, retry::Retry,
};

/// What a program may fail with: any error, printed with its causes.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of a program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What most programs use.
pub mod prelude {
    pub use crate::{
        Address, Allowed, AskError, Blob, Context, Event, Exit, Inbox, Node, NodeHttp, Outlet,
        Pool, Reply, Restart, Result, Retry, Running, Scope, Span, Strategy, Unknown, Upload,
        actor, data, entry, machine, mail, message, states,
    };
}
