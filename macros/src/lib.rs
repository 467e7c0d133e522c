//! The attribute macros of layer-cake: [`macro@message`], [`macro@data`], [`macro@actor`] and
//! [`macro@main`].
//!
//! A macro only writes down what a user would otherwise type; every decision is in the library.
//! Generated code names things by `::layercake::__private::…` alone, so that nothing needs to be
//! imported and no other crate needs to be a dependency of the user's. Each macro is a function from
//! tokens to `syn::Result` in a module of its own, with its tests beside it; `tests/expansion.rs`
//! compiles and runs what they generate.

use proc_macro::TokenStream;

mod actor;
mod entry;
mod message;
mod types;

fn finish(result: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    result.unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a struct a message: derives serde and schema, and names its reply.
///
/// - `reply = T`: what an ask is answered with; `()` by default.
/// - `name = "…"`: the name in the mesh; the name of the type by default. Two types of one name are
///   versions of one message.
/// - `idempotent`: handling it twice is as good as once, so a pool may send it to another worker
///   when the first one died with it.
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
/// Takes no arguments. Fields may carry `#[arg(…)]` as in [`macro@message`]. `Debug`, `Clone` and
/// the rest stay the user's choice.
#[proc_macro_attribute]
pub fn data(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(types::expand(args.into(), item.into()))
}

/// Makes a type an actor: on its `impl` block, every handler is found and wired.
///
/// A handler is an `async fn` with `&mut self` and one message by value, after which it may take
/// `ctx: &mut Context<Self>`; it returns the message's reply. `async fn started(&mut self, ctx)` runs
/// before the first message, `async fn stopped(&mut self)` after the last. Every other function is
/// left alone, and so is one marked `#[helper]`.
///
/// - `name = "…"`: the name by which a pool of processes finds the type; by default the type's.
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

/// Makes `async fn main(node: Node)` the program: starts a node and runs the function on it.
///
/// The function returns `()` or a `Result`; an error is printed and ends the process with status 1.
/// Where this process was started as a worker of a pool, it becomes that worker instead, and the
/// function is not called.
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(entry::expand(args.into(), item.into()))
}
