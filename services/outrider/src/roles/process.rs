//! A process: its foundation, its roles in the order in which they need each other, and their end
//! in the opposite order.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use outrider_egress::Egress;
use outrider_model::limits;
use outrider_proto::internal::key_service_server::KeyServiceServer;
use outrider_queue::Queue;
use outrider_rpc::{
    Acceptor, Authenticate, InternalToken, KeyServer, PolicyInForce, RemoteKeys, Tls,
    internal::InternalGate, server::Backend, tls::Protocol,
};
use outrider_store::{Backend as Database, Directory, Store};
use outrider_telemetry::essential;
use tokio::{net::TcpListener, signal::unix::Signal, task::JoinHandle};
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;

use super::{
    Role, Roles, admin,
    check::{check, check_urls},
    dispatch, egress, foundation, gateway, ingest,
    reload::Reload,
    tls, worker,
};
use crate::{
    config::{Config, Sources},
    keys::Keys,
    operations::{self, Health},
    shutdown::Stages,
};

/// Roles that read or write the database.
const STORED: [Role; 4] = [Role::Ingest, Role::Dispatch, Role::Worker, Role::Admin];
/// Roles that check API keys by the directory.
const KEYED: [Role; 4] = [Role::Gateway, Role::Ingest, Role::Dispatch, Role::Admin];
/// Roles that use the queue.
const QUEUED: [Role; 3] = [Role::Dispatch, Role::Worker, Role::Admin];

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

/// A process that runs.
pub struct Process {
    stages: Stages,
    tasks: Tasks,
    serving: Arc<AtomicBool>,
    config: Config,
    roles: Roles,
    policy: PolicyInForce,
    /// Where the public listener is, when this process has one.
    pub public: Option<SocketAddr>,
}

/// Starts a process with these roles. When it returns, every listener is open.
pub async fn start(config: Config, roles: Roles) -> Result<Process> {
    outrider_rpc::methods::check_scopes()?;
    check_all(&config, &roles)?;
    check_lease(&config);
    check_limit_of_files(&config, &roles);
    let token = foundation::internal_token(&config.internal)?;
    let stages = Stages::default();
    let tls = tls::between_roles(&config.internal, &stages.foundation)?;
    let policy = PolicyInForce::from(egress::policy(&config.egress));
    let mut base =
        Base { config, roles, stages, tasks: Tasks::default(), token, tls, policy, egress: None };
    worker::check(&base)?;
    egress::start(&mut base).await?;
    let queue = if base.roles.has_any(&QUEUED) {
        Some(foundation::queue(&base.config).await?)
    } else {
        None
    };
    let stored = if base.roles.has_any(&STORED) {
        let store = foundation::store(&base.config, &base.roles).await?;
        let keys = base.roles.has_any(&KEYED);
        let directory =
            foundation::directory(&store, queue.as_ref(), keys, &base.stages.foundation);
        Some(Stored { store, directory })
    } else {
        None
    };
    let remote_keys = match &stored {
        None if base.roles.has(Role::Gateway) => Some(gateway::remote_keys(&mut base)?),
        _ => None,
    };
    let serving = Arc::new(AtomicBool::new(false));
    let health = Health {
        store: stored.as_ref().map(|stored| stored.store.clone()),
        queue: queue.clone(),
        keys: remote_keys.clone(),
        serving: Arc::clone(&serving),
    };
    start_operations(&mut base, health).await?;
    let public = start_roles(&mut base, stored, queue, remote_keys).await?;
    serving.store(true, Ordering::Relaxed);
    let Base { config, roles, stages, tasks, policy, .. } = base;
    Ok(Process { stages, tasks, serving, config, roles, policy, public })
}

/// What a process with these roles refuses, before it opens anything.
pub fn check_all(config: &Config, roles: &Roles) -> Result<()> {
    check(config)?;
    check_urls(config, roles)?;
    check_shape(config, roles)?;
    let guarded = !config.internal.token.0.trim().is_empty()
        || !config.internal.tls_certificate_file.is_empty();
    check_listeners(config, roles, guarded)
}

/// A lease that ends before an attempt can is held by being renewed alone.
fn check_lease(config: &Config) {
    let longest = Duration::from_millis(limits::TIMEOUT_MILLIS.2);
    if config.queue.lease.0 <= longest {
        tracing::warn!(lease = %config.queue.lease, "queue.lease is not above 30s, the longest \
            timeout of an endpoint: it holds by renewal only");
    }
}

/// Too few are no error: they do for little traffic.
fn check_limit_of_files(config: &Config, roles: &Roles) {
    let wanted = files_wanted(config, roles);
    match rlimit::Resource::NOFILE.get_soft() {
        Ok(limit) if limit < wanted => {
            tracing::warn!(
                limit,
                wanted,
                "few files may be open at once, and each connection is one: without one deliveries \
                    wait"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "how many files may be open at once is not known"),
    }
}

/// Files that a process with these roles may come to have open: for callers and servers about a
/// thousand, one for each request of a worker and each connection that it keeps, two for each
/// tunnel of an egress of its own.
fn files_wanted(config: &Config, roles: &Roles) -> u64 {
    const OTHERS: usize = 1_024;
    let connections =
        (config.worker.max_in_flight as usize).saturating_add(config.worker.pool_idle_total);
    let worker = if roles.has(Role::Worker) { connections } else { 0 };
    let egress = if roles.has(Role::Egress) && !roles.is_all() {
        config.egress.max_tunnels.saturating_mul(2)
    } else {
        0
    };
    u64::try_from(OTHERS.saturating_add(worker).saturating_add(egress)).unwrap_or(u64::MAX)
}

/// SQLite and the embedded queue live in one process: roles cannot be apart.
fn check_shape(config: &Config, roles: &Roles) -> Result<()> {
    if roles.is_all() {
        return Ok(());
    }
    if Database::of(&config.database.url) == Some(Database::Sqlite) && roles.has_any(&STORED) {
        bail!(
            "database.url: SQLite serves one process with all roles; roles of their own need \
                PostgreSQL"
        );
    }
    if config.queue.url == "embedded" && roles.has_any(&QUEUED) {
        bail!(
            "queue.url: the embedded queue serves one process with all roles; roles of their own \
                need Redis"
        );
    }
    Ok(())
}

/// Whoever reaches a listener between roles could settle deliveries, use the egress or ask whom API
/// keys stand for: beyond loopback it takes the token, or mutual TLS.
fn check_listeners(config: &Config, roles: &Roles, guarded: bool) -> Result<()> {
    if guarded || roles.is_all() {
        return Ok(());
    }
    for (role, key, listen) in [
        (Role::Dispatch, "dispatch.listen", &config.dispatch.listen),
        (Role::Egress, "egress.listen", &config.egress.listen),
        (Role::Ingest, "ingest.listen", &config.ingest.listen),
        (Role::Admin, "admin.listen", &config.admin.listen),
    ] {
        let loopback = listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        if roles.has(role) && !loopback {
            bail!(
                "internal.token or internal.tls_certificate_file: one is required, since {key} = \
                    {listen} is not on loopback"
            );
        }
    }
    Ok(())
}

async fn start_operations(base: &mut Base, health: Health) -> Result<()> {
    if base.config.operations.listen.is_empty() {
        return Ok(());
    }
    let listener = base.listen("operations.listen", &base.config.operations.listen).await?;
    let shutdown = base.stages.foundation.clone();
    base.tasks.foundation.push(tokio::spawn(operations::serve(listener, health, shutdown)));
    Ok(())
}

/// Dispatch, worker, ingest, admin, gateway: each needs those before it, here or elsewhere.
async fn start_roles(
    base: &mut Base,
    stored: Option<Stored>,
    queue: Option<Arc<dyn Queue>>,
    remote_keys: Option<Arc<RemoteKeys>>,
) -> Result<Option<SocketAddr>> {
    let (mut dispatch, mut ingest, mut admin) = (None, None, None);
    if let Some(stored) = &stored {
        if let Some(queue) = &queue {
            dispatch = dispatch::start(base, stored, queue).await?;
            worker::start(base, stored, queue, dispatch.as_ref()).await?;
            admin = admin::start(base, stored, queue).await?;
        }
        ingest = ingest::start(base, stored, dispatch.as_ref()).await?;
    }
    let keys = match (stored, remote_keys) {
        (Some(stored), _) => stored.keys(),
        (None, Some(keys)) => gateway::remembered(base, keys),
        (None, None) => return Ok(None),
    };
    let here = gateway::Here { keys, ingest, dispatch: dispatch.map(|faces| faces.public), admin };
    gateway::start(base, here).await
}

impl Process {
    /// Reads the configuration again at the signal, and when its file changes.
    pub fn follow(&self, sources: Sources, prompted: Signal) {
        let reload =
            Reload::new(sources, self.config.clone(), self.roles.clone(), self.policy.clone());
        reload.spawn(prompted, self.stages.foundation.clone());
    }

    /// Ends in order: no more work comes in, what is under way ends or is given back, then the
    /// rest.
    pub async fn stop(self) {
        self.serving.store(false, Ordering::Relaxed);
        let Tasks { intake, work, foundation } = self.tasks;
        for (token, tasks) in [
            (self.stages.intake, intake),
            (self.stages.work, work),
            (self.stages.foundation, foundation),
        ] {
            token.cancel();
            for task in tasks {
                if let Err(error) = task.await {
                    tracing::error!(%error, "a task did not end as it should");
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_between_roles_need_a_token_beyond_loopback() {
        let mut config = Config::default();
        let apart = Roles::new(&[Role::Dispatch, Role::Egress]);
        assert!(check_listeners(&config, &apart, false).is_ok());
        config.egress.listen = "0.0.0.0:8084".into();
        config.ingest.listen = "0.0.0.0:8081".into();
        let refused = check_listeners(&config, &apart, false).unwrap_err().to_string();
        assert!(refused.contains("internal.token") && refused.contains("egress.listen"));
        let refused =
            check_listeners(&config, &Roles::new(&[Role::Ingest]), false).unwrap_err().to_string();
        assert!(refused.contains("internal.token") && refused.contains("ingest.listen"));
        assert!(check_listeners(&config, &apart, true).is_ok());
        assert!(check_listeners(&config, &Roles::new(&[Role::All]), false).is_ok());
    }

    #[test]
    fn what_lives_in_one_process_is_not_split() {
        let config = Config::default();
        assert!(check_shape(&config, &Roles::new(&[Role::All])).is_ok());
        assert!(check_shape(&config, &Roles::new(&[Role::Gateway, Role::Egress])).is_ok());
        assert!(check_shape(&config, &Roles::new(&[Role::Dispatch])).is_err());
    }
}
