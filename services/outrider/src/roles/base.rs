//! What the roles of one process are built from, and the listeners between roles.

use std::sync::Arc;

use anyhow::{Context, Result};
use outrider_egress::Egress;
use outrider_proto::internal::key_service_server::KeyServiceServer;
use outrider_rpc::{
    Acceptor, Authenticate, InternalToken, KeyServer, PolicyInForce, Tls, internal::InternalGate,
    server::Backend, tls::Protocol,
};
use outrider_store::{Directory, Store};
use outrider_telemetry::essential;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;

use super::role::Roles;
use crate::{config::Config, keys::Keys, shutdown::Stages};

/// What the roles of one process are built from.
pub struct Base {
    pub config: Config,
    pub roles: Roles,
    pub stages: Stages,
    pub tasks: Tasks,
    /// What roles in different processes present to each other.
    pub token: Option<InternalToken>,
    /// How they speak to each other; plainly without it.
    pub tls: Option<Arc<Tls>>,
    /// Which destinations are permitted, for admin and for the egress of this process.
    pub policy: PolicyInForce,
    /// The egress of this process, which must not be led to our own listeners.
    pub egress: Option<Egress>,
}

impl Base {
    /// Opens a listener that the egress of this process will not dial.
    pub async fn listen(&self, key: &'static str, address: &str) -> Result<TcpListener> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{key}: cannot listen on {address}"))?;
        // With port 0, this is where it is to be learned.
        tracing::info!(key, address = %listener.local_addr()?, "listening");
        if let Some(egress) = &self.egress {
            egress.protect(listener.local_addr()?);
        }
        Ok(listener)
    }
}

/// What roles that read the database are built from.
#[derive(Clone)]
pub struct Stored {
    pub store: Store,
    pub directory: Directory,
}

impl Stored {
    /// The layer that authenticates callers of public methods.
    pub fn keys(&self) -> Arc<dyn Authenticate> {
        Arc::new(Keys(self.directory.clone()))
    }
}

/// The tasks of each stage.
#[derive(Default)]
pub struct Tasks {
    pub intake: Vec<JoinHandle<()>>,
    pub work: Vec<JoinHandle<()>>,
    pub foundation: Vec<JoinHandle<()>>,
}

/// The services of a role as other processes see them: the public ones, its internal ones and that
/// of API keys on one listener, told apart by the package in the path.
pub fn with_internal(base: &Base, stored: &Stored, public: Backend, internal: Routes) -> Backend {
    let internal = internal.add_service(KeyServiceServer::new(KeyServer(stored.keys())));
    let internal = InternalGate::new(internal.prepare(), base.token.clone());
    BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let is_internal = request.uri().path().starts_with("/outrider.internal.");
        let (internal, public) = (internal.clone(), public.clone());
        async move {
            if is_internal {
                tower::ServiceExt::oneshot(internal, request).await
            } else {
                tower::ServiceExt::oneshot(public, request).await
            }
        }
    }))
}

/// Serves the gRPC services of a role for other processes, unless all roles are in this one.
pub async fn serve_internal(
    base: &mut Base,
    key: &'static str,
    address: &str,
    service: Backend,
    stage: Stage,
) -> Result<()> {
    if base.roles.is_all() {
        return Ok(());
    }
    let listener = base.listen(key, address).await?;
    let acceptor = Acceptor::between_roles(base.tls.as_ref(), Protocol::Grpc);
    let (token, tasks) = match stage {
        Stage::Intake => (base.stages.intake.clone(), &mut base.tasks.intake),
        Stage::Foundation => (base.stages.foundation.clone(), &mut base.tasks.foundation),
    };
    tasks.push(tokio::spawn(essential("listener", async move {
        if let Err(error) = outrider_rpc::server::serve(listener, service, acceptor, token).await {
            tracing::error!(%error, key, "a listener ended");
        }
    })));
    Ok(())
}

/// When a listener between roles closes.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    Intake,
    Foundation,
}
