//! What may stand behind a front door: a function, an actor by its address, an actor that was started to
//! be joined.

extern crate layercake_node as layercake;

use std::time::{Duration, Instant};

use layercake::{
    AskError, Node, NodeConfig,
    service::{Call, Serve, Service, from_fn},
    wire::payload::{self, Encoding, Fingerprint, Payload},
};
use layercake_macros::{actor, message};

const SOON: Duration = Duration::from_secs(10);

#[message(reply = u32)]
struct Double {
    #[arg(default = 21)]
    number: u32,
}

#[message]
struct Other {}

#[derive(Default)]
struct Doubler;

#[actor]
impl Doubler {
    async fn double(&mut self, Double { number }: Double) -> u32 {
        number * 2
    }
}

async fn double(Double { number }: Double) -> Result<u32, AskError> {
    match number {
        0 => panic!("nothing to double"),
        1 => std::future::pending().await,
        number => Ok(number * 2),
    }
}

fn call(json: &str, limit: Duration) -> Call {
    let bytes = json.to_owned().into();
    let tag = <Double as layercake::Message>::TAG;
    let payload = Payload { tag, encoding: Encoding::Json, bytes };
    Call::new(payload, Fingerprint::NONE, Instant::now() + limit)
}

async fn answer(service: &impl Service, json: &str) -> Result<String, AskError> {
    let reply = service.call(call(json, SOON)).await?;
    assert_eq!(reply.encoding, Encoding::Json);
    Ok(String::from_utf8_lossy(&reply.bytes).into_owned())
}

#[tokio::test]
async fn a_function_answers() {
    let service = from_fn::<Double, _, _>(double);
    assert!(service.is_ready());
    assert_eq!(service.api().messages[0].name, "Double");
    assert_eq!(answer(&service, r#"{"number":4}"#).await, Ok("8".to_owned()));
    assert_eq!(answer(&service, "{}").await, Ok("42".to_owned()));
    // Who knows the type is answered compactly.
    let accept = <Double as layercake::Message>::describe().reply_fingerprint;
    let compact = service.call(Call { accept, ..call("{}", SOON) }).await.expect("a reply");
    assert_eq!(compact.encoding, Encoding::Bincode);
    assert_eq!(payload::decode::<u32>(compact.encoding, &compact.bytes).expect("a number"), 42);
}

#[tokio::test]
async fn a_function_that_panics_waits_or_is_asked_something_else_says_so() {
    let service = from_fn::<Double, _, _>(double);
    assert_eq!(answer(&service, r#"{"number":0}"#).await, Err(AskError::Panicked));
    let late = service.call(call(r#"{"number":1}"#, Duration::from_millis(20))).await;
    assert_eq!(late, Err(AskError::Deadline));
    let odd = answer(&service, r#"{"number":"four"}"#).await;
    assert!(matches!(odd, Err(AskError::Malformed { .. })), "{odd:?}");
    let tag = <Other as layercake::Message>::TAG;
    let mut other = call("{}", SOON);
    other.payload.tag = tag;
    let other = service.call(other).await;
    assert!(matches!(other, Err(AskError::Malformed { .. })), "{other:?}");
}

#[tokio::test]
async fn an_actor_answers_by_its_address_until_it_has_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = NodeConfig { mesh: Some(folder.path().join("mesh")), ..NodeConfig::default() };
    let node = Node::start_with(config).await.expect("a node");
    let running = node.launch(Doubler);
    let address = running.address().clone();
    let service = Serve::<Double>::into_service(address.clone());
    assert_eq!(service.api().messages.len(), 1);
    assert!(service.is_ready());
    assert_eq!(answer(&service, r#"{"number":4}"#).await, Ok("8".to_owned()));
    let joined = Serve::<Double>::into_service(running);
    assert_eq!(answer(&joined, r#"{"number":5}"#).await, Ok("10".to_owned()));
    address.stop();
    node.watch(&address).await;
    assert!(!service.is_ready());
    let stopped = answer(&service, "{}").await;
    assert!(matches!(stopped, Err(AskError::Stopped { .. })), "{stopped:?}");
    node.close().await;
}
