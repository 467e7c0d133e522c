//! Where other hosts may be, apart from mDNS: seeds that somebody configured, and peers that the
//! runtime folder remembers from a directory before.

use std::{fs, io, net::SocketAddr, path::Path};

use layercake_wire::id::HostId;
use serde::{Deserialize, Serialize};

use crate::dial::MAX_TARGETS;

/// The environment variable with seeds: `host[:port]`, separated by commas or spaces.
pub const SEEDS_VARIABLE: &str = "LAYERCAKE_SEEDS";
/// The UDP port of host directories, where it is free; and of seeds without a port.
pub const DEFAULT_PORT: u16 = 54195;
/// Seeds that are used; more are cut off.
pub const MAX_SEEDS: usize = 64;

/// The file that remembers peers.
const FILE: &str = "peers.json";
/// Addresses of one host that are remembered.
const MAX_ADDRS: usize = 16;

/// Cuts a list of seeds, as it stands in [`SEEDS_VARIABLE`].
pub(crate) fn split_seeds(text: &str) -> Vec<String> {
    let seeds = text.split([',', ' ', '\t', '\n']).map(str::trim).filter(|seed| !seed.is_empty());
    seeds.take(MAX_SEEDS).map(str::to_owned).collect()
}

/// Adds the default port to a seed that has none: what can be given to a resolver.
pub(crate) fn with_port(seed: &str) -> String {
    let bare_v6 = seed.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_v6 {
        return format!("[{seed}]:{DEFAULT_PORT}");
    }
    let after_bracket = seed.rsplit(']').next().unwrap_or(seed);
    if after_bracket.contains(':') { seed.to_owned() } else { format!("{seed}:{DEFAULT_PORT}") }
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    host: String,
    addrs: Vec<SocketAddr>,
}

/// Reads the peers that a directory of this host knew. A file that is not there is no peers.
pub(crate) fn load_peers(folder: &Path) -> io::Result<Vec<(HostId, Vec<SocketAddr>)>> {
    let text = match fs::read(folder.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let peers: Vec<Remembered> = serde_json::from_slice(&text)?;
    let known = peers.into_iter().take(MAX_TARGETS).filter_map(|mut peer| {
        peer.addrs.truncate(MAX_ADDRS);
        Some((peer.host.parse().ok()?, peer.addrs))
    });
    Ok(known.collect())
}

/// Remembers peers, the most recent first.
pub(crate) fn store_peers(folder: &Path, peers: &[(HostId, Vec<SocketAddr>)]) -> io::Result<()> {
    let peers: Vec<_> = peers
        .iter()
        .take(MAX_TARGETS)
        .map(|(host, addrs)| Remembered { host: host.to_string(), addrs: addrs.clone() })
        .collect();
    replace(&folder.join(FILE), &serde_json::to_vec_pretty(&peers)?)
}

/// The next incarnation of this host's directory: above every one before, also after the clock was
/// set back, and near the clock, so that a lost file does no harm.
pub(crate) fn next_incarnation(folder: &Path, wall_ms: u64) -> io::Result<u64> {
    let path = folder.join("incarnation");
    let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let next = wall_ms.max(last.map_or(0, |last| last.saturating_add(1)));
    replace(&path, format!("{next}\n").as_bytes())?;
    Ok(next)
}

/// Whole or not at all. Only the holder of the directory's lock writes here.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_cut_and_get_a_port() {
        assert_eq!(split_seeds(" rack1, rack2:99\n10.0.0.3,,"), ["rack1", "rack2:99", "10.0.0.3"]);
        for (seed, expected) in [
            ("rack1", "rack1:54195"),
            ("rack1:99", "rack1:99"),
            ("10.0.0.3", "10.0.0.3:54195"),
            ("fd00::1", "[fd00::1]:54195"),
            ("[fd00::1]", "[fd00::1]:54195"),
            ("[fd00::1]:7", "[fd00::1]:7"),
        ] {
            assert_eq!(with_port(seed), expected);
        }
    }

    #[test]
    fn peers_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_peers(folder.path()).unwrap().is_empty());
        let peers = vec![(HostId::random(), vec![([10, 0, 0, 2], 7).into()])];
        store_peers(folder.path(), &peers).unwrap();
        assert_eq!(load_peers(folder.path()).unwrap(), peers);
        fs::write(folder.path().join(FILE), "nonsense").unwrap();
        assert!(load_peers(folder.path()).is_err());
    }

    #[test]
    fn incarnations_only_rise() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next_incarnation(folder.path(), 1000).unwrap(), 1000);
        assert_eq!(next_incarnation(folder.path(), 900).unwrap(), 1001, "the clock was set back");
        assert_eq!(next_incarnation(folder.path(), 5000).unwrap(), 5000);
    }
}
