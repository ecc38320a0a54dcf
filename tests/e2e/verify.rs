//! Checks received webhooks with our own rules and with the official libraries of Standard
//! Webhooks.

use std::{path::PathBuf, process::Command, time::UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_model::{SigningSecret, Timestamp, signature};
use outrider_tests::{Received, leash::Directory};
use serde_json::{Value, json};

/// Verifies the signature of a request with our own code, and that it is a webhook in every other
/// respect.
pub fn genuine(received: &Received, secret: &str) -> Result<()> {
    ensure!(received.method == "POST", "sent by {}", received.method);
    let secret = SigningSecret::parse(secret)?;
    let micros = received.time.duration_since(UNIX_EPOCH)?.as_micros();
    let now = Timestamp(i64::try_from(micros)?);
    let (id, timestamp) = (received.id(), received.header("webhook-timestamp"));
    ensure!(id.starts_with("evt_"), "webhook-id is {id:?}");
    ensure!(received.header("outrider-delivery-id").starts_with("dlv_"), "no delivery id");
    signature::verify(
        &secret,
        id,
        timestamp,
        received.header("webhook-signature"),
        &received.body,
        now,
    )
    .with_context(|| format!("{id} does not verify"))
}

/// Verifies requests with the official libraries for Python and JavaScript, which must also refuse
/// each of them with another body. The libraries take only text, so bodies that are not UTF-8 are
/// left to `genuine`.
pub fn by_official_libraries(webhooks: &[(Received, String)]) -> Result<()> {
    let texts: Vec<Value> = webhooks
        .iter()
        .filter(|(received, _)| std::str::from_utf8(&received.body).is_ok())
        .map(record)
        .collect();
    ensure!(!texts.is_empty(), "nothing to verify");
    let directory = Directory::create()?;
    let file = directory.path().join("webhooks.json");
    std::fs::write(&file, Value::from(texts.clone()).to_string())?;
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verify");
    let Some(tools) = tools()? else { return Ok(()) };

    let mut python = Command::new(tools.join("venv/bin/python"));
    python.arg(scripts.join("verify.py")).arg(&file);
    let mut node = Command::new("node");
    node.arg(scripts.join("verify.js")).arg(&file).env("OUTRIDER_TEST_TOOLS", &tools);
    for mut command in [python, node] {
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("verified {}", texts.len());
        if !output.status.success() || said.trim() != expected {
            bail!("{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}

fn record((received, secret): &(Received, String)) -> Value {
    let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .map(|name| (name.to_owned(), json!(received.header(name))));
    json!({"secret": secret, "headers": Value::Object(headers.into_iter().collect()),
        "body": STANDARD.encode(&received.body)})
}

/// Returns the directory with the libraries that `tests/run` installed. Without them, prints that
/// the test is skipped and returns `None`, or fails if nothing may be skipped.
fn tools() -> Result<Option<PathBuf>> {
    let cache = || {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or(home)
            .map(|cache| cache.join("outrider-tests"))
    };
    let tools = std::env::var_os("OUTRIDER_TEST_TOOLS")
        .map(PathBuf::from)
        .or_else(cache)
        .context("no cache directory")?;
    if tools.join("venv/bin/python").exists()
        && tools.join("node_modules/standardwebhooks").exists()
    {
        return Ok(Some(tools));
    }
    ensure!(
        std::env::var_os("OUTRIDER_TEST_STRICT").is_none(),
        "no libraries of Standard Webhooks in {}",
        tools.display()
    );
    eprintln!(
        "SKIPPED: the libraries of Standard Webhooks are not in {}; tests/run installs them",
        tools.display()
    );
    Ok(None)
}
