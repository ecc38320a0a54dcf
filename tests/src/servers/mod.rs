//! Real servers, each in its own directory and on a free port.

mod postgres;
mod redis;

pub use postgres::Postgres;
pub use redis::Redis;

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::leash;

/// Runs a command. If it fails, the error has its output.
pub(crate) fn run(mut command: Command) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let id = child.id();
    leash::hold_process(id);
    let output = child.wait_with_output();
    leash::release_process(id);
    let output = output?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_keeps_what_was_committed_when_it_is_killed() {
        let mut server = Postgres::start().unwrap();
        let url = server.create_database().unwrap();
        let database = url.rsplit('/').next().unwrap();
        server.query(database, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").unwrap();
        let before = server.process_id();
        server.kill().unwrap();
        assert!(server.query(database, "SELECT 1").is_err());
        server.restart().unwrap();
        assert_ne!(server.process_id(), before);
        assert_eq!(server.query(database, "SELECT n FROM kept").unwrap().trim(), "7");
    }

    #[test]
    fn redis_forgets_when_it_is_flushed_or_killed() {
        let mut server = Redis::start().unwrap();
        server.ask("SET a 1").unwrap();
        assert!(server.ask("GET a").unwrap() == "1");
        server.flush_all().unwrap();
        assert!(server.ask("GET a").unwrap().starts_with("$-1"));
        server.ask("SET a 1").unwrap();
        server.kill().unwrap();
        assert!(server.ask("PING").is_err());
        server.restart().unwrap();
        assert!(server.ask("GET a").unwrap().starts_with("$-1"));
    }
}
