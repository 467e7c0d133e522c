//! What does not work in finding other hosts and the host's own directory, for whoever operates it.
//!
//! Each thing is told once in the log when it begins, and stands in a list until it works again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Troubles in the list; beyond it the one heard of least recently goes.
pub const MAX_TROUBLES: usize = 64;
/// A trouble that repeats itself while it lasts (a dial, a seed) is over when it has not been heard of
/// for so long, in milliseconds.
const FRESH_MS: u64 = 60_000;
/// The longest reason that is kept, in bytes.
const MAX_WHY: usize = 1024;

/// Which part of the work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TroubleKind {
    /// A setting was not understood and is passed over.
    Setting,
    /// There is no directory for this host: only names within each process work.
    Seat,
    /// Other hosts cannot reach this one: only names within this host work.
    Listen,
    /// Announcing and browsing by mDNS.
    Mdns,
    /// A seed cannot be resolved, or the file of seeds cannot be read.
    Seed,
    /// Where other hosts were cannot be remembered.
    Peers,
    /// A host or an address does not answer.
    Dial,
}

/// Something that does not work now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Which part of the work.
    pub kind: TroubleKind,
    /// With what: a seed, a host, an address, a file.
    pub about: String,
    /// Why, as it was heard last.
    pub why: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it was heard of last.
    pub last_ms: u64,
}

impl TroubleKind {
    /// What still works meanwhile, or what becomes of it.
    #[must_use]
    pub const fn meanwhile(self) -> &'static str {
        match self {
            Self::Setting => "it is passed over",
            Self::Seat => "names within each process still work",
            Self::Listen => "names within this host still work",
            Self::Mdns => {
                "hosts are still found by seeds, by other hosts and where they were before"
            }
            Self::Seed | Self::Dial => "it is tried again and again",
            Self::Peers => "after a restart without multicast or seeds they will not be found",
        }
    }
}

impl fmt::Display for TroubleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setting => "setting",
            Self::Seat => "host directory",
            Self::Listen => "listening",
            Self::Mdns => "mDNS",
            Self::Seed => "seed",
            Self::Peers => "remembered peers",
            Self::Dial => "dialling",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.kind, self.about, self.why)
    }
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Vec<Trouble>);

impl Troubles {
    /// Something does not work. Whether that is news.
    pub(crate) fn note(&mut self, kind: TroubleKind, about: &str, why: &str, now_ms: u64) -> bool {
        let why = cut(why);
        if let Some(known) = self.find(kind, about) {
            let fresh = !known.is_over(now_ms);
            if !fresh {
                known.since_ms = now_ms;
            }
            why.clone_into(&mut known.why);
            known.last_ms = now_ms;
            return !fresh;
        }
        if self.0.len() >= MAX_TROUBLES {
            // What is over goes; and what repeats itself before what is told once.
            let goes = |t: &Trouble| t.is_over(now_ms) || (t.kind.repeats() && !kind.repeats());
            let old = (0..self.0.len()).filter(|at| goes(&self.0[*at]));
            let Some(oldest) = old.min_by_key(|at| self.0[*at].last_ms) else { return false };
            self.0.remove(oldest);
        }
        let (about, why) = (cut(about).to_owned(), why.to_owned());
        self.0.push(Trouble { kind, about, why, since_ms: now_ms, last_ms: now_ms });
        true
    }

    /// It works.
    pub(crate) fn settle(&mut self, kind: TroubleKind, about: &str) {
        self.0.retain(|trouble| (trouble.kind, &*trouble.about) != (kind, cut(about)));
    }

    /// What does not work now, the longest first.
    pub(crate) fn list(&self, now_ms: u64) -> Vec<Trouble> {
        let mut list: Vec<_> =
            self.0.iter().filter(|trouble| !trouble.is_over(now_ms)).cloned().collect();
        list.sort_by(|a, b| (a.since_ms, a.kind, &a.about).cmp(&(b.since_ms, b.kind, &b.about)));
        list
    }

    fn find(&mut self, kind: TroubleKind, about: &str) -> Option<&mut Trouble> {
        self.0.iter_mut().find(|trouble| (trouble.kind, &*trouble.about) == (kind, cut(about)))
    }
}

impl TroubleKind {
    /// Whether it is told again for as long as it lasts.
    const fn repeats(self) -> bool {
        matches!(self, Self::Dial | Self::Seed)
    }
}

impl Trouble {
    const fn is_over(&self, now_ms: u64) -> bool {
        self.kind.repeats() && now_ms.saturating_sub(self.last_ms) > FRESH_MS
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_WHY)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_news_once_and_stands_until_it_is_over() {
        let mut troubles = Troubles::default();
        assert!(troubles.note(TroubleKind::Seed, "rack1", "no such name", 1000));
        assert!(!troubles.note(TroubleKind::Seed, "rack1", "no server answers", 11_000));
        assert!(troubles.note(TroubleKind::Mdns, "this host", "no socket", 12_000));
        let list = troubles.list(13_000);
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].to_string(), "seed of rack1: no server answers");
        assert_eq!((list[0].since_ms, list[0].last_ms), (1000, 11_000));
        troubles.settle(TroubleKind::Seed, "rack1");
        assert_eq!(troubles.list(14_000).len(), 1);
        assert!(
            troubles.note(TroubleKind::Seed, "rack1", "no such name", 15_000),
            "it is news again"
        );
        // A seed that is no longer listed is not heard of again; mDNS says it once.
        let list = troubles.list(15_000 + FRESH_MS + 1);
        assert_eq!(list.iter().map(|t| t.kind).collect::<Vec<_>>(), [TroubleKind::Mdns]);
    }

    #[test]
    fn the_list_is_bounded_and_so_is_each_reason() {
        let mut troubles = Troubles::default();
        for at in 0..1000_u64 {
            troubles.note(TroubleKind::Dial, &at.to_string(), &"é".repeat(2000), at);
        }
        let list = troubles.list(1000);
        assert_eq!(list.len(), MAX_TROUBLES);
        assert_eq!(list[0].about, "0", "those that last stay");
        assert!(!troubles.note(TroubleKind::Dial, "another", "", 1000), "and are not told anew");
        assert!(
            troubles.note(TroubleKind::Mdns, "this host", "", 1000),
            "what is told once has room"
        );
        assert!(
            troubles.note(TroubleKind::Dial, "another", "", 1000 + 2 * FRESH_MS),
            "those are over"
        );
        assert!(list.iter().all(|trouble| trouble.why.len() <= MAX_WHY));
    }
}
