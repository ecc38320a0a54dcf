//! The public face: one port that serves gRPC, gRPC-web and REST, and forwards all to the roles
//! behind it.
//!
//! REST is derived from the descriptors: a public method with a `google.api.http` annotation has
//! its routes without a line here; with an `ndjson` option it takes lines too. Streams of the
//! server are server-sent events; streams of the client are reached by gRPC only. JSON follows
//! proto3's mapping with these decisions:
//!
//! - Names go out in snake_case and come in as snake_case or camelCase; 64-bit numbers go out as
//!   strings, enums by name, times as RFC 3339. Fields with default values are written; what is
//!   absent (messages, optional fields, members of a oneof) is left out.
//! - What a client sends is taken strictly: unknown fields, keys given twice, enum values and query
//!   parameters that do not exist are refused with the name of the field.
//! - A payload (`json_payload` option) is `data`, a JSON value whose text is kept to the byte, or
//!   `data_base64`.
//! - A secret (`secret` option) comes in bodies only, never in a path or a query.
//! - An error inside of an answer (`google.rpc.Status`) has the shape of the error of a request.
//!
//! The API key of a request is checked before anything of its body is read; the role that serves
//! the method checks it again, and is the one that decides what the caller reaches.
//!
//! It must never keep anything between requests but answers about keys, log a body or a credential,
//! or depend on a role.

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
    catalogue::gateway::{REFUSED_UNREAD, SECTION},
    metrics,
};
use tokio::net::TcpListener;

pub use cors::InvalidOrigin;
pub use exchange::{Backends, remote_backend};
pub use json::read_event;
pub use options::Options;
pub use route::RouteError;

use exchange::{Shared, show_buffered};
use surface::{Surfaces, own::Own, page::Pages};

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The protos give no routes.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// A method would be open to everybody.
    #[error(transparent)]
    Scope(#[from] methods::WithoutScope),
    /// An entry of [`Options::cors_origins`] is not an origin.
    #[error("cors_origins: {0}")]
    Origin(InvalidOrigin),
    /// The descriptors cannot be reflected.
    #[error("reflection: {0}")]
    Reflection(tonic_reflection::server::Error),
}

/// The gateway, ready to serve.
pub struct Gateway {
    surfaces: Arc<Surfaces>,
    acceptor: Acceptor,
}

impl Gateway {
    /// Builds the routes of all public methods. Fails when an annotation is malformed, names an
    /// unknown field, or two claim the same path: faults of the protos, found at the first start;
    /// and when an origin is none.
    pub fn new(
        options: Options,
        backends: Backends,
        keys: Arc<dyn Authenticate>,
    ) -> Result<Self, StartError> {
        let methods = methods::public_services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        let routes = route::Routes::of(&DESCRIPTORS, &methods)?;
        let cors = cors::layer(&options.cors_origins).map_err(StartError::Origin)?;
        let pages = Pages::new(&openapi::document(&routes, &methods, options.version), &options);
        let shared = Arc::new(Shared::new(options, backends, keys));
        let own = Own::new(shared.options.reflection, shared.serving.subscribe())
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

    /// Serves by TLS, if the acceptor does. Default: plainly.
    #[must_use]
    pub fn with_acceptor(self, acceptor: Acceptor) -> Self {
        Self { acceptor, ..self }
    }

    /// The REST routes as pairs of HTTP method and path template, sorted.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.surfaces.routes.list()
    }

    /// Accepts connections until `shutdown` resolves; then lets requests that began end, for at
    /// most [`Options::drain`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        server::serve(self.surfaces, self.acceptor, listener, shutdown).await;
    }
}
