//! Looks up API keys at roles in other processes.
//!
//! A role that did not answer is marked away and not asked for a while, so that only the first
//! requests wait for it in vain. A probe marks it back.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::{join_all, select_ok};
use outrider_model::{ApiKeyId, Error, HashedToken, Principal, Result, text::span};
use outrider_proto::internal::{ResolveKeyRequest, key_service_client::KeyServiceClient};
use tokio::time::{Instant, timeout};
use tonic::service::interceptor::InterceptedService;
use uuid::Uuid;

use super::principal::from_wire;
use crate::{
    channels::{
        resend::{Resend, ResendingChannel},
        role::{RoleChannel, is_from_role},
    },
    guard::{
        auth::Authenticate,
        internal::{InternalToken, PresentToken},
    },
    wire::{cause, status::from_status},
};

/// How long one role may take to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a role that did not answer is not asked, unless a probe gets an answer earlier.
pub(super) const AWAY: Duration = Duration::from_secs(10);
/// Interval between probes of the roles that are away.
const PROBED_EVERY: Duration = Duration::from_secs(1);

/// Roles in other processes. They are asked one after the other until one answers.
pub struct RemoteKeys {
    roles: Vec<Role>,
    pub(super) patience: Duration,
}

struct Role {
    client: KeyServiceClient<InterceptedService<ResendingChannel, PresentToken>>,
    url: String,
    /// Until when it is not asked, because it did not answer.
    away: Mutex<Option<Instant>>,
}

impl RemoteKeys {
    /// Asks over these channels and presents the token.
    #[must_use]
    pub fn new(
        channels: impl IntoIterator<Item = RoleChannel>,
        token: Option<InternalToken>,
    ) -> Self {
        let client = |channel| {
            KeyServiceClient::with_interceptor(Resend::new(channel), PresentToken(token.clone()))
        };
        let role = |role: RoleChannel| Role {
            client: client(role.channel()),
            url: role.url().to_owned(),
            away: Mutex::default(),
        };
        Self { roles: channels.into_iter().map(role).collect(), patience: PATIENCE }
    }

    /// Probes the roles that are away every second, until dropped.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(PROBED_EVERY).await;
            let away = self.roles.iter().filter(|role| role.is_away());
            join_all(away.map(|role| self.probe(role))).await;
        }
    }

    /// Succeeds if some role can look up keys. Roles that are away are not asked.
    pub async fn ready(&self) -> Result<()> {
        let asked: Vec<_> = self
            .roles
            .iter()
            .filter(|role| !role.is_away())
            .map(|role| Box::pin(self.probe(role)))
            .collect();
        if asked.is_empty() {
            return Err(unavailable());
        }
        select_ok(asked).await.map(|_| ())
    }

    /// Looks up a key that cannot exist, which a role refuses from memory.
    async fn probe(&self, role: &Role) -> Result<()> {
        let nobody = HashedToken { id: ApiKeyId(Uuid::nil()), hash: [0; 32] };
        self.ask(role, &nobody).await.map(drop)
    }

    /// Looks up a key at a role. If the role cannot answer, it is marked away.
    async fn ask(&self, role: &Role, token: &HashedToken) -> Result<Result<Principal>> {
        let request = ResolveKeyRequest {
            api_key_id: token.id.to_string(),
            secret_hash: token.hash.to_vec().into(),
        };
        let answer = match timeout(self.patience, role.client.clone().resolve_key(request)).await {
            Ok(Ok(found)) => Ok(from_wire(token.id, found.into_inner().principal)),
            Ok(Err(status)) => match from_status(&status) {
                error if error.is_overload() => Ok(Err(error)),
                error if is_from_role(&status) => Err(error),
                // The cause is for the log and for operators. Callers only learn that no role is
                // available.
                error => Err(Error { message: cause::of_status(&status).into(), ..error }),
            },
            Err(_) => Err(Error::unavailable(format!("no answer within {}", span(self.patience)))),
        };
        role.note(answer.as_ref().err());
        answer
    }
}

#[async_trait]
impl Authenticate for RemoteKeys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        for role in self.roles.iter().filter(|role| !role.is_away()) {
            if let Ok(answer) = self.ask(role, token).await {
                return answer;
            }
        }
        Err(unavailable())
    }
}

impl Role {
    fn is_away(&self) -> bool {
        self.away
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| until > Instant::now())
    }

    /// Notes that the role answered, or why it did not.
    fn note(&self, error: Option<&Error>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let was_away = away.is_some();
        *away = error.map(|_| Instant::now() + AWAY);
        match error {
            Some(error) if !was_away => {
                tracing::warn!(
                    url = self.url,
                    %error,
                    "a role cannot look up API keys, and is not asked for a while"
                );
            }
            None if was_away => {
                tracing::info!(url = self.url, "a role can look up API keys again")
            }
            _ => {}
        }
    }
}

fn unavailable() -> Error {
    Error::unavailable("the API key cannot be checked at the moment")
}
