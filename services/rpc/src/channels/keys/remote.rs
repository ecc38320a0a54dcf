//! Roles in other processes that tell whom API keys stand for.
//!
//! A role that did not answer is away: nobody asks it for a while, so that its silence costs the
//! requests that came first their patience, and no other. A probe brings it back.

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
        resend::{Again, Calls},
        role::{RoleChannel, says_a_role},
    },
    guard::{
        auth::Authenticate,
        internal::{InternalToken, Present},
    },
    wire::{cause, status::from_status},
};

/// How long one role may take to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a role that did not answer is not asked, unless a probe finds it back.
pub(super) const AWAY: Duration = Duration::from_secs(10);
/// Between two probes of the roles that are away.
const PROBED_EVERY: Duration = Duration::from_secs(1);

/// Roles in other processes. They are asked one after the other until one can tell.
pub struct RemoteKeys {
    roles: Vec<Role>,
    pub(super) patience: Duration,
}

struct Role {
    client: KeyServiceClient<InterceptedService<Calls, Present>>,
    url: String,
    /// Until when it is not asked, since it did not answer.
    away: Mutex<Option<Instant>>,
}

impl RemoteKeys {
    /// Over these channels, presenting the token.
    #[must_use]
    pub fn new(
        channels: impl IntoIterator<Item = RoleChannel>,
        token: Option<InternalToken>,
    ) -> Self {
        let client = |channel| {
            KeyServiceClient::with_interceptor(Again::new(channel), Present(token.clone()))
        };
        let role = |role: RoleChannel| Role {
            client: client(role.channel()),
            url: role.url().to_owned(),
            away: Mutex::default(),
        };
        Self { roles: channels.into_iter().map(role).collect(), patience: PATIENCE }
    }

    /// Looks every second whether roles that are away are back, until dropped.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(PROBED_EVERY).await;
            let away = self.roles.iter().filter(|role| role.is_away());
            join_all(away.map(|role| self.probe(role))).await;
        }
    }

    /// OK when some role can tell whom keys stand for. Roles that are away are not asked.
    pub async fn ready(&self) -> Result<()> {
        let asked: Vec<_> = self
            .roles
            .iter()
            .filter(|role| !role.is_away())
            .map(|role| Box::pin(self.probe(role)))
            .collect();
        if asked.is_empty() {
            return Err(nobody_can_tell());
        }
        select_ok(asked).await.map(|_| ())
    }

    /// Asks about a key that nobody has, which a role refuses from memory.
    async fn probe(&self, role: &Role) -> Result<()> {
        let nobody = HashedToken { id: ApiKeyId(Uuid::nil()), hash: [0; 32] };
        self.ask(role, &nobody).await.map(drop)
    }

    /// What a role says of a key. One that cannot tell is away from then on.
    async fn ask(&self, role: &Role, token: &HashedToken) -> Result<Result<Principal>> {
        let request = ResolveKeyRequest {
            api_key_id: token.id.to_string(),
            secret_hash: token.hash.to_vec().into(),
        };
        let told = match timeout(self.patience, role.client.clone().resolve_key(request)).await {
            Ok(Ok(answer)) => Ok(from_wire(token.id, answer.into_inner().principal)),
            Ok(Err(status)) => match from_status(&status) {
                error if error.is_overload() => Ok(Err(error)),
                error if says_a_role(&status) => Err(error),
                // For the log and for operators only: callers learn that nobody can tell.
                error => Err(Error { message: cause::of_status(&status).into(), ..error }),
            },
            Err(_) => Err(Error::unavailable(format!("no answer within {}", span(self.patience)))),
        };
        role.note(told.as_ref().err());
        told
    }
}

#[async_trait]
impl Authenticate for RemoteKeys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        for role in self.roles.iter().filter(|role| !role.is_away()) {
            if let Ok(told) = self.ask(role, token).await {
                return told;
            }
        }
        Err(nobody_can_tell())
    }
}

impl Role {
    fn is_away(&self) -> bool {
        self.away
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| until > Instant::now())
    }

    /// It answered, or why it did not.
    fn note(&self, error: Option<&Error>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let was_away = away.is_some();
        *away = error.map(|_| Instant::now() + AWAY);
        match error {
            Some(error) if !was_away => {
                tracing::warn!(url = self.url, %error, "a role cannot tell whom API keys stand for, and is not asked for a while");
            }
            None if was_away => {
                tracing::info!(url = self.url, "a role tells again whom API keys stand for")
            }
            _ => {}
        }
    }
}

fn nobody_can_tell() -> Error {
    Error::unavailable("the API key cannot be checked at the moment")
}
