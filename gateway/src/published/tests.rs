use bytes::Bytes;
use layercake_macros::message;
use layercake_node::{Message, testing};
use layercake_wire::id::{ActorAddr, HostId, NodeAddr, NodeId, PeerId};

use super::*;

#[message(reply = u32)]
struct Ping {}

fn record(name: &str, serial: u64, api: &Api) -> Arc<Record> {
    let peer = PeerId { host: HostId::from_bits(1), node: NodeId::from_bits(2) };
    Arc::new(Record {
        name: name.parse().unwrap(),
        scope: Scope::Lan,
        group: None,
        exclusive: false,
        waiting: false,
        address: ActorAddr { node: NodeAddr::new(peer, &[]), serial },
        instance: Instance { host: peer.host, node: peer.node, serial },
        claimed: 0,
        fence: 0,
        meta: Bytes::from(serde_json::to_vec(api).unwrap()),
    })
}

fn service(name: &str, serial: u64) -> Arc<Record> {
    let messages = vec![Ping::describe().clone()];
    record(name, serial, &Api { actor: "Pinger".to_owned(), messages })
}

struct Story {
    node: Node,
    offers: Offers,
    now: Instant,
}

impl Story {
    async fn begin() -> Self {
        let node = testing::alone().await.unwrap();
        Self { node, offers: Offers::default(), now: Instant::now() }
    }

    fn event(&mut self, event: Event) -> bool {
        self.offers.event(event, self.now, |name| self.node.pool_fed(name))
    }

    fn comes(&mut self, record: &Arc<Record>) -> bool {
        self.event(Event::Available(record.clone()))
    }

    fn goes(&mut self, record: &Arc<Record>, reason: DropReason) -> bool {
        self.event(Event::Dropped(record.clone(), reason))
    }

    fn names(&self) -> Vec<String> {
        self.offers.services().iter().map(|named| named.name.to_string()).collect()
    }
}

#[tokio::test]
async fn a_name_is_served_from_its_first_instance_to_its_last() {
    let mut story = Story::begin().await;
    let [one, other] = [service("b", 1), service("b", 2)];
    assert!(story.comes(&one));
    assert!(!story.comes(&other), "more of the same is no change");
    assert!(story.comes(&service("a", 3)));
    assert_eq!(story.names(), ["a", "b"], "in order, whichever came first");
    assert_eq!(story.offers.services()[1].service.api().messages.len(), 1);
    assert!(!story.goes(&one, DropReason::ProcessDied));
    assert!(!story.goes(&one, DropReason::Withdrawn), "it is gone already");
    assert!(story.goes(&other, DropReason::Withdrawn));
    assert_eq!(story.names(), ["a"]);
    assert_eq!(story.offers.expiry(), None);
}

#[tokio::test]
async fn what_was_lost_is_remembered_for_a_while() {
    let mut story = Story::begin().await;
    let record = service("a", 1);
    story.comes(&record);
    assert!(!story.goes(&record, DropReason::HostLost));
    assert_eq!(story.offers.expiry(), Some(story.now + MEMORY));
    let named = &story.offers.services()[0];
    assert!(!named.service.is_ready());
    assert_eq!(named.service.api().messages[0].name, "Ping", "its API is known still");

    // Back in time, it stays.
    story.now += MEMORY / 2;
    assert!(!story.comes(&service("a", 2)));
    assert_eq!(story.offers.expiry(), None);
    assert!(!story.goes(&service("a", 2), DropReason::LinkLost));
    story.now += MEMORY;
    assert!(story.offers.forget(story.now));
    assert_eq!(story.names(), Vec::<String>::new());
}

#[tokio::test]
async fn what_answers_nothing_is_not_served() {
    let mut story = Story::begin().await;
    assert!(!story.comes(&record("a", 1, &Api::default())));
    let strange = Record { meta: Bytes::from_static(b"no api"), ..(*service("a", 2)).clone() };
    assert!(!story.comes(&Arc::new(strange)));
    assert!(!story.goes(&service("a", 2), DropReason::Withdrawn));
    assert_eq!(story.names(), Vec::<String>::new());
}

#[tokio::test]
async fn there_is_an_end_to_the_names() {
    let mut story = Story::begin().await;
    for n in 0..=MAX_NAMES as u64 {
        let is_new = story.comes(&service(&format!("n:{n}"), n));
        assert_eq!(is_new, n < MAX_NAMES as u64, "{n}");
    }
    assert_eq!(story.names().len(), MAX_NAMES);
}
