//! The PROXY protocol, versions 1 and 2: the first bytes of a connection say for whom a proxy made it.
//!
//! Only proxies that are declared are believed, and those have to say it: guessing would let a client
//! that reaches the port by another way pretend to be anybody.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;
/// The most that version 2 may say after its first 16 bytes: addresses, and extensions that are skipped.
const MAX_BLOCK: usize = 4096;

/// Reads what a proxy says, and nothing after it: the client's address, or `None` where the proxy speaks
/// for itself (a health check) or does not know.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    // No header is shorter.
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await?;
    if first == *SIGNATURE {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let size = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if size > MAX_BLOCK {
            return Err(invalid("it is too long"));
        }
        let mut block = vec![0; size];
        stream.read_exact(&mut block).await?;
        return version2(head[0], head[1], &block).map_err(invalid);
    }
    let mut line = first.to_vec();
    while !line.ends_with(b"\r\n") {
        // Nothing of what follows may be taken, so that it is read byte by byte.
        if line.len() == MAX_LINE || !line.starts_with(b"PROXY ") {
            return Err(invalid("there is none"));
        }
        line.push(stream.read_u8().await?);
    }
    version1(&line).map_err(invalid)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY header: {reason}"))
}

/// A whole line, as in `PROXY TCP4 192.0.2.1 192.0.2.9 5000 80`.
fn version1(line: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not ASCII")?;
    let mut words = line.trim_end_matches("\r\n").split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let fields: Vec<_> = words.collect();
    let [source, _destination, port, _its_port] = fields[..] else {
        return Err("it has not four fields");
    };
    let ip: IpAddr = match family {
        Some("TCP4") => source.parse::<Ipv4Addr>().map_err(|_| "its source is no address")?.into(),
        Some("TCP6") => source.parse::<Ipv6Addr>().map_err(|_| "its source is no address")?.into(),
        _ => return Err("its family is not known"),
    };
    let port = port.parse().map_err(|_| "its port is no number")?;
    Ok(Some(SocketAddr::new(ip, port)))
}

/// What follows the signature: version and command, family and transport, the block.
fn version2(command: u8, family: u8, block: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    match command {
        0x20 => return Ok(None), // LOCAL: the proxy itself
        0x21 => {}
        _ => return Err("its version or command is not known"),
    }
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    match family {
        0x11 if block.len() >= 12 => {
            let ip: [u8; 4] = block[..4].try_into().map_err(|_| "it is too short")?;
            Ok(Some((ip, port(8)).into()))
        }
        0x21 if block.len() >= 36 => {
            let ip: [u8; 16] = block[..16].try_into().map_err(|_| "it is too short")?;
            Ok(Some((ip, port(32)).into()))
        }
        0x11 | 0x21 => Err("it is too short"),
        // Unspecified, a Unix socket, UDP: there is no address to make use of.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(bytes: &[u8]) -> (Result<Option<SocketAddr>, io::ErrorKind>, Vec<u8>) {
        let mut rest = bytes;
        let found = read(&mut rest).await.map_err(|e| e.kind());
        (found, rest.to_vec())
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let size = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &size, block, b"GET /"].concat()
    }

    #[tokio::test]
    async fn each_version_tells_the_client_and_leaves_the_request() {
        let four: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let six: SocketAddr = "[2001:db8::7]:5000".parse().unwrap();
        let mut block6 = vec![0x20, 0x01, 0x0d, 0xb8];
        block6.extend([0; 11]);
        block6.push(7);
        block6.extend([0; 16]);
        block6.extend([0x13, 0x88, 0, 80, 0xee, 0, 1, 9]); // ports, and an extension
        let table = [
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 5000 80\r\nGET /".to_vec(), Some(four)),
            (b"PROXY TCP6 2001:db8::7 ::1 5000 80\r\nGET /".to_vec(), Some(six)),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), None),
            (b"PROXY UNKNOWN ff:: 1 2 3\r\nGET /".to_vec(), None),
            (v2(0x21, 0x11, &[192, 0, 2, 1, 192, 0, 2, 9, 0x13, 0x88, 0, 80]), Some(four)),
            (v2(0x21, 0x21, &block6), Some(six)),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ];
        for (bytes, client) in table {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(said(&bytes).await, (Ok(client), b"GET /".to_vec()), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let table: [(Vec<u8>, _); 9] = [
            (b"GET /Xy HTTP/1.1\r\n\r\n".to_vec(), InvalidData),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 5000\r\n".to_vec(), InvalidData),
            (b"PROXY TCP4 2001:db8::7 ::1 5000 80\r\n".to_vec(), InvalidData),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 70000 80\r\n".to_vec(), InvalidData),
            (b"PROXY TCP4 192.0.2.1".to_vec(), UnexpectedEof),
            (long, InvalidData),
            (v2(0x21, 0x11, &[192, 0, 2, 1]), InvalidData),
            (v2(0x31, 0x11, &[0; 12]), InvalidData),
            (v2(0x21, 0x11, &[0; MAX_BLOCK + 1]), InvalidData),
        ];
        for (bytes, kind) in table {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(said(&bytes).await.0, Err(kind), "{text}");
        }
    }
}
