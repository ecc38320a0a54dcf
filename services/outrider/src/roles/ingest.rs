//! Wiring of `ingest`.

use std::sync::Arc;

use anyhow::Result;
use outrider_ingest::{Given, Ingest};
use outrider_rpc::{
    Intake,
    intake::RemoteIntake,
    server::{Backend, guarded},
};
use tonic::service::Routes;

use super::{
    base::{Base, Stage, Stored, serve_internal, with_internal},
    dispatch::Faces,
    foundation::channel,
    role::Role,
};

/// Starts ingest, if this process has the role.
pub async fn start(
    base: &mut Base,
    stored: &Stored,
    dispatch: Option<&Faces>,
) -> Result<Option<Backend>> {
    if !base.roles.has(Role::Ingest) {
        return Ok(None);
    }
    let config = &base.config.ingest;
    let intake: Arc<dyn Intake> = match dispatch {
        Some(faces) => Arc::clone(&faces.intake),
        None => Arc::new(RemoteIntake::new(
            channel("ingest.dispatch_url", &config.dispatch_url, base.tls.as_ref())?,
            base.token.clone(),
        )),
    };
    let shutdown = base.stages.intake.clone();
    let ingest = Ingest::new(
        config.clone(),
        Given { max_request_bytes: base.config.gateway.max_request_bytes },
        stored.directory.clone(),
        stored.store.clock().clone(),
        intake,
        shutdown,
    );
    let service = guarded(ingest.routes(), stored.keys());
    let address = config.listen.clone();
    let listening = with_internal(base, stored, service.clone(), Routes::default());
    serve_internal(base, "ingest.listen", &address, listening, Stage::Intake).await?;
    Ok(Some(service))
}
