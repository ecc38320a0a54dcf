//! SQLite statements over many rows with constant texts. Rows are sent in chunks of 64, 8 and 1, so
//! that three prepared statements serve any number.

use std::sync::Arc;

use sqlx::{
    AssertSqlSafe, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, query::Query,
    sqlite::SqliteArguments, sqlite::SqliteRow,
};
use uuid::Uuid;

/// Numbers of rows in a chunk, largest first. 64 rows of the widest table are 896 parameters;
/// SQLite accepts 32,766.
const SIZES: [usize; 3] = [64, 8, 1];

/// A query of SQLite with its parameters.
pub(crate) type Bound = Query<'static, Sqlite, SqliteArguments>;

/// A statement around a list of rows.
pub(crate) struct Chunked {
    texts: [Arc<str>; SIZES.len()],
}

impl Chunked {
    /// `before`, then `row` for each row, separated by commas, then `after`.
    pub fn new(before: &str, row: &str, after: &str) -> Self {
        Self {
            texts: SIZES
                .map(|size| format!("{before}{}{after}", vec![row; size].join(", ")).into()),
        }
    }

    /// The texts, that of the largest chunk first.
    #[cfg(test)]
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|text| &**text)
    }

    /// The chunks of `rows`, each with the statement of its size.
    fn split<'r, T>(&self, mut rows: &'r [T]) -> Vec<(SqlStr, &'r [T])> {
        let mut chunks = Vec::new();
        for (size, text) in SIZES.iter().zip(&self.texts) {
            while rows.len() >= *size {
                let (chunk, rest) = rows.split_at(*size);
                chunks.push((AssertSqlSafe(Arc::clone(text)).into_sql_str(), chunk));
                rows = rest;
            }
        }
        chunks
    }

    /// Executes the statement over all rows. Returns the number of affected rows.
    pub async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(Bound, &T) -> Bound,
    ) -> Result<u64, sqlx::Error> {
        let mut affected = 0;
        for (text, chunk) in self.split(rows) {
            let query = chunk.iter().fold(sqlx::query(text), &bind);
            affected += query.execute(&mut *connection).await?.rows_affected();
        }
        Ok(affected)
    }

    /// The rows that the statement returns for these ids.
    pub async fn fetch<'e>(
        &self,
        executor: impl sqlx::SqliteExecutor<'e> + Copy,
        ids: &[Uuid],
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut found = Vec::with_capacity(ids.len());
        for (text, chunk) in self.split(ids) {
            let query = chunk.iter().fold(sqlx::query(text), |query, id| query.bind(*id));
            found.extend(query.fetch_all(executor).await?);
        }
        Ok(found)
    }

    /// The same, on the writer's connection.
    pub async fn fetch_on(
        &self,
        connection: &mut SqliteConnection,
        ids: &[Uuid],
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut found = Vec::with_capacity(ids.len());
        for (text, chunk) in self.split(ids) {
            let query = chunk.iter().fold(sqlx::query(text), |query, id| query.bind(*id));
            found.extend(query.fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_chunk_and_texts_are_few() {
        let statement = Chunked::new("VALUES ", "(?)", ";");
        let rows: Vec<usize> = (0..150).collect();
        let chunks = statement.split(&rows);
        assert_eq!(
            chunks.iter().map(|(_, chunk)| chunk.len()).collect::<Vec<_>>(),
            [64, 64, 8, 8, 1, 1, 1, 1, 1, 1]
        );
        assert_eq!(chunks.iter().flat_map(|(_, chunk)| chunk.to_vec()).collect::<Vec<_>>(), rows);
        assert_eq!(chunks[9].0.as_str(), "VALUES (?);");
        assert_eq!(chunks[2].0.as_str().matches("(?)").count(), 8);
        assert!(statement.split::<usize>(&[]).is_empty());
    }
}
