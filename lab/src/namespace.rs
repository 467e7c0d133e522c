//! One network namespace by name: making, entering, emptying and removing it, and the sweep of
//! those whose maker is gone.

use std::{
    fs,
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{poll, tool};

/// What every name begins with; the pid and start time of the maker follow.
const FAMILY: &str = "lclab";

/// How long killed programs may take to go before it is an error.
const EMPTYING_MAX: Duration = Duration::from_secs(5);

/// How long a process may take between being started and having its arguments.
const ARRIVAL_MAX: Duration = Duration::from_secs(1);

/// The longest part of a name that a story or a host may give; file names end at 255 bytes.
const WORD_MAX: usize = 40;

/// A named network namespace. Dropping this value removes nothing: see [`remove_all`].
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn make(name: String) -> Result<Self, String> {
        tool::output(tool::command("ip").args(["netns", "add", &name]))?;
        Ok(Self { name })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on the links, addresses and routes inside.
    pub(crate) fn ip(&self, args: &[&str]) -> Result<String, String> {
        tool::output(tool::command("ip").args(["-n", &self.name]).args(args))
    }

    /// A command that runs inside. `ip` replaces itself, so the child's pid is the program's.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = tool::command("ip");
        command.args(["netns", "exec", &self.name]).arg(
            // The program is looked up again inside, with the same `PATH`.
            tool::find(program).unwrap_or_else(|| program.into()),
        );
        command
    }

    /// The programs that run inside or are about to; those that have ended but were not awaited do
    /// not count.
    pub(crate) fn pids(&self) -> Result<Vec<u32>, String> {
        // A program just started is still `ip`, on its way in. Nobody goes the other way, so
        // looking at the door first misses none.
        let mut pids = self.at_the_door();
        let inside = tool::output(tool::command("ip").args(["netns", "pids", &self.name]))?;
        pids.extend(inside.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Processes that are still the `ip netns exec` of [`command`](Self::command).
    fn at_the_door(&self) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.flatten().filter_map(|file| file.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| {
            let line = command_line(*pid);
            let mut words = line.split(|byte| *byte == 0).skip(1);
            ["netns", "exec", &self.name].iter().all(|word| words.next() == Some(word.as_bytes()))
        })
        .collect()
    }

    /// Kills every program inside and waits until they are gone.
    pub(crate) fn empty(&self) -> Result<(), String> {
        let mut left = Vec::new();
        let emptied = poll(EMPTYING_MAX, || {
            left = match self.pids() {
                Ok(pids) if pids.is_empty() => return Some(Ok(())),
                Ok(pids) => pids,
                Err(cause) => return Some(Err(cause)),
            };
            for pid in left.iter().filter_map(|&pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
                let _ = kill_process(pid, Signal::KILL); // gone meanwhile is as good
            }
            None
        });
        emptied.unwrap_or_else(|| Err(format!("{left:?} in {} survive SIGKILL", self.name)))
    }

    fn remove(&self) {
        if let Err(cause) = self.empty() {
            eprintln!("lab: {cause}");
        }
        // A sweep of another test may have been faster; only what is left over matters.
        if let Err(cause) = tool::output(tool::command("ip").args(["netns", "del", &self.name]))
            && names().contains(&self.name)
        {
            eprintln!("lab: {cause}");
        }
    }
}

/// The beginning of the names this process gives.
pub(crate) fn own_prefix() -> String {
    let pid = process::id();
    format!("{FAMILY}-{pid}-{}", start_time(pid).unwrap_or_default())
}

/// A word that is safe within a name: lower-case letters, digits and underscores.
pub(crate) fn tidy(word: &str) -> String {
    let tidied = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    word.chars().map(tidied).take(WORD_MAX).collect()
}

/// Removes every namespace of one lab.
pub(crate) fn remove_all(prefix: &str) {
    let of_lab = format!("{prefix}-");
    for name in names().into_iter().filter(|name| name.starts_with(&of_lab)) {
        Namespace { name }.remove();
    }
}

/// Removes the namespaces whose maker no longer runs, with what still runs inside them.
pub(crate) fn sweep_stale() {
    for name in names() {
        if is_stale(&name) {
            Namespace { name }.remove();
        }
    }
}

/// Whether a name is of our family and its maker is gone, even if its pid has a new owner.
fn is_stale(name: &str) -> bool {
    let mut parts = name.split('-');
    if parts.next() != Some(FAMILY) {
        return false;
    }
    let (Some(Ok(pid)), Some(Ok(started))) =
        (parts.next().map(str::parse::<u32>), parts.next().map(str::parse::<u64>))
    else {
        return false;
    };
    start_time(pid) != Some(started)
}

/// The arguments of a process, each ended by a zero; nothing for what has none.
///
/// Whoever starts a process may go on before the new program's arguments are in place: that moment
/// is waited out.
fn command_line(pid: u32) -> Vec<u8> {
    let deadline = Instant::now() + ARRIVAL_MAX;
    loop {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !line.is_empty() || !is_arriving(pid) || Instant::now() > deadline {
            return line;
        }
        thread::yield_now();
    }
}

/// Whether a process without arguments will have some: it is neither the kernel's nor ending.
fn is_arriving(pid: u32) -> bool {
    const EXITING_OR_KERNEL: u64 = 0x4 | 0x20_0000;
    let flags = stat_field(pid, 9).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & EXITING_OR_KERNEL == 0)
}

/// When a process started, in clock ticks since boot; none if there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// A field of `/proc/PID/stat`, counted from 1 as in its manual; from the third on.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3).map(str::to_owned)
}

fn names() -> Vec<String> {
    let Ok(folder) = fs::read_dir("/run/netns") else { return Vec::new() };
    folder.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_namespaces_of_departed_makers_are_stale() {
        let own = own_prefix();
        let (pid, started) = (process::id(), start_time(process::id()).unwrap());
        assert!(!is_stale(&format!("{own}-0-story-a")), "a living maker keeps its own");
        assert!(is_stale(&format!("{FAMILY}-{pid}-{}-0-story-a", started + 1)), "pid used again");
        assert!(is_stale(&format!("{FAMILY}-4194305-1-0-story-a")), "no such pid can be");
        assert!(!is_stale("somebody-elses"));
        assert!(!is_stale(&format!("{FAMILY}-odd")));
    }

    #[test]
    fn any_word_becomes_part_of_a_name() {
        assert_eq!(tidy("Rack 2/left-hand"), "rack_2_left_hand");
        assert_eq!(tidy(&"x".repeat(300)).len(), WORD_MAX);
    }
}
