//! What the catalogue of event types has against an event.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use moka::future::Cache;
use outrider_model::{
    Error, EventTypeId, FieldViolation, Project, Reason, Result, SchemaValidation, Timestamp,
    limits, principal::Actor, text::joined,
};
use outrider_proto::{
    ingest::{PublishWarning, WarningReason},
    internal::AcceptEvent,
};
use outrider_schema::{Schema, Verdict, Violation};
use outrider_shares::{Holder, Resource, Share, Shares, Turn, TurnResources, Turns};
use outrider_store::{Catalogue, CatalogueEntry, Directory};

use crate::{Options, json};

/// Larger payloads are not validated in the task that takes them: reading them alone takes a while.
const BRIEF_BYTES: usize = 16 * 1024;
/// A compiled schema is taken to need so many times the memory of its text, and so much in any
/// case.
const COMPILED_FACTOR: usize = 16;
const COMPILED_BYTES: usize = 4 * 1024;
/// Compiled schemas are kept so long after their last use, and so many at most.
const IDLE: Duration = Duration::from_secs(600);
const MOST_COMPILED: u64 = 100_000;
/// Schemas of stored event types that are compiled at once.
const COMPILATIONS: usize = 4;
/// Calls that wait for one of these, and as many that wait for a long validation.
const LINE: usize = 1_024;
/// Before a stream that had no turn asks again.
const AGAIN: Duration = Duration::from_millis(200);

const SCHEMA_BYTES: Resource = Resource {
    name: "schema-cache-bytes",
    noun: "bytes of compiled schemas",
    least: COMPILED_BYTES,
};
const LONG_VALIDATIONS: TurnResources = TurnResources {
    slots: Resource { name: "long-validations", noun: "long validations", least: 1 },
    line: Resource {
        name: "long-validations-line",
        noun: "places in the line for long validations",
        least: 1,
    },
};
const SCHEMA_COMPILATIONS: TurnResources = TurnResources {
    slots: Resource { name: "schema-compilations", noun: "compilations of schemas", least: 1 },
    line: Resource {
        name: "schema-compilations-line",
        noun: "places in the line for compilations of schemas",
        least: 1,
    },
};

/// Who waits for the judgement of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A call, which is refused when its caller has used up its share of what takes long.
    Call(Holder),
    /// A stream, which waits. How many events wait in streams is bounded and divided as it is.
    Stream(Holder),
    /// A large request that has its turn, of which there are few. It must not wait for another turn
    /// of its caller: all other large requests would.
    InTurn,
}

impl Asker {
    /// Who takes turns.
    fn holder(self) -> Option<Holder> {
        match self {
            Self::Call(holder) | Self::Stream(holder) => Some(holder),
            Self::InTurn => None,
        }
    }

    async fn turn(self, of: &Turns) -> Result<Option<Turn>> {
        match self {
            Self::Call(holder) => Ok(Some(of.take(holder).await?)),
            Self::Stream(holder) => Ok(Some(of.wait(holder).await)),
            Self::InTurn => Ok(None),
        }
    }
}

/// A schema of an entry.
struct Compiled {
    /// None when the entry lost it meanwhile.
    schema: Option<Schema>,
    /// When the entry that it was compiled for was changed.
    version: Timestamp,
    /// Its part of the memory for compiled schemas; none when its project has no more.
    share: Option<Share>,
}

/// Validates payloads by the catalogues of their projects.
pub struct Judge {
    directory: Directory,
    /// By the entry: no publish compiles what another has.
    compiled: Cache<EventTypeId, Arc<Compiled>>,
    /// The memory for these, divided among projects.
    memory: Shares,
    /// Of what is not in the cache.
    compilations: Turns,
    /// Validations at length.
    lengthy: Turns,
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
        let compiled = Cache::builder().time_to_idle(IDLE).max_capacity(MOST_COMPILED);
        let memory = Shares::new(
            SCHEMA_BYTES,
            usize::try_from(options.schema_cache_bytes).unwrap_or(usize::MAX),
        );
        let compilations = Turns::new(SCHEMA_COMPILATIONS, COMPILATIONS, LINE);
        let lengthy = Turns::new(LONG_VALIDATIONS, options.long_validations, LINE);
        Self {
            directory,
            compiled: compiled.build(),
            memory,
            compilations,
            lengthy,
            steps: options.validation_steps,
        }
    }

    /// The catalogue by which events of a project are judged; none where they are not.
    pub async fn catalogue(&self, project: &Project) -> Result<Option<Arc<Catalogue>>> {
        match project.schema_validation {
            SchemaValidation::Off => Ok(None),
            SchemaValidation::Warn | SchemaValidation::Reject => {
                self.directory.catalogue(project.id).await.map(Some)
            }
        }
    }

    /// What the catalogue has against an event of the project. Errors: `UNAVAILABLE` when the
    /// schema cannot be loaded; `SHARE_EXHAUSTED` and `OVERLOADED` for a call.
    pub async fn judge(
        &self,
        project: &Project,
        catalogue: &Catalogue,
        event: &AcceptEvent,
        asker: &Asker,
    ) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let Some(entry) = catalogue.get(&event.event_type) else { return Ok(judgement) };
        if entry.deprecated {
            judgement.warnings.push(deprecated());
        }
        if !entry.has_schema || !json::is_json(&event.content_type) {
            return Ok(judgement);
        }
        let violations = self.violations(project, entry, &event.payload, asker).await?;
        // So that a large batch shares its thread.
        tokio::task::coop::consume_budget().await;
        if violations.is_empty() {
            return Ok(judgement);
        }
        let keywords: Vec<&str> =
            violations.iter().map(|violation| violation.keyword.as_str()).collect();
        tracing::debug!(
            project = %project.id,
            event_type = event.event_type,
            keywords = %joined(&keywords),
            "a payload does not fit its schema"
        );
        if project.schema_validation == SchemaValidation::Reject {
            judgement.refusal = Some(refusal(violations));
        } else {
            judgement.warnings.extend(violations.into_iter().map(warning));
        }
        Ok(judgement)
    }

    async fn violations(
        &self,
        project: &Project,
        entry: CatalogueEntry,
        payload: &Bytes,
        asker: &Asker,
    ) -> Result<Vec<Violation>> {
        let compiled = self.compiled(project, entry, asker).await?;
        let Some(schema) = &compiled.schema else { return Ok(Vec::new()) };
        let brief = if payload.len() <= BRIEF_BYTES {
            schema.validate_briefly(payload)
        } else {
            Verdict::Undecided
        };
        let verdict = match brief {
            // Boxed: it is rare, and would make the future of every publish as large.
            Verdict::Undecided => {
                Box::pin(self.at_length(Arc::clone(&compiled), payload.clone(), *asker)).await?
            }
            brief => brief,
        };
        Ok(match verdict {
            Verdict::Fits => Vec::new(),
            Verdict::Violates(violations) => violations,
            Verdict::Undecided => vec![Violation {
                pointer: String::new(),
                description: format!(
                    "is too large or too deep for its schema: at most {} steps are taken",
                    self.steps
                ),
                keyword: String::new(),
            }],
        })
    }

    /// Beside the tasks, few at once: the longest takes about as long as so many steps do.
    async fn at_length(
        &self,
        compiled: Arc<Compiled>,
        payload: Bytes,
        asker: Asker,
    ) -> Result<Verdict> {
        let turn = asker.turn(&self.lengthy).await?;
        let steps = self.steps;
        let validate = move || {
            // Until it is done, whether or not anybody still waits for it.
            let _turn = turn;
            compiled
                .schema
                .as_ref()
                .map_or(Verdict::Fits, |schema| schema.validate_at_length(&payload, steps))
        };
        tokio::task::spawn_blocking(validate).await.map_err(|_| {
            // The hook of the process has said where; the panic's own text may hold what the
            // payload holds.
            tracing::error!("the validation of a payload panicked");
            Error::internal("the payload was not validated")
        })
    }

    async fn compiled(
        &self,
        project: &Project,
        entry: CatalogueEntry,
        asker: &Asker,
    ) -> Result<Arc<Compiled>> {
        if let Some(compiled) = self.compiled.get(&entry.id).await
            && compiled.version >= entry.updated_at
        {
            return Ok(compiled);
        }
        // Boxed: it is rare, and would make the future of every publish as large.
        Box::pin(self.compile(project, entry, *asker)).await
    }

    /// Compiles a schema, once for all who want it meanwhile and have to wait.
    async fn compile(
        &self,
        project: &Project,
        entry: CatalogueEntry,
        asker: Asker,
    ) -> Result<Arc<Compiled>> {
        if asker == Asker::InTurn {
            let compiled = self.load(project, entry, asker).await?;
            if compiled.share.is_some() {
                self.compiled.insert(entry.id, Arc::clone(&compiled)).await;
            }
            return Ok(compiled);
        }
        let is_own = AtomicBool::new(false);
        loop {
            let load = async {
                is_own.store(true, Relaxed);
                self.load(project, entry, asker).await
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
                Err(error) if error.is_overload() && matches!(asker, Asker::Stream(_)) => {
                    tokio::time::sleep(AGAIN).await
                }
                // The share that is used up is of another caller, whose compilation it joined.
                Err(error) if error.is_overload() && !is_own.load(Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn load(
        &self,
        project: &Project,
        entry: CatalogueEntry,
        asker: Asker,
    ) -> Result<Arc<Compiled>> {
        let owner = Holder {
            organization: project.organization,
            project: Some(project.id),
            actor: Actor::System,
        };
        let turn = asker.turn(&self.compilations).await?;
        let text =
            self.directory.event_type_schema(asker.holder(), entry.id).await?.unwrap_or_default();
        let share = self.memory.take(owner, COMPILED_BYTES + COMPILED_FACTOR * text.len()).ok();
        let compile = move || {
            // Until it is done, whether or not anybody still waits for it.
            let _turn = turn;
            let schema = compile(entry.id, &text)?;
            Ok(Arc::new(Compiled { schema, version: entry.updated_at, share }))
        };
        let failed = |_| {
            tracing::error!(event_type = %entry.id, "compiling the schema of an event type panicked");
            Error::internal("the schema was not compiled")
        };
        tokio::task::spawn_blocking(compile).await.map_err(failed)?
    }
}

fn compile(id: EventTypeId, text: &str) -> Result<Option<Schema>> {
    if text.is_empty() {
        return Ok(None);
    }
    // It was compiled when it was stored: by a version with other limits, if not by this one.
    Schema::compile(text).map(Some).map_err(|fault| {
        tracing::error!(event_type = %id, pointer = fault.pointer, why = fault.description, "a stored schema does not compile");
        Error::internal("the schema of the event type does not compile")
    })
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

#[cfg(test)]
mod tests;
