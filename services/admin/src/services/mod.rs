//! The gRPC services, one file per noun, all on one struct. Each method of a service calls an
//! inherent method that fails with the model's error, so that its steps need only `?`.

mod api_keys;
mod endpoints;
mod event_types;
mod organizations;
mod projects;
mod subscriptions;

use std::{sync::Arc, time::Duration};

use outrider_model::{Error, Result, SigningSecret};
use outrider_queue::Queue;
use outrider_rpc::PolicyInForce;
use outrider_shares::{Resource, TurnResources, Turns};
use outrider_store::Store;
use ring::rand::{SecureRandom, SystemRandom};

/// How long an answer waits for the announcement of its change. Processes learn of the change from
/// the feed in the database in any case.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(250);

/// Maximum number of schemas that are checked at once.
const CHECKS: usize = 1;
/// Maximum number of calls that wait for such a check.
const LINE: usize = 1_024;

const SCHEMA_CHECKS: TurnResources = TurnResources {
    slots: Resource { name: "schema-checks", noun: "checks of schemas", least: 1 },
    line: Resource {
        name: "schema-checks-line",
        noun: "places in the line for checks of schemas",
        least: 1,
    },
};

/// The shared data of all services.
pub struct Services {
    policy: PolicyInForce,
    store: Store,
    queue: Arc<dyn Queue>,
    random: SystemRandom,
    checks: Turns,
}

impl Services {
    pub fn new(policy: PolicyInForce, store: Store, queue: Arc<dyn Queue>) -> Self {
        let checks = Turns::new(SCHEMA_CHECKS, CHECKS, LINE);
        Self { policy, store, queue, random: SystemRandom::new(), checks }
    }

    /// Announces to every process that the configuration changed.
    async fn announce(&self) {
        match tokio::time::timeout(ANNOUNCED_WITHIN, self.queue.announce_change()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a change was not announced"),
            Err(_) => tracing::debug!("a change was not announced in time"),
        }
    }

    /// Creates a signing secret of 32 random bytes.
    fn random_secret(&self) -> Result<SigningSecret> {
        let mut bytes = [0; 32];
        self.random
            .fill(&mut bytes)
            .map_err(|_| Error::internal("the system has no random bytes"))?;
        SigningSecret::from_bytes(&bytes).map_err(|error| Error::internal(error.to_string()))
    }
}

/// Implements a service's trait. Each method takes the principal from its request, calls the
/// inherent method of the same name with it and the message, and converts an error to a status.
macro_rules! serve {
    ($service:path { $($method:ident: $request:ident -> $response:ident;)* }) => {
        #[async_trait::async_trait]
        impl $service for crate::services::Services {$(
            async fn $method(
                &self,
                request: tonic::Request<outrider_proto::admin::$request>,
            ) -> std::result::Result<
                tonic::Response<outrider_proto::admin::$response>,
                tonic::Status,
            > {
                let principal = outrider_rpc::principal(&request)?;
                let answer = self.$method(&principal, request.into_inner()).await;
                answer.map(tonic::Response::new).map_err(outrider_rpc::to_status)
            }
        )*}
    };
}
use serve;
