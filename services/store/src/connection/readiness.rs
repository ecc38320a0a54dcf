//! Readiness: the schema is current, and the database refuses nothing of the work of this process.
//! A task probes again whenever a statement failed, and until nothing is refused any more.

use std::time::Duration;

use outrider_telemetry::catalog::store::{PARTITIONS_AHEAD, PROBE_REFUSED};

use super::{
    backend::Backend,
    error,
    failure::{Failure, FailureKind, message},
    partitions::{self, Ahead},
    patience,
    probes::{Refusal, SESSION, Work, refused},
    store::{LedgerPool, Store},
};

/// How often the partitions of the coming days are counted.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How soon the probes are repeated while something is refused.
const AGAIN: Duration = Duration::from_secs(2);
/// The remedy if the process may not create partitions.
const OWNER: &str = "run `outrider migrate up` as the owner of the tables, daily from a timer";
const NOT_COUNTED: &str = "the partitions of the coming days were not counted";

impl Store {
    /// Checks that the database can be used: it answers, its schema is current, and it refuses
    /// nothing of the work that this process began with ([`Store::begin`]).
    pub async fn ready(&self) -> Result<(), Failure> {
        self.current().await?;
        self.tomorrow().await?;
        self.refusals().check()
    }

    /// Probes everything that some work needs, at the start of a process that does this work. Fails
    /// with all that is refused because of a missing right or a missing part of the schema. A
    /// refusal that may pass, such as a database that accepts no writes for now, is reported by
    /// [`Store::ready`] instead.
    pub async fn begin(&self, works: &[Work]) -> Result<(), Failure> {
        self.refusals().set_works(works);
        if self.backend() == Backend::Sqlite {
            return Ok(());
        }
        let refused = self
            .probe()
            .await
            .map_err(|error| Failure::of("the database was not probed", &error))?;
        let lasting: Vec<Refusal> =
            refused.iter().filter(|refusal| refusal.is_lasting).cloned().collect();
        self.refusals().replace(refused);
        if let Some(failure) = Refusal::failure(&lasting) {
            return Err(failure);
        }
        match self.ahead().await {
            Ok((ahead, false)) => {
                tracing::warn!(
                    days_ahead = ahead.days,
                    "this role may not create partitions: {OWNER}"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = message(&error), "{NOT_COUNTED}"),
        }
        Ok(())
    }

    /// Watches the database until dropped: counts the partitions of the coming days, and repeats
    /// the probes when a statement failed.
    pub async fn watch(&self) {
        if self.backend() == Backend::Sqlite {
            return;
        }
        let mut doubts = error::doubts();
        let mut again = false;
        loop {
            let rest = if again || self.refusals().any() { AGAIN } else { LOOK_EVERY };
            let doubted = tokio::time::timeout(rest, doubts.changed()).await.is_ok();
            if doubted || again || self.refusals().any() {
                if let LedgerPool::Postgres(sessions) = self.ledger_pool() {
                    sessions.connector().find_host().await;
                }
                let probed = self.probe().await;
                again = probed.is_err();
                if let Ok(refused) = probed {
                    self.refusals().replace(refused);
                }
            }
            if let Err(error) = self.ahead().await {
                tracing::debug!(error = message(&error), "{NOT_COUNTED}");
            }
            // Limits the rate, however many statements fail.
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Fails if a table lacks tomorrow's partition and this process accepts or writes events.
    async fn tomorrow(&self) -> Result<(), Failure> {
        let works = self.refusals().works();
        if self.backend() == Backend::Sqlite
            || !(works.contains(&Work::Deliveries) || works.contains(&Work::Intake))
        {
            return Ok(());
        }
        let (ahead, may_create) =
            self.ahead().await.map_err(|error| Failure::of(NOT_COUNTED, &error))?;
        if ahead.days > 0 {
            return Ok(());
        }
        let words = format!("tomorrow's partition is missing of {}", ahead.missing.join(", "));
        let failure = Failure::new(FailureKind::Schema, "events of tomorrow cannot be kept", words);
        Err(if may_create { failure } else { failure.with_advice(OWNER) })
    }

    /// How many coming days have their partitions, and whether this role may create them.
    async fn ahead(&self) -> Result<(Ahead, bool), sqlx::Error> {
        let now = self.clock().now();
        let look = async {
            let mut connection = self.postgres_pool().acquire().await?;
            let ahead = partitions::ahead(&mut connection, now).await?;
            Ok::<_, sqlx::Error>((ahead, partitions::may_create(&mut connection).await?))
        };
        let (ahead, may_create) = self.in_time(look).await?;
        PARTITIONS_AHEAD.set(ahead.days);
        PROBE_REFUSED
            .with_label_values(&["partitions"])
            .set(i64::from(ahead.days < 1 && !may_create));
        Ok((ahead, may_create))
    }

    async fn probe(&self) -> Result<Vec<Refusal>, sqlx::Error> {
        let works = self.refusals().works();
        let probe = async {
            let mut connection = self.postgres_pool().acquire().await?;
            refused(&mut connection, &works).await
        };
        let mut refused = self.in_time(probe).await?;
        // This takes two further sessions, which a pooler may not have: only if there is a reason.
        if (error::take_doubt_of_sessions() || self.refusals().has(SESSION))
            && let LedgerPool::Postgres(sessions) = self.ledger_pool()
            && let Err(failure) = sessions.connector().check_sessions().await
            && failure.kind == FailureKind::Refused
        {
            refused.push(Refusal {
                probe: SESSION,
                statement: "two sessions".to_owned(),
                words: failure.to_string(),
                is_lasting: false,
            });
        }
        Ok(refused)
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        tokio::time::timeout(self.patience(), work).await.unwrap_or_else(|_| Err(patience::late()))
    }
}
