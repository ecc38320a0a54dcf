//! Whether the master keys open what is stored, before anything is done with them.

use outrider_model::{EndpointId, SecretId};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};
use uuid::Uuid;

use crate::{Failure, FailureKind, MasterKeys, Store, cipher, patience};

/// Rows of a key that are tried: one may be damaged, and then says nothing about the key.
const SAMPLES: i64 = 5;
/// Keys that are looked at in a table, lost and damaged ones included.
const MOST_KEYS: usize = 100;

/// What the settings are called, for both of them.
const SETTING: &str = "secrets.master_key";
const UNREAD: &str = "what is encrypted in the database was not read";

/// A table with ciphertexts: its columns for the endpoint, for the row, and for the ciphertext.
struct Encrypted {
    select: &'static str,
    column: &'static str,
    opens: fn(&MasterKeys, &Row) -> bool,
}

const TABLES: [Encrypted; 2] = [
    Encrypted {
        select: "SELECT endpoint_id, id, ciphertext FROM endpoint_secrets WHERE ciphertext IS NOT NULL",
        column: "ciphertext",
        opens: |keys, row| keys.try_secret(EndpointId(row.endpoint), SecretId(row.id), &row.sealed).is_ok(),
    },
    Encrypted {
        select: "SELECT id, id, sealed FROM endpoints WHERE sealed IS NOT NULL",
        column: "sealed",
        opens: |keys, row| keys.try_values(EndpointId(row.endpoint), &row.sealed).is_ok(),
    },
];

struct Row {
    endpoint: Uuid,
    id: Uuid,
    sealed: Vec<u8>,
}

impl Row {
    fn read(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self { endpoint: row.try_get_by_index(0)?, id: row.try_get_by_index(1)?, sealed: row.try_get_by_index(2)? })
    }
}

impl Store {
    /// OK when there is each key that something was encrypted with, and it is that very key. It reads the tables of endpoints and of their
    /// secrets once, and a few rows for each key.
    pub async fn check_master_keys(&self) -> Result<(), Failure> {
        let check = async {
            for table in &TABLES {
                self.check_table(table).await?;
            }
            Ok::<_, Failure>(())
        };
        let checked = tokio::time::timeout(self.patience(), check).await;
        checked.unwrap_or_else(|_| Err(Failure::of(UNREAD, &patience::late())))
    }

    async fn check_table(&self, table: &Encrypted) -> Result<(), Failure> {
        let mut marks: Vec<Vec<u8>> = Vec::new();
        while marks.len() < MOST_KEYS {
            let others = self.encrypted(table, &marks, "<>", 1).await?;
            let Some(first) = others.first() else { break };
            let mark = cipher::mark(&first.sealed).to_vec();
            self.check_key(table, &mark).await?;
            marks.push(mark);
        }
        Ok(())
    }

    /// Whether what begins with `mark` opens.
    async fn check_key(&self, table: &Encrypted, mark: &[u8]) -> Result<(), Failure> {
        let keys = self.master_keys();
        let Some(id) = cipher::key_id(mark) else {
            tracing::warn!("a stored secret is damaged, or was encrypted by a newer version");
            return Ok(());
        };
        if keys.is_lost(id) {
            tracing::warn!(key_id = id, "what a lost master key encrypted cannot be read");
            return Ok(());
        }
        if !keys.has(id) {
            let words = format!("the database holds secrets that were encrypted with key {id}, which is not given");
            return Err(failure(words).with_advice(format!(
                "give it as well, after the first: {id}:BASE64. If it is lost, give {id}:lost, and make anew the endpoints that need it"
            )));
        }
        let samples = self.encrypted(table, std::slice::from_ref(&mark.to_vec()), "=", SAMPLES).await?;
        // None: what was there is gone by now.
        if samples.is_empty() || samples.iter().any(|row| (table.opens)(keys, row)) {
            return Ok(());
        }
        let words = format!("key {id} is not the key of that id with which the secrets in the database were encrypted");
        Err(failure(words).with_advice(format!(
            "give the key {id} that servers of this database had before; a new key needs an id of its own, and stands before it"
        )))
    }

    /// Rows whose ciphertexts begin with none of the marks (`<>`), or with the one (`=`).
    async fn encrypted(&self, table: &Encrypted, marks: &[Vec<u8>], is: &str, limit: i64) -> Result<Vec<Row>, Failure> {
        let (select, column) = (table.select, table.column);
        let (mut sql, mut values) = (select.to_owned(), Vec::<Value>::new());
        for mark in marks {
            let length = i32::try_from(mark.len()).unwrap_or(i32::MAX);
            values.extend([length.into(), mark.clone().into()]);
            sql.push_str(&format!(" AND substr({column}, 1, ${}) {is} ${}", values.len() - 1, values.len()));
        }
        // The newest tell most about the keys of today.
        let order = if is == "=" { " ORDER BY id DESC" } else { "" };
        sql.push_str(&format!("{order} LIMIT {limit}"));
        let read = async {
            let database = self.read();
            let rows = Statement::from_sql_and_values(database.get_database_backend(), sql, values);
            database.query_all_raw(rows).await?.iter().map(Row::read).collect::<Result<Vec<_>, DbErr>>()
        };
        read.await.map_err(|error| Failure::of_orm(UNREAD, &error))
    }
}

fn failure(words: String) -> Failure {
    Failure::new(FailureKind::Key, SETTING, words)
}

/// That something is to be encrypted or opened, and there is no key.
pub(crate) fn missing(what: &str) -> Failure {
    failure(format!("there is no key, and {what}"))
        .with_advice("give the key that the servers of this database have, in secrets.master_key or secrets.master_key_file")
}
