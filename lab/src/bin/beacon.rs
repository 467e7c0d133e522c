//! A multicast sender and a listener, for the lab's own tests: `beacon send ADDRESS` and
//! `beacon listen ADDRESS`, with the address of the host it runs on.

use std::{
    env,
    error::Error,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);

/// Greetings before the sender ends by itself, 20 per second.
const GREETINGS_MAX: u32 = 600;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", address] => send(address),
        ["listen", address] => listen(address),
        _ => Err("usage: layercake-lab-beacon send|listen ADDRESS".into()),
    };
    if let Err(cause) = outcome {
        eprintln!("error: {cause}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn send(address: &str) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    for _ in 0..GREETINGS_MAX {
        // A blocked or unplugged network is what some tests are about: go on.
        let _ = socket.send_to(address.as_bytes(), GROUP);
        // A pace, not a wait: nobody answers.
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn listen(address: &str) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind(("0.0.0.0", GROUP.port()))?;
    socket.join_multicast_v4(GROUP.ip(), &address.parse()?)?;
    println!("listening");
    let mut greeting = [0; 64];
    loop {
        let (len, _) = socket.recv_from(&mut greeting)?;
        println!("heard {}", String::from_utf8_lossy(&greeting[..len]));
    }
}
