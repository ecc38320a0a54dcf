//! Compiled schemas of event types, in memory that projects share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use moka::future::Cache;
use outrider_model::{Error, EventTypeId, Project, Result, Timestamp, principal::Actor};
use outrider_schema::Schema;
use outrider_shares::{Holder, Resource, Share, Shares, TurnResources, Turns};
use outrider_store::{CatalogEntry, Directory};

use super::requester::Requester;

/// A compiled schema counts as this many times the memory of its text, plus a fixed amount.
pub(super) const COMPILED_FACTOR: usize = 16;
pub(super) const COMPILED_BYTES: usize = 4 * 1024;
/// How long a compiled schema is kept after its last use.
const IDLE: Duration = Duration::from_secs(600);
/// Maximum number of compiled schemas.
const MAX_COMPILED: u64 = 100_000;
/// Maximum number of concurrent compilations of stored schemas.
const COMPILATIONS: usize = 4;
/// Maximum number of calls that wait for a compilation.
const LINE: usize = 1_024;
/// Pause before a stream that got no turn asks again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

const SCHEMA_BYTES: Resource = Resource {
    name: "schema-cache-bytes",
    noun: "bytes of compiled schemas",
    least: COMPILED_BYTES,
};
const SCHEMA_COMPILATIONS: TurnResources = TurnResources {
    slots: Resource { name: "schema-compilations", noun: "compilations of schemas", least: 1 },
    line: Resource {
        name: "schema-compilations-line",
        noun: "places in the line for compilations of schemas",
        least: 1,
    },
};

/// The schema of a catalog entry.
pub(super) struct Compiled {
    /// `None` if the entry has lost its schema in the meantime.
    pub(super) schema: Option<Schema>,
    /// When the compiled entry was changed.
    version: Timestamp,
    /// Its part of the memory for compiled schemas. `None` if its project has no memory left.
    share: Option<Share>,
}

/// Compiles schemas and keeps them.
pub(super) struct SchemaCache {
    directory: Directory,
    /// By catalog entry, so that no request compiles what another has compiled.
    pub(super) compiled: Cache<EventTypeId, Arc<Compiled>>,
    /// The memory of compiled schemas, divided among projects.
    pub(super) memory: Shares,
    /// Turns of compilations.
    pub(super) compilations: Turns,
}

impl SchemaCache {
    /// Keeps compiled schemas in this many bytes.
    pub fn new(bytes: u64, directory: Directory) -> Self {
        let compiled = Cache::builder().time_to_idle(IDLE).max_capacity(MAX_COMPILED);
        let memory = Shares::new(SCHEMA_BYTES, usize::try_from(bytes).unwrap_or(usize::MAX));
        let compilations = Turns::new(SCHEMA_COMPILATIONS, COMPILATIONS, LINE);
        Self { directory, compiled: compiled.build(), memory, compilations }
    }

    /// Returns the compiled schema of an entry.
    pub async fn get(
        &self,
        project: &Project,
        entry: CatalogEntry,
        requester: &Requester,
    ) -> Result<Arc<Compiled>> {
        if let Some(compiled) = self.compiled.get(&entry.id).await
            && compiled.version >= entry.updated_at
        {
            return Ok(compiled);
        }
        // Boxed because it is rare, and would make the future of every publish as large.
        Box::pin(self.compile(project, entry, *requester)).await
    }

    /// Compiles a schema once for all requests that have to wait for it.
    async fn compile(
        &self,
        project: &Project,
        entry: CatalogEntry,
        requester: Requester,
    ) -> Result<Arc<Compiled>> {
        if requester == Requester::InTurn {
            let compiled = self.load(project, entry, requester).await?;
            if compiled.share.is_some() {
                self.compiled.insert(entry.id, Arc::clone(&compiled)).await;
            }
            return Ok(compiled);
        }
        let is_own = AtomicBool::new(false);
        loop {
            let load = async {
                is_own.store(true, Relaxed);
                self.load(project, entry, requester).await
            };
            let compiled = self.compiled.try_get_with(entry.id, load).await;
            match compiled.map_err(|error: Arc<Error>| (*error).clone()) {
                Ok(compiled) => {
                    let is_old = compiled.version < entry.updated_at;
                    if is_old || compiled.share.is_none() {
                        self.compiled.invalidate(&entry.id).await;
                    }
                    if !is_old {
                        return Ok(compiled);
                    }
                }
                Err(error) if error.is_overload() && matches!(requester, Requester::Stream(_)) => {
                    tokio::time::sleep(RETRY_PAUSE).await
                }
                // This request joined the compilation of another caller, whose share is used up.
                Err(error) if error.is_overload() && !is_own.load(Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn load(
        &self,
        project: &Project,
        entry: CatalogEntry,
        requester: Requester,
    ) -> Result<Arc<Compiled>> {
        let owner = Holder {
            organization: project.fixed.organization,
            project: Some(project.id),
            actor: Actor::System,
        };
        let turn = requester.turn(&self.compilations).await?;
        let text = self
            .directory
            .event_type_schema(requester.holder(), entry.id)
            .await?
            .unwrap_or_default();
        let share = self.memory.take(owner, COMPILED_BYTES + COMPILED_FACTOR * text.len()).ok();
        let compile = move || {
            // Held until the work is done, whether or not anyone still waits for it.
            let _turn = turn;
            let schema = compile(entry.id, &text)?;
            Ok(Arc::new(Compiled { schema, version: entry.updated_at, share }))
        };
        let failed = |_| {
            let event_type = entry.id;
            tracing::error!(%event_type, "compiling the schema of an event type panicked");
            Error::internal("the schema was not compiled")
        };
        tokio::task::spawn_blocking(compile).await.map_err(failed)?
    }
}

fn compile(id: EventTypeId, text: &str) -> Result<Option<Schema>> {
    if text.is_empty() {
        return Ok(None);
    }
    // It compiled when it was stored, but maybe by a version with other limits.
    Schema::compile(text).map(Some).map_err(|fault| {
        tracing::error!(
            event_type = %id,
            pointer = fault.pointer,
            why = fault.description,
            "a stored schema does not compile"
        );
        Error::internal("the schema of the event type does not compile")
    })
}
