//! A resource, its metrics, and the refusal of more of it.

use std::fmt;

use outrider_model::Error;
use outrider_telemetry::{
    catalog::shares::{HELD, REFUSED, SECTION, TOTAL, WAITED},
    metrics,
};

use crate::count::Level;

/// A resource that is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Label in metrics.
    pub name: &'static str,
    /// Plural noun for messages to callers.
    pub noun: &'static str,
    /// Minimum of every share, as long as that much is left; at least 1.
    pub least: usize,
}

/// Why a caller gets no more of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// The level whose share is used up.
    pub level: Level,
    noun: &'static str,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = self.noun;
        match self.level {
            Level::Key => write!(f, "the API key has used up its share of this server's {noun}"),
            Level::Project => {
                write!(f, "the project has used up its share of this server's {noun}")
            }
            Level::Organization => {
                write!(f, "the organization has used up its share of this server's {noun}")
            }
            Level::Server => write!(f, "all of this server's {noun} are used up"),
        }
    }
}

impl std::error::Error for Exhausted {}

impl From<Exhausted> for Error {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted.level {
            Level::Server => Self::overloaded(exhausted.to_string()),
            _ => Self::share_exhausted(exhausted.to_string()),
        }
    }
}

/// Exposes the metrics of a resource until `held` returns `None`.
pub(crate) fn show(
    resource: Resource,
    total: usize,
    held: impl Fn() -> Option<usize> + Send + Sync + 'static,
) {
    let number = |amount| i64::try_from(amount).unwrap_or(i64::MAX);
    metrics::expose(&SECTION);
    for level in Level::ALL {
        REFUSED.with_label_values(&[resource.name, level.as_str()]);
    }
    WAITED.with_label_values(&[resource.name]);
    TOTAL.with_label_values(&[resource.name]).set(number(total));
    metrics::before_scrape(move || {
        let Some(held) = held() else { return false };
        HELD.with_label_values(&[resource.name]).set(number(held));
        true
    });
}

/// Counts a refusal and returns its error.
pub(crate) fn refused(resource: Resource, level: Level) -> Exhausted {
    REFUSED.with_label_values(&[resource.name, level.as_str()]).inc();
    Exhausted { level, noun: resource.noun }
}
