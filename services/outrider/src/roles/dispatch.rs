//! Wiring of `dispatch`.

use std::sync::Arc;

use anyhow::Result;
use outrider_dispatch::{Dispatch, Options};
use outrider_model::RetryPolicy;
use outrider_queue::Queue;
use outrider_rpc::{
    Intake, Settlement,
    server::{Backend, guarded},
};
use outrider_telemetry::essential;

use super::{
    Role,
    messages::Messages,
    process::{Base, Stage, Stored, serve_internal, with_internal},
};
use crate::config::Config;

/// The faces of dispatch in this process.
pub struct Faces {
    pub public: Backend,
    pub intake: Arc<dyn Intake>,
    pub settlement: Arc<dyn Settlement>,
}

/// Dispatch in this process, if it has the role.
pub async fn start(
    base: &mut Base,
    stored: &Stored,
    queue: &Arc<dyn Queue>,
) -> Result<Option<Faces>> {
    if !base.roles.has(Role::Dispatch) {
        return Ok(None);
    }
    let dispatch = Arc::new(Dispatch::new(
        options(&base.config),
        stored.store.clone(),
        stored.directory.clone(),
        Arc::clone(queue),
    ));
    let faces = Faces {
        public: guarded(dispatch.routes(base.stages.foundation.clone()), stored.keys()),
        intake: dispatch.intake(),
        settlement: dispatch.settlement(),
    };
    let address = base.config.dispatch.listen.clone();
    let internal = dispatch.internal_routes(base.stages.foundation.clone());
    let service = with_internal(base, stored, faces.public.clone(), internal);
    serve_internal(base, "dispatch.listen", &address, service, Stage::Foundation).await?;
    let shutdown = base.stages.foundation.clone();
    base.tasks
        .foundation
        .push(tokio::spawn(essential("dispatch", async move { dispatch.run(shutdown).await })));
    Ok(Some(faces))
}

/// How dispatch behaves.
pub fn options(config: &Config) -> Options {
    let Messages { intake, reports, .. } = Messages::of(config);
    let Config { gateway, dispatch: config, .. } = config;
    Options {
        max_request_bytes: gateway.max_request_bytes,
        max_intake_bytes: intake,
        max_reports_bytes: reports,
        retry_policy: RetryPolicy::new(config.retry_schedule.iter().map(|span| span.0).collect()),
        accept_lanes: config.accept_lanes,
        accept_batch: config.accept_batch,
        accept_queue: config.accept_queue,
        accept_queue_bytes: config.accept_queue_bytes,
        handoff_queue_bytes: config.handoff_queue_bytes,
        settle_lanes: config.settle_lanes,
        settle_batch: config.settle_batch,
        inline_bytes: config.inline_bytes,
        feed_period: config.feed_period.0,
        feed_batch: config.feed_batch,
        check_after: config.check_after.0,
        measure_period: config.measure_period.0,
        audit_period: config.audit_period.0,
        audit_grace: config.audit_grace.0,
        audit_batch: config.audit_batch,
        audit_repeat: config.audit_repeat.0,
        idempotency_lifetime: config.idempotency_lifetime.0,
        max_tails: config.max_tails,
        tail_buffer_bytes: config.tail_buffer_bytes,
        tail_readers: config.tail_readers,
        tail_heartbeat: config.tail_heartbeat.0,
        tail_poll: config.tail_poll.0,
        tail_retention: config.tail_retention.0,
        retention: config.retention.0,
        change_retention: config.change_retention.0,
        sweep_period: config.sweep_period.0,
        ..Options::default()
    }
}
