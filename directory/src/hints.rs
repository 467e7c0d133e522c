//! What outlives a directory in files: where other hosts were, so that a start without multicast finds
//! them again, and the number of the last incarnation.

use std::{fs, io, net::SocketAddr, path::Path};

use layercake_wire::id::HostId;
use serde::{Deserialize, Serialize};

use crate::{dial::MAX_TARGETS, seeds::DEFAULT_PORT};

/// The file that remembers peers.
const FILE: &str = "peers.json";
/// Addresses of one host that are remembered.
const MAX_ADDRS: usize = 16;

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
        Some((peer.host.parse().ok()?, with_usual_port(peer.addrs)))
    });
    Ok(known.collect())
}

/// A directory that has started anew is where it was, or at the usual port.
fn with_usual_port(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut all = addrs.clone();
    for addr in addrs {
        let usual = SocketAddr::new(addr.ip(), DEFAULT_PORT);
        if !all.contains(&usual) {
            all.push(usual);
        }
    }
    all
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
    fn peers_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_peers(folder.path()).unwrap().is_empty());
        let peers = vec![(HostId::random(), vec![([10, 0, 0, 2], 7).into()])];
        store_peers(folder.path(), &peers).unwrap();
        let (host, addrs) = load_peers(folder.path()).unwrap().remove(0);
        assert_eq!((host, addrs[0]), (peers[0].0, peers[0].1[0]));
        assert_eq!(addrs[1..], [([10, 0, 0, 2], DEFAULT_PORT).into()], "and at the usual port");
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
