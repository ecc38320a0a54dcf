//! Wiring of `admin`.

use std::sync::Arc;

use anyhow::Result;
use outrider_admin::{Admin, Options};
use outrider_queue::Queue;
use outrider_rpc::server::{Backend, guarded};
use tonic::service::Routes;

use super::{
    Role, egress,
    process::{Base, Stage, Stored, serve_internal, with_internal},
};
use crate::config::Config;

/// Admin in this process, if it has the role.
pub async fn start(
    base: &mut Base,
    stored: &Stored,
    queue: &Arc<dyn Queue>,
) -> Result<Option<Backend>> {
    if !base.roles.has(Role::Admin) {
        return Ok(None);
    }
    let options = Options { policy: base.policy.clone(), ..options(&base.config) };
    let admin = Admin::new(options, stored.store.clone(), Arc::clone(queue));
    let service = guarded(admin.routes(), stored.keys());
    let address = base.config.admin.listen.clone();
    let listening = with_internal(base, stored, service.clone(), Routes::default());
    serve_internal(base, "admin.listen", &address, listening, Stage::Intake).await?;
    Ok(Some(service))
}

/// How admin behaves.
pub fn options(config: &Config) -> Options {
    Options {
        policy: egress::policy(&config.egress).into(),
        max_request_bytes: config.gateway.max_request_bytes,
    }
}
