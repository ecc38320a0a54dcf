//! The hosts of PostgreSQL. A connection goes to the host that served last, and to the others in
//! turn if that one does not serve.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions as _, PgConnection, PgPool, Row as _, postgres::PgConnectOptions};

use super::{
    failure::{address, code, message},
    options::StoreOptions,
    target::{ServerKind, Target},
};

/// The hosts, and the kind of server that they must be.
pub(crate) struct Hosts {
    connects: Vec<PgConnectOptions>,
    wanted: ServerKind,
    /// How long a connection to one host may take.
    bound: Duration,
    current: AtomicUsize,
    /// A pool that dials on its own, and learns from here which host to dial.
    pool: OnceLock<PgPool>,
}

impl Hosts {
    /// The error names what the target asks for that is not possible.
    pub fn new(target: &Target, options: &StoreOptions) -> Result<Self, String> {
        // Poolers refuse extra_float_digits at the start of a session, and no column needs it: none
        // is a floating-point number.
        let prepared = |connect: PgConnectOptions| {
            connect.extra_float_digits(None).disable_statement_logging()
        };
        let connects: Vec<PgConnectOptions> =
            target.connects()?.into_iter().map(prepared).collect();
        let each = options.database.acquire_timeout
            / u32::try_from(connects.len()).unwrap_or(u32::MAX).max(1);
        let bound = target.connect_timeout().unwrap_or(each);
        let wanted = target.server_kind(options.read_only)?;
        Ok(Self { connects, wanted, bound, current: AtomicUsize::new(0), pool: OnceLock::new() })
    }

    /// The host that served last.
    pub fn current(&self) -> &PgConnectOptions {
        &self.connects[self.current.load(Ordering::Relaxed) % self.connects.len()]
    }

    /// Their addresses, for messages.
    pub fn addresses(&self) -> String {
        self.connects.iter().map(address).collect::<Vec<_>>().join("; ")
    }

    /// Makes a pool dial the current host from now on.
    pub fn lead(&self, pool: &PgPool) {
        let _ = self.pool.set(pool.clone());
    }

    /// Whether there is only one host, of any kind.
    pub fn is_plain(&self) -> bool {
        self.connects.len() == 1 && self.wanted == ServerKind::Any
    }

    /// Connects to a host of the right kind.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        if self.is_plain() {
            return self.in_time(self.current().connect()).await;
        }
        let mut words = Vec::new();
        let passes: &[ServerKind] = if self.wanted == ServerKind::PreferStandby {
            &[ServerKind::Standby, ServerKind::Any]
        } else {
            std::slice::from_ref(&self.wanted)
        };
        for wanted in passes {
            words.clear();
            let first = self.current.load(Ordering::Relaxed);
            for index in (0..self.connects.len()).map(|step| (first + step) % self.connects.len()) {
                match self.in_time(self.dial(index, *wanted)).await {
                    Ok(connection) => {
                        self.switch_to(index);
                        return Ok(connection);
                    }
                    // As in libpq: a user that one host refuses is not tried on the others.
                    Err(error) if code(&error).is_some_and(|code| code.starts_with("28")) => {
                        return Err(error);
                    }
                    Err(error) => {
                        let address = address(&self.connects[index]);
                        words.push(format!("{address}: {}", message(&error)));
                    }
                }
            }
        }
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, words.join("; "))))
    }

    /// Whether a connection that the pool opened itself leads to a host of the right kind.
    pub async fn serves(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        if self.is_plain() {
            Ok(true)
        } else {
            Ok(mismatch(connection, self.wanted).await?.is_none())
        }
    }

    async fn dial(&self, index: usize, wanted: ServerKind) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connects[index].connect().await?;
        match mismatch(&mut connection, wanted).await? {
            None => Ok(connection),
            Some(why) => Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, why))),
        }
    }

    fn switch_to(&self, index: usize) {
        if self.current.swap(index, Ordering::Relaxed) != index {
            tracing::info!(
                host = address(&self.connects[index]),
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

/// The error when the server says nothing for this long.
pub(crate) fn no_answer(patience: Duration) -> sqlx::Error {
    let words = format!("no answer within {} ms", patience.as_millis());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}

/// Why a server is not of the wanted kind, by the same queries that libpq uses.
async fn mismatch(
    connection: &mut PgConnection,
    wanted: ServerKind,
) -> Result<Option<&'static str>, sqlx::Error> {
    const STATE: &str =
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'";
    let row = sqlx::raw_sql(STATE).fetch_one(connection).await?;
    let (standby, read_only): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match wanted {
        ServerKind::ReadWrite if standby || read_only => Some("it takes no writes"),
        ServerKind::Primary if standby => Some("it is a standby"),
        ServerKind::ReadOnly if !standby && !read_only => Some("it takes writes"),
        ServerKind::Standby if !standby => Some("it is no standby"),
        _ => None,
    })
}
