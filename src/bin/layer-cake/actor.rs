//! `layer-cake describe` and `layer-cake actor`: what a program can be started as, and starting it so.
//!
//! Everything is known from the program's own `--describe`; nothing of it is compiled in here.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use clap::Args;
use layercake::{EntryApi, args, prelude::*};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::output;

/// How long a program may take to describe itself.
const DESCRIBE_TIME: Duration = Duration::from_secs(10);
/// Bytes of a description; a longer one is an error.
const MAX_DESCRIPTION: u64 = 16 << 20;
/// How long an actor may take to end when it was asked to; a little less than the program itself has.
const STOP_TIME: Duration = Duration::from_millis(4500);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  layer-cake describe target/release/examples/processes")]
pub(crate) struct Describe {
    /// A program made with `#[layercake::main]`.
    program: PathBuf,
    /// Print what the program says, as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Example:\n  layer-cake actor target/release/examples/step_05 Texture --x=2 --y=2"
)]
pub(crate) struct Start {
    /// A program made with `#[layercake::main]`.
    program: PathBuf,
    /// The actor, by its whole name or the last part of it. `layer-cake describe` lists them.
    entry: String,
    /// Its arguments, each as `--name=value`; `--help` tells them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// What `PROGRAM --describe` says.
#[derive(Debug, Deserialize)]
struct Description {
    program: String,
    arguments: Option<Value>,
    entries: Vec<EntryApi>,
}

/// Says what went wrong, and with which status to end.
fn failed(status: u8, text: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(status)
}

/// A program's description, as it is and read.
fn described(program: &Path) -> Result<(String, Description), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime\n  cause: {error}"))?;
    let text = runtime.block_on(async {
        let text = tokio::time::timeout(DESCRIBE_TIME, ask(program)).await;
        text.unwrap_or_else(|_| Err(io::Error::other("it took too long")))
    });
    let of = |cause: String| {
        format!(
            "`{}` does not describe itself\n  cause: {cause}\n\nhint: is it a program with `#[layercake::main]`?",
            program.display()
        )
    };
    let text = text.map_err(|error| of(error.to_string()))?;
    let description = serde_json::from_str(&text).map_err(|error| of(error.to_string()))?;
    Ok((text, description))
}

async fn ask(program: &Path) -> io::Result<String> {
    let mut child = tokio::process::Command::new(program)
        .arg("--describe")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_DESCRIPTION + 1).read_to_string(&mut text).await?;
    }
    if text.len() as u64 > MAX_DESCRIPTION {
        return Err(io::Error::other(format!("it says more than {MAX_DESCRIPTION} bytes")));
    }
    let status = child.wait().await?;
    if status.success() { Ok(text) } else { Err(io::Error::other(status.to_string())) }
}

impl Describe {
    pub(crate) fn run(self) -> ExitCode {
        let (text, description) = match described(&self.program) {
            Ok(described) => described,
            Err(error) => return failed(1, error),
        };
        let list = if self.json { text.trim_end().to_owned() } else { list(&description) };
        match output::say(&list) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(1, error),
        }
    }
}

/// A description for people.
fn list(description: &Description) -> String {
    let Description { program, arguments, entries } = description;
    let mut list = String::new();
    if let Some(arguments) = arguments {
        list.push_str(&args::help_of(arguments, program));
    } else {
        let _ = writeln!(list, "usage: {program}");
    }
    if entries.is_empty() {
        list.push_str("\nIt has no actors.\n");
    }
    for entry in entries {
        let _ = writeln!(list, "\nactor {}", entry.name);
        if entry.starts {
            indent(&mut list, &args::help_of(&entry.arguments, last_part(&entry.name)));
            let _ = writeln!(list, "  leaves: {}", kind(&entry.output));
        } else {
            list.push_str("  is started by other actors only\n");
        }
        for message in &entry.messages {
            let more = if message.stream { ", in parts" } else { "" };
            let reply = kind(&message.reply_schema);
            let _ = writeln!(list, "  message {} -> {reply}{more}", message.name);
            for (name, field) in message.schema["properties"].as_object().into_iter().flatten() {
                let _ = write!(list, "    {name}: {}", kind(field));
                if let Some(default) = field.get("default") {
                    let _ = write!(list, " (default {default})");
                }
                if let Some(text) = field["description"].as_str() {
                    let _ = write!(list, "  {}", text.lines().next().unwrap_or_default());
                }
                list.push('\n');
            }
        }
    }
    // What a program says of itself may be anything: no escape sequences to the terminal.
    list.retain(|c| c == '\n' || !c.is_control());
    list.trim_end().to_owned()
}

fn indent(list: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(list, "{}", format!("  {line}").trim_end());
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// The type of a schema in a word or two.
fn kind(schema: &Value) -> String {
    if let Some(format) = schema["format"].as_str() {
        return format.to_owned();
    }
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or(name).to_owned();
    }
    match (&schema["type"], schema["title"].as_str()) {
        (Value::String(ty), _) if ty == "array" => format!("[{}]", kind(&schema["items"])),
        (Value::String(ty), _) if ty == "null" => "nothing".to_owned(),
        (Value::String(ty), Some(title)) if ty == "object" => title.to_owned(),
        (Value::String(ty), _) => ty.clone(),
        (_, title) => title.unwrap_or("any value").to_owned(),
    }
}

impl Start {
    pub(crate) fn run(self) -> ExitCode {
        let entries = match described(&self.program) {
            Ok((_, description)) => description.entries,
            Err(error) => return failed(1, error),
        };
        let entry = match find(&entries, &self.entry) {
            Ok(entry) => entry,
            Err(error) => return failed(2, error),
        };
        if self.arguments.iter().any(|word| word == "--help" || word == "-h") {
            let program = self.program.file_name().unwrap_or_default().to_string_lossy();
            let usage = format!("layer-cake actor {program} {}", self.entry);
            return match output::say(args::help_of(&entry.arguments, &usage).trim_end()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(1, error),
            };
        }
        let arguments = match args::read_value(&entry.arguments, &self.arguments) {
            Ok(arguments) => arguments,
            Err(error) => return failed(2, error),
        };
        let (program, name) = (self.program, entry.name.clone());
        layercake::run_main(async move |node| run(&node, &program, &name, arguments).await)
    }
}

/// Runs an actor to its end, and returns what it leaves.
async fn run(node: &Node, program: &Path, entry: &str, arguments: Value) -> Result<Value> {
    let (_, mut running) = node.launch_entry(program, entry, arguments).await?;
    let left = tokio::select! {
        left = running.join() => left,
        () = node.stopping() => {
            running.stop();
            match tokio::time::timeout(STOP_TIME, running.join()).await {
                Ok(left) => left,
                Err(_) => Err(Exit::Aborted),
            }
        }
    };
    match left {
        Ok(value) => Ok(value),
        // It was asked to, and leaves nothing.
        Err(Exit::Stopped) => Ok(Value::Null),
        Err(exit) => Err(format!("`{entry}` {exit}").into()),
    }
}

fn find<'a>(entries: &'a [EntryApi], name: &str) -> Result<&'a EntryApi, String> {
    let named = |entry: &&EntryApi| entry.name == name;
    let last: Vec<_> = entries.iter().filter(|entry| last_part(&entry.name) == name).collect();
    let entry = match (entries.iter().find(named), &last[..]) {
        (Some(entry), _) => entry,
        (None, [entry]) => *entry,
        (None, []) => {
            let names: Vec<_> = entries.iter().map(|entry| last_part(&entry.name)).collect();
            return Err(format!("the program has no actor `{name}`; it has: {}", names.join(", ")));
        }
        (None, several) => {
            let names: Vec<_> = several.iter().map(|entry| entry.name.as_str()).collect();
            return Err(format!(
                "`{name}` may be one of {}: give the whole name",
                names.join(", ")
            ));
        }
    };
    if entry.starts { Ok(entry) } else { Err(format!("`{name}` cannot be made from nothing")) }
}
