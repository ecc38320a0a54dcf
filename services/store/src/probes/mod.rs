//! Whether the database does what the work of this process asks of it: rights, and whether it takes
//! writes at all. A probe is the work over nothing, for only the statement itself finds all that
//! may stand against it, in the server's own words.

mod standing;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use sqlx::{AssertSqlSafe, PgConnection};

pub(crate) use standing::{Standing, names};
use tables::{Columns, PROBES};

use crate::failure::{code, told};

/// What a process does with the database, beside reading configuration, which all do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Configuration is changed.
    Configuration,
    /// Jobs are looked up.
    Jobs,
    /// Events and deliveries are written, told of and let go.
    Deliveries,
    /// Events are taken in, to be written by another process.
    Intake,
}

/// A statement that the database refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The probe, as the metric names it.
    pub probe: &'static str,
    /// What was asked.
    pub statement: String,
    /// The server's words.
    pub words: String,
    /// Whether it stays so until somebody changes rights or the schema.
    pub is_lasting: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.statement, self.words)
    }
}

/// What the database refuses of some work. An error when it was not there to answer.
pub(crate) async fn refused(
    connection: &mut PgConnection,
    works: &[Work],
) -> Result<Vec<Refusal>, sqlx::Error> {
    let mut refused = Vec::new();
    let columns = Columns::read(connection).await?;
    for probe in PROBES.iter().filter(|probe| probe.is_of(works)) {
        for (statement, sql) in probe.statements(&columns) {
            let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await
            else {
                continue;
            };
            let code = code(&error).unwrap_or_default();
            // Rights and what is not there; a transaction that may not write; a session that is
            // another's; what is not supported.
            if !["42", "25", "26", "0A"].iter().any(|class| code.starts_with(class)) {
                return Err(error);
            }
            refused.push(Refusal {
                probe: probe.name,
                statement,
                words: told(&error),
                is_lasting: code.starts_with("42"),
            });
        }
    }
    Ok(refused)
}
