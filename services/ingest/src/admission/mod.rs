//! Admission: validates events, checks them against the catalog, and hands them to dispatch. Unary
//! calls, batches and streams all go through it.

mod fingerprint;
mod json;
pub mod large;
pub mod metrics;
pub mod offer;
pub mod schemas;
pub mod validate;

use std::sync::Arc;

use outrider_model::{Error, Principal, Project, ProjectId, Result};
use outrider_proto::ingest::{NewEvent, PublishEventResponse};
use outrider_rpc::{Intake, convert::parse_id};
use outrider_shares::Holder;
use outrider_store::{Clock, Directory};
use outrider_telemetry::TraceContext;
use tracing::Instrument as _;

use crate::options::{Given, Options};
use large::Large;
use schemas::{Requester, SchemaValidator};
use validate::Context;

/// Returns the path of an event in a request, by its index.
type Path = fn(usize) -> String;

/// Who publishes into which project.
pub struct Publisher<'a> {
    pub principal: &'a Principal,
    pub project: Arc<Project>,
    pub trace: Option<&'a TraceContext>,
}

/// Admits events. A handle that is cheap to clone.
#[derive(Clone)]
pub struct Admission {
    options: Arc<Options>,
    given: Given,
    directory: Directory,
    clock: Clock,
    intake: Arc<dyn Intake>,
    schemas: Arc<SchemaValidator>,
    large: Large,
}

impl Admission {
    pub fn new(
        options: Options,
        given: Given,
        directory: Directory,
        clock: Clock,
        intake: Arc<dyn Intake>,
    ) -> Self {
        metrics::expose();
        let schemas = Arc::new(SchemaValidator::new(&options, directory.clone()));
        let large = Large::new(&options);
        Self { options: Arc::new(options), given, directory, clock, intake, schemas, large }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Returns what the process gave the role.
    pub fn given(&self) -> Given {
        self.given
    }

    pub fn intake(&self) -> &Arc<dyn Intake> {
        &self.intake
    }

    pub fn schemas(&self) -> &Arc<SchemaValidator> {
        &self.schemas
    }

    pub fn large(&self) -> &Large {
        &self.large
    }

    pub async fn project(&self, principal: &Principal, project_id: &str) -> Result<Arc<Project>> {
        let id: ProjectId = parse_id("project_id", project_id)?;
        self.directory.project(principal, id).await
    }

    /// Returns what validating an event depends on.
    pub fn context<'a>(
        &'a self,
        principal: &'a Principal,
        project: &'a Project,
        trace: Option<&'a TraceContext>,
    ) -> Context<'a> {
        Context { principal, project, now: self.clock.now(), options: &self.options, trace }
    }

    /// Accepts events and returns their answers in order. The events of a large request wait for
    /// their turn. `path` returns the path of an event in the request.
    pub async fn accept(
        &self,
        publisher: Publisher<'_>,
        events: Vec<NewEvent>,
        path: Path,
    ) -> Result<Vec<Result<PublishEventResponse>>> {
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        if self.large.is_large(bytes, events.len()) {
            // Boxed, so that the futures of small requests stay small.
            Box::pin(self.accept_in_turn(publisher, events, path)).await
        } else {
            let holder = Holder::within(publisher.principal, publisher.project.id);
            self.accept_now(publisher, Requester::Call(holder), events, path).await
        }
    }

    /// Accepts events in a separate task that holds the turn. The turn limits the work, which goes
    /// on even if the caller is gone.
    async fn accept_in_turn(
        &self,
        publisher: Publisher<'_>,
        events: Vec<NewEvent>,
        path: Path,
    ) -> Result<Vec<Result<PublishEventResponse>>> {
        let Publisher { principal, project, trace } = publisher;
        let turn = self.large.take(Holder::within(principal, project.id)).await?;
        let (admission, principal, trace) = (self.clone(), principal.clone(), trace.cloned());
        let work = async move {
            let _turn = turn;
            let publisher = Publisher { principal: &principal, project, trace: trace.as_ref() };
            admission.accept_now(publisher, Requester::InTurn, events, path).await
        };
        tokio::spawn(work.in_current_span())
            .await
            .unwrap_or_else(|_| Err(Error::internal("a fault of the server")))
    }

    async fn accept_now(
        &self,
        publisher: Publisher<'_>,
        requester: Requester,
        events: Vec<NewEvent>,
        path: Path,
    ) -> Result<Vec<Result<PublishEventResponse>>> {
        let Publisher { principal, project, trace } = publisher;
        let context = self.context(principal, &project, trace);
        let checked = events.into_iter().map(|event| validate::event(event, &context)).collect();
        offer::offer(&self.schemas, &*self.intake, &project, requester, checked, path).await
    }
}
