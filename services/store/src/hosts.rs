//! The hosts of PostgreSQL, of which one served last. A connection goes to that one, and to the
//! others in turn when it does not serve.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions as _, PgConnection, PgPool, Row as _, postgres::PgConnectOptions};

use crate::{
    StoreOptions,
    failure::{code, place, told},
    target::{Target, Wanted},
};

/// Hosts, and which of them will do.
pub(crate) struct Hosts {
    connects: Vec<PgConnectOptions>,
    wanted: Wanted,
    /// How long one may take.
    bound: Duration,
    current: AtomicUsize,
    /// The pool that dials for itself, and is told where.
    pool: OnceLock<PgPool>,
}

impl Hosts {
    /// An error says what the target asks that cannot be.
    pub fn new(target: &Target, options: &StoreOptions) -> Result<Self, String> {
        // Poolers refuse extra_float_digits at the start of a session, and no column is a
        // floating-point number.
        let prepared = |connect: PgConnectOptions| {
            connect.extra_float_digits(None).disable_statement_logging()
        };
        let connects: Vec<PgConnectOptions> =
            target.connects()?.into_iter().map(prepared).collect();
        let each = options.database.acquire_timeout
            / u32::try_from(connects.len()).unwrap_or(u32::MAX).max(1);
        let bound = target.connect_timeout().unwrap_or(each);
        let wanted = target.wanted(options.read_only)?;
        Ok(Self { connects, wanted, bound, current: AtomicUsize::new(0), pool: OnceLock::new() })
    }

    /// That which served last.
    pub fn current(&self) -> &PgConnectOptions {
        &self.connects[self.current.load(Ordering::Relaxed) % self.connects.len()]
    }

    /// Where they are, for messages.
    pub fn places(&self) -> String {
        self.connects.iter().map(place).collect::<Vec<_>>().join("; ")
    }

    /// A pool that follows.
    pub fn lead(&self, pool: &PgPool) {
        let _ = self.pool.set(pool.clone());
    }

    /// Whether there is nothing to choose.
    pub fn is_plain(&self) -> bool {
        self.connects.len() == 1 && self.wanted == Wanted::Any
    }

    /// A connection to a host that will do.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        if self.is_plain() {
            return self.in_time(self.current().connect()).await;
        }
        let mut words = Vec::new();
        let passes: &[Wanted] = if self.wanted == Wanted::PreferStandby {
            &[Wanted::Standby, Wanted::Any]
        } else {
            std::slice::from_ref(&self.wanted)
        };
        for wanted in passes {
            words.clear();
            let first = self.current.load(Ordering::Relaxed);
            for index in (0..self.connects.len()).map(|step| (first + step) % self.connects.len()) {
                match self.in_time(self.dial(index, *wanted)).await {
                    Ok(connection) => {
                        self.turn(index);
                        return Ok(connection);
                    }
                    // As libpq has it: who is not let in by one is let in by none.
                    Err(error) if code(&error).is_some_and(|code| code.starts_with("28")) => {
                        return Err(error);
                    }
                    Err(error) => {
                        words.push(format!("{}: {}", place(&self.connects[index]), told(&error)))
                    }
                }
            }
        }
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, words.join("; "))))
    }

    /// Whether a connection that the pool made for itself is to one that will do.
    pub async fn serves(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        if self.is_plain() { Ok(true) } else { Ok(wrong(connection, self.wanted).await?.is_none()) }
    }

    async fn dial(&self, index: usize, wanted: Wanted) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connects[index].connect().await?;
        match wrong(&mut connection, wanted).await? {
            None => Ok(connection),
            Some(why) => Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, why))),
        }
    }

    fn turn(&self, index: usize) {
        if self.current.swap(index, Ordering::Relaxed) != index {
            tracing::info!(
                host = place(&self.connects[index]),
                "the database is at another host now"
            );
            if let Some(pool) = self.pool.get() {
                pool.set_connect_options(self.connects[index].clone());
            }
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        tokio::time::timeout(self.bound, work).await.unwrap_or_else(|_| Err(no_answer(self.bound)))
    }
}

/// The server said nothing for so long.
pub(crate) fn no_answer(patience: Duration) -> sqlx::Error {
    let words = format!("no answer within {} ms", patience.as_millis());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}

/// Why a server will not do, by what libpq asks.
async fn wrong(
    connection: &mut PgConnection,
    wanted: Wanted,
) -> Result<Option<&'static str>, sqlx::Error> {
    const STATE: &str =
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'";
    let row = sqlx::raw_sql(STATE).fetch_one(connection).await?;
    let (standby, read_only): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match wanted {
        Wanted::ReadWrite if standby || read_only => Some("it takes no writes"),
        Wanted::Primary if standby => Some("it is a standby"),
        Wanted::ReadOnly if !standby && !read_only => Some("it takes writes"),
        Wanted::Standby if !standby => Some("it is no standby"),
        _ => None,
    })
}
