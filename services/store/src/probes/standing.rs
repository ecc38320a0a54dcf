//! How things stand with the database: what it refused the last time it was asked, kept fresh by a
//! task that asks again when a statement failed, and until nothing is refused.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outrider_telemetry::catalogue::store::{PARTITIONS_AHEAD, PROBE_REFUSED};

use super::{PROBES, Refusal, Work, refused};
use crate::{
    Backend, Failure, FailureKind, Store,
    connect::Hot,
    error,
    ledger::partitions::{self, Ahead},
    patience,
};

/// How often partitions of the days to come are counted.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How soon the probes are asked again while something is refused.
const AGAIN: Duration = Duration::from_secs(2);
/// Probes of what is no table.
const OTHERS: [&str; 2] = ["session", "partitions"];
/// What an owner of the schema is to do, when the process may not.
const OWNER: &str = "run `outrider migrate up` as the owner of the tables, daily from a timer";

/// What was found the last time.
#[derive(Default)]
pub(crate) struct Standing(Mutex<State>);

#[derive(Default)]
struct State {
    works: Vec<Work>,
    refused: Vec<Refusal>,
}

impl Standing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn works(&self) -> Vec<Work> {
        self.state().works.clone()
    }

    fn is_refused(&self) -> bool {
        !self.state().refused.is_empty()
    }

    /// Tells what changed, in the log and in the metrics.
    fn found(&self, refused: Vec<Refusal>) {
        let mut state = self.state();
        for new in refused.iter().filter(|refusal| !state.refused.contains(refusal)) {
            tracing::error!(
                probe = new.probe,
                statement = new.statement,
                error = new.words,
                "the database refuses what the work needs"
            );
        }
        if refused.is_empty() && !state.refused.is_empty() {
            tracing::info!("the database refuses nothing any more");
        }
        for name in names() {
            let is_refused = refused.iter().any(|refusal| refusal.probe == name);
            PROBE_REFUSED.with_label_values(&[name]).set(i64::from(is_refused));
        }
        state.refused = refused;
    }

    /// An error with all that is refused.
    pub fn check(&self) -> Result<(), Failure> {
        failure(&self.state().refused).map_or(Ok(()), Err)
    }
}

/// The labels of the metric.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.name).chain(OTHERS)
}

fn failure(refused: &[Refusal]) -> Option<Failure> {
    // Several parts of the work may need the same.
    let words: BTreeSet<String> = refused.iter().map(ToString::to_string).collect();
    let words: Vec<String> = words.into_iter().collect();
    let advice = "grant the rights that docs/operations.md lists to the role of database.url; it must lead to the primary";
    (!words.is_empty()).then(|| {
        Failure::new(FailureKind::Refused, "the database refuses", words.join("; "))
            .with_advice(advice)
    })
}

impl Store {
    /// Asks for all that some work needs, at the start of a process that does it. Errors: what is
    /// refused for want of a right or of a part of the schema, all of it. What may pass, as a
    /// database that takes no writes for now, is told by [`Store::ready`].
    pub async fn begin(&self, works: &[Work]) -> Result<(), Failure> {
        self.standing().state().works = works.to_vec();
        if self.backend() == Backend::Sqlite {
            return Ok(());
        }
        let refused = self
            .probe()
            .await
            .map_err(|error| Failure::of("the database was not asked what it refuses", &error))?;
        let lasting: Vec<Refusal> =
            refused.iter().filter(|refusal| refusal.is_lasting).cloned().collect();
        self.standing().found(refused);
        if let Some(failure) = failure(&lasting) {
            return Err(failure);
        }
        match self.ahead().await {
            Ok((ahead, false)) => {
                tracing::warn!(
                    days_ahead = ahead.days,
                    "this role may not make partitions: {OWNER}"
                );
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    error = crate::failure::told(&error),
                    "the partitions of the days to come were not counted"
                )
            }
        }
        Ok(())
    }

    /// Looks again for ever: at the partitions of the days to come, and at what is refused when a
    /// statement failed.
    pub async fn watch(&self) {
        if self.backend() == Backend::Sqlite {
            return;
        }
        let mut doubts = error::doubts();
        let mut again = false;
        loop {
            let rest = if again || self.standing().is_refused() { AGAIN } else { LOOK_EVERY };
            let doubted = tokio::time::timeout(rest, doubts.changed()).await.is_ok();
            if doubted || again || self.standing().is_refused() {
                if let Hot::Postgres(sessions) = self.hot() {
                    sessions.reach().find_host().await;
                }
                let asked = self.probe().await;
                again = asked.is_err();
                if let Ok(refused) = asked {
                    self.standing().found(refused);
                }
            }
            if let Err(error) = self.ahead().await {
                tracing::debug!(
                    error = crate::failure::told(&error),
                    "the partitions of the days to come were not counted"
                );
            }
            // However many statements fail.
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// An error when a table lacks tomorrow's partition, and this process has to do with events.
    pub(crate) async fn tomorrow(&self) -> Result<(), Failure> {
        let works = self.standing().works();
        if self.backend() == Backend::Sqlite
            || !(works.contains(&Work::Deliveries) || works.contains(&Work::Intake))
        {
            return Ok(());
        }
        let failed =
            |error| Failure::of("the partitions of the days to come were not counted", &error);
        let (ahead, may_make) = self.ahead().await.map_err(failed)?;
        if ahead.days > 0 {
            return Ok(());
        }
        let words = format!("tomorrow's partition is missing of {}", ahead.missing.join(", "));
        let failure = Failure::new(FailureKind::Schema, "events of tomorrow cannot be kept", words);
        Err(if may_make { failure } else { failure.with_advice(OWNER) })
    }

    /// How many days have their partitions, and whether this role may make them.
    async fn ahead(&self) -> Result<(Ahead, bool), sqlx::Error> {
        let now = self.clock().now();
        let look = async {
            let mut connection = self.postgres_pool().acquire().await?;
            let ahead = partitions::ahead(&mut connection, now).await?;
            Ok::<_, sqlx::Error>((ahead, partitions::may_make(&mut connection).await?))
        };
        let (ahead, may_make) = self.in_time(look).await?;
        PARTITIONS_AHEAD.set(ahead.days);
        PROBE_REFUSED
            .with_label_values(&["partitions"])
            .set(i64::from(ahead.days < 1 && !may_make));
        Ok((ahead, may_make))
    }

    async fn probe(&self) -> Result<Vec<Refusal>, sqlx::Error> {
        let works = self.standing().works();
        let ask = async {
            let mut connection = self.postgres_pool().acquire().await?;
            refused(&mut connection, &works).await
        };
        let mut refused = self.in_time(ask).await?;
        // Two sessions beside the others, which a pooler may not have: only where there is reason
        // to.
        let were_shared =
            self.standing().state().refused.iter().any(|refusal| refusal.probe == OTHERS[0]);
        if (error::take_doubt_of_sessions() || were_shared)
            && let Hot::Postgres(sessions) = self.hot()
            && let Err(failure) = sessions.reach().check_sessions().await
            && failure.kind == FailureKind::Refused
        {
            let statement = "two sessions".to_owned();
            refused.push(Refusal {
                probe: OTHERS[0],
                statement,
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
