//! PostgreSQL dies, refuses writes or connections, or freezes. Callers get 503 and UNAVAILABLE,
//! never a false OK, and work continues by itself.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use outrider_tests::{process::Signal, servers::Postgres};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{
    cases,
    trial::{Own, Trial, mesh, single},
};

cases! {
    mesh_postgres_killed: mesh().own(Own::Postgres), async |trial| killed(trial).await;
    postgres_postgres_killed: single().own(Own::Postgres), async |trial| killed(trial).await;
    mesh_postgres_read_only: mesh().own(Own::Postgres), async |trial| read_only(trial).await;
    postgres_postgres_without_connections: single().own(Own::SmallPostgres),
        async |trial| without_connections(trial).await;
    mesh_postgres_frozen: mesh().own(Own::Postgres).with(impatient()),
        async |trial| frozen(trial).await;
    mesh_postgres_vanishes: mesh().own(Own::Distant).with(few_connections()),
        async |trial| vanishes(trial).await;
    mesh_postgres_fails_over: mesh().own(Own::Distant).with(impatient()),
        async |trial| fails_over(trial).await;
    mesh_postgres_fails_over_by_hosts: mesh().own(Own::PostgresPair).with(impatient()),
        async |trial| fails_over_by_hosts(trial).await;
    postgres_postgres_fails_over_by_hosts: single().own(Own::PostgresPair).with(impatient()),
        async |trial| fails_over_by_hosts(trial).await;
    postgres_postgres_vanishes_by_tls: single().own(Own::DistantByTls).with(few_connections()),
        async |trial| vanishes(trial).await;
}

/// PostgreSQL ends at once, as in an immediate shutdown, and comes back, twice. Results in flight
/// are reported when it is back, so nothing is sent twice.
async fn killed(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..2 {
        trial.postgres("SIGKILL", |postgres| postgres.kill())?;
        trial.answers("REST 503").await?;
        trial.postgres("start", |postgres| postgres.restart())?;
        trial.accepts(20).await?;
    }
    Ok(())
}

/// As after a failover to a server that is still a standby.
async fn read_only(trial: &mut Trial<'_>) -> Result<()> {
    let set = "ALTER SYSTEM SET default_transaction_read_only = on";
    trial.postgres(set, |postgres| reloaded(postgres, set))?;
    trial.answers("REST 503").await?;
    trial.answers("gRPC Unavailable").await?;
    let reset = "ALTER SYSTEM RESET default_transaction_read_only";
    trial.postgres(reset, |postgres| reloaded(postgres, reset))
}

fn reloaded(postgres: &Postgres, sql: &str) -> Result<()> {
    postgres.query("postgres", sql)?;
    postgres.query("postgres", "SELECT pg_reload_conf()").map(drop)
}

/// Another client takes every connection, while those of Outrider are broken repeatedly.
async fn without_connections(trial: &mut Trial<'_>) -> Result<()> {
    const BREAK: &str = "DO $$ BEGIN FOR i IN 1..30 LOOP \
        PERFORM pg_stat_clear_snapshot(); \
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'outrider%'; \
        PERFORM pg_sleep(0.1); END LOOP; END $$";
    let stop = Arc::new(AtomicBool::new(false));
    let hog = trial.postgres("another client takes all connections", |postgres| {
        let (address, stop) = (postgres.address(), Arc::clone(&stop));
        Ok(std::thread::spawn(move || hold_connections(&address, &stop)))
    })?;
    trial.postgres("and Outrider's are broken for 3 s", |postgres| {
        postgres.query("postgres", BREAK).map(drop)
    })?;
    trial.answers("REST 503").await?;
    stop.store(true, Ordering::Relaxed);
    let most = hog.join().map_err(|_| anyhow::anyhow!("the other client failed"))?;
    trial.note(format!("the other client, which held {most} connections, gives them back"));
    ensure!(most > 20, "the other client got only {most} connections");
    Ok(())
}

/// Takes connections until none is left, and again when some become free. Returns the highest
/// number.
fn hold_connections(address: &str, stop: &AtomicBool) -> usize {
    let (mut held, mut most) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        match connect(address) {
            Ok(connection) => held.push(connection),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
        most = most.max(held.len());
    }
    most
}

/// Opens a session with bytes: the startup message, and the answer that it is authenticated.
fn connect(address: &str) -> Result<TcpStream> {
    const VERSION: u32 = 3 << 16;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(parameters.len() + 8)?;
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    connection.write_all(
        &[&length.to_be_bytes(), &VERSION.to_be_bytes(), parameters.as_slice()].concat(),
    )?;
    let mut kind = [0];
    connection.read_exact(&mut kind)?;
    ensure!(kind == *b"R", "no session");
    Ok(connection)
}

/// Waits 3 s and not 14 s for a database that does not answer.
fn impatient() -> Value {
    json!({"database": {"acquire_timeout": "1s", "statement_timeout": "1s"}})
}

/// The same, with so few connections that none can be spared.
fn few_connections() -> Value {
    json!({"database": {"acquire_timeout": "2s", "statement_timeout": "1s", "max_connections": 4,
        "ledger_connections": 4}})
}

/// All of its processes freeze for longer than any timeout. No connection breaks.
async fn frozen(trial: &mut Trial<'_>) -> Result<()> {
    trial.postgres("SIGSTOP", |postgres| postgres.signal_all(Signal::Stop))?;
    trial.answers("REST 503").await?;
    trial.answers("gRPC Unavailable").await?;
    trial.postgres("SIGCONT", |postgres| postgres.signal_all(Signal::Continue))
}

/// Its host disappears without closing connections, and another takes its place for new
/// connections. TCP would wait a quarter of an hour.
async fn vanishes(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..3 {
        trial.harm("PostgreSQL: all connections fall silent", |world| {
            world.links.as_ref().context("no links here")?.postgres.fall_silent();
            Ok(())
        })?;
        // The log names the session whose work was in flight. This need not be a publisher's,
        // because others may find or open sessions that answer.
        trial.tells("does not answer at all").await?;
        trial.accepts(50).await?;
    }
    Ok(())
}

/// It dies permanently. Its synchronous standby is promoted, and connections lead there.
async fn fails_over(trial: &mut Trial<'_>) -> Result<()> {
    let standby =
        trial.postgres("has a synchronous standby", |postgres| postgres.start_standby())?;
    trial.accepts(50).await?;
    trial.postgres("SIGKILL", |postgres| postgres.kill())?;
    trial.answers("REST 503").await?;
    trial.answers("gRPC Unavailable").await?;
    trial.harm("PostgreSQL: the standby takes its place", |world| {
        standby.promote()?;
        world.links.as_ref().context("no links here")?.postgres.turn_to(&standby.address());
        world.postgres = Some(standby);
        Ok(())
    })
}

/// The URL names both servers. The first dies, and the standby, which was skipped until then, is
/// promoted and found by all. The first comes back without accepting writes and is skipped in turn,
/// even while there is no other.
async fn fails_over_by_hosts(trial: &mut Trial<'_>) -> Result<()> {
    let place = |postgres: &Postgres| format!("{} as postgres", postgres.address());
    trial.postgres("SIGKILL", |postgres| postgres.kill())?;
    trial.answers("REST 503").await?;
    trial.answers("gRPC Unavailable").await?;
    let promoted = trial.harm("PostgreSQL: the standby is promoted", |world| {
        world.other.as_ref().context("no standby here")?.promote()?;
        std::mem::swap(&mut world.postgres, &mut world.other);
        world.postgres.as_ref().map(place).context("nobody is promoted")
    })?;
    trial.accepts(50).await?;
    let logs = block_in_place(|| trial.world.outrider.logs(10_000));
    ensure!(
        logs.contains("the database is at another host now") && logs.contains(&promoted),
        "nobody tells of {promoted}"
    );
    // It was tried at the start, and is not tried again.
    let turned = |trial: &Trial<'_>, place: &str| {
        let logs = block_in_place(|| trial.world.outrider.logs(10_000));
        logs.lines()
            .filter(|line| line.contains("is at another host now") && line.contains(place))
            .count()
    };
    let former =
        trial.harm("PostgreSQL: the former primary comes back and takes no writes", |world| {
            let former = world.other.as_mut().context("no former primary")?;
            former.set("default_transaction_read_only=on");
            former.restart()?;
            Ok(place(former))
        })?;
    let before = turned(trial, &former);
    ensure!(before > 0, "nobody turned to {former} at the start");
    trial.postgres("SIGKILL", |postgres| postgres.kill())?;
    trial.answers("REST 503").await?;
    // It was tried, and cannot be used.
    trial.tells(&format!("{former}, database outrider_0: it takes no writes")).await?;
    trial.postgres("start", |postgres| postgres.restart())?;
    trial.accepts(50).await?;
    ensure!(turned(trial, &former) == before, "somebody turned to {former}");
    Ok(())
}
