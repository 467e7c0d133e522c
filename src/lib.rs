#![doc = include_str!("../README.md")]

mod http;

pub use http::{Http, HttpError, NodeHttp};
pub use layercake_directory::{
    DEFAULT_PORT, DirectoryConfig, DropReason, Event, HostView, Name, NotPublished, NotSubscribed,
    Pattern, Publication, Record, Scope, Subscription,
};
pub use layercake_gateway::{Drained, GatewayConfig};
pub use layercake_macros::{actor, data, main, message};
#[doc(hidden)]
pub use layercake_node::__private;
pub use layercake_node::{
    ASK_DEADLINE, Accepts, Actor, Address, Agent, AnyAddress, Api, AskError, Context, Data, Listen,
    MAILBOX, Message, MessageApi, Node, NodeConfig, NodeError, Outcome, Packet, Parcel, Pool,
    PoolBuilder, PoolError, ProcessError, PublishError, Reply, STOP_GRACE, SubscribeError,
    TellError, error_chain, log_to_stderr, run_as_worker, run_main, run_until_stopped, schema,
    service, wire,
};

/// What a program may fail with: any error, printed with its causes.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of a program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What most programs use.
pub mod prelude {
    pub use crate::{
        Address, AskError, Context, Event, Node, NodeHttp, Pool, Result, Scope, actor, data,
        message,
    };
}
