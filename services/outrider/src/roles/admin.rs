//! Wiring of `admin`.

use std::sync::Arc;

use anyhow::Result;
use outrider_admin::{Admin, Given};
use outrider_queue::Queue;
use outrider_rpc::server::{Backend, guarded};
use tonic::service::Routes;

use super::{
    base::{Base, Stage, Stored, serve_internal, with_internal},
    role::Role,
};

/// Starts admin, if this process has the role.
pub async fn start(
    base: &mut Base,
    stored: &Stored,
    queue: &Arc<dyn Queue>,
) -> Result<Option<Backend>> {
    if !base.roles.has(Role::Admin) {
        return Ok(None);
    }
    let given = Given {
        policy: base.policy.clone(),
        max_request_bytes: base.config.gateway.max_request_bytes,
    };
    let admin = Admin::new(given, stored.store.clone(), Arc::clone(queue));
    let service = guarded(admin.routes(), stored.keys());
    let address = base.config.admin.listen.clone();
    let listening = with_internal(base, stored, service.clone(), Routes::default());
    serve_internal(base, "admin.listen", &address, listening, Stage::Intake).await?;
    Ok(Some(service))
}
