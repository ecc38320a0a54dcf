//! A process: starts its foundation and its roles in the order of their dependencies, and stops
//! them in the opposite order.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use outrider_queue::Queue;
use outrider_rpc::{PolicyInForce, RemoteKeys};
use tokio::signal::unix::Signal;

use super::{
    admin,
    base::{Base, Stored, Tasks},
    check::{check_all, check_lease, check_limit_of_files},
    dispatch, egress, foundation, gateway, ingest,
    reload::Reload,
    role::{KEYED, QUEUED, Role, Roles, STORED},
    tls, worker,
};
use crate::{
    config::{Config, Sources},
    operations::{self, Health},
    shutdown::Stages,
};

/// A running process.
pub struct Process {
    stages: Stages,
    tasks: Tasks,
    serving: Arc<AtomicBool>,
    config: Config,
    roles: Roles,
    policy: PolicyInForce,
    /// Address of the public listener, if this process has one.
    pub public: Option<SocketAddr>,
}

/// Starts a process with these roles. Returns when every listener is open.
pub async fn start(config: Config, roles: Roles) -> Result<Process> {
    outrider_rpc::methods::check_scopes()?;
    check_all(&config, &roles)?;
    check_lease(&config);
    check_limit_of_files(&config, &roles);
    let token = foundation::internal_token(&config.internal)?;
    let stages = Stages::default();
    let tls = tls::between_roles(&config.internal, &stages.foundation)?;
    let policy = PolicyInForce::from(config.egress.policy());
    let mut base =
        Base { config, roles, stages, tasks: Tasks::default(), token, tls, policy, egress: None };
    worker::check(&base)?;
    egress::start(&mut base).await?;
    let queue = if base.roles.has_any(&QUEUED) {
        Some(foundation::queue(&base.config.queue).await?)
    } else {
        None
    };
    let stored = if base.roles.has_any(&STORED) {
        let store = foundation::store(&base.config, &base.roles).await?;
        let keys = base.roles.has_any(&KEYED);
        let directory = foundation::directory(
            &base.config.directory,
            &store,
            queue.as_ref(),
            keys,
            &base.stages.foundation,
        );
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

async fn start_operations(base: &mut Base, health: Health) -> Result<()> {
    if base.config.operations.listen.is_empty() {
        return Ok(());
    }
    let listener = base.listen("operations.listen", &base.config.operations.listen).await?;
    let shutdown = base.stages.foundation.clone();
    base.tasks.foundation.push(tokio::spawn(operations::serve(listener, health, shutdown)));
    Ok(())
}

/// Starts dispatch, worker, ingest, admin and gateway. Each needs those before it, in this process
/// or in another.
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
    /// Reads the configuration again at the signal and when its file changes.
    pub fn follow(&self, sources: Sources, prompted: Signal) {
        let reload =
            Reload::new(sources, self.config.clone(), self.roles.clone(), self.policy.clone());
        reload.spawn(prompted, self.stages.foundation.clone());
    }

    /// Stops in order: accepts no more work, then finishes or returns the work in flight, then
    /// stops the rest.
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
                    tracing::error!(%error, "a task ended abnormally");
                }
            }
        }
    }
}
