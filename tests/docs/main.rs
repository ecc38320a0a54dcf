//! Runs the documentation: every command of README.md and docs/*.md, in order, page by page, in an
//! empty home directory with the built binary on the PATH.
#![allow(clippy::unwrap_used, reason = "all of this program is tests")]

mod greeting;
mod memory;
mod page;
mod session;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result};
use serde_json::Value;

use page::{Action, Step, steps};
use session::Session;

/// How many pages run at once. They mostly wait.
const AT_ONCE: usize = 3;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns all pages, or those whose names contain OUTRIDER_TEST_PAGE.
fn pages() -> Vec<PathBuf> {
    let wanted = std::env::var("OUTRIDER_TEST_PAGE").unwrap_or_default();
    let docs = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let all = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut pages: Vec<_> = all.chain([repository().join("README.md")]).collect();
    pages.retain(|path| path.to_string_lossy().contains(&wanted));
    pages.sort();
    pages
}

/// The result of a page.
struct Outcome {
    run: usize,
    /// Line and reason.
    skipped: Vec<(usize, String)>,
}

fn carry_out(path: &Path) -> Result<Outcome> {
    let text = fs::read_to_string(path)?;
    let steps = steps(&text)?;
    let mut outcome = Outcome { run: 0, skipped: Vec::new() };
    let mut session = None;
    for step in &steps {
        if let Action::Skip(reason) = &step.action {
            outcome.skipped.push((step.line, reason.clone()));
            continue;
        }
        outcome.run += usize::from(!matches!(
            step.action,
            Action::Shows | Action::File(_) | Action::Before | Action::Stop
        ));
        let session = match &mut session {
            Some(session) => session,
            none => none.insert(Session::new(&text)?),
        };
        let Step { line, text, .. } = step;
        session.step(step).with_context(|| format!("line {line}:\n{text}"))?;
    }
    if let Some(session) = &mut session {
        session.stop()?;
    }
    Ok(outcome)
}

#[test]
fn every_command_in_the_documentation_runs() {
    let queue = Mutex::new(pages());
    let (failures, run) = (Mutex::new(Vec::new()), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(path) = queue.lock().unwrap().pop() else { break };
                    let name = path.strip_prefix(repository()).unwrap().display().to_string();
                    match carry_out(&path) {
                        Ok(outcome) => {
                            *run.lock().unwrap() += outcome.run;
                            eprintln!(
                                "{name}: {} blocks run, {} not run",
                                outcome.run,
                                outcome.skipped.len()
                            );
                            for (line, reason) in outcome.skipped {
                                eprintln!("  NOT RUN {name}:{line}: {reason}");
                            }
                        }
                        Err(error) => failures.lock().unwrap().push(format!("{name}: {error:#}")),
                    }
                }
            });
        }
    });
    let (failures, run) = (failures.into_inner().unwrap(), run.into_inner().unwrap());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(run > 0, "no command was found");
}

/// On a page, a stand-in for cargo knows only this command, so it must first be the one that cargo
/// would run.
#[test]
fn the_readme_begins_with_the_one_command() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    assert!(
        readme.starts_with("# Outrider\n\n```sh\ncargo run --release -- demo\n```\n"),
        "it begins with something else"
    );
    let mut cargo = std::process::Command::new(env!("CARGO"));
    let output = cargo
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    // `cargo run` needs no further argument if the default members have a single program.
    let default = metadata["workspace_default_members"].as_array().unwrap();
    let packages = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| default.contains(&package["id"]));
    let targets: Vec<_> =
        packages.flat_map(|package| package["targets"].as_array().unwrap()).collect();
    let programs = targets.iter().filter(|target| target["kind"] == serde_json::json!(["bin"]));
    assert_eq!(programs.map(|target| &target["name"]).collect::<Vec<_>>(), ["outrider"]);
}
