//! A gRPC client for every public method, made from the descriptors. Messages are JSON here and
//! bytes on the wire.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes};
use futures::{StreamExt, stream};
use outrider_proto::DESCRIPTORS;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor, ServiceDescriptor, Value as Field};
use serde_json::Value;
use tonic::{
    Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

/// The time within which an answer must begin.
const DEADLINE: Duration = Duration::from_secs(60);

/// The packages that the gateway mounts.
const PUBLIC: [&str; 3] = ["outrider.ingest.v1", "outrider.dispatch.v1", "outrider.admin.v1"];

/// Returns every method of Outrider's protos that the gateway serves.
pub fn public_methods() -> Vec<MethodDescriptor> {
    let services =
        DESCRIPTORS.services().filter(|service| PUBLIC.contains(&service.package_name()));
    services.flat_map(|service: ServiceDescriptor| service.methods().collect::<Vec<_>>()).collect()
}

/// Returns the scope that a method declares, such as `SCOPE_EVENTS_READ`.
pub fn scope(method: &MethodDescriptor) -> Result<String> {
    let option = DESCRIPTORS
        .get_extension_by_name("outrider.options.v1.scope")
        .context("no option for scopes")?;
    let kind = option.kind();
    match (method.options().get_extension(&option).as_ref(), kind.as_enum()) {
        (Field::EnumNumber(number @ 1..), Some(names)) => {
            let value = names
                .get_value(*number)
                .with_context(|| format!("{}: no such scope", method.full_name()))?;
            Ok(value.name().to_owned())
        }
        _ => anyhow::bail!("{} declares no scope", method.full_name()),
    }
}

/// The outcome of a call, as soon as it is known.
#[derive(Debug)]
pub enum Outcome {
    /// The answer, or the first message of a stream.
    Answer(DynamicMessage),
    /// A stream that was accepted and has sent nothing yet.
    Open,
    /// A refusal.
    Refused(Box<Status>),
}

/// A connection without an API key.
#[derive(Debug, Clone)]
pub struct Dynamic(Channel);

impl Dynamic {
    /// Connects to a base URL such as `http://127.0.0.1:8080`.
    pub async fn connect(base: &str) -> Result<Self> {
        Ok(Self(Endpoint::from_shared(base.to_owned())?.connect().await?))
    }

    /// Calls a method with a message in proto3's JSON. If the method streams, this is the client's
    /// first message, the client's side stays open, and the first message of the server decides. A
    /// stream that is silent for `patience` counts as open.
    pub async fn call(
        &self,
        method: &MethodDescriptor,
        token: &str,
        message: &Value,
        patience: Duration,
    ) -> Result<Outcome> {
        let message = DynamicMessage::deserialize(method.input(), message.clone())
            .with_context(|| format!("{}: {message}", method.full_name()))?;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let first = stream::once(std::future::ready(Bytes::from(message.encode_to_vec())));
        let messages = match method.is_client_streaming() {
            true => first.chain(stream::pending()).boxed(),
            false => first.boxed(),
        };
        let mut request = Request::new(messages);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let mut client = tonic::client::Grpc::new(self.0.clone());
        client.ready().await?;
        let begun = tokio::time::timeout(DEADLINE, client.streaming(request, path.parse()?, Raw));
        match begun.await.with_context(|| format!("{path} is not answered within {DEADLINE:?}"))? {
            Ok(answers) => first_word(method, answers.into_inner(), patience).await,
            Err(status) => Ok(Outcome::Refused(Box::new(status))),
        }
    }
}

async fn first_word(
    method: &MethodDescriptor,
    mut answers: Streaming<Bytes>,
    patience: Duration,
) -> Result<Outcome> {
    let limit = if method.is_server_streaming() { patience } else { DEADLINE };
    match tokio::time::timeout(limit, answers.message()).await {
        Ok(Ok(Some(bytes))) => Ok(Outcome::Answer(DynamicMessage::decode(method.output(), bytes)?)),
        Ok(Err(status)) => Ok(Outcome::Refused(Box::new(status))),
        Ok(Ok(None)) | Err(_) if method.is_server_streaming() => Ok(Outcome::Open),
        Ok(Ok(None)) => anyhow::bail!("{} ends without an answer", method.full_name()),
        Err(_) => anyhow::bail!("{} is not answered within {limit:?}", method.full_name()),
    }
}

/// Messages as their bytes.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}
