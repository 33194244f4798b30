//! `completions` and `man`: what shells and `man` need to know of the command line. Opens no data directory.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;
use totpd::error::{Error, Result};

use super::args::{self, Args};
use super::output::Output;

#[derive(Serialize)]
struct CompletionsDocument {
    shell: &'static str,
    script: String,
}

#[derive(Serialize)]
struct ManDocument {
    files: Vec<String>,
}

/// Prints the completions for a shell.
pub(super) fn completions(out: &Output, shell: args::Shell) -> Result<()> {
    let (shell, generator) = match shell {
        args::Shell::Bash => ("bash", Shell::Bash),
        args::Shell::Zsh => ("zsh", Shell::Zsh),
        args::Shell::Fish => ("fish", Shell::Fish),
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut Args::command(), "totpd", &mut script);
    let document = CompletionsDocument {
        shell,
        script: String::from_utf8_lossy(&script).into_owned(),
    };
    out.answer(&document, || document.script.trim_end().to_owned())
}

/// Writes a man page for each command into a directory, which is created where it is missing.
pub(super) fn man(out: &Output, dir: &Path) -> Result<()> {
    let cannot = |error: io::Error| {
        let problem = format!("cannot write the man pages: {error}");
        Error::invalid(dir.display().to_string(), problem)
    };
    fs::create_dir_all(dir).map_err(cannot)?;
    let mut root = Args::command();
    root.build();
    let mut files = Vec::new();
    let mut left = vec![root];
    while let Some(command) = left.pop() {
        let is_help = |it: &&clap::Command| it.get_name() != "help";
        left.extend(command.get_subcommands().filter(is_help).cloned());
        let page = clap_mangen::Man::new(command);
        let path = dir.join(page.get_filename());
        let mut text = Vec::new();
        page.render(&mut text).map_err(cannot)?;
        fs::File::create(&path)
            .and_then(|mut it| it.write_all(&text))
            .map_err(cannot)?;
        files.push(path.display().to_string());
    }
    files.sort_unstable();
    let document = ManDocument { files };
    let done = format!("wrote {} man pages", document.files.len());
    out.answer_change(&done, &document, || done.clone())
}
