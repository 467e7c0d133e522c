//! The pool's scheduler beside other ways to spread requests, in simulated time.
//!
//! Everything follows from seeds, so two runs yield the same tables and plots. What the scheduler promises
//! is checked by the tests of this module; `--write` puts all into `docs/pools.md` and beside it.

mod balancers;
mod measure;
mod plot;
mod scenarios;
mod world;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use plot::Plot;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only scenarios whose name contains this.
    name: Option<String>,
    /// Writes tables and plots into this document, and into the folder `pools` beside it.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// One scenario and what came of it.
struct Report {
    /// Its name in the document and of its plot.
    name: &'static str,
    table: Vec<Vec<String>>,
    plot: Plot,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = options.name.as_deref().unwrap_or_default();
    let chosen = scenarios::ALL.iter().filter(|(name, _)| name.contains(wanted));
    let reports: Vec<_> = chosen.map(|(_, scenario)| scenario()).collect();
    ensure!(!reports.is_empty(), "there is no scenario `{wanted}`");
    for report in &reports {
        println!("{}\n\n{}", report.name, markdown(&report.table));
    }
    if let Some(document) = &options.write {
        write(document, &reports)?;
    }
    Ok(())
}

/// Replaces what stands between the marks of each scenario in a document, and writes its plot.
fn write(document: &Path, reports: &[Report]) -> Result<()> {
    let reading = || format!("cannot read {}", document.display());
    let mut text = std::fs::read_to_string(document).with_context(reading)?;
    let folder = document.with_extension("");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for Report { name, table, plot } in reports {
        let file = folder.join(format!("{name}.svg"));
        std::fs::write(&file, plot.svg())
            .with_context(|| format!("cannot write {}", file.display()))?;
        text = replace(&text, name, &markdown(table)).with_context(|| {
            format!("{} has no marks `simulated: {name}` and `end: {name}`", document.display())
        })?;
    }
    std::fs::write(document, text).with_context(|| format!("cannot write {}", document.display()))
}

fn replace(text: &str, name: &str, with: &str) -> Option<String> {
    let (start, end) = (format!("<!-- simulated: {name} -->\n"), format!("<!-- end: {name} -->"));
    let from = text.find(&start)? + start.len();
    let to = from + text[from..].find(&end)?;
    Some(format!("{}\n{with}\n{}", &text[..from], &text[to..]))
}

fn markdown(table: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (row, cells) in table.iter().enumerate() {
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if row == 0 {
            let numbers = "---:|".repeat(cells.len().saturating_sub(1));
            text.push_str(&format!("|---|{numbers}\n"));
        }
    }
    text
}
