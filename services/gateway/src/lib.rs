//! The public API: one port that serves gRPC, gRPC-web and REST, and forwards each request to the
//! role that serves its method.
//!
//! It must never depend on a role, log a body or a credential, or keep anything between requests
//! except answers about API keys.
//!
//! REST is derived from the descriptors. A public method with a `google.api.http` annotation gets
//! its routes without any code here. With the option `ndjson` it also takes newline-delimited JSON.
//! Server streams are sent as server-sent events. Client streams can be reached by gRPC only.
//!
//! JSON follows the mapping of proto3, with these decisions:
//!
//! - Names are written in snake_case and accepted in snake_case or camelCase. 64-bit numbers are
//!   written as strings, enums by name, times as RFC 3339. Fields with default values are written;
//!   absent messages, optional fields and members of a oneof are left out.
//! - Requests are read strictly: unknown fields, duplicate keys, and enum values and query
//!   parameters that do not exist are refused with the name of the field.
//! - A payload (option `json_payload`) is `data`, a JSON value whose text is kept byte for byte, or
//!   `data_base64`.
//! - A secret (option `secret`) is accepted in bodies only, never in a path or a query.
//! - An error inside an answer (`google.rpc.Status`) has the same form as the error of a request.
//!
//! The gateway checks the API key of a request before it reads anything of the body. The role that
//! serves the method checks the key again, and decides what the caller may reach.

mod connection;
mod cors;
mod exchange;
#[doc(hidden)]
pub mod fuzzed;
mod json;
#[cfg(feature = "bench")]
pub mod measured;
mod ndjson;
mod openapi;
mod options;
mod request_id;
mod route;
mod server;
mod surface;

use std::{future::Future, sync::Arc};

use outrider_model::Reason;
use outrider_proto::DESCRIPTORS;
use outrider_rpc::{Acceptor, Authenticate, methods};
use outrider_telemetry::{
    catalog::gateway::{REFUSED_UNREAD, SECTION},
    metrics,
};
use tokio::net::TcpListener;

pub use cors::InvalidOrigin;
pub use exchange::{Backends, remote_backend};
pub use json::read_event;
pub use options::{Given, Options};
pub use route::RouteError;

use exchange::{Shared, show_buffered};
use surface::{Surfaces, own::OwnServices, page::Pages};

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The annotations of the protos do not give valid routes.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// A method requires no scope, so that everybody could call it.
    #[error(transparent)]
    Scope(#[from] methods::WithoutScope),
    /// An entry of [`Options::cors_origins`] is not an origin.
    #[error("gateway.cors_origins: {0}")]
    Origin(InvalidOrigin),
    /// The descriptors cannot be served by reflection.
    #[error("reflection: {0}")]
    Reflection(tonic_reflection::server::Error),
}

/// The gateway, ready to serve.
pub struct Gateway {
    surfaces: Arc<Surfaces>,
    acceptor: Acceptor,
}

impl Gateway {
    /// Builds the routes of all public methods. Fails if an annotation is malformed or names an
    /// unknown field, or if two methods claim the same path. These are faults of the protos, found
    /// at the first start. Also fails if a CORS origin is invalid.
    pub fn new(
        options: Options,
        given: Given,
        backends: Backends,
        keys: Arc<dyn Authenticate>,
    ) -> Result<Self, StartError> {
        let methods = methods::public_services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        let routes = route::Routes::of(&DESCRIPTORS, &methods)?;
        let cors = cors::layer(&options.cors_origins).map_err(StartError::Origin)?;
        let pages = Pages::new(&openapi::document(&routes, &methods, given.version), &given);
        let shared = Arc::new(Shared::new(options, given, backends, keys));
        let own = OwnServices::new(shared.options.reflection, shared.serving.subscribe())
            .map_err(StartError::Reflection)?;
        metrics::expose(&SECTION);
        for reason in [Reason::MissingCredentials, Reason::InvalidCredentials, Reason::MissingScope]
        {
            REFUSED_UNREAD.with_label_values(&[reason.as_str()]);
        }
        show_buffered(&shared);
        let methods = route::Methods::of(methods.iter().chain(&own.methods))?;
        let surfaces = Surfaces { shared, own, cors, routes, methods, pages };
        Ok(Self { surfaces: Arc::new(surfaces), acceptor: Acceptor::plain() })
    }

    /// Serves with TLS if the acceptor does. Default: plain HTTP.
    #[must_use]
    pub fn with_acceptor(self, acceptor: Acceptor) -> Self {
        Self { acceptor, ..self }
    }

    /// Returns the REST routes as pairs of HTTP method and path template, sorted.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.surfaces.routes.list()
    }

    /// Accepts connections until `shutdown` resolves. Then waits for the requests in flight, for at
    /// most [`Options::drain`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        server::serve(self.surfaces, self.acceptor, listener, shutdown).await;
    }
}
