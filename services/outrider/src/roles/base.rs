//! The parts from which the roles of a process are built, and the listeners between roles.

use std::sync::Arc;

use anyhow::{Context, Result};
use outrider_egress::Egress;
use outrider_rpc::{
    Acceptor, Authenticate, InternalToken, PolicyInForce, Tls, internal::InternalGate, keys,
    server::Backend, tls::Protocol,
};
use outrider_store::{Directory, Store};
use outrider_telemetry::essential;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;

use super::role::Roles;
use crate::{config::Config, keys::Keys, shutdown::Stages};

/// The parts from which the roles of a process are built.
pub struct Base {
    pub config: Config,
    pub roles: Roles,
    pub stages: Stages,
    pub tasks: Tasks,
    /// The token that roles in different processes present to each other.
    pub token: Option<InternalToken>,
    /// TLS between roles; without it, they use plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// The egress policy, for admin and for the egress of this process.
    pub policy: PolicyInForce,
    /// The egress of this process. It must not connect to our own listeners.
    pub egress: Option<Egress>,
}

impl Base {
    /// Opens a listener that the egress of this process refuses to dial.
    pub async fn listen(&self, key: &'static str, address: &str) -> Result<TcpListener> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{key}: cannot listen on {address}"))?;
        // If the port is 0, the log is the place to learn it.
        tracing::info!(key, address = %listener.local_addr()?, "listening");
        if let Some(egress) = &self.egress {
            egress.protect(listener.local_addr()?);
        }
        Ok(listener)
    }
}

/// The parts from which roles that read the database are built.
#[derive(Clone)]
pub struct Stored {
    pub store: Store,
    pub directory: Directory,
}

impl Stored {
    /// Returns the authenticator for callers of public methods.
    pub fn keys(&self) -> Arc<dyn Authenticate> {
        Arc::new(Keys(self.directory.clone()))
    }
}

/// The tasks of each shutdown stage.
#[derive(Default)]
pub struct Tasks {
    pub intake: Vec<JoinHandle<()>>,
    pub work: Vec<JoinHandle<()>>,
    pub foundation: Vec<JoinHandle<()>>,
}

/// Combines the public services of a role, its internal services and the key service on one
/// listener for other processes. The package in the path tells them apart.
pub fn with_internal(base: &Base, stored: &Stored, public: Backend, internal: Routes) -> Backend {
    let internal = internal.add_service(keys::service(stored.keys()));
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

/// The shutdown stage in which a listener between roles closes.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    Intake,
    Foundation,
}
