//! Checks that the master keys decrypt what is stored, before they are used.

use std::{collections::BTreeMap, time::Duration};

use outrider_model::{EndpointId, SecretId};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};
use uuid::Uuid;

use crate::{
    Failure, FailureKind, Store,
    cipher::{self, MasterKeys},
    connection::{failure, patience},
};

/// Number of rows examined at each end of a table, in the order of their keys. The newest show
/// which keys are in use today, and the oldest show a key that was removed too early.
const LOOKED_AT: usize = 1_000;
/// Number of rows per key to decrypt from each end: a single one may be damaged, which says nothing
/// about the key.
const SAMPLES: usize = 5;
/// How long a start waits for the check.
const AT_START: Duration = Duration::from_secs(2);

/// The name of the setting. It stands for `secrets.master_key_file` too.
const SETTING: &str = "secrets.master_key";
const UNREAD: &str = "the encrypted values in the database were not read";

/// A table with ciphertexts.
struct Encrypted {
    /// Selects ids of rows and the start of their ciphertexts: the version, a length, and the id of
    /// a key, of at most 32 bytes.
    marks: &'static str,
    /// Selects the id of the endpoint, the id of the row, and the ciphertext.
    rows: &'static str,
    opens: fn(&MasterKeys, &Row) -> bool,
}

const TABLES: [Encrypted; 2] = [
    Encrypted {
        marks: "SELECT id, substr(ciphertext, 1, 34) FROM endpoint_secrets",
        rows: "SELECT endpoint_id, id, ciphertext FROM endpoint_secrets",
        opens: |keys, row| {
            keys.try_secret(EndpointId(row.endpoint), SecretId(row.id), &row.sealed).is_ok()
        },
    },
    Encrypted {
        marks: "SELECT id, substr(sealed, 1, 34) FROM endpoints",
        rows: "SELECT id, id, sealed FROM endpoints",
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
        let sealed = row.try_get_by_index::<Option<Vec<u8>>>(2)?;
        Ok(Self {
            endpoint: row.try_get_by_index(0)?,
            id: row.try_get_by_index(1)?,
            sealed: sealed.unwrap_or_default(),
        })
    }
}

/// Why the check did not succeed.
enum Doubt {
    /// A key is missing or wrong.
    Key(Failure),
    Unread(DbErr),
}

impl From<DbErr> for Doubt {
    fn from(error: DbErr) -> Self {
        Self::Unread(error)
    }
}

impl Doubt {
    /// Whether the server ended a statement because it took too long.
    fn is_late(&self) -> bool {
        let Self::Unread(error) = self else { return false };
        failure::sqlx_error(error).and_then(failure::code).is_some_and(|code| code == "57014")
    }
}

impl From<Doubt> for Failure {
    fn from(doubt: Doubt) -> Self {
        match doubt {
            Doubt::Key(failure) => failure,
            Doubt::Unread(error) => Self::of_data(UNREAD, &error),
        }
    }
}

impl Store {
    /// Checks the keys at the start of a process: fails if a key is missing that something was
    /// encrypted with, or if another key has its id. Examines some rows of each table, and waits
    /// only briefly: a slow database is no reason not to start.
    pub async fn check_master_keys(&self) -> Result<(), Failure> {
        match tokio::time::timeout(AT_START, self.check_stored_keys()).await {
            Ok(Err(doubt)) if !doubt.is_late() => Err(doubt.into()),
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    "the database did not show in time whether the master keys decrypt what is \
                     stored: started anyway"
                );
                Ok(())
            }
        }
    }

    /// The same before anything is encrypted: the check must then succeed.
    pub(crate) async fn require_master_keys(&self) -> Result<(), Failure> {
        let looked = tokio::time::timeout(self.patience(), self.check_stored_keys()).await;
        looked.map_err(|_| Failure::of(UNREAD, &patience::late()))?.map_err(Failure::from)
    }

    async fn check_stored_keys(&self) -> Result<(), Doubt> {
        let mut damaged = 0_usize;
        for table in &TABLES {
            for (mark, ids) in self.marks(table).await? {
                match cipher::key_id(&mark) {
                    Some(id) => self.check_key(table, id, &mark, ids).await?,
                    None => damaged += ids.len(),
                }
            }
        }
        if damaged > 0 {
            tracing::warn!(
                rows = damaged,
                "stored secrets are damaged, or were encrypted by a newer version"
            );
        }
        Ok(())
    }

    /// The marks that ciphertexts at both ends of a table begin with, each with some of its rows.
    async fn marks(&self, table: &Encrypted) -> Result<BTreeMap<Vec<u8>, Vec<Uuid>>, DbErr> {
        let mut found = BTreeMap::<Vec<u8>, Vec<Uuid>>::new();
        for (order, most) in [("DESC", SAMPLES), ("ASC", 2 * SAMPLES)] {
            let rows = self
                .ask(format!("{} ORDER BY id {order} LIMIT {LOOKED_AT}", table.marks), Vec::new())
                .await?;
            for row in rows {
                let (id, start) =
                    (row.try_get_by_index::<Uuid>(0)?, row.try_get_by_index::<Option<Vec<u8>>>(1)?);
                let Some(start) = start else { continue };
                let ids = found.entry(cipher::mark(&start).to_vec()).or_default();
                if ids.len() < most && !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        Ok(found)
    }

    /// Checks that this key, which `mark` names, decrypts one of these rows.
    async fn check_key(
        &self,
        table: &Encrypted,
        id: &str,
        mark: &[u8],
        ids: Vec<Uuid>,
    ) -> Result<(), Doubt> {
        let keys = self.master_keys();
        if keys.is_lost(id) {
            tracing::warn!(key_id = id, "values that a lost master key encrypted cannot be read");
            return Ok(());
        }
        if !keys.has(id) {
            let words = format!(
                "the database holds secrets that were encrypted with key {id}, which is not given"
            );
            return Err(Doubt::Key(wrong(words).with_advice(format!(
                "give it as well, after the first: {id}:BASE64. If it is lost, give {id}:lost, and \
                 create the endpoints that need it again"
            ))));
        }
        let places: Vec<String> = (1..=ids.len()).map(|place| format!("${place}")).collect();
        let sql = format!("{} WHERE id IN ({})", table.rows, places.join(", "));
        let samples = self.ask(sql, ids.into_iter().map(Value::from).collect()).await?;
        let samples = samples.iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
        // Some rows may have been encrypted with another key meanwhile, or deleted.
        let mut samples = samples.iter().filter(|row| cipher::mark(&row.sealed) == mark).peekable();
        if samples.peek().is_none() || samples.any(|row| (table.opens)(keys, row)) {
            return Ok(());
        }
        let words = format!(
            "key {id} is not the key of that id with which the secrets in the database were \
             encrypted"
        );
        Err(Doubt::Key(wrong(words).with_advice(format!(
            "give the key {id} that servers of this database had before; a new key needs its own \
             id, and must come first"
        ))))
    }

    async fn ask(&self, sql: String, values: Vec<Value>) -> Result<Vec<QueryResult>, DbErr> {
        let database = self.read();
        database
            .query_all_raw(Statement::from_sql_and_values(
                database.get_database_backend(),
                sql,
                values,
            ))
            .await
    }
}

fn wrong(words: String) -> Failure {
    Failure::new(FailureKind::Key, SETTING, words)
}

/// The failure when something must be encrypted or decrypted and there is no key.
pub(super) fn missing(what: &str) -> Failure {
    wrong(format!("there is no key, and {what}")).with_advice(
        "give the key that the servers of this database have, in secrets.master_key or \
             secrets.master_key_file",
    )
}
