//! The parsers that read bytes from untrusted clients, for `outrider-fuzz`, which feeds them
//! arbitrary input. Not part of the crate's interface.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use outrider_model::Error;
use outrider_proto::DESCRIPTORS;
use outrider_rpc::{Acceptor, ConnectionSlots, methods};
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Gateway, Options,
    connection::{framing, head::Limits},
    exchange::cost::Cost,
    json::{read, write},
    ndjson::lines::Lines,
    route::{Found, Routes},
    server,
    surface::rest,
};

/// The parser of the HTTP/1.1 framing.
pub struct Framing(framing::Framing);

impl Framing {
    /// Starts at the beginning of a connection.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self(framing::Framing::new(Limits::of(options)))
    }

    /// Checks bytes. They begin with the bytes that the last call did not let pass. Returns how
    /// many may pass, and why nothing more may.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Option<String>) {
        let framing::Judged { passed, fault } = self.0.advance(bytes);
        (passed, fault.map(|fault| format!("{fault:?}")))
    }

    /// Returns the number of heads that passed.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.0.heads()
    }
}

/// Returns the HTTP library, configured as for a connection.
#[must_use]
pub fn http(options: &Options) -> auto::Builder<TokioExecutor> {
    server::builder(options)
}

/// Converts REST requests to messages and back, without HTTP around them.
pub struct Transcoder(Routes);

impl Transcoder {
    /// Covers all public methods.
    ///
    /// # Panics
    /// If the protos give no routes.
    #[must_use]
    pub fn new() -> Self {
        let methods = methods::public_services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        Self(Routes::of(&DESCRIPTORS, &methods).expect("the protos give routes"))
    }

    /// Returns the path of the method that a request calls, and its message, or why the request is
    /// refused. The body is read if the route has one.
    pub fn request(
        &self,
        parts: &Parts,
        body: &Bytes,
        options: &Options,
    ) -> Result<(&str, DynamicMessage), Error> {
        let found = self.found(parts)?;
        let route = found.route;
        let cost = Cost::alone(body.len(), options.max_decoded_bytes);
        let given = if body.is_empty() {
            rest::BodyContent::default()
        } else {
            rest::decode_body(&route.body, &route.input, body, &cost)?
        };
        Ok((&route.grpc_path, rest::message(&found, parts, given)?))
    }

    fn found<'p>(&self, parts: &'p Parts) -> Result<Found<'_, 'p>, Error> {
        self.0.find(parts.method.as_str(), parts.uri.path()).map_err(|refusal| refusal.error)
    }
}

impl Default for Transcoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a message as JSON.
pub fn to_json(message: &DynamicMessage) -> Result<Vec<u8>, Error> {
    write::message(message)
}

/// Reads a message from JSON. `null` gives `None`.
pub fn from_json(
    text: &Bytes,
    desc: &MessageDescriptor,
    options: &Options,
) -> Result<Option<Value>, Error> {
    read::message(text, desc, &Cost::alone(text.len(), options.max_decoded_bytes))
        .map(|read| read.value)
}

/// Splits an upload that arrives in these pieces into lines. Returns the number of each line that
/// is not blank, with its text, or with `None` if it is too long. Also returns the largest number
/// of bytes that was held.
#[must_use]
pub fn lines<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    limit: usize,
) -> (Vec<(u64, Option<Bytes>)>, usize) {
    let (mut lines, mut read, mut held) = (Lines::new(limit), Vec::new(), 0);
    for piece in pieces {
        lines.push(&Bytes::copy_from_slice(piece));
        held = held.max(lines.held());
        while let Some(line) = lines.next() {
            read.push((line.number, line.text.ok()));
        }
    }
    read.extend(lines.last().map(|line| (line.number, line.text.ok())));
    (read, held)
}

/// A gateway that serves any byte streams as connections, one after the other.
pub struct Connections {
    serving: Arc<server::ConnectionServer>,
    slots: ConnectionSlots,
}

impl Connections {
    /// Serves the connections with this gateway.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        let Gateway { surfaces, .. } = gateway;
        let options = &surfaces.shared.options;
        let slots = ConnectionSlots::new(options.max_connections, options.reserved_connections);
        Self {
            serving: Arc::new(server::ConnectionServer::new(surfaces, Acceptor::plain())),
            slots,
        }
    }

    /// Serves a connection to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        if let Some(slot) = self.slots.take() {
            self.serving.exchange(stream, Arc::new(slot)).await;
        }
    }
}
