//! Wiring of `dispatch`.

use std::sync::Arc;

use anyhow::Result;
use outrider_dispatch::{Dispatch, Given};
use outrider_queue::Queue;
use outrider_rpc::{
    Intake, Settlement,
    server::{Backend, guarded},
};
use outrider_telemetry::essential;

use super::{
    base::{Base, Stage, Stored, serve_internal, with_internal},
    messages::Messages,
    role::Role,
};
use crate::config::Config;

/// What other roles in this process use of dispatch.
pub struct Faces {
    pub public: Backend,
    pub intake: Arc<dyn Intake>,
    pub settlement: Arc<dyn Settlement>,
}

/// Starts dispatch, if this process has the role.
pub async fn start(
    base: &mut Base,
    stored: &Stored,
    queue: &Arc<dyn Queue>,
) -> Result<Option<Faces>> {
    if !base.roles.has(Role::Dispatch) {
        return Ok(None);
    }
    let dispatch = Arc::new(Dispatch::new(
        base.config.dispatch.clone(),
        given(&base.config),
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

/// Returns what dispatch is given besides its settings.
pub fn given(config: &Config) -> Given {
    let Messages { intake, reports, .. } = Messages::of(config);
    Given {
        max_request_bytes: config.gateway.max_request_bytes,
        max_intake_bytes: intake,
        max_reports_bytes: reports,
    }
}
