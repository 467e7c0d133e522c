//! The shape of etcd's JSON: 64-bit numbers are text, zero and false are left out, bytes are base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::core::{Change, Condition, Event, Outcome, Pair, Step, Stepped, Txn};

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
}

/// The answer about a lease; without an id, it was not granted, and without a time it is no more.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct LeaseAnswer {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: u64,
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RangeAnswer {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
}

/// One line of a stream.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<T> {
    Result(T),
    Error(Trouble),
}

/// What etcd says when something is wrong.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Trouble {
    pub(super) message: String,
    pub(super) error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WatchAnswer {
    pub(super) header: Header,
    pub(super) created: bool,
    pub(super) canceled: bool,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: u64,
    pub(super) cancel_reason: String,
    /// More of the same revision follows.
    pub(super) fragment: bool,
    pub(super) events: Vec<WatchEvent>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WatchEvent {
    #[serde(rename = "type")]
    kind: String,
    kv: KeyValue,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "base64")]
    key: Bytes,
    #[serde(deserialize_with = "base64")]
    value: Bytes,
    #[serde(deserialize_with = "number")]
    create_revision: u64,
    #[serde(deserialize_with = "number")]
    mod_revision: u64,
    #[serde(deserialize_with = "number")]
    lease: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct TxnAnswer {
    header: Header,
    succeeded: bool,
    responses: Vec<Response>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    response_delete_range: Option<Deleted>,
    response_range: Option<RangeAnswer>,
    response_txn: Option<Box<TxnAnswer>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Deleted {
    #[serde(deserialize_with = "number")]
    deleted: u64,
}

impl From<KeyValue> for Pair {
    fn from(kv: KeyValue) -> Self {
        let KeyValue { key, value, create_revision, mod_revision, lease } = kv;
        Self { key, value, created: create_revision, modified: mod_revision, lease }
    }
}

impl From<WatchEvent> for Event {
    fn from(event: WatchEvent) -> Self {
        Self { pair: event.kv.into(), deleted: event.kind == "DELETE" }
    }
}

impl From<TxnAnswer> for Outcome {
    fn from(answer: TxnAnswer) -> Self {
        let revision = answer.header.revision;
        let steps = answer.responses.into_iter().map(stepped);
        Self { revision, steps: answer.succeeded.then(|| steps.collect()) }
    }
}

fn stepped(response: Response) -> Stepped {
    if let Some(txn) = response.response_txn {
        let inner = txn.responses.into_iter().next().unwrap_or_default();
        if txn.succeeded {
            return stepped(inner);
        }
        let pair = inner.response_range.and_then(|range| range.kvs.into_iter().next());
        return Stepped::LeftOut(pair.map(Pair::from));
    }
    Stepped::Done(response.response_delete_range.is_none_or(|range| range.deleted > 0))
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// All keys that begin so, from `start` on.
pub(super) fn range(prefix: &str, start: &[u8], limit: usize, revision: u64) -> Value {
    json!({
        "key": encode(start),
        "range_end": encode(after(prefix)),
        "limit": limit.to_string(),
        "revision": revision.to_string(),
    })
}

pub(super) fn watch(prefix: &str, start: u64) -> Value {
    json!({ "create_request": {
        "key": encode(prefix),
        "range_end": encode(after(prefix)),
        "start_revision": start.to_string(),
        "fragment": true,
    } })
}

pub(super) fn txn(txn: &Txn) -> Value {
    let steps: Vec<_> = txn.steps.iter().map(step).collect();
    json!({ "compare": [condition(&txn.only_if)], "success": steps })
}

fn step(step: &Step) -> Value {
    let change = match &step.change {
        Change::Put { key, value, lease } => json!({ "request_put": {
            "key": encode(key), "value": encode(value), "lease": lease.to_string(),
        } }),
        Change::Delete { key } => json!({ "request_delete_range": { "key": encode(key) } }),
    };
    let Some(only_if) = &step.only_if else { return change };
    json!({ "request_txn": {
        "compare": [condition(only_if)],
        "success": [change],
        "failure": [{ "request_range": { "key": encode(&only_if.key) } }],
    } })
}

fn condition(condition: &Condition) -> Value {
    let Condition { key, modified } = condition;
    json!({
        "target": "MOD", "result": "EQUAL",
        "key": encode(key), "mod_revision": modified.to_string(),
    })
}

/// The first key that does not begin so. Our prefixes end with a slash.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// A number that may be text. Ids may be negative to etcd; to us they are bits.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::String(text) => {
            text.parse().ok().or_else(|| text.parse::<i64>().ok().map(i64::cast_unsigned))
        }
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    number.ok_or_else(|| serde::de::Error::custom(format_args!("`{value}` is no number")))
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_read_as_etcd_answers_it() {
        // As etcd 3.4 said it.
        let text = r#"{"header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952",
            "revision":"2","raft_term":"2"},"succeeded":true,"responses":[
            {"response_put":{"header":{"revision":"2"}}},
            {"response_delete_range":{"header":{"revision":"2"}}},
            {"response_txn":{"header":{},"succeeded":true,"responses":[
                {"response_delete_range":{"header":{"revision":"2"},"deleted":"1"}}]}},
            {"response_txn":{"header":{},"responses":[{"response_range":{"header":{"revision":"2"},
                "kvs":[{"key":"L2Evbg==","create_revision":"2","mod_revision":"2","version":"1",
                "value":"dg==","lease":"2324035610289582343"}],"count":"1"}}]}},
            {"response_txn":{"header":{},"responses":[{"response_range":{"header":{"revision":"2"}}}]}}
        ]}"#;
        let pair = Pair {
            key: "/a/n".into(),
            value: "v".into(),
            created: 2,
            modified: 2,
            lease: 2_324_035_610_289_582_343,
        };
        let steps = vec![
            Stepped::Done(true),
            Stepped::Done(false),
            Stepped::Done(true),
            Stepped::LeftOut(Some(pair)),
            Stepped::LeftOut(None),
        ];
        let outcome: Outcome = serde_json::from_str::<TxnAnswer>(text).unwrap().into();
        assert_eq!(outcome, Outcome { revision: 2, steps: Some(steps) });
        let failed = r#"{"header":{"revision":"7"},"responses":[]}"#;
        let outcome: Outcome = serde_json::from_str::<TxnAnswer>(failed).unwrap().into();
        assert_eq!(outcome, Outcome { revision: 7, steps: None });
    }

    #[test]
    fn a_line_of_a_watch_is_a_result_or_an_error() {
        let text = r#"{"result":{"header":{"revision":"3"},"events":[
            {"kv":{"key":"YQ==","mod_revision":"2","create_revision":"2","value":"dg=="}},
            {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"3"}}]}}"#;
        let Ok(Line::Result(answer)) = serde_json::from_str::<Line<WatchAnswer>>(text) else {
            panic!("no result");
        };
        let events: Vec<Event> = answer.events.into_iter().map(Event::from).collect();
        assert_eq!(events.iter().map(|e| e.deleted).collect::<Vec<_>>(), [false, true]);
        let text =
            r#"{"error":{"grpc_code":14,"http_code":503,"message":"gone","http_status":"x"}}"#;
        let Ok(Line::Error(trouble)) = serde_json::from_str::<Line<WatchAnswer>>(text) else {
            panic!("no error");
        };
        assert_eq!(trouble.message, "gone");
        assert!(serde_json::from_str::<Line<WatchAnswer>>("{}").is_err());
        let wrong = r#"{"result":{"header":{"revision":"x"}}}"#;
        assert!(serde_json::from_str::<Line<WatchAnswer>>(wrong).is_err());
    }
}
