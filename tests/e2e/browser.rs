//! A page in Chromium that calls the gateway by gRPC-web from another origin.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use outrider_tests::{Shape, cluster::Options, leash::Directory, ports};
use serde_json::json;
use tokio::task::block_in_place;

use crate::scenario::{self, Scenario, run_with_shares};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("browser")
}

/// Returns the directory with buf and the packages that `tests/run` installed, and the browser.
/// Without them, prints that the test is skipped and returns `None`, or fails if nothing may be
/// skipped.
fn tools() -> Result<Option<(PathBuf, PathBuf)>> {
    let tools = std::env::var_os("OUTRIDER_TEST_TOOLS").map(PathBuf::from).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chromium =
        std::env::split_paths(&path).map(|path| path.join("chromium")).find(|path| path.is_file());
    if let Some(chromium) = chromium
        && tools.join("browser/node_modules").is_dir()
    {
        return Ok(Some((tools, chromium)));
    }
    ensure!(
        std::env::var_os("OUTRIDER_TEST_STRICT").is_none(),
        "no Chromium, or no packages in {}",
        tools.display()
    );
    eprintln!(
        "SKIPPED: there is no Chromium, or no packages for the page; tests/run installs them"
    );
    Ok(None)
}

/// Runs a command to its end and returns what it printed.
fn run(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{printed}{errors}", output.status);
    Ok(printed.trim().to_owned())
}

/// Builds the page and its bundle: clients generated from the protos, with their dependencies.
fn build(tools: &Path, directory: &Directory) -> Result<()> {
    let (at, packages) = (directory.path(), tools.join("browser/node_modules"));
    for file in ["index.html", "main.js"] {
        fs::copy(sources().join(file), at.join(file))?;
    }
    let path = std::env::join_paths(
        [packages.join(".bin")]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").context("PATH")?)),
    )?;
    let mut generate = Command::new(tools.join("node_modules/.bin/buf"));
    generate
        .current_dir(sources().join("../.."))
        .args(["generate", "--template"])
        .arg(sources().join("buf.gen.yaml"));
    generate.arg("--output").arg(at).env("PATH", &path);
    run(generate)?;
    let mut bundle = Command::new(packages.join(".bin/esbuild"));
    bundle
        .current_dir(at)
        .args(["main.js", "--bundle", "--outfile=bundle.js", "--log-level=warning"])
        .env("NODE_PATH", &packages);
    run(bundle).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_publishes_and_tails_from_a_listed_origin_and_from_no_other() {
    run_with_shares(1, async || {
        let Some((tools, chromium)) = block_in_place(tools)? else { return Ok(()) };
        let (listed, other) = (ports::free(), ports::free());
        let more = json!({"gateway": {"cors_origins": [format!("http://127.0.0.1:{listed}")]}});
        let outrider = block_in_place(|| {
            scenario::start(Shape::Sqlite, &Options { more, ..Options::default() }, None)
        })?;
        let scenario = Scenario::new(&outrider).await?;
        let directory = Directory::create()?;
        block_in_place(|| build(&tools, &directory))?;
        let open = |port: u16| {
            let mut drive = Command::new("node");
            drive.arg(sources().join("drive.js")).arg(directory.path()).arg(port.to_string());
            drive.env("BROWSER_TOOLS", tools.join("browser")).env("CHROMIUM", &chromium);
            drive.env("OUTRIDER_SERVER", &scenario.url).env("OUTRIDER_API_KEY", &scenario.token);
            drive.env("OUTRIDER_PROJECT", &scenario.project);
            block_in_place(|| run(drive))
        };
        let shown = open(listed)?;
        let lines: Vec<&str> = shown.lines().collect();
        let ["following", published, told] = lines[..] else { bail!("{shown}") };
        let event = published.strip_prefix("published ").with_context(|| shown.clone())?;
        ensure!(told == format!("event {event} {{\"amount\": 42}}"), "{shown}");
        let stored = scenario.rest.get(&scenario.path(&format!("events/{event}"))).await?;
        ensure!(stored["data"] == json!({"amount": 42}), "{stored}");

        let shown = open(other)?;
        let refused =
            shown.lines().count() == 2 && shown.lines().all(|line| line.starts_with("error "));
        ensure!(refused, "a page of an origin that is not listed is answered: {shown}");
        let events = scenario.rest.get(&scenario.path("events")).await?;
        ensure!(events["events"].as_array().is_some_and(|events| events.len() == 1), "{events}");
        Ok(())
    })
    .await;
}
