//! For `tests/hosts_flood.rs`: somebody on the network who announces hosts that do not exist, as fast as
//! may be.
//!
//! `flood MESH HOST SECONDS RATE`: so many multicast packets a second, each an announcement by the rules
//! of mDNS. Every second one is of a host nobody has heard of, the others claim that HOST of that mesh is at
//! another address. All addresses are within 198.18.0.0/15, which is nobody's.

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;
const A: u16 = 1;

fn name(labels: &[&str], out: &mut Vec<u8>) {
    for label in labels {
        out.push(u8::try_from(label.len()).expect("a label is short"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

fn record(owner: &[&str], kind: u16, class: u16, data: &[u8], out: &mut Vec<u8>) {
    name(owner, out);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&4500_u32.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
    out.extend_from_slice(data);
}

/// One forged announcement: a pointer, a service, its text and an address.
fn announcement(mesh: &str, host: &str, number: u32) -> Vec<u8> {
    let service = ["_layercake", "_udp", "local"];
    let id = format!("{:016x}", u64::from(number) << 16 | 0xbad);
    let instance = [&*id, service[0], service[1], service[2]];
    let server = [&*id, "local"];
    // A response, authoritative, with four answers.
    let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let mut data = Vec::new();
    name(&instance, &mut data);
    record(&service, PTR, 1, &data, &mut packet);
    data.clear();
    data.extend_from_slice(&[0, 0, 0, 0]);
    data.extend_from_slice(&54195_u16.to_be_bytes());
    name(&server, &mut data);
    record(&instance, SRV, 0x8001, &data, &mut packet);
    data.clear();
    for text in [format!("mesh={mesh}"), format!("host={host}"), format!("node={id}")] {
        data.push(u8::try_from(text.len()).expect("short"));
        data.extend_from_slice(text.as_bytes());
    }
    record(&instance, TXT, 0x8001, &data, &mut packet);
    let [_, b, c, d] = number.to_be_bytes();
    record(&server, A, 0x8001, &[198, 18 + (b & 1), c, d], &mut packet);
    packet
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [mesh, host, seconds, rate] = &arguments[..] else {
        eprintln!("usage: flood MESH HOST SECONDS RATE");
        return ExitCode::FAILURE;
    };
    let (Ok(seconds), Ok(rate)) = (seconds.parse::<u64>(), rate.parse::<u32>()) else {
        eprintln!("seconds and rate are numbers");
        return ExitCode::FAILURE;
    };
    let socket = match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, GROUP.1)) {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("cannot open the port of mDNS: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (start, mut sent) = (Instant::now(), 0_u32);
    println!("flooding");
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = start.elapsed().as_secs_f64() * f64::from(rate);
        while f64::from(sent) < due {
            sent += 1;
            let forged = format!("{:016x}", u64::from(sent) << 20 | 0xf00d);
            let host = if sent.is_multiple_of(2) { host } else { &forged };
            let _ = socket.send_to(&announcement(mesh, host, sent), GROUP);
        }
        // A rate is what it keeps to.
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("sent {sent}");
    ExitCode::SUCCESS
}
