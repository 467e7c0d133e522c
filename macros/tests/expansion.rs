//! Compiles and runs what the macros generate, in a crate that forbids unsafe code.
//!
//! `__private` below is the least that the generated code needs of the library: this crate tests the
//! macros alone, and the facade's tests run them against the real thing.

#![forbid(unsafe_code)]
#![deny(warnings)]
#![allow(missing_docs, unreachable_pub)]

extern crate self as layercake;

use std::any::Any;

use futures_util::FutureExt;
use layercake_macros::{actor, data, message};
use serde_json::{Value, json};

pub mod __private {
    use std::{any::Any, marker::PhantomData, process::ExitCode, sync::Arc};

    pub use inventory;
    pub use schemars;
    pub use serde;
    use serde_json::Value;

    #[derive(Debug, PartialEq, Eq, Clone, Copy)]
    pub struct Tag(pub u64);

    pub trait Message:
        serde::Serialize + serde::de::DeserializeOwned + schemars::JsonSchema
    {
        type Reply: 'static;
        const NAME: &'static str;
        const TAG: Tag = Tag(Self::NAME.len() as u64);
        const IDEMPOTENT: bool = false;
        const STREAM: bool = false;
        const FALLIBLE: bool = false;
        fn is_failure(_: &Self::Reply) -> bool {
            false
        }
        const DEADLINE: Option<std::time::Duration> = None;
        fn http() -> HttpApi {
            HttpApi::default()
        }
        fn describe() -> &'static Arc<MessageApi>;
    }
    #[derive(Default, Debug, PartialEq)]
    pub struct HttpApi {
        pub routes: Vec<(String, String)>,
        pub headers: Vec<(String, String)>,
        pub query: Vec<String>,
        pub body: Option<String>,
        pub status: u16,
        pub consumes: Vec<String>,
        pub produces: Vec<String>,
        pub etag: Option<String>,
    }
    pub struct MessageApi {
        pub name: &'static str,
        pub schema: Value,
    }
    pub fn describe<M: Message>() -> MessageApi {
        let schema = schemars::schema_for!(M);
        MessageApi { name: M::NAME, schema: schema.to_value() }
    }
    pub struct Api {
        pub actor: String,
        pub messages: Vec<Arc<MessageApi>>,
    }
    pub trait Accepts<M: Message> {}

    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Empty {}
    impl Empty {
        pub fn schema(description: &str) -> schemars::Schema {
            schemars::json_schema!({ "type": "object", "description": description })
        }
    }

    pub struct Packet<M: Message>(pub M, pub std::sync::mpsc::Sender<Box<dyn Any + Send>>);
    impl<M: Message> Packet<M> {
        pub fn begin(self) -> Option<(M, Reply<M::Reply>)> {
            Some((self.0, Reply(self.1, PhantomData)))
        }
    }
    pub struct Reply<R>(std::sync::mpsc::Sender<Box<dyn Any + Send>>, PhantomData<R>);
    impl<R: Send + 'static> Reply<R> {
        pub fn send(self, answer: R) {
            let _ = self.0.send(Box::new(answer));
        }
    }
    pub struct Parcel(pub Tag, pub Value, pub std::sync::mpsc::Sender<Box<dyn Any + Send>>);
    impl Parcel {
        pub fn tag(&self) -> Tag {
            self.0
        }
        pub fn unpack<M: Message>(self) -> Option<Packet<M>> {
            Some(Packet(serde_json::from_value(self.1).ok()?, self.2))
        }
        pub fn refuse(self) {
            let _ = self.2.send(Box::new("refused"));
        }
    }

    pub struct Context<A>(pub PhantomData<A>);
    pub trait Mail: Sized + Send + 'static {
        const TAKES_UNKNOWN: bool = false;
        fn api() -> Api;
        fn accept(packet: &mut dyn Any) -> Option<Self>;
        fn open(parcel: Parcel) -> Option<Self>;
    }
    pub trait Actor: Sized + Send + 'static {
        const NAME: &'static str;
        type Mail: Mail;
        type Output: 'static;
        fn handle(
            &mut self,
            mail: Self::Mail,
            ctx: &mut Context<Self>,
        ) -> impl Future<Output = ()> + Send;
        fn started(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
            let _ = ctx;
            async {}
        }
        fn stopped(&mut self) -> impl Future<Output = ()> + Send {
            async {}
        }
    }

    pub struct Entry {
        pub name: &'static str,
    }
    inventory::collect!(Entry);
    pub struct Probe<A>(PhantomData<A>);
    impl<A: Actor + Default> Probe<A> {
        pub const ENTRY: Entry = Entry { name: A::NAME };
    }
    pub trait NoEntry {
        const ENTRY: Entry;
    }
    impl<A: Actor> NoEntry for Probe<A> {
        const ENTRY: Entry = Entry { name: "" };
    }

    pub fn run_main<F: FnOnce(crate::Node) -> Fut, Fut: Future<Output = Result<(), String>>>(
        main: F,
    ) -> ExitCode {
        use futures_util::FutureExt;
        match main(crate::Node).now_or_never() {
            Some(Ok(())) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

use __private::{Accepts, Actor, Context, Mail, Message, Packet, Parcel};

pub struct Node;

/// A table of numbers.
#[message(reply = Vec<Vec<f64>>, idempotent)]
struct Xy {
    /// How many columns.
    #[arg(default = 8, min = 1, max = 1000)]
    x: u32,
    #[arg(default = 2 * 4)]
    y: u32,
}

#[message(reply = String)]
#[derive(Debug, Clone, PartialEq)]
struct Greet {
    #[arg(default = "world")]
    name: String,
    #[arg(default)]
    mood: Mood,
    shape: Option<Shape>,
}

#[data]
#[derive(Debug, Clone, Default, PartialEq)]
enum Mood {
    #[default]
    Fair,
    Foul,
}

#[data]
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Square {
        #[arg(default = 3)]
        side: u8,
    },
    Point,
}

#[data]
#[derive(Debug, PartialEq)]
struct Pair<T> {
    left: T,
    right: T,
}

/// Asks how many
/// messages came.
#[message(reply = u64, name = "how-many")]
#[derive(Debug, PartialEq)]
struct HowMany;

#[derive(Default)]
pub struct Worker {
    handled: u64,
    log: Vec<&'static str>,
}

#[actor]
impl Worker {
    async fn texture(&mut self, Xy { x, y }: Xy) -> Vec<Vec<f64>> {
        self.note();
        vec![vec![0.0; y as usize]; x as usize]
    }

    async fn how_many(&mut self, _: HowMany, _ctx: &mut Context<Self>) -> u64 {
        self.handled
    }

    #[cfg(any())]
    async fn never(&mut self, nothing: NoSuchType) {}

    async fn started(&mut self, _ctx: &mut Context<Self>) {
        self.log.push("started");
    }

    async fn stopped(&mut self) {
        self.log.push("stopped");
    }

    fn note(&mut self) {
        self.handled += 1;
    }
}

/// Has type parameters, no `Default` and a name of its own.
struct Echo<T> {
    before: T,
}

#[actor(name = "echo")]
impl<T: std::fmt::Display + Send + 'static> Echo<T>
where
    T: Clone,
{
    async fn greet(&mut self, greet: Greet) -> String {
        format!("{}{}", self.before, greet.name)
    }
}

#[layercake_macros::main]
async fn program(_node: Node) -> Result<(), String> {
    let number: u32 = "7".parse().map_err(|_| "not a number".to_owned())?;
    if number == 7 { Ok(()) } else { Err("not seven".to_owned()) }
}

fn schema<M: Message>() -> &'static Value {
    &M::describe().schema
}

fn ask<A: Actor + Accepts<M>, M: Message + 'static>(actor: &mut A, message: M) -> M::Reply {
    let (slot, answer) = std::sync::mpsc::channel();
    let mut packet: Option<Packet<M>> = Some(Packet(message, slot));
    let mail = A::Mail::accept(&mut packet as &mut dyn Any).expect("it has a handler");
    assert!(packet.is_none(), "the packet is taken");
    let mut ctx = Context(std::marker::PhantomData);
    actor.handle(mail, &mut ctx).now_or_never().expect("it waits for nothing");
    *answer.recv().expect("an answer").downcast().expect("of the right type")
}

#[test]
fn a_missing_field_takes_its_default_and_the_schema_tells() {
    let xy: Xy = serde_json::from_value(json!({ "y": 1 })).expect("decodes");
    assert_eq!((xy.x, xy.y), (8, 1));
    let x = &schema::<Xy>()["properties"]["x"];
    assert_eq!((&x["default"], &x["minimum"], &x["maximum"]), (&json!(8), &json!(1), &json!(1000)));
    assert_eq!(x["description"], "How many columns.");
    assert_eq!(schema::<Xy>()["properties"]["y"]["default"], 8);
    assert_eq!(schema::<Xy>()["description"], "A table of numbers.");
    assert!(schema::<Xy>().get("required").is_none());
}

#[test]
fn texts_enums_and_fields_of_variants_have_defaults_too() {
    let greet: Greet = serde_json::from_value(json!({ "shape": { "Square": {} } })).expect("ok");
    let shape = Some(Shape::Square { side: 3 });
    assert_eq!(greet, Greet { name: "world".into(), mood: Mood::Fair, shape });
    let point: Shape = serde_json::from_value(json!("Point")).expect("decodes");
    assert_eq!(point, Shape::Point);
    assert_eq!(schema::<Greet>()["properties"]["mood"]["default"], "Fair");
    let pair: Pair<u8> = serde_json::from_value(json!({ "left": 1, "right": 2 })).expect("ok");
    assert_eq!(pair, Pair { left: 1, right: 2 });
    assert_ne!(Mood::Foul, Mood::Fair);
    let order = &schema::<Greet>()["$defs"]["Shape"]["x-layercake-variants"];
    assert_eq!(*order, json!(["Square", "Point"]), "which the schema alone would not tell");
}

#[test]
fn a_message_without_fields_is_an_empty_object() {
    assert_eq!(serde_json::to_value(HowMany).expect("encodes"), json!({}));
    let decoded: HowMany = serde_json::from_value(json!({ "later": 1 })).expect("decodes");
    assert_eq!(decoded, HowMany);
    assert_eq!(schema::<HowMany>()["type"], "object");
    assert_eq!(schema::<HowMany>()["description"], "Asks how many\nmessages came.");
}

#[test]
fn names_and_promises_are_as_said() {
    assert_eq!((Xy::NAME, HowMany::NAME), ("Xy", "how-many"));
    assert_eq!((Xy::IDEMPOTENT, HowMany::IDEMPOTENT), (true, false));
    assert!(std::ptr::eq(Xy::describe(), Xy::describe()));
    let api = <Worker as Actor>::Mail::api();
    let names: Vec<_> = api.messages.iter().map(|message| message.name).collect();
    assert_eq!((api.actor.as_str(), names), ("Worker", vec!["Xy", "how-many"]));
}

#[test]
fn an_actor_answers_typed_messages() {
    let mut worker = Worker::default();
    assert_eq!(ask(&mut worker, Xy { x: 2, y: 1 }), [[0.0], [0.0]]);
    assert_eq!(ask(&mut worker, HowMany), 1);
    let greet = Greet { name: "you".into(), mood: Mood::Foul, shape: None };
    assert_eq!(ask(&mut Echo { before: "hello " }, greet), "hello you");
}

#[test]
fn an_actor_opens_what_it_handles_and_refuses_the_rest() {
    let (slot, answer) = std::sync::mpsc::channel();
    let mail =
        <Worker as Actor>::Mail::open(Parcel(Xy::TAG, json!({ "x": 1, "y": 2 }), slot.clone()));
    let mut ctx = Context(std::marker::PhantomData);
    Worker::default().handle(mail.expect("opened"), &mut ctx).now_or_never().expect("is done");
    let texture: Vec<Vec<f64>> = *answer.recv().expect("an answer").downcast().expect("a table");
    assert_eq!(texture, [[0.0, 0.0]]);

    assert!(<Worker as Actor>::Mail::open(Parcel(Greet::TAG, json!({}), slot)).is_none());
    assert_eq!(answer.recv().expect("an answer").downcast_ref(), Some(&"refused"));

    let (slot, _answer) = std::sync::mpsc::channel();
    let greet = Greet { name: String::new(), mood: Mood::Fair, shape: None };
    let mut other = Some(Packet(greet, slot));
    assert!(
        <Worker as Actor>::Mail::accept(&mut other).is_none() && other.is_some(),
        "it stays where it was"
    );
}

#[test]
fn the_hooks_run_the_users_functions() {
    let mut worker = Worker::default();
    let mut ctx = Context(std::marker::PhantomData);
    Actor::started(&mut worker, &mut ctx).now_or_never().expect("is done");
    Actor::stopped(&mut worker).now_or_never().expect("is done");
    assert_eq!(worker.log, ["started", "stopped"]);
}

#[test]
fn an_actor_with_a_default_is_registered_once() {
    let names: Vec<_> = inventory::iter::<__private::Entry>().map(|entry| entry.name).collect();
    assert_eq!(names, ["Worker"]);
    assert_eq!(<Echo<u8> as Actor>::NAME, "echo");
}

#[test]
fn main_runs_the_users_function_on_a_node() {
    let ok = format!("{:?}", std::process::ExitCode::SUCCESS);
    assert_eq!(format!("{:?}", program()), ok);
}
