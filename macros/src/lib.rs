//! The attribute macros of layer-cake: [`macro@message`], [`macro@data`], [`macro@actor`], [`macro@mail`],
//! [`macro@states`], [`macro@machine`] and [`macro@main`].
//!
//! A macro only writes down what a user would otherwise type; every decision is in the library.
//! Generated code names things by `::layercake::__private::…` alone, so that nothing needs to be
//! imported and no other crate needs to be a dependency of the user's. Each macro is a function from
//! tokens to `syn::Result` in a module of its own, with its tests beside it; `tests/expansion.rs`
//! compiles and runs what they generate.

use proc_macro::TokenStream;

mod actor;
mod entry;
mod http;
mod machine;
mod mail;
mod message;
mod types;

fn finish(result: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    result.unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a struct a message: derives serde and schema, and names its reply.
///
/// - `reply = T`: what an ask is answered with; `()` by default.
/// - `stream = T`: it is answered in any number of parts of that type.
/// - `name = "…"`: the name in the mesh; the name of the type by default. Two types of one name are
///   versions of one message.
/// - `idempotent`: handling it twice is as good as once, so a pool may send it to another worker
///   when the first one died with it.
/// - `deadline = "2s"`: how long a request from outside of the mesh may take, where the client asks for
///   no other time.
///
/// Over HTTP every message is reached by its name. It may declare resource forms, too:
/// - `get = "/textures/{x}/{y}"`, and so `post`, `put`, `patch`, `delete`: the segments in braces are
///   fields; more than one form may be given;
/// - `status = 201`: the status of a reply; 200 by default;
/// - `consumes = "image/png, image/*"`, `produces = "image/png"`: media types of a body and of a reply
///   that are bytes (`Blob`, `Upload`);
/// - `etag = "version"`: the field of the reply that is its entity tag.
///
/// Other fields come from the query or, of `POST`, `PUT` and `PATCH`, from the body; a field says
/// otherwise by `#[arg(header = "x-tenant")]`, `#[arg(query)]`, or `#[arg(body)]`, which makes it the whole
/// body.
///
/// A field may carry `#[arg(default = EXPR, min = N, max = N)]`. A field with a default may be
/// missing in JSON and in queries; the limits are part of the advertised schema, against which a
/// gateway checks what comes from outside. Comments become descriptions in the schema.
///
/// The struct has named fields or none, and no type parameters. serde attributes that the compact
/// encoding cannot express (`flatten`, `skip_serializing_if` and the like) are refused.
///
/// ```text
/// /// A table of numbers.
/// #[message(reply = Vec<Vec<f64>>, idempotent)]
/// struct Xy {
///     /// How many columns.
///     #[arg(default = 8, min = 1, max = 1000)]
///     x: u32,
///     #[arg(default = 8)]
///     y: u32,
/// }
/// ```
#[proc_macro_attribute]
pub fn message(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(message::expand(args.into(), item.into()))
}

/// Makes a struct or an enum usable in messages and as a reply: derives serde and schema.
///
/// Takes no arguments. Fields may carry `#[arg(…)]` as in [`macro@message`]. A variant of an enum that is
/// the error of a reply may carry `#[status(404)]`, what a client outside of the mesh is told with it; 422
/// by default. `Debug`, `Clone` and
/// the rest stay the user's choice.
#[proc_macro_attribute]
pub fn data(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(types::expand(args.into(), item.into()))
}

/// Makes a type an actor: on its `impl` block, every handler is found and wired.
///
/// A handler is an `async fn` with `&mut self` and one message by value; it returns the message's
/// reply. Behind the message it may take, in any order,
/// - `ctx: &mut Context<Self>`: its surroundings;
/// - `reply: Reply<R>`: the answer slot, to answer later, by somebody else, or by another question; what
///   the handler returns is then of no matter;
/// - `out: &mut Outlet<T>` (or `Outlet<T>`, to go on elsewhere): where the parts of a reply go, for a
///   message with `stream = T`.
///
/// A handler marked `#[cancel]` is dropped, wherever it waits, when nobody waits for its answer any
/// more. `async fn unknown(&mut self, message: Unknown)` takes whatever no other handler is for.
///
/// `async fn started(&mut self, ctx)` runs before the first message, `async fn stopping(&mut self, ctx)`
/// when the end has come and before the children are stopped, `async fn stopped(&mut self)` last. Every
/// other function is left alone, and so is one marked `#[helper]`.
///
/// - `name = "…"`: the name by which a pool of processes finds the type; by default the type's.
/// - `args = T`: it is made from arguments, by its own `fn new(args: T) -> Self`, where a process is
///   started as it.
/// - `output = T`: what it leaves to whoever joins it, by `ctx.finish(value)`; `()` by default.
/// - `no_entry`: the type is not registered for pools of processes. Nor is one that has type
///   parameters, and one without `Default` is known there but cannot be started.
///
/// ```text
/// #[actor]
/// impl Worker {
///     async fn texture(&mut self, Xy { x, y }: Xy) -> Vec<Vec<f64>> { … }
///     async fn add(&mut self, add: Add, ctx: &mut Context<Self>) { … }
/// }
/// ```
#[proc_macro_attribute]
pub fn actor(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(actor::expand(args.into(), item.into()))
}

/// Makes an enum of messages what a function's inbox holds: each variant holds one message, and is
/// received with its reply slot as a second field. A variant that holds `Unknown` takes all others.
///
/// ```text
/// #[mail]
/// enum Request { Add(Add), Total(Total) }
///
/// async fn counter(mut inbox: Inbox<Request>) -> u64 {
///     let mut total = 0;
///     while let Some(request) = inbox.recv().await {
///         match request {
///             Request::Add(Add { amount }, reply) => { total += amount; reply.send(total) }
///             Request::Total(Total {}, reply) => reply.send(total),
///         }
///     }
///     total
/// }
/// ```
#[proc_macro_attribute]
pub fn mail(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(mail::expand(args.into(), item.into()))
}

/// Makes an enum the states of a machine: each variant becomes a struct of that name beside it, and
/// the enum holds these and is made `From` each of them.
///
/// ```text
/// #[states]
/// enum Door { Closed, Opened { by: String }, Locked { code: u32 } }
/// ```
#[proc_macro_attribute]
pub fn states(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(machine::states(args.into(), item.into()))
}

/// Makes the states of [`macro@states`] an actor: on the `impl` block of the enum, every transition is
/// found and wired.
///
/// A transition is an `async fn` that takes a state by value and a message, and perhaps
/// `ctx: &mut Context<Self>`, and returns the message's reply and the next state: one struct, where
/// only that can follow, or the enum. The compiler therefore checks that a state is only left for one
/// that its transitions name. A message for which the present state has no transition is refused
/// (`AskError::NotNow`), or put off until the state changes where it is listed in
/// `defer(State: Message, …)`.
///
/// ```text
/// #[machine(defer(Locked: Push))]
/// impl Turnstile {
///     async fn coin(state: Locked, _: Coin) -> (bool, Open) { … }
///     async fn push(state: Open, _: Push) -> (u32, Locked) { … }
/// }
/// ```
#[proc_macro_attribute]
pub fn machine(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(machine::machine(args.into(), item.into()))
}

/// Makes a function with an inbox a program that a process can be started as, by the name given:
/// `node.process::<Render>(args)`. Its arguments are any `#[data]` struct, what it returns is told to the
/// parent.
///
/// ```text
/// #[entry(Render)]
/// async fn render(mut inbox: Inbox<Request>, args: RenderArgs) -> u64 { … }
/// ```
#[proc_macro_attribute]
pub fn entry(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(entry::entry(args.into(), item.into()))
}

/// Makes `async fn main(node: Node)` the program: starts a node and runs the function on it.
///
/// With a second parameter, any `#[data]` struct, that is read from the command line: `--name=value` for
/// each field, `--help` tells. The function returns `()` or a `Result`; its value is printed as JSON, an
/// error is printed and ends the process with status 1. `--describe` prints the actors that the binary
/// has, their arguments and messages, as JSON.
/// Where this process was started as a worker of a pool, it becomes that worker instead, and the
/// function is not called.
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(entry::expand(args.into(), item.into()))
}
