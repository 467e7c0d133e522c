//! Seeds: where other hosts may be, as somebody configured it.
//!
//! A seed is `host[:port]`, and a name may stand for many addresses, as that of a headless service does.
//! What it stands for may change, and may not be there yet: it is resolved again and again. While it
//! cannot be resolved its last addresses stay.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::task::JoinSet;

use crate::trouble::TroubleKind;

/// The environment variable with seeds: `host[:port]`, separated by commas or spaces.
pub const SEEDS_VARIABLE: &str = "LAYERCAKE_SEEDS";
/// The file of seeds in the mesh folder: one to a line; what follows a `#` is passed over.
pub const SEEDS_FILE: &str = "seeds";
/// The UDP port of host directories, where it is free; and of seeds without a port.
pub const DEFAULT_PORT: u16 = 54195;
/// Seeds that are used; more are cut off.
pub const MAX_SEEDS: usize = 64;
/// Addresses that one seed may stand for; more are cut off.
pub const MAX_SEED_ADDRS: usize = 256;
/// How often seeds are resolved.
const PERIOD: Duration = Duration::from_secs(10);
/// How often it is looked whether the file has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How long a resolver may take.
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// Bytes of the file that are read.
const MAX_FILE: u64 = 64 << 10;

/// Cuts a list of seeds, as it stands in [`SEEDS_VARIABLE`].
pub(crate) fn split_seeds(text: &str) -> Vec<String> {
    let seeds = text.split([',', ' ', '\t', '\n']).map(str::trim).filter(|seed| !seed.is_empty());
    seeds.take(MAX_SEEDS).map(str::to_owned).collect()
}

/// The seeds of a file.
fn read_seeds(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(split_seeds).take(MAX_SEEDS).collect()
}

/// Adds the default port to a seed that has none: what can be given to a resolver.
fn with_port(seed: &str) -> String {
    let bare_v6 = seed.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_v6 {
        return format!("[{seed}]:{DEFAULT_PORT}");
    }
    let after_bracket = seed.rsplit(']').next().unwrap_or(seed);
    if after_bracket.contains(':') { seed.to_owned() } else { format!("{seed}:{DEFAULT_PORT}") }
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Where somebody may be.
    Addr(SocketAddr),
    Trouble(TroubleKind, String, String),
    Settled(TroubleKind, String),
}

/// Which seeds there are and what they stood for last.
#[derive(Debug, Default)]
struct Seeds(BTreeMap<String, Vec<SocketAddr>>);

impl Seeds {
    /// These are the seeds now; the others are forgotten.
    fn list(&mut self, seeds: impl IntoIterator<Item = String>, out: &mut Vec<Told>) {
        let mut last = std::mem::take(&mut self.0);
        for seed in seeds {
            if self.0.len() >= MAX_SEEDS {
                break;
            }
            let addrs = last.remove(&seed).unwrap_or_default();
            self.0.entry(seed).or_insert(addrs);
        }
        last.retain(|seed, _| !self.0.contains_key(seed));
        out.extend(last.into_keys().map(|seed| Told::Settled(TroubleKind::Seed, seed)));
    }

    /// What a resolver said of a seed.
    fn answered(
        &mut self,
        seed: &str,
        answer: Result<Vec<SocketAddr>, String>,
        out: &mut Vec<Told>,
    ) {
        let Some(last) = self.0.get_mut(seed) else { return };
        match answer {
            Ok(mut addrs) if !addrs.is_empty() => {
                addrs.sort_unstable();
                addrs.dedup();
                addrs.truncate(MAX_SEED_ADDRS);
                *last = addrs;
                out.push(Told::Settled(TroubleKind::Seed, seed.to_owned()));
            }
            Ok(_) => {
                let why = "it stands for no address".to_owned();
                out.push(Told::Trouble(TroubleKind::Seed, seed.to_owned(), why));
            }
            Err(why) => out.push(Told::Trouble(TroubleKind::Seed, seed.to_owned(), why)),
        }
        out.extend(last.iter().copied().map(Told::Addr));
    }
}

/// What the file says, and what to compare to see whether it has changed.
struct File {
    path: PathBuf,
    stamp: Option<(SystemTime, u64)>,
    seeds: Vec<String>,
}

impl File {
    /// Reads it where it has changed since it was read last.
    fn look(&mut self, out: &mut Vec<Told>) -> bool {
        let about = || self.path.display().to_string();
        let stamp = match fs::metadata(&self.path) {
            Ok(meta) => Some((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                out.push(Told::Trouble(TroubleKind::Seed, about(), error.to_string()));
                return false;
            }
        };
        if stamp == self.stamp {
            return false;
        }
        let seeds = if stamp.is_some() { read(&self.path) } else { Ok(Vec::new()) };
        match seeds {
            Ok(seeds) => {
                out.push(Told::Settled(TroubleKind::Seed, about()));
                self.stamp = stamp;
                self.seeds = seeds;
                true
            }
            Err(error) => {
                out.push(Told::Trouble(TroubleKind::Seed, about(), error.to_string()));
                false
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<String>> {
    use io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(read_seeds(&text))
}

/// Asks the system's resolver.
pub(crate) async fn look_up(name: String) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host(name).await;
    found.map(Iterator::collect).map_err(|error| error.to_string())
}

/// Resolves seeds until nobody listens: those that were `given`, and those in a file in the mesh
/// folder, which is read again when it changes.
pub(crate) async fn keep<R, F>(
    given: Vec<String>,
    file: Option<PathBuf>,
    resolve: R,
    tell: impl Fn(Told) -> bool,
) where
    R: Fn(String) -> F,
    F: Future<Output = Result<Vec<SocketAddr>, String>> + Send + 'static,
{
    let mut seeds = Seeds::default();
    let mut file = file.map(|path| File { path, stamp: None, seeds: Vec::new() });
    let mut next = tokio::time::Instant::now();
    loop {
        let mut out = Vec::new();
        let changed = file.as_mut().is_some_and(|file| file.look(&mut out));
        let now = tokio::time::Instant::now();
        if changed || next <= now {
            next = now + PERIOD;
            let of_file = file.iter().flat_map(|file| file.seeds.iter().cloned());
            seeds.list(given.iter().cloned().chain(of_file), &mut out);
            let mut asked = JoinSet::new();
            for seed in seeds.0.keys().cloned() {
                let answer = resolve(with_port(&seed));
                asked.spawn(async move {
                    let answer = tokio::time::timeout(RESOLVE_TIME, answer).await;
                    let late = || Err(format!("no answer within {RESOLVE_TIME:?}"));
                    (seed, answer.unwrap_or_else(|_| late()))
                });
            }
            while let Some(answer) = asked.join_next().await {
                if let Ok((seed, answer)) = answer {
                    seeds.answered(&seed, answer, &mut out);
                    // One that takes long holds up no other.
                    if !out.drain(..).all(&tell) {
                        return;
                    }
                }
            }
        }
        if !out.into_iter().all(&tell) {
            return;
        }
        let none = given.is_empty() && file.is_none();
        if none {
            return;
        }
        tokio::time::sleep(if file.is_some() { LOOK } else { PERIOD }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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
        let text = "# the racks\nrack1\n\n  rack2:99 # the new one\n#rack3\n";
        assert_eq!(read_seeds(text), ["rack1", "rack2:99"]);
        assert_eq!(read_seeds(&"rack\n".repeat(1000)).len(), MAX_SEEDS);
    }

    fn addr(last: u8) -> SocketAddr {
        ([10, 0, 0, last], DEFAULT_PORT).into()
    }

    /// A resolver that answers what the test says.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>);

    impl Names {
        fn set(&self, name: &str, addrs: &[SocketAddr]) {
            self.0.lock().unwrap().insert(name.to_owned(), addrs.to_vec());
        }
        fn clear(&self) {
            self.0.lock().unwrap().clear();
        }
        async fn resolve(self, name: String) -> Result<Vec<SocketAddr>, String> {
            let found = self.0.lock().unwrap().get(&name).cloned();
            found.ok_or_else(|| "no such name".to_owned())
        }
    }

    /// What was told within a time, which passes at once.
    struct Listener(tokio::sync::mpsc::UnboundedReceiver<Told>);

    impl Listener {
        async fn within(&mut self, seconds: u64) -> Vec<Told> {
            let mut all = Vec::new();
            let over = tokio::time::Instant::now() + Duration::from_secs(seconds);
            while let Ok(told) = tokio::time::timeout_at(over, self.0.recv()).await {
                all.push(told.expect("seeds are kept"));
            }
            all
        }
    }

    fn start(given: &[&str], file: Option<PathBuf>) -> (Names, Listener) {
        let names = Names::default();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let given = given.iter().map(|&seed| seed.to_owned()).collect();
        let resolver = names.clone();
        tokio::spawn(async move {
            let resolve = move |name| resolver.clone().resolve(name);
            keep(given, file, resolve, |told| sender.send(told).is_ok()).await;
        });
        (names, Listener(receiver))
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_stands_for_many_hosts_and_for_others_later() {
        let (names, mut listener) = start(&["workers", "gone:7"], None);
        names.set("workers:54195", &[addr(1), addr(2), addr(2)]);
        let told = listener.within(1).await;
        assert!(told.contains(&Told::Addr(addr(1))) && told.contains(&Told::Addr(addr(2))));
        assert_eq!(told.iter().filter(|told| matches!(told, Told::Addr(_))).count(), 2);
        let missing = Told::Trouble(TroubleKind::Seed, "gone:7".into(), "no such name".into());
        assert!(told.contains(&missing), "{told:?}");

        names.set("workers:54195", &[addr(2), addr(3)]);
        let told = listener.within(10).await;
        assert!(told.contains(&Told::Addr(addr(3))) && !told.contains(&Told::Addr(addr(1))));

        names.clear();
        let told = listener.within(10).await;
        assert!(told.contains(&Told::Addr(addr(3))), "without a resolver the last answer stays");
        let why = "no such name".to_owned();
        assert!(told.contains(&Told::Trouble(TroubleKind::Seed, "workers".into(), why)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SEEDS_FILE);
        let (names, mut listener) = start(&[], Some(path.clone()));
        names.set("rack1:54195", &[addr(1)]);
        names.set("rack2:54195", &[addr(2)]);
        assert_eq!(listener.within(30).await, [], "no file is no seeds");
        fs::write(&path, "rack1\n").unwrap();
        assert!(listener.within(3).await.contains(&Told::Addr(addr(1))));
        fs::write(&path, "# moved\nrack2\n").unwrap();
        let told = listener.within(20).await;
        assert!(told.contains(&Told::Addr(addr(2))) && !told.contains(&Told::Addr(addr(1))));
        fs::write(&path, [0xff, 0xfe, 0x00, 0xff]).unwrap();
        let told = listener.within(3).await;
        assert!(told.iter().any(|told| matches!(told, Told::Trouble(..))), "{told:?}");
    }
}
