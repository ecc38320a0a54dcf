//! `grpc.health.v1` for the gateway itself. It serves from its start until its shutdown begins. It
//! does not report the health of the roles behind it.

use std::{collections::HashSet, pin::Pin};

use futures::{Stream, StreamExt, stream};
use outrider_rpc::methods;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

/// The health of the gateway and of each public service, which is the same for all.
pub(crate) struct Health {
    serving: watch::Receiver<bool>,
    /// The empty name stands for the whole server.
    names: HashSet<String>,
}

impl Health {
    pub(crate) fn new(serving: watch::Receiver<bool>) -> Self {
        let names = methods::public_services()
            .map(|service| service.full_name().to_owned())
            .chain([String::new()]);
        Self { serving, names: names.collect() }
    }

    fn now(&self, name: &str) -> ServingStatus {
        match (self.names.contains(name), *self.serving.borrow()) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::Serving,
            (true, false) => ServingStatus::NotServing,
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

type Watching = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.now(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found("no public service of that name"))
            }
            status => Ok(Response::new(answer(status))),
        }
    }

    type WatchStream = Watching;

    /// Reports the status now and at shutdown, and then ends, so that no stream delays the
    /// shutdown.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Watching>, Status> {
        let now = self.now(&request.get_ref().service);
        let mut serving = self.serving.clone();
        let last = async move {
            // An error means that the gateway is gone, and so it does not serve.
            let _ = serving.wait_for(|serving| !serving).await;
            Ok(answer(if now == ServingStatus::ServiceUnknown {
                now
            } else {
                ServingStatus::NotServing
            }))
        };
        let last = stream::once(last).take(usize::from(now != ServingStatus::NotServing));
        Ok(Response::new(Box::pin(stream::iter([Ok(answer(now))]).chain(last))))
    }
}
