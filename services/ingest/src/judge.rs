//! What the catalogue of event types has against an event.

use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache;
use outrider_model::{Error, EventTypeId, FieldViolation, Project, Reason, Result, SchemaValidation, Timestamp, limits};
use outrider_proto::{
    ingest::{PublishWarning, WarningReason},
    internal::AcceptEvent,
};
use outrider_schema::{Schema, Verdict, Violation};
use outrider_store::{Catalogue, CatalogueEntry, Directory};
use tokio::sync::Semaphore;

use crate::{Options, json};

/// Larger payloads are not validated in the task that takes them: reading them alone takes a while.
const BRIEF_BYTES: usize = 16 * 1024;
/// A compiled schema is taken to need so many times the memory of its text, and so much in any case.
const COMPILED_FACTOR: usize = 16;
const COMPILED_BYTES: usize = 4 * 1024;

/// A schema and the memory that it is taken to need; none when the entry lost it meanwhile.
struct Compiled {
    schema: Option<Schema>,
    bytes: u32,
}

/// Validates payloads by the catalogues of their projects.
pub struct Judge {
    directory: Directory,
    /// By the version of the entry: no publish compiles what another has.
    compiled: Cache<(EventTypeId, Timestamp), Arc<Compiled>>,
    /// Validations at length that may run at once.
    lengthy: Arc<Semaphore>,
    steps: u64,
}

/// What is to become of an event.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Why it is refused, with paths relative to the event.
    pub refusal: Option<Error>,
    /// What its publisher is told when it is accepted.
    pub warnings: Vec<PublishWarning>,
}

impl Judge {
    pub fn new(options: &Options, directory: Directory) -> Self {
        let compiled =
            Cache::builder().weigher(|_, compiled: &Arc<Compiled>| compiled.bytes).max_capacity(options.schema_cache_bytes);
        let lengthy = Arc::new(Semaphore::new(options.long_validations.clamp(1, Semaphore::MAX_PERMITS)));
        Self { directory, compiled: compiled.build(), lengthy, steps: options.validation_steps }
    }

    /// The catalogue by which events of a project are judged; none where they are not.
    pub async fn catalogue(&self, project: &Project) -> Result<Option<Arc<Catalogue>>> {
        match project.schema_validation {
            SchemaValidation::Off => Ok(None),
            SchemaValidation::Warn | SchemaValidation::Reject => self.directory.catalogue(project.id).await.map(Some),
        }
    }

    /// What the catalogue has against an event of the project. Errors: `UNAVAILABLE` when the schema cannot be loaded.
    pub async fn judge(&self, project: &Project, catalogue: &Catalogue, event: &AcceptEvent) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let Some(entry) = catalogue.get(&event.event_type) else { return Ok(judgement) };
        if entry.deprecated {
            judgement.warnings.push(deprecated());
        }
        if !entry.has_schema || !json::is_json(&event.content_type) {
            return Ok(judgement);
        }
        let violations = self.violations(entry, &event.payload).await?;
        // So that a large batch shares its thread.
        tokio::task::coop::consume_budget().await;
        if violations.is_empty() {
            return Ok(judgement);
        }
        let keywords: Vec<&str> = violations.iter().map(|violation| violation.keyword.as_str()).collect();
        tracing::debug!(project = %project.id, event_type = event.event_type, ?keywords, "a payload does not fit its schema");
        if project.schema_validation == SchemaValidation::Reject {
            judgement.refusal = Some(refusal(violations));
        } else {
            judgement.warnings.extend(violations.into_iter().map(warning));
        }
        Ok(judgement)
    }

    async fn violations(&self, entry: CatalogueEntry, payload: &Bytes) -> Result<Vec<Violation>> {
        let compiled = self.compiled(entry).await?;
        let Some(schema) = &compiled.schema else { return Ok(Vec::new()) };
        let brief = if payload.len() <= BRIEF_BYTES { schema.validate_briefly(payload) } else { Verdict::Undecided };
        let verdict =
            if brief == Verdict::Undecided { self.at_length(Arc::clone(&compiled), payload.clone()).await? } else { brief };
        Ok(match verdict {
            Verdict::Fits => Vec::new(),
            Verdict::Violates(violations) => violations,
            Verdict::Undecided => vec![Violation {
                pointer: String::new(),
                description: format!("is too large or too deep for its schema: at most {} steps are taken", self.steps),
                keyword: String::new(),
            }],
        })
    }

    /// Beside the tasks, few at once: the longest takes about as long as so many steps do.
    async fn at_length(&self, compiled: Arc<Compiled>, payload: Bytes) -> Result<Verdict> {
        let closed = |_| Error::internal("the semaphore is closed");
        let room = Arc::clone(&self.lengthy).acquire_owned().await.map_err(closed)?;
        let steps = self.steps;
        let validate = move || {
            // Until it is done, whether or not anybody still waits for it.
            let _room = room;
            compiled.schema.as_ref().map_or(Verdict::Fits, |schema| schema.validate_at_length(&payload, steps))
        };
        tokio::task::spawn_blocking(validate).await.map_err(|_| Error::internal("the payload was not validated"))
    }

    async fn compiled(&self, entry: CatalogueEntry) -> Result<Arc<Compiled>> {
        let key = (entry.id, entry.updated_at);
        if let Some(compiled) = self.compiled.get(&key).await {
            return Ok(compiled);
        }
        // Boxed: it is rare, and would make the future of every publish as large.
        let load = Box::pin(async {
            let text = self.directory.event_type_schema(entry.id).await?.unwrap_or_default();
            tokio::task::spawn_blocking(move || compile(entry.id, &text))
                .await
                .unwrap_or_else(|_| Err(Error::internal("the schema was not compiled")))
        });
        Box::pin(self.compiled.try_get_with(key, load)).await.map_err(|error: Arc<Error>| (*error).clone())
    }
}

fn compile(id: EventTypeId, text: &str) -> Result<Arc<Compiled>> {
    let bytes = u32::try_from(COMPILED_BYTES + COMPILED_FACTOR * text.len()).unwrap_or(u32::MAX);
    if text.is_empty() {
        return Ok(Arc::new(Compiled { schema: None, bytes }));
    }
    // It was compiled when it was stored: by a version with other limits, if not by this one.
    let schema = Schema::compile(text).map_err(|fault| {
        tracing::error!(event_type = %id, pointer = fault.pointer, why = fault.description, "a stored schema does not compile");
        Error::internal("the schema of the event type does not compile")
    })?;
    Ok(Arc::new(Compiled { schema: Some(schema), bytes }))
}

fn refusal(violations: Vec<Violation>) -> Error {
    let field = |violation: Violation| FieldViolation {
        field: format!("payload{}", violation.pointer),
        description: violation.description,
    };
    let violations = violations.into_iter().take(limits::SCHEMA_VIOLATIONS).map(field).collect();
    Error { reason: Reason::PayloadSchemaViolation, ..Error::fields(violations) }
}

fn warning(violation: Violation) -> PublishWarning {
    let Violation { pointer, description, .. } = violation;
    PublishWarning { reason: WarningReason::PayloadSchemaViolation.into(), pointer, description }
}

fn deprecated() -> PublishWarning {
    PublishWarning {
        reason: WarningReason::EventTypeDeprecated.into(),
        pointer: String::new(),
        description: "the event type is deprecated".to_owned(),
    }
}
