use layercake_wire::payload::{self, Encoding};

use super::*;
use crate::testing::{peer, record};

fn node(number: u64) -> NetworkNode {
    NetworkNode {
        node: NodeId::from_bits(number),
        about: About::default(),
        group: None,
        directory: false,
        answered: true,
        addresses: Vec::new(),
        published: Vec::new(),
        subscribed: Vec::new(),
        sessions: Vec::new(),
        troubles: Vec::new(),
        story: String::new(),
    }
}

fn published(node: &mut NetworkNode, name: &str, scope: Scope, exclusive: bool, since: u64) {
    let serial = node.published.len() as u64;
    let record = record(peer(1, node.node.to_bits()), serial, name, scope);
    node.published.push((&Record { exclusive, claimed: since, ..record }).into());
}

fn subscribed(node: &mut NetworkNode, pattern: &str, scope: Scope) {
    let id = node.subscribed.len() as u64;
    let pattern = Pattern::new(pattern).unwrap();
    node.subscribed.push(NetworkSubscription::new(id, &pattern, scope));
}

fn host(number: u64, nodes: Vec<NetworkNode>) -> NetworkHost {
    NetworkHost {
        host: HostId::from_bits(number),
        name: format!("rack{number}"),
        state: if number == 1 { HostState::Here } else { HostState::Up },
        since: 1000,
        trouble: None,
        addresses: vec![([10, 0, 0, 1], 7).into()],
        nodes,
        omitted: 0,
    }
}

fn network(hosts: Vec<NetworkHost>) -> Network {
    Network { at: 5000, here: HostId::from_bits(1), hosts }
}

/// The names that a network's routes lead to, with node and distance.
fn found(network: &Network) -> Vec<(String, u64, Scope)> {
    let routes = network.routes();
    routes.into_iter().map(|r| (r.name.to_string(), r.to_node.to_bits(), r.distance)).collect()
}

#[test]
fn routes_go_as_far_as_both_scopes() {
    let (mut a, mut b, mut c) = (node(11), node(12), node(21));
    subscribed(&mut a, "x:.*", Scope::Host);
    published(&mut a, "x:own", Scope::Process, false, 1);
    for other in [&mut b, &mut c] {
        published(other, "x:far", Scope::Lan, false, 1);
        published(other, "x:near", Scope::Host, false, 1);
        published(other, "x:own", Scope::Process, false, 1);
        published(other, "y", Scope::Lan, false, 1);
    }
    let mut mesh = network(vec![host(1, vec![a, b]), host(2, vec![c])]);
    let near = [
        ("x:own".to_owned(), 11, Scope::Process),
        ("x:far".to_owned(), 12, Scope::Host),
        ("x:near".to_owned(), 12, Scope::Host),
    ];
    assert_eq!(found(&mesh), near);
    mesh.hosts[0].nodes[0].subscribed[0].scope = Scope::Lan;
    let far = [&near[..], &[("x:far".to_owned(), 21, Scope::Lan)]].concat();
    assert_eq!(found(&mesh), far);
}

#[test]
fn a_group_is_nearer_than_the_host_and_ends_with_it() {
    let nodes = [11, 12, 13, 21].map(|number| {
        let mut node = node(number);
        published(&mut node, "x", Scope::Group, false, 1);
        node.group = (number != 13).then(|| Group::new("home").unwrap());
        node
    });
    let [mut a, b, c, d] = nodes;
    subscribed(&mut a, "x", Scope::Lan);
    let mesh = network(vec![host(1, vec![a, b, c]), host(2, vec![d])]);
    let expected = [("x".to_owned(), 11, Scope::Process), ("x".to_owned(), 12, Scope::Group)];
    assert_eq!(found(&mesh), expected);
}

#[test]
fn of_an_exclusive_name_the_nearest_holder_is_found_then_the_older() {
    let (mut a, mut b, mut c) = (node(11), node(21), node(31));
    subscribed(&mut a, "lead", Scope::Lan);
    published(&mut b, "lead", Scope::Lan, true, 9);
    published(&mut c, "lead", Scope::Lan, true, 3);
    let mut mesh = network(vec![host(1, vec![a]), host(2, vec![b]), host(3, vec![c])]);
    assert_eq!(found(&mesh), [("lead".to_owned(), 31, Scope::Lan)]);
    let mut near = node(12);
    published(&mut near, "lead", Scope::Host, true, 20);
    mesh.hosts[0].nodes.push(near);
    assert_eq!(found(&mesh), [("lead".to_owned(), 12, Scope::Host)]);
}

#[test]
fn what_does_not_fit_is_counted_and_nodes_come_first() {
    let mut answer = HostAnswer::default();
    for number in 0..10 {
        let mut node = node(number);
        for _ in 0..100 {
            published(&mut node, "textures:worker", Scope::Lan, false, 1);
        }
        answer.nodes.push(node);
    }
    let all = answer.clone();
    answer.fit(1 << 20);
    assert_eq!(answer, all, "there is room");
    answer.fit(20_000);
    assert_eq!(answer.nodes.len(), 10);
    let listed: usize = answer.nodes.iter().map(|node| node.published.len()).sum();
    assert_eq!(listed + answer.omitted, 1000);
    assert!(listed > 100, "{listed}");
    assert!(payload::encode(Encoding::Bincode, &answer).unwrap().len() < 20_000);
    answer.fit(500);
    assert!(answer.nodes.len() < 10);
    assert_eq!(answer.omitted, 1010 - answer.nodes.len());
}

#[test]
fn people_read_ids_and_words_where_directories_send_numbers() {
    let mut a = node(0x02bc << 48);
    published(&mut a, "a", Scope::Lan, false, 1);
    a.about = About { program: "cook".to_owned(), pid: 7, ..About::default() };
    let mesh = network(vec![host(1, vec![a])]);
    let json = serde_json::to_value(&mesh).unwrap();
    assert_eq!(json["here"], "0000000000000001");
    let host = &json["hosts"][0];
    assert_eq!((&host["state"], &host["name"]), (&"here".into(), &"rack1".into()));
    assert_eq!(host["nodes"][0]["node"], "02bc000000000000");
    assert_eq!(host["nodes"][0]["published"][0]["scope"], "lan");
    assert_eq!(serde_json::from_value::<Network>(json).unwrap(), mesh);
    let bytes = payload::encode(Encoding::Bincode, &mesh).unwrap();
    assert!(bytes.len() < 120, "{}", bytes.len());
    assert_eq!(payload::decode::<Network>(Encoding::Bincode, &bytes).unwrap(), mesh);

    let event = NetworkEvent {
        event: NetworkChange::NodeGone,
        node: Some(NodeId::from_bits(9)),
        reason: Some("process died".to_owned()),
        ..NetworkEvent::missed(HostId::from_bits(1))
    };
    let json = serde_json::to_value(&event).unwrap();
    assert_eq!((&json["event"], &json["node"]), (&"node_gone".into(), &"0000000000000009".into()));
    assert_eq!(json["name"], serde_json::Value::Null);
    assert_eq!(serde_json::from_value::<NetworkEvent>(json).unwrap(), event);
}

#[test]
fn what_a_process_says_of_itself_is_short_and_has_no_control_characters() {
    let about = About {
        program: format!("a\u{1b}[31m{}", "ü".repeat(100)),
        user: "root".to_owned(),
        ..About::default()
    };
    let trimmed = about.trimmed();
    assert!(trimmed.program.len() <= MAX_ABOUT && trimmed.program.starts_with("a[31mü"));
    assert_eq!(trimmed.user, "root");
}
