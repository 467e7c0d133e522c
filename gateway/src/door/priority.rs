//! How much a request matters beside others.

/// How much a request matters beside others, where not all can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Put off first.
    Low,
    /// As any other.
    #[default]
    Normal,
    /// Put off last.
    High,
}

impl Priority {
    /// The part of the requests under way up to which one of this priority is let in.
    pub(super) const fn weight(self) -> f64 {
        match self {
            Self::Low => 0.75,
            Self::Normal => 1.0,
            Self::High => 1.25,
        }
    }
}
