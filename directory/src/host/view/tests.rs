//! One host directory, asked by its nodes and by others.

use layercake_wire::id::NodeAddr;

use super::*;
use crate::{
    message::MAX_PART,
    network::{About, Session, Transport},
    testing::{host_config, peer},
    trouble::Trouble,
};

const T0: Duration = Duration::ZERO;
const WALL: u64 = 1_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Host 1 with the nodes 1 and 2, and a link to host 2.
fn directory() -> HostCore {
    let mut core = HostCore::new(host_config(), T0);
    core.start_lan(NodeAddr::new(peer(1, 1), &[([10, 0, 0, 1], 7).into()]), T0);
    for node in [1, 2] {
        let pid = u32::try_from(node).unwrap();
        let about = About { program: "cook".to_owned(), pid, ..About::default() };
        for message in [
            ToHost::Register { group: None, before: None },
            ToHost::About(about),
            ToHost::Registered,
        ] {
            says(&mut core, node, message);
        }
    }
    let addr = NodeAddr::new(peer(2, 9), &[([10, 0, 0, 2], 7).into()]);
    let hello =
        ToPeer::Hello { incarnation: 5, renewal: 0, addr, host_name: "two".to_owned(), met: false };
    core.on_peer(peer(2, 9), hello, T0, &mut Vec::new());
    core
}

fn says(core: &mut HostCore, node: u64, message: ToHost) -> Vec<Effect> {
    let mut out = Vec::new();
    core.on_node(peer(1, node).node, message, T0, WALL, &mut out);
    out
}

fn hears(core: &mut HostCore, message: ToPeer) -> Vec<Effect> {
    let mut out = Vec::new();
    core.on_peer(peer(2, 9), message, T0, &mut out);
    out
}

fn on_time(core: &mut HostCore, now: Duration) -> Vec<Effect> {
    let mut out = Vec::new();
    core.on_time(now, &mut out);
    out
}

/// The rounds in which nodes were asked.
fn asked(out: &[Effect]) -> Vec<(u64, u64)> {
    let asked = |effect: &Effect| match effect {
        Effect::ToNode { node, message: ToNode::Tell(round) } => Some((node.to_bits(), *round)),
        _ => None,
    };
    out.iter().filter_map(asked).collect()
}

/// The round in which the other host was asked.
fn surveyed(out: &[Effect]) -> Option<u64> {
    out.iter().find_map(|effect| match effect {
        Effect::ToPeer { message: ToPeer::Survey { round, .. }, .. } => Some(*round),
        _ => None,
    })
}

/// What a node was shown.
fn shown(out: &[Effect], node: u64) -> Option<Network> {
    let mut bytes = Vec::new();
    for effect in out {
        if let Effect::ToNode { node: to, message: ToNode::Network { part, last, .. } } = effect
            && *to == peer(1, node).node
        {
            bytes.extend_from_slice(part);
            if *last {
                return payload::decode(Encoding::Bincode, &bytes).ok();
            }
        }
    }
    None
}

fn told(links: usize) -> NodeAnswer {
    let link = Session {
        host: peer(1, 1).host,
        node: peer(1, 1).node,
        transport: Transport::Unix,
        dialled: true,
        remote: None,
        since: 3,
        sent: 4,
        received: 5,
        messages_sent: 1,
        messages_received: 1,
    };
    NodeAnswer { sessions: vec![link; links], ..NodeAnswer::default() }
}

fn answer(nodes: usize) -> Bytes {
    let node = NetworkNode {
        node: peer(2, 9).node,
        about: About::default(),
        group: None,
        directory: true,
        answered: true,
        addresses: Vec::new(),
        published: Vec::new(),
        subscribed: Vec::new(),
        sessions: Vec::new(),
        troubles: Vec::new(),
        story: String::new(),
    };
    let all = HostAnswer { nodes: vec![node; nodes], omitted: 0 };
    payload::encode(Encoding::Bincode, &all).unwrap()
}

#[test]
fn all_are_asked_at_once_and_the_last_answer_completes_the_picture() {
    let mut core = directory();
    says(&mut core, 2, ToHost::Network(77));
    assert_eq!(core.next_deadline(), Some(T0), "now");
    let out = on_time(&mut core, ms(50));
    assert_eq!(asked(&out), [(1, 1), (2, 1)]);
    let round = surveyed(&out).unwrap();
    for node in [1, 2] {
        says(&mut core, node, ToHost::Told { round: 1, answer: told(1) });
    }
    on_time(&mut core, ms(51));
    for (part, last) in [(answer(1).slice(..5), false), (answer(1).slice(5..), true)] {
        hears(&mut core, ToPeer::Surveyed { round, part, last });
    }
    let network = shown(&on_time(&mut core, ms(60)), 2).unwrap();
    assert!(network.missing().next().is_none());
    assert_eq!(network.at, WALL + 10, "by the clock of who asked");
    assert_eq!(network.nodes().count(), 3);
    let node = &network.hosts[0].nodes[1];
    assert_eq!((node.about.pid, node.answered, node.sessions.len()), (2, true, 1));
    assert_eq!(network.hosts[1].name, "two");
}

#[test]
fn who_does_not_answer_is_shown_as_such_in_time() {
    let mut core = directory();
    says(&mut core, 2, ToHost::Network(77));
    on_time(&mut core, ms(0));
    says(&mut core, 2, ToHost::Told { round: 1, answer: told(1) });
    assert_eq!(shown(&on_time(&mut core, ms(400)), 2), None);
    let network = shown(&on_time(&mut core, ms(1000)), 2).unwrap();
    let answered: Vec<_> = network.hosts[0].nodes.iter().map(|node| node.answered).collect();
    assert_eq!(answered, [false, true]);
    assert_eq!(network.hosts[1].state, HostState::Silent);
    assert_eq!(network.hosts[1].since, WALL, "when it was last heard");
}

#[test]
fn nobody_can_tell_more_than_there_is_room_for_nor_unasked() {
    let mut core = directory();
    let part = answer(1);
    hears(&mut core, ToPeer::Surveyed { round: 1, part, last: true });
    says(&mut core, 2, ToHost::Told { round: 1, answer: told(1) });
    says(&mut core, 2, ToHost::Network(77));
    let round = surveyed(&on_time(&mut core, ms(0))).unwrap();
    for node in [1, 2] {
        says(&mut core, node, ToHost::Told { round: 1, answer: told(5000) });
    }
    // More and more, and never the last.
    for _ in 0..40 {
        let part = vec![0; MAX_PART].into();
        hears(&mut core, ToPeer::Surveyed { round, part, last: false });
        assert!(core.view.parts.values().map(BytesMut::len).sum::<usize>() < 3 * MAX_ANSWER);
    }
    let mut out = on_time(&mut core, ms(1));
    out.extend(on_time(&mut core, ms(2)));
    let network = shown(&out, 2).expect("it is not waited for");
    assert_eq!(network.hosts[1].state, HostState::Silent);
    assert_eq!(network.hosts[0].nodes[0].sessions.len(), 1024);
    assert_eq!(network.hosts[0].omitted, 2 * (5000 - 1024));
}

#[test]
fn another_host_is_told_of_the_nodes_here() {
    let mut core = directory();
    let mut out = Vec::new();
    for (number, room) in [(1, 1 << 20), (2, 10)] {
        // Only the last question of a host counts.
        for again in [300, 0] {
            hears(&mut core, ToPeer::Survey { round: again + number, room });
        }
        assert_eq!(asked(&on_time(&mut core, ms(number))).len(), 2);
        for node in [1, 2] {
            says(&mut core, node, ToHost::Told { round: number, answer: told(1) });
        }
        out.extend(on_time(&mut core, ms(number)));
    }
    let answers = out.iter().filter_map(|effect| match effect {
        Effect::ToPeer { peer, message: ToPeer::Surveyed { round, part, last: true } } => {
            assert_eq!(peer.host, HostId::from_bits(2));
            let answer: HostAnswer = payload::decode(Encoding::Bincode, part).unwrap();
            Some((*round, answer.nodes.len(), answer.omitted))
        }
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(1, 2, 0), (2, 0, 4)]);
}

#[test]
fn a_ping_goes_to_the_directory_there_and_to_a_node_there() {
    let mut core = directory();
    let pong = |request, reached| Effect::ToNode {
        node: peer(1, 2).node,
        message: ToNode::Pong { request, reached },
    };
    let ping = |host: u64, node: Option<u64>| ToHost::Ping {
        request: host * 10,
        host: HostId::from_bits(host),
        node: node.map(NodeId::from_bits),
    };
    assert_eq!(says(&mut core, 2, ping(1, None)), [pong(10, true)]);
    assert_eq!(says(&mut core, 2, ping(1, Some(8))), [pong(10, false)], "no such node");
    assert_eq!(says(&mut core, 2, ping(3, None)), [pong(30, false)], "no such host");
    let out = says(&mut core, 2, ping(2, Some(9)));
    let [Effect::ToPeer { message: ToPeer::Ping { number, node: Some(_) }, .. }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(hears(&mut core, ToPeer::Pong { number: number + 1, reached: true }), []);
    let answer = ToPeer::Pong { number, reached: true };
    assert_eq!(hears(&mut core, answer.clone()), [pong(20, true)]);
    assert_eq!(hears(&mut core, answer), [], "once");
    // The other way round: a node here is asked for the directory there.
    let out = hears(&mut core, ToPeer::Ping { number: 5, node: Some(peer(1, 1).node) });
    let [Effect::ToNode { message: ToNode::Ping(asked), .. }] = out[..] else { panic!("{out:?}") };
    assert_eq!(says(&mut core, 2, ToHost::Pong(asked)), [], "it was not asked");
    let out = says(&mut core, 1, ToHost::Pong(asked));
    let answer = ToPeer::Pong { number: 5, reached: true };
    assert_eq!(out, [Effect::ToPeer { peer: peer(2, 9), message: answer }]);
}

#[test]
fn hosts_that_have_gone_are_shown_for_a_while_and_not_too_many() {
    let mut core = directory();
    for host in 100..300 {
        let them = peer(host, 1);
        let addr = NodeAddr::new(them, &[]);
        let hello = ToPeer::Hello {
            incarnation: 1,
            renewal: 0,
            addr,
            host_name: String::new(),
            met: false,
        };
        let now = Duration::from_secs(host);
        core.on_peer(them, hello, now, &mut Vec::new());
        core.on_peer(them, ToPeer::Bye, now, &mut Vec::new());
    }
    let left = |core: &HostCore, now: u64| {
        let network = core.network(BTreeMap::new(), Duration::from_secs(now));
        let left = network.hosts.iter().filter(|host| host.state == HostState::Left);
        left.map(|host| host.host.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(left(&core, 300), (236..300).collect::<Vec<_>>(), "the last ones");
    assert_eq!(left(&core, 890), (291..300).collect::<Vec<_>>(), "of ten minutes");
}

#[test]
fn why_a_host_is_not_reached_is_what_the_directory_says_that_tries() {
    let mut core = directory();
    let host = HostId::from_bits(3);
    core.on_hint(crate::dial::Target::Host(host), &[([10, 0, 0, 3], 7).into()], T0);
    says(&mut core, 2, ToHost::Network(77));
    on_time(&mut core, ms(0));
    let dial = Trouble {
        kind: TroubleKind::Dial,
        about: host.to_string(),
        why: "no answer".to_owned(),
        since_ms: 1,
        last_ms: 2,
    };
    let answer = NodeAnswer { troubles: vec![dial.clone(); 1000], ..told(0) };
    says(&mut core, 1, ToHost::Told { round: 1, answer });
    let network = shown(&on_time(&mut core, ms(1000)), 2).unwrap();
    assert_eq!(network.hosts[0].nodes[0].troubles, vec![dial; 64]);
    let unmet = network.hosts.iter().find(|shown| shown.host == host).unwrap();
    assert_eq!(unmet.state, HostState::NeverReached);
    assert_eq!(unmet.trouble.as_deref(), Some("no answer"));
}
