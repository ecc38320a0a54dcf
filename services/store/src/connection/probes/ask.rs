//! Carrying out the probes.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    refusals::Refusal,
    tables::{Columns, PROBES},
    work::Work,
};
use crate::connection::failure::{code, message};

/// What the database refuses of some work. Fails if the database is unavailable.
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
            // A missing right or object (42), a transaction that may not write (25), a session that
            // belongs to another client (26), something unsupported (0A).
            if !["42", "25", "26", "0A"].iter().any(|class| code.starts_with(class)) {
                return Err(error);
            }
            refused.push(Refusal {
                probe: probe.name,
                statement,
                words: message(&error),
                is_lasting: code.starts_with("42"),
            });
        }
    }
    Ok(refused)
}
