//! What the database refused when the probes were last carried out.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use outrider_telemetry::catalog::store::PROBE_REFUSED;

use super::{tables::PROBES, work::Work};
use crate::connection::failure::{Failure, FailureKind};

/// The probe whether sessions are shared.
pub(crate) const SESSION: &str = "session";
/// Probes that concern no table.
const OTHERS: [&str; 2] = [SESSION, "partitions"];

/// A statement that the database refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The probe, as the metric names it.
    pub probe: &'static str,
    /// The statement, as people read it.
    pub statement: String,
    /// The server's words.
    pub words: String,
    /// Whether it stays refused until somebody changes rights or the schema.
    pub is_lasting: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.statement, self.words)
    }
}

/// The work of this process, and what the database last refused of it.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<State>);

#[derive(Default)]
struct State {
    works: Vec<Work>,
    refused: Vec<Refusal>,
}

impl Refusals {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_works(&self, works: &[Work]) {
        self.state().works = works.to_vec();
    }

    pub fn works(&self) -> Vec<Work> {
        self.state().works.clone()
    }

    /// Whether anything is refused.
    pub fn any(&self) -> bool {
        !self.state().refused.is_empty()
    }

    /// Whether this probe is refused.
    pub fn has(&self, probe: &str) -> bool {
        self.state().refused.iter().any(|refusal| refusal.probe == probe)
    }

    /// Replaces what is refused. Reports the difference in the log and in the metrics.
    pub fn replace(&self, refused: Vec<Refusal>) {
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

    /// Fails with all that is refused.
    pub fn check(&self) -> Result<(), Failure> {
        Refusal::failure(&self.state().refused).map_or(Ok(()), Err)
    }
}

impl Refusal {
    /// All of these as one failure. None if there are none.
    pub fn failure(refused: &[Self]) -> Option<Failure> {
        // Several parts of the work may need the same.
        let words: BTreeSet<String> = refused.iter().map(ToString::to_string).collect();
        let words: Vec<String> = words.into_iter().collect();
        let advice = "grant the rights that docs/operations.md lists to the role of database.url; \
            it must lead to the primary";
        (!words.is_empty()).then(|| {
            Failure::new(FailureKind::Refused, "the database refuses", words.join("; "))
                .with_advice(advice)
        })
    }
}

/// The names of all probes: the labels of the metric.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.name).chain(OTHERS)
}
