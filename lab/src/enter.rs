//! Getting to where namespaces can be made: here, or in a user namespace of one's own.
//!
//! A process with several threads cannot move itself into a user namespace, so the test binary is
//! run once more inside one, for this test alone, and the outer test reports how that went.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
    thread,
};

use crate::{Lab, Unavailable, tool};

/// Set inside, to the file that shows the outer test that its inner self has really run.
const INSIDE: &str = "LAYERCAKE_LAB_INSIDE";

/// Makes the lab of a test. `None` means that the test is over: its story has been played inside a
/// user namespace, or cannot be played on this machine. Used through [`lab!`](crate::lab!).
///
/// `place` is the path of an item in the test function, from which the test's name is taken.
///
/// # Panics
/// When the story failed inside, and where the lab is unavailable in a root user's CI run: there
/// nothing may be skipped.
pub fn enter(place: &str, story: &str) -> Option<Lab> {
    let inside = env::var_os(INSIDE).map(PathBuf::from);
    if let Some(mark) = &inside {
        fs::write(mark, story).expect("the outer test gave a path that can be written");
    }
    let why = match Lab::new(story) {
        Ok(lab) => return Some(lab),
        Err(why @ Unavailable::ToolMissing { .. }) => why,
        Err(why) if inside.is_some() => why,
        Err(direct) => match enter_again(&test_name(place)) {
            Ok(()) => return None,
            Err(nested) => {
                Unavailable::BothWays { direct: direct.to_string(), nested: nested.to_string() }
            }
        },
    };
    let is_root = rustix::process::geteuid().is_root();
    let in_ci = env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!(is_root && in_ci), "the lab must work in CI: {why}");
    println!("SKIPPED: {why}");
    None
}

/// Makes the [`Lab`] of the test function it is called in, first thing in it:
/// `let Some(lab) = layercake_lab::lab!("cable") else { return };`
///
/// Where namespaces may not be made, the test is run once more in a user namespace, and `None`
/// says that it is over. Where that is refused too, `SKIPPED:` and the reason are printed. Blocks
/// meanwhile, also in an `async` test.
#[macro_export]
macro_rules! lab {
    ($story:expr) => {{
        fn here() {}
        $crate::enter(::std::any::type_name_of_val(&here), $story)
    }};
}

/// Runs this binary for one test in new user, network, mount and process namespaces, where nothing
/// survives the end of it.
fn enter_again(test: &str) -> Result<(), Unavailable> {
    tool::find("unshare")
        .ok_or(Unavailable::ToolMissing { tool: "unshare", package: "util-linux" })?;
    // Refusals show here, with a message, before any test output.
    tool::output(nested().args(["true"])).map_err(|cause| Unavailable::Refused { cause })?;

    let thread_id = format!("{:?}", thread::current().id());
    let digits: String = thread_id.chars().filter(char::is_ascii_digit).collect();
    let mark = env::temp_dir().join(format!("layercake-lab-{}-{digits}", process::id()));
    let binary = env::current_exe().expect("the path of a running test binary is known");
    let status = nested()
        .arg(binary)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &mark)
        .status();
    let has_run = fs::remove_file(&mark).is_ok();
    match status {
        Ok(status) if status.success() && has_run => Ok(()),
        Ok(status) if has_run => panic!("{test} failed in its user namespace ({status})"),
        Ok(status) => panic!("{test} did not run in its user namespace ({status})"),
        Err(cause) => Err(Unavailable::Refused { cause: format!("cannot run `unshare`: {cause}") }),
    }
}

/// A command to which a program and its arguments are yet to be added. The shell stays as the
/// first process of the namespace, since somebody must await the orphans there.
fn nested() -> Command {
    let prepare = "mount -t tmpfs none /run && mkdir -p /run/netns && \"$@\"; exit $?";
    let mut command = tool::command("unshare");
    command.args(["-Urnmpf", "--mount-proc", "--kill-child", "sh", "-c", prepare, "sh"]);
    command
}

/// The test's name as the test runner knows it: the path without the crate, and without the
/// closure of an `async` test.
fn test_name(place: &str) -> String {
    let parts: Vec<&str> = place.split("::").filter(|part| !part.starts_with("{{")).collect();
    let end = parts.len().saturating_sub(1).max(1);
    parts[1.min(parts.len())..end].join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_as_its_runner_names_it() {
        assert_eq!(test_name("hosts_pull::a_cable_is_pulled::here"), "a_cable_is_pulled");
        assert_eq!(test_name("hosts::module::later::{{closure}}::here"), "module::later");
        assert_eq!(test_name("odd"), "");
    }
}
