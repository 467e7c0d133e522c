//! Several hosts on one machine: network namespaces joined by a bridge, with faults on demand.
//!
//! For tests and measurements only; no product crate depends on it. A [`Host`] has an address,
//! its own loopback and a cable to a switch; programs started through [`Host::command`] see
//! nothing else of the network. Delay, jitter and reordering are not here (many kernels lack
//! `netem`): put a small relay into the test, or use the simulation.
//!
//! A test starts with [`lab!`], which finds a way to make namespaces: directly (root), or by
//! running the same test once more inside a user namespace.
//!
//! ```no_run
//! // Marked `#[test]`, in a file `tests/hosts_STORY.rs`.
//! fn a_pulled_cable_is_noticed() {
//!     let Some(lab) = layercake_lab::lab!("cable") else { return };
//!     let (a, b) = (lab.host("a"), lab.host("b"));
//!     let mut ping = layercake_lab::Program::start(a.command("ping").arg(b.address().to_string()));
//!     ping.wait_line(|line| line.contains("bytes from"), std::time::Duration::from_secs(5));
//!     b.cable(false);
//! }
//! ```
//!
//! # What always holds
//! - The namespaces of the machine itself, its routes and its interfaces, are never touched: the
//!   switch sits in a namespace of its own, and a veth pair is born with both ends in their place.
//! - Everything goes when the [`Lab`] is dropped, also in a panic. What a killed test left behind
//!   goes when the next lab is made: names carry the pid and start time of their maker.
//! - After the lab stands, a step that fails panics with the command and its output: a test has
//!   nothing better to do.
//!
//! Checked by `tests/lab.rs`.

mod enter;
mod host;
mod namespace;
mod program;
mod tool;

use std::{
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

pub use enter::enter;
pub use host::Host;
pub use program::{Line, Program, Source};

use namespace::Namespace;

/// The most hosts one lab has: they share one /24 network.
pub const HOSTS_MAX: u8 = 250;

/// How often is looked at what is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Counts the labs of this process, so that their names and networks differ.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Why this machine cannot have a lab.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A program the lab is made with is absent. `cargo xtask setup` installs it as root.
    #[error("`{tool}` is not installed: install the package {package}, or run `cargo xtask setup`")]
    ToolMissing {
        /// The program looked for.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The kernel, or what it is run under, does not let this user make namespaces.
    #[error("namespaces are refused here: {cause}")]
    Refused {
        /// The command that failed and what it printed.
        cause: String,
    },
    /// Neither as this user nor in a user namespace.
    #[error("{direct}; and in a user namespace: {nested}")]
    BothWays {
        /// What stopped the direct way.
        direct: String,
        /// What stopped the way through a user namespace.
        nested: String,
    },
}

/// A switch and the hosts plugged into it. Dropping it ends every program and removes them all.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    /// The second and third octet of `10.x.y.0/24`, so that the logs of two labs can be told apart.
    network: [u8; 2],
    hosts_made: AtomicU8,
    switch: Namespace,
}

impl Lab {
    /// Sets up a lab without hosts, for a story whose name shows in the namespaces' names.
    ///
    /// Needs the right to make network namespaces. Tests use [`lab!`], which sees to that.
    ///
    /// # Errors
    /// [`Unavailable`] when a tool is missing or the machine refuses; nothing is left behind.
    pub fn new(story: &str) -> Result<Self, Unavailable> {
        tool::check_all()?;
        namespace::sweep_stale();
        let seq = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}-{seq}-{}", namespace::own_prefix(), namespace::tidy(story));
        let refused = |cause| Unavailable::Refused { cause };
        let switch = Namespace::make(format!("{prefix}-switch")).map_err(refused)?;
        let network = [(std::process::id() % 250) as u8 + 1, (seq % 250) as u8];
        // From here on dropping the lab removes what has been made.
        let lab = Self { prefix, network, hosts_made: AtomicU8::new(0), switch };
        // Without snooping the switch floods multicast, as a plain switch in an office does.
        lab.switch
            .ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])
            .and_then(|_| lab.switch.ip(&["link", "set", "br0", "up"]))
            .map_err(refused)?;
        Ok(lab)
    }

    /// Plugs in a new host. `name` is a short word, different from the other hosts' names.
    ///
    /// # Panics
    /// When the host cannot be made, or the lab already has [`HOSTS_MAX`].
    pub fn host(&self, name: &str) -> Host {
        let number = self.hosts_made.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number <= HOSTS_MAX, "a lab has at most {HOSTS_MAX} hosts");
        let [x, y] = self.network;
        let namespace = Namespace::make(format!("{}-{}", self.prefix, namespace::tidy(name)))
            .unwrap_or_else(|cause| panic!("cannot make host {name}: {cause}"));
        Host::plug_in(name, namespace, &self.switch, number, [10, x, y, number].into())
            .unwrap_or_else(|cause| panic!("cannot plug in host {name}: {cause}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // By name rather than by handle: a `Host` may outlive the lab, its namespace must not.
        namespace::remove_all(&self.prefix);
    }
}

/// Looks again and again until `look` finds something, and returns it.
///
/// # Panics
/// When `within` has passed without: the message says `what` was waited for.
pub fn eventually<T>(within: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_or(within, || what.to_owned(), look)
}

/// As [`eventually`], where what to say of a wait in vain is only known then.
///
/// # Panics
/// When `within` has passed without.
pub fn eventually_or<T>(
    within: Duration,
    what: impl FnOnce() -> String,
    look: impl FnMut() -> Option<T>,
) -> T {
    poll(within, look).unwrap_or_else(|| panic!("waited {within:?} in vain for: {}", what()))
}

/// Looks again and again until `look` finds something or the time is over.
fn poll<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL_INTERVAL);
    }
}
