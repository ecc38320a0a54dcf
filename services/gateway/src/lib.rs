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

mod admission;
mod answer;
mod backend;
mod behavior;
mod body;
mod call;
mod client_stream;
mod compress;
mod cors;
mod cost;
mod deadline;
mod ending;
mod event;
mod fault;
mod field_path;
mod framing;
#[doc(hidden)]
pub mod fuzzed;
mod grpc;
mod handler;
mod head;
mod header_field;
mod health;
mod io;
mod mask;
#[cfg(feature = "bench")]
pub mod measured;
mod meter;
mod ndjson;
mod observe;
mod openapi;
mod options;
mod own;
mod page;
mod payload;
mod percent;
mod query;
mod range;
mod read;
mod request_id;
mod rest;
mod route;
mod scalar;
mod secret;
mod server;
mod stream;
mod template;
mod trie;
mod unsent;
mod web;
mod write;

use std::{future::Future, sync::Arc};

use outrider_model::Reason;
use outrider_proto::DESCRIPTORS;
use outrider_rpc::{Acceptor, Authenticate, methods, server::Backend};
use outrider_shares::{Resource, Shares};
use outrider_telemetry::{
    catalogue::gateway::{BUFFERED_BYTES, REFUSED_UNREAD, SECTION, UNSENT_BYTES},
    metrics,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tower_http::cors::CorsLayer;

pub use backend::{Backends, remote_backend};
pub use cors::InvalidOrigin;
pub use event::read_event;
pub use options::{Given, Options};
pub use route::RouteError;

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
    shared: Arc<Shared>,
    acceptor: Acceptor,
}

/// What all connections use.
struct Shared {
    options: Options,
    given: Given,
    backends: Backends,
    /// Tells whom an API key stands for.
    keys: Arc<dyn Authenticate>,
    own: own::Own,
    /// Until the shutdown begins.
    serving: watch::Sender<bool>,
    cors: Option<CorsLayer>,
    routes: route::Routes,
    methods: grpc::Methods,
    pages: page::Pages,
    /// Room for bytes of requests that are read but not answered.
    room: Shares,
    /// Room for bytes of answers that are not sent.
    unsent: Shares,
    decoding: cost::Decoding,
    /// Places for uploads of lines.
    uploads: Shares,
    /// Places for streams that need no key.
    without_key: Arc<Semaphore>,
}

/// What every share of a room for bytes is at least: a request or an answer of usual size.
const LEAST_BYTES: usize = 64 * 1024;
const REQUEST_BYTES: Resource =
    Resource { name: "request-bytes", noun: "bytes of requests under way", least: LEAST_BYTES };
const ANSWER_BYTES: Resource = Resource {
    name: "answer-bytes",
    noun: "bytes of answers that are not sent",
    least: LEAST_BYTES,
};
const UPLOADS: Resource = Resource { name: "uploads", noun: "uploads", least: 1 };

impl Shared {
    /// Who serves a proto package.
    fn backend(&self, package: &str) -> Option<Backend> {
        self.backends.of(package).or_else(|| self.own.of(package))
    }

    /// Resolves when the shutdown begins.
    fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut serving = self.serving.subscribe();
        async move {
            // An error means that the gateway is gone.
            let _ = serving.wait_for(|serving| !serving).await;
        }
    }
}

/// Shows how many bytes are read and not answered, and answered and not sent, for as long as the
/// gateway lives.
fn show_buffered(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    metrics::before_scrape(move || {
        let Some(shared) = shared.upgrade() else { return false };
        for (gauge, room) in [(&BUFFERED_BYTES, &shared.room), (&UNSENT_BYTES, &shared.unsent)] {
            gauge.set(i64::try_from(room.held()).unwrap_or(i64::MAX));
        }
        true
    });
}

impl Gateway {
    /// Builds the routes of all public methods. Fails when an annotation is malformed, names an
    /// unknown field, or two claim the same path: faults of the protos, found at the first start;
    /// and when an origin is none.
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
        let serving = watch::Sender::new(true);
        let own = own::Own::new(options.reflection, serving.subscribe())
            .map_err(StartError::Reflection)?;
        metrics::expose(&SECTION);
        let room = Shares::new(REQUEST_BYTES, options.max_buffered_bytes);
        for reason in [Reason::MissingCredentials, Reason::InvalidCredentials, Reason::MissingScope]
        {
            REFUSED_UNREAD.with_label_values(&[reason.as_str()]);
        }
        let shared = Shared {
            cors: cors::layer(&options.cors_origins).map_err(StartError::Origin)?,
            pages: page::Pages::new(&openapi::document(&routes, &methods, given.version), &given),
            routes,
            methods: grpc::Methods::of(methods.iter().chain(&own.methods))?,
            own,
            serving,
            unsent: Shares::new(ANSWER_BYTES, options.max_unsent_bytes),
            decoding: cost::Decoding::new(&options, &room),
            room,
            uploads: Shares::new(UPLOADS, options.max_uploads),
            without_key: Arc::new(Semaphore::new(admission::MAX_STREAMS)),
            backends,
            keys,
            options,
            given,
        };
        let shared = Arc::new(shared);
        show_buffered(&shared);
        Ok(Self { shared, acceptor: Acceptor::plain() })
    }

    /// Serves by TLS, if the acceptor does. Default: plainly.
    #[must_use]
    pub fn with_acceptor(self, acceptor: Acceptor) -> Self {
        Self { acceptor, ..self }
    }

    /// The REST routes as pairs of HTTP method and path template, sorted.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared.routes.list()
    }

    /// Accepts connections until `shutdown` resolves; then lets requests that began end, for at
    /// most [`Options::drain`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        server::serve(self.shared, self.acceptor, listener, shutdown).await;
    }
}
