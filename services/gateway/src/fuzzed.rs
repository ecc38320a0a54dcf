//! What reads bytes of strangers, for `outrider-fuzz`, which feeds it arbitrary ones. No part of
//! the crate's interface.

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

/// The reader of the framing of HTTP/1.1.
pub struct Framing(framing::Framing);

impl Framing {
    /// At the begin of a connection.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self(framing::Framing::new(Limits::of(options)))
    }

    /// Judges bytes that begin with those that did not pass at the last call: how many may pass,
    /// and why nothing more may.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Option<String>) {
        let framing::Judged { passed, fault } = self.0.advance(bytes);
        (passed, fault.map(|fault| format!("{fault:?}")))
    }

    /// How many heads passed.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.0.heads()
    }
}

/// The HTTP library, set up as for a connection.
#[must_use]
pub fn http(options: &Options) -> auto::Builder<TokioExecutor> {
    server::builder(options)
}

/// Requests of REST to messages and back, without HTTP around them.
pub struct Transcoder(Routes);

impl Transcoder {
    /// For all public methods.
    ///
    /// # Panics
    /// When the protos give no routes.
    #[must_use]
    pub fn new() -> Self {
        let methods = methods::public_services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        Self(Routes::of(&DESCRIPTORS, &methods).expect("the protos give routes"))
    }

    /// The path of the method and the message that a request stands for, or why it is none. A body
    /// is read where the route has one.
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
            rest::Given::default()
        } else {
            rest::given(&route.body, &route.input, body, &cost)?
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

/// A message as JSON.
pub fn to_json(message: &DynamicMessage) -> Result<Vec<u8>, Error> {
    write::message(message)
}

/// A message from JSON; none from `null`.
pub fn from_json(
    text: &Bytes,
    desc: &MessageDescriptor,
    options: &Options,
) -> Result<Option<Value>, Error> {
    read::message(text, desc, &Cost::alone(text.len(), options.max_decoded_bytes))
        .map(|read| read.value)
}

/// The lines of an upload that comes in these pieces: the numbers of those that are not blank, and
/// their texts, or that they are too long; and the most bytes that were held.
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

/// A gateway that serves any streams, one connection after the other.
pub struct Connections {
    each: Arc<server::Each>,
    places: ConnectionSlots,
}

impl Connections {
    /// Of this gateway.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        let Gateway { surfaces, .. } = gateway;
        let options = &surfaces.shared.options;
        let places = ConnectionSlots::new(options.max_connections, options.reserved_connections);
        Self { each: Arc::new(server::Each::new(surfaces, Acceptor::plain())), places }
    }

    /// Serves a connection to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        if let Some(seat) = self.places.take() {
            self.each.exchange(stream, Arc::new(seat)).await;
        }
    }
}
