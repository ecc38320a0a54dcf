//! Who carries out an attack, and what it has at hand.

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

/// After a round of an attack that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Errors of one attack that are told.
const TOLD: usize = 3;

/// One attacker: an organisation, a receiver for its endpoints, and the addresses of the server.
#[derive(Clone)]
pub struct Foe {
    pub outrider: Arc<Outrider>,
    pub tenant: Arc<Attacker>,
    /// Counts and keeps nothing.
    pub receiver: Arc<Receiver>,
    pub force: Force,
    hits: Arc<AtomicUsize>,
    errors: Arc<Mutex<Vec<String>>>,
}

/// What became of an attack.
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

    /// Counts what was done to the server: an attack without a hit proves nothing.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// A number for the long run, and one for the bounded part of it.
    pub fn of<T>(&self, full: T, part: T) -> T {
        if self.force == Force::Full { full } else { part }
    }

    /// The host and port of the public listener.
    pub fn address(&self) -> String {
        self.outrider.address()
    }

    /// Every listener that somebody without a key may reach: the public one, those for operators,
    /// and the egress where it has one.
    pub fn listeners(&self) -> Vec<String> {
        let mut all = vec![self.address()];
        all.extend(self.outrider.operations());
        if self.outrider.shape() == Shape::Mesh {
            all.push(self.outrider.role_address("egress"));
        }
        all
    }

    /// Carries out an attack, round after round, until it is aborted.
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

    /// Does the same on so many tasks at once, until one of them fails.
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

    /// Calls again and again, on so many tasks, with a pause after each call; every call has a
    /// number.
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
