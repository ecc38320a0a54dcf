//! An attacker and its means.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use outrider_tests::{Attacker, Outrider, Receiver, Shape};
use tokio::{task::JoinSet, time::sleep};

use super::{attacks::Attack, terms::Force};

/// The pause after a failed round of an attack.
const PAUSE: Duration = Duration::from_millis(500);
/// How many errors of one attack are reported.
const TOLD: usize = 3;

/// One attacker: an organization, a receiver for its endpoints, and the addresses of the server.
#[derive(Clone)]
pub struct Foe {
    pub outrider: Arc<Outrider>,
    pub tenant: Arc<Attacker>,
    /// Only counts requests.
    pub receiver: Arc<Receiver>,
    pub force: Force,
    hits: Arc<AtomicUsize>,
    errors: Arc<Mutex<Vec<String>>>,
}

/// The result of an attack.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub hits: usize,
    pub errors: Vec<String>,
}

impl Foe {
    pub fn new(
        outrider: &Arc<Outrider>,
        tenant: &Arc<Attacker>,
        receiver: &Arc<Receiver>,
        force: Force,
    ) -> Self {
        let (outrider, tenant, receiver) =
            (Arc::clone(outrider), Arc::clone(tenant), Arc::clone(receiver));
        Self { outrider, tenant, receiver, force, hits: Arc::default(), errors: Arc::default() }
    }

    /// Counts an effect on the server. An attack without an effect proves nothing.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Selects a number for the long run or for the bounded part.
    pub fn of<T>(&self, full: T, part: T) -> T {
        if self.force == Force::Full { full } else { part }
    }

    /// Returns the host and port of the public listener.
    pub fn address(&self) -> String {
        self.outrider.address()
    }

    /// Returns every listener that a caller without a key may reach: the public one, the operations
    /// listeners, and that of the egress, if any.
    pub fn listeners(&self) -> Vec<String> {
        let mut all = vec![self.address()];
        all.extend(self.outrider.operations());
        if self.outrider.shape() == Shape::Mesh {
            all.push(self.outrider.role_address("egress"));
        }
        all
    }

    /// Repeats an attack until it is aborted.
    pub async fn attack(self, attack: Attack) {
        loop {
            let ended = (attack.run)(self.clone()).await;
            if let Err(error) = ended {
                self.errors
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(format!("{error:#}"));
            }
            sleep(PAUSE).await;
        }
    }

    /// Does the same on this many tasks, until one of them fails.
    pub async fn at_once<F: Future<Output = Result<()>> + Send + 'static>(
        &self,
        count: usize,
        work: impl Fn(Self, usize) -> F,
    ) -> Result<()> {
        let mut all = JoinSet::new();
        for number in 0..count {
            all.spawn(work(self.clone(), number));
        }
        while let Some(ended) = all.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Repeats numbered calls on this many tasks, with a pause after each.
    pub async fn callers<F: Future<Output = Result<()>> + Send + 'static>(
        &self,
        count: usize,
        pause: Duration,
        call: impl Fn(Self, usize) -> F + Clone + Send + Sync + 'static,
    ) -> Result<()> {
        self.at_once(count, move |foe, caller| {
            let call = call.clone();
            async move {
                for number in (caller..).step_by(count) {
                    call(foe.clone(), number).await?;
                    foe.hit();
                    sleep(pause).await;
                }
                Ok(())
            }
        })
        .await
    }

    pub fn done(&self) -> Done {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told: Vec<String> = errors.iter().take(TOLD).cloned().collect();
        if errors.len() > TOLD {
            told.push(format!("and {} more", errors.len() - TOLD));
        }
        Done { hits: self.hits.load(Ordering::Relaxed), errors: told }
    }
}
