//! Actors, mailboxes, pools and the node agent.
//!
//! The crate of the runtime: an actor is spawned on a [`Node`], addressed by an [`Address`], told and
//! asked. A [`Pool`] spreads requests over many of them. It knows nothing of HTTP.

// The macros name things by the path of the facade.
extern crate self as layercake;

mod actor;
mod address;
mod agent;
pub mod args;
mod blob;
pub mod check;
mod clock;
mod dead;
mod deadline;
mod entry;
mod error;
mod exit;
mod fate;
mod here;
pub mod http;
mod mail;
mod mailbox;
mod message;
mod names;
mod node;
mod overview;
mod packet;
pub mod pool;
mod pools;
mod probe;
mod process;
mod relay;
mod remote;
mod restart;
pub mod retry;
mod run;
pub mod schema;
pub mod service;
mod slot;
mod span;
mod story;
mod stream;
mod table;
pub mod testing;
mod upload;
mod watch;

pub use actor::{
    Accepts, Actor, ByFunction, ByHandlers, ChildEnded, Context, Inbox, JOBS, Letters,
    MAX_CHILDREN, Machine, NoMail, Restart, Running, Spawn, Strategy, SuperviseError, Supervisor,
    SupervisorBuilder, Timer,
};
pub use address::{ASK_DEADLINE, Address, AnyAddress};
pub use agent::{Agent, Listen};
pub use blob::Blob;
pub use bytes::Bytes;
pub use dead::{DEAD_LETTERS, DeadLetter, DeadLetters, Why};
pub use entry::{Entry, EntryApi, FromArgs, NoArgs, Program};
#[doc(hidden)]
pub use entry::{FunctionProgram, NoEntry, Probe};
pub use error::{AskError, TellError};
pub use exit::Exit;
pub use here::{Traced, current_trace, traced};
pub use mail::Mail;
pub use mailbox::MAILBOX;
pub use message::{Api, Data, Message, MessageApi};
pub use names::{PublishError, SubscribeError};
pub use node::{Node, NodeConfig, NodeError, STOP_GRACE};
pub use overview::{PING_TIME, PingError};
pub use packet::{Packet, Parcel, Reply, Unknown};
pub use pool::scheduler::Priority;
pub use pool::{AnyFeed, AnyPool, Anything, Pool, PoolBuilder, PoolError, PoolRequest};
pub use pools::{MeshPool, pools_of};
pub use process::{CommandBuilder, Limits, MAX_OUTPUT, NoMessages, ProcessBuilder, ProcessError};
pub use run::{
    Outcome, chain as error_chain, front_runtime, log_to_stderr, run_as_worker, run_front,
    run_main, run_main_on, run_main_with, run_until_stopped,
};
pub use span::{Span, SpanError};
pub use story::{ActorStatus, MAX_ACTORS_TOLD, NodeStory, story_of};
pub use stream::{EncodedReplies, Gone, Outlet, Replies, STREAM, STREAM_DEADLINE};
pub use upload::{ReadUpload, Upload, UploadSender};
pub use watch::Watch;

pub use layercake_directory as directory;
pub use layercake_wire::{self as wire, Carrier};

/// What the macros name. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use std::{
        any::Any,
        sync::{Arc, OnceLock},
    };

    pub use inventory;
    pub use layercake_wire::payload::Tag;
    pub use schemars;
    pub use serde;
    pub use tokio;

    pub use crate::{
        Accepts, Actor, Address, Api, Context, Data, Entry, FromArgs, FunctionProgram, Inbox,
        Letters, Machine, Mail, Message, MessageApi, NoArgs, NoEntry, Node, Outcome, Outlet,
        Packet, Parcel, Probe, Program, Reply, Unknown,
        http::HttpApi,
        packet::while_wanted,
        run_main, run_main_with,
        schema::{Empty, describe},
    };
}
