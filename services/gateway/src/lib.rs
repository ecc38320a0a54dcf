//! The public face: one port that serves gRPC and REST, and forwards both to the roles behind it.
//!
//! REST is derived from the descriptors: a public unary method with a `google.api.http` annotation has its routes without a line
//! here. Streaming methods are reached by gRPC only. JSON follows proto3's mapping with these decisions:
//!
//! - Names go out in snake_case and come in as snake_case or camelCase; 64-bit numbers go out as strings, enums by name, times as
//!   RFC 3339. Fields with default values are written; what is absent (messages, optional fields, members of a oneof) is left
//!   out.
//! - What a client sends is taken strictly: unknown fields, keys given twice, enum values and query parameters that do not exist
//!   are refused with the name of the field.
//! - A payload (`json_payload` option) is `data`, a JSON value whose text is kept to the byte, or `data_base64`.
//! - An error inside of an answer (`google.rpc.Status`) has the shape of the error of a request.
//!
//! It must never authenticate (roles do), keep anything between requests, log a body or a credential, or depend on a role.

mod answer;
mod backend;
mod behavior;
mod body;
mod call;
mod compress;
mod field_path;
mod grpc;
mod handler;
mod header_field;
mod io;
mod mask;
mod openapi;
mod options;
mod page;
mod payload;
mod percent;
mod query;
mod read;
mod request_id;
mod rest;
mod route;
mod scalar;
mod server;
mod template;
mod trie;
mod write;

use std::{future::Future, sync::Arc};

use outrider_proto::DESCRIPTORS;
use outrider_rpc::methods;
use tokio::{net::TcpListener, sync::Semaphore};

pub use backend::{Backends, remote_backend};
pub use options::Options;
pub use route::RouteError;

/// The gateway, ready to serve.
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What all connections use.
struct Shared {
    options: Options,
    backends: Backends,
    routes: route::Routes,
    methods: grpc::Methods,
    pages: page::Pages,
    /// Room for bytes of requests that are read but not answered, in KiB.
    room: Arc<Semaphore>,
}

impl Gateway {
    /// Builds the routes of all public methods. Fails when an annotation is malformed, names an unknown field, or two claim the
    /// same path: faults of the protos, found at the first start.
    pub fn new(options: Options, backends: Backends) -> Result<Self, RouteError> {
        let methods = methods::public_services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect::<Vec<_>>();
        let routes = route::Routes::of(&DESCRIPTORS, &methods)?;
        let shared = Shared {
            pages: page::Pages::new(&openapi::document(&routes, &methods, options.version), &options),
            routes,
            methods: grpc::Methods::of(&methods),
            room: Arc::new(Semaphore::new(options.max_buffered_bytes.div_ceil(body::ROOM_UNIT).min(Semaphore::MAX_PERMITS))),
            backends,
            options,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The REST routes as pairs of HTTP method and path template, sorted.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared.routes.list()
    }

    /// Accepts connections until `shutdown` resolves; then lets requests that began end, for at most [`Options::drain`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        server::serve(self.shared, listener, shutdown).await;
    }
}
