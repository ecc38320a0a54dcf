//! The database's clock, without a query for each reading: a measured offset plus the monotonic
//! clock of this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use outrider_model::{Result, Timestamp};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use super::{
    error::{malformed_row, unavailable},
    patience,
};

/// Number of round trips in a measurement.
const SAMPLES: usize = 5;
/// Time between measurements.
const MEASURED_EVERY: Duration = Duration::from_secs(60);

/// A cheap handle to the database's clock. Once a minute it steps, by at most the error of a
/// measurement.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    database: DatabaseConnection,
    base: Instant,
    /// The database's time at `base`, in microseconds.
    micros_at_base: AtomicI64,
}

impl Clock {
    pub(crate) async fn measured(database: DatabaseConnection) -> Result<Self> {
        let base = Instant::now();
        let micros = measure(&database, base).await?;
        Ok(Self(Arc::new(Inner { database, base, micros_at_base: AtomicI64::new(micros) })))
    }

    /// The database's time. Sends no query.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.micros_at_base.load(Ordering::Relaxed)).plus(self.0.base.elapsed())
    }

    /// Measures the offset now.
    pub async fn measure(&self) -> Result<()> {
        let micros = measure(&self.0.database, self.0.base).await?;
        let stepped = micros - self.0.micros_at_base.swap(micros, Ordering::Relaxed);
        tracing::debug!(stepped_micros = stepped, "the database's clock was measured");
        Ok(())
    }

    /// Measures the offset every 60 s until dropped. While the database does not answer, the last
    /// offset stays in use.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(MEASURED_EVERY).await;
            if let Err(error) = patience::within(MEASURED_EVERY, self.measure()).await {
                tracing::warn!(%error, "the database's clock was not measured");
            }
        }
    }
}

/// The database's time at `base`: the median of several round trips, assuming that each was
/// answered halfway through.
async fn measure(database: &DatabaseConnection, base: Instant) -> Result<i64> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let before = base.elapsed();
        let read = read(database).await?;
        let middle = (before + base.elapsed()) / 2;
        samples.push(read.minus(middle).0);
    }
    samples.sort_unstable();
    Ok(samples[SAMPLES / 2])
}

async fn read(database: &DatabaseConnection) -> Result<Timestamp> {
    let backend = database.get_database_backend();
    let text = match backend {
        DbBackend::Postgres => "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT",
        // SQLite reads the clock of this host, to the millisecond. Reading it directly is finer.
        _ => return Ok(host_time()),
    };
    let row =
        database.query_one_raw(Statement::from_string(backend, text)).await.map_err(unavailable)?;
    let row = row.ok_or_else(|| malformed_row("clock", "now"))?;
    row.try_get_by_index(0).map(Timestamp).map_err(unavailable)
}

fn host_time() -> Timestamp {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(0).plus(since)
}
