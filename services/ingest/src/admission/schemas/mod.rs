//! Checks events against the catalog of event types of their project.

mod cache;
mod requester;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use outrider_model::{
    AdmittedEvent, Error, FieldViolation, Project, Reason, Result, SchemaValidation, limits,
    text::joined,
};
use outrider_proto::ingest::{PublishWarning, WarningReason};
use outrider_schema::{Validation, Violation};
use outrider_shares::{Resource, TurnResources, Turns};
use outrider_store::{Catalog, CatalogEntry, Directory};

use super::json;
use crate::options::Options;
use cache::{Compiled, SchemaCache};

pub use requester::Requester;

/// Maximum size of a payload that is validated within the task of its request, in bytes. Just
/// reading a larger one takes a while.
const BRIEF_BYTES: usize = 16 * 1024;
/// Maximum number of calls that wait for a long validation.
const LINE: usize = 1_024;

const LONG_VALIDATIONS: TurnResources = TurnResources {
    slots: Resource { name: "long-validations", noun: "long validations", least: 1 },
    line: Resource {
        name: "long-validations-line",
        noun: "places in the line for long validations",
        least: 1,
    },
};

/// Validates payloads by the catalogs of their projects.
pub struct SchemaValidator {
    directory: Directory,
    cache: SchemaCache,
    /// Turns of long validations.
    long_validations: Turns,
    /// Maximum number of steps of a long validation.
    steps: u64,
}

/// What the catalog says about an event.
#[derive(Debug, Default)]
pub struct Findings {
    /// Why the event is refused, with paths relative to the event.
    pub refusal: Option<Error>,
    /// Warnings for its publisher if it is accepted.
    pub warnings: Vec<PublishWarning>,
}

impl SchemaValidator {
    pub fn new(options: &Options, directory: Directory) -> Self {
        let cache = SchemaCache::new(options.schema_cache_bytes, directory.clone());
        let long_validations = Turns::new(LONG_VALIDATIONS, options.long_validations, LINE);
        Self { directory, cache, long_validations, steps: options.validation_steps }
    }

    /// Returns the catalog for the events of a project, or `None` if the project does not validate
    /// events.
    pub async fn catalog(&self, project: &Project) -> Result<Option<Arc<Catalog>>> {
        match project.spec.schema_validation {
            SchemaValidation::Off => Ok(None),
            SchemaValidation::Warn | SchemaValidation::Reject => {
                self.directory.catalog(project.id).await.map(Some)
            }
        }
    }

    /// Checks an event of the project against the catalog. Fails with `UNAVAILABLE` if the schema
    /// cannot be loaded, and for a call also with `SHARE_EXHAUSTED` and `OVERLOADED`.
    pub async fn check(
        &self,
        project: &Project,
        catalog: &Catalog,
        event: &AdmittedEvent,
        requester: &Requester,
    ) -> Result<Findings> {
        let mut findings = Findings::default();
        let Some(entry) = catalog.get(&event.event_type) else { return Ok(findings) };
        if entry.deprecated {
            findings.warnings.push(deprecated());
        }
        if !entry.has_schema || !json::is_json(&event.content_type) {
            return Ok(findings);
        }
        let violations = self.violations(project, entry, &event.payload, requester).await?;
        // A large batch must not monopolize its thread.
        tokio::task::coop::consume_budget().await;
        if violations.is_empty() {
            return Ok(findings);
        }
        let keywords: Vec<&str> =
            violations.iter().map(|violation| violation.keyword.as_str()).collect();
        tracing::debug!(
            project = %project.id,
            event_type = event.event_type,
            keywords = %joined(&keywords),
            "a payload does not match its schema"
        );
        if project.spec.schema_validation == SchemaValidation::Reject {
            findings.refusal = Some(refusal(violations));
        } else {
            findings.warnings.extend(violations.into_iter().map(warning));
        }
        Ok(findings)
    }

    async fn violations(
        &self,
        project: &Project,
        entry: CatalogEntry,
        payload: &Bytes,
        requester: &Requester,
    ) -> Result<Vec<Violation>> {
        let compiled = self.cache.get(project, entry, requester).await?;
        let Some(schema) = &compiled.schema else { return Ok(Vec::new()) };
        let brief = if payload.len() <= BRIEF_BYTES {
            schema.validate_briefly(payload)
        } else {
            Validation::Undecided
        };
        let verdict = match brief {
            // Boxed because it is rare, and would make the future of every publish as large.
            Validation::Undecided => {
                Box::pin(self.at_length(Arc::clone(&compiled), payload.clone(), *requester)).await?
            }
            brief => brief,
        };
        Ok(match verdict {
            Validation::Fits => Vec::new(),
            Validation::Violates(violations) => violations,
            Validation::Undecided => vec![Violation {
                pointer: String::new(),
                description: format!(
                    "is too large or too deep for its schema: at most {} steps are taken",
                    self.steps
                ),
                keyword: String::new(),
            }],
        })
    }

    /// Validates on a blocking thread, with few validations at a time. The number of steps bounds
    /// the time.
    async fn at_length(
        &self,
        compiled: Arc<Compiled>,
        payload: Bytes,
        requester: Requester,
    ) -> Result<Validation> {
        let turn = requester.turn(&self.long_validations).await?;
        let steps = self.steps;
        let validate = move || {
            // Held until the work is done, whether or not anyone still waits for it.
            let _turn = turn;
            compiled
                .schema
                .as_ref()
                .map_or(Validation::Fits, |schema| schema.validate_at_length(&payload, steps))
        };
        tokio::task::spawn_blocking(validate).await.map_err(|_| {
            // The panic hook of the process has logged the location. The panic's own text may
            // contain parts of the payload.
            tracing::error!("the validation of a payload panicked");
            Error::internal("the payload was not validated")
        })
    }
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
