//! Who a request is from: the address that counts, and the identity by which clients are treated alike.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use http::{HeaderMap, HeaderName, header};

/// Addresses that begin with the same bits, written `10.0.0.0/8`, or as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u128,
    mask: u128,
}

/// The text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no range of addresses: write ADDRESS or ADDRESS/BITS, as in `10.0.0.0/8`")]
pub struct NoCidr(String);

impl Cidr {
    /// Whether the address is one of them. An IPv4 address is the same whether it came over an IPv4 or an
    /// IPv6 socket.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        bits(ip) & self.mask == self.base
    }
}

/// An address in 128 bits; IPv4 as the part of IPv6 that is kept for it.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl FromStr for Cidr {
    type Err = NoCidr;

    fn from_str(text: &str) -> Result<Self, NoCidr> {
        let wrong = || NoCidr(text.chars().take(64).collect());
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse::<u32>().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
            None => most,
        };
        let mask = u128::MAX.checked_shl(most - length).unwrap_or(0);
        // For IPv4 the bits before the address belong to the range as well; 0.0.0.0/0 is all of IPv4.
        Ok(Self { base: bits(ip) & mask, mask })
    }
}

/// Who a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// The address.
    pub(crate) ip: IpAddr,
    /// The same for all requests of one client, and for no other's.
    pub(crate) key: u64,
}

/// How clients are told apart.
pub(super) struct Clients {
    proxies: Vec<Cidr>,
    header: Option<HeaderName>,
    hasher: RandomState,
}

impl Clients {
    pub(super) fn new(proxies: Vec<Cidr>, header: Option<HeaderName>) -> Self {
        Self { proxies, header, hasher: RandomState::new() }
    }

    /// The client of a request that came over a connection from `peer`.
    pub(super) fn of(&self, peer: SocketAddr, headers: &HeaderMap) -> Client {
        let ip = self.address(peer.ip(), headers).to_canonical();
        let named = self.header.as_ref().and_then(|name| headers.get(name));
        let key = match (named, ip) {
            (Some(name), _) => self.key(name.as_bytes()),
            (None, IpAddr::V4(ip)) => self.hasher.hash_one((4_u8, ip.to_bits())),
            // What one household or machine is given as a rule: whoever has it has all of its addresses.
            (None, IpAddr::V6(ip)) => self.hasher.hash_one((6_u8, ip.to_bits() >> 64)),
        };
        Client { ip, key }
    }

    /// The identity of who names itself so.
    pub(super) fn key(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one((1_u8, name))
    }

    /// What declared proxies say, from the last one backwards, up to the first address that is not one
    /// of theirs: what comes before it anybody may have written.
    fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |ip: IpAddr| self.proxies.iter().any(|proxy| proxy.contains(ip));
        if !trusted(peer) {
            return peer;
        }
        let name: HeaderName = header::FORWARDED;
        let (name, of) = match headers.contains_key(&name) {
            true => (name, forwarded as fn(&str) -> Option<IpAddr>),
            false => (HeaderName::from_static("x-forwarded-for"), node as _),
        };
        let mut last = peer;
        let values: Vec<_> = headers.get_all(name).iter().collect();
        for value in values.iter().rev() {
            let Ok(value) = value.to_str() else { return last };
            for element in value.rsplit(',') {
                // A proxy that hides or garbles what it knows is as far as one can see.
                let Some(ip) = of(element.trim()) else { return last };
                last = ip;
                if !trusted(ip) {
                    return ip;
                }
            }
        }
        last
    }
}

/// The `for` of one element of `Forwarded` (RFC 7239).
fn forwarded(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("for") {
            return None;
        }
        node(value.trim().trim_matches('"'))
    })
}

/// An address, which may have a port: `192.0.2.1:80`, `[2001:db8::7]:80`, `2001:db8::7`.
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, _port) = rest.split_once(']')?;
        return ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let (ip, _port) = text.split_once(':')?;
    ip.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_range_contains_what_begins_alike() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("::/0", "203.0.113.9", true),
        ];
        for (range, ip, inside) in table {
            let cidr: Cidr = range.parse().unwrap();
            assert_eq!(cidr.contains(ip.parse().unwrap()), inside, "{ip} in {range}");
        }
        for wrong in ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "door/8", "10.0.0/8"]
        {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    fn ip_of(peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let clients = Clients::new(vec!["10.0.0.0/8".parse().unwrap()], None);
        let headers = headers
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect();
        clients.of(SocketAddr::new(peer.parse().unwrap(), 1), &headers).ip.to_string()
    }

    #[test]
    fn only_declared_proxies_are_believed() {
        let x = "x-forwarded-for";
        type Given = [(&'static str, &'static str)];
        let table: [(&str, &Given, &str); 10] = [
            ("203.0.113.9", &[(x, "192.0.2.1")], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(x, "192.0.2.1")], "192.0.2.1"),
            // What a client wrote itself stands before what the first proxy saw.
            ("10.0.0.1", &[(x, "198.51.100.1, 192.0.2.1, 10.0.0.2")], "192.0.2.1"),
            ("10.0.0.1", &[(x, "198.51.100.1"), (x, "192.0.2.1:99")], "192.0.2.1"),
            ("10.0.0.1", &[(x, "192.0.2.1, nonsense, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("forwarded", "for=192.0.2.1;proto=https")], "192.0.2.1"),
            (
                "10.0.0.1",
                &[("forwarded", "For=\"[2001:db8::7]:80\", for=10.0.0.3"), (x, "192.0.2.1")],
                "2001:db8::7",
            ),
            ("10.0.0.1", &[("forwarded", "for=unknown")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "by=10.0.0.9")], "10.0.0.1"),
        ];
        for (peer, headers, expect) in table {
            assert_eq!(ip_of(peer, headers), expect, "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_client_is_a_key_an_address_or_a_network_of_ipv6() {
        let clients = Clients::new(Vec::new(), Some(HeaderName::from_static("x-api-key")));
        let of = |ip: &str, key: Option<&'static str>| {
            let headers = key
                .map(|key| (HeaderName::from_static("x-api-key"), HeaderValue::from_static(key)));
            let peer = SocketAddr::new(ip.parse().unwrap(), 1);
            clients.of(peer, &headers.into_iter().collect()).key
        };
        assert_eq!(of("192.0.2.1", None), of("::ffff:192.0.2.1", None));
        assert_ne!(of("192.0.2.1", None), of("192.0.2.2", None));
        assert_eq!(of("2001:db8::1", None), of("2001:db8::2", None));
        assert_ne!(of("2001:db8::1", None), of("2001:db8:0:1::1", None));
        assert_eq!(of("192.0.2.1", Some("k")), of("2001:db8::1", Some("k")));
        assert_ne!(of("192.0.2.1", Some("k")), of("192.0.2.1", Some("l")));
        assert_eq!(clients.key(b"k"), of("192.0.2.1", Some("k")));
    }
}
