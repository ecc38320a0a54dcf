//! Lines that are sent in one call, and the result lines that answer them.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use outrider_model::{Error, Reason};
use outrider_rpc::{server::Backend, status::from_message};
use outrider_shares::Holder;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, Value};
use tokio::time::Instant;

use crate::{
    exchange::{
        answer::ErrorObject,
        call,
        cost::{Cost, Decoding, HeldRoom},
        deadline,
        fault::fault,
    },
    json::{payload, read, write},
    route::LinesRule,
};

/// The wait before a call that was refused as overload is sent again.
const OVERLOAD_WAIT: Duration = Duration::from_millis(200);

/// Everything about the calls of an upload except their entries.
pub(super) struct CallTemplate {
    pub(super) backend: Backend,
    pub(super) grpc_path: String,
    pub(super) headers: HeaderMap,
    /// The request without entries.
    pub(super) base: DynamicMessage,
    pub(super) output: MessageDescriptor,
    pub(super) rule: LinesRule,
    pub(super) max_answer_bytes: usize,
    pub(super) decoding: Decoding,
    /// The caller of the upload.
    pub(super) holder: Holder,
    /// How long a call may take, and how long it is repeated while it is refused as overload.
    pub(super) timeout: Duration,
}

/// Lines in order.
#[derive(Default)]
pub(super) struct Batch {
    /// The number and text of each line, or why it is refused if it is too long.
    lines: Vec<(u64, Result<Bytes, Error>)>,
    bytes: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns the length of the lines' texts, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, number: u64, bytes: usize, text: Result<Bytes, Error>) {
        self.bytes += bytes;
        self.lines.push((number, text));
    }

    /// Sends the entries, and writes a result line for each line. If the call for the first batch
    /// of an upload fails, the whole upload fails, because its answer has not begun and can still
    /// be an error.
    pub(super) async fn run(self, caller: &CallTemplate, first: bool) -> Result<Vec<u8>, Error> {
        let (Decoded { lines, entries }, _room) = caller.decode(self).await?;
        let count = entries.len();
        let called = if count > 0 { caller.call(entries).await } else { Ok(Vec::new()) };
        let mut results = match called {
            Ok(results) if results.len() == count => Ok(results.into_iter()),
            Ok(_) => Err(Error::internal("the answer has a wrong number of results")),
            Err(error) if first => return Err(error),
            Err(error) => Err(error),
        };
        let mut out = Vec::new();
        let mut index = 0;
        for (number, refused) in lines {
            match (refused, &mut results) {
                (Some(error), _) => write_error(&mut out, Some(number), &error, None)?,
                (None, Err(error)) => write_error(&mut out, Some(number), error, None)?,
                (None, Ok(results)) => {
                    let result =
                        results.next().ok_or_else(|| Error::internal("a result is missing"))?;
                    caller.write_result(&mut out, number, index, &result)?;
                    index += 1;
                }
            }
        }
        Ok(out)
    }
}

/// The entries of a batch, and for each line the error if it gave none.
struct Decoded {
    lines: Vec<(u64, Option<Error>)>,
    entries: Vec<Value>,
}

impl Decoded {
    /// Fails if there is no room.
    fn of(
        lines: Vec<(u64, Result<Bytes, Error>)>,
        desc: &MessageDescriptor,
        cost: &Cost,
    ) -> Result<Self, Error> {
        let mut decoded = Self {
            lines: Vec::with_capacity(lines.len()),
            entries: Vec::with_capacity(lines.len()),
        };
        for (number, text) in lines {
            match text.and_then(|text| entry(&text, desc, cost)) {
                Err(error) if is_overload(&error) => return Err(error),
                Err(error) => decoded.lines.push((number, Some(error))),
                Ok(entry) => {
                    decoded.entries.push(entry);
                    decoded.lines.push((number, None));
                }
            }
        }
        Ok(decoded)
    }
}

fn entry(text: &Bytes, desc: &MessageDescriptor, cost: &Cost) -> Result<Value, Error> {
    let value = read::message(text, desc, cost).map_err(line_error)?.value;
    value.ok_or_else(|| Error::new(Reason::MalformedRequest, "the line must be an object"))
}

/// Errors say "the line" instead of "the body".
fn line_error(mut error: Error) -> Error {
    if let Some(rest) = error.message.strip_prefix("the body ") {
        error.message = format!("the line {rest}").into();
    }
    error
}

/// Returns whether there may be room in a moment.
fn is_overload(error: &Error) -> bool {
    matches!(error.reason, Reason::Overloaded | Reason::ShareExhausted)
}

impl CallTemplate {
    /// Decodes the entries of a batch as soon as there is room. Until then the upload waits, which
    /// slows down its client.
    async fn decode(&self, batch: Batch) -> Result<(Decoded, HeldRoom), Error> {
        let give_up = Instant::now() + self.timeout;
        loop {
            let (lines, desc) = (batch.lines.clone(), self.rule.entry.clone());
            match self
                .decoding
                .run(self.holder, batch.bytes, move |cost| Decoded::of(lines, &desc, cost))
                .await
            {
                Err(error) if is_overload(&error) && Instant::now() + OVERLOAD_WAIT < give_up => {
                    tokio::time::sleep(OVERLOAD_WAIT).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Calls the role without entries before anything is read, because the role decides what the
    /// caller may do. Returns the role's error, which is also the error of an upload without lines.
    /// Fails if the error is not that the entries are missing.
    pub(super) async fn call_without_entries(&self) -> Result<Error, Error> {
        match self.call(Vec::new()).await {
            Err(error) if error.reason == Reason::InvalidField => Ok(error),
            Err(error) => Err(error),
            Ok(_) => Err(Error::internal("a call without entries was answered")),
        }
    }

    async fn call(&self, entries: Vec<Value>) -> Result<Vec<Value>, Error> {
        let mut message = self.base.clone();
        message.set_field(&self.rule.request, Value::List(entries));
        let frame = call::frame(&message)?;
        drop(message);
        let give_up = Instant::now() + self.timeout;
        loop {
            let call = call::unary(
                self.backend.clone(),
                &self.grpc_path,
                self.headers.clone(),
                frame.clone(),
                self.max_answer_bytes,
            );
            match tokio::time::timeout(self.timeout, call)
                .await
                .unwrap_or_else(|_| Err(deadline::passed()))
            {
                Ok(answer) => {
                    let answer = DynamicMessage::decode(self.output.clone(), answer)
                        .map_err(fault("the answer does not decode"))?;
                    let results = answer.get_field(&self.rule.response).into_owned();
                    return match results {
                        Value::List(results) => Ok(results),
                        _ => Err(Error::internal("the results are not a list")),
                    };
                }
                // Nothing was accepted. The upload waits, which slows down its client.
                Err(error) if error.is_overload() && Instant::now() + OVERLOAD_WAIT < give_up => {
                    tokio::time::sleep(OVERLOAD_WAIT).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn write_result(
        &self,
        out: &mut Vec<u8>,
        number: u64,
        index: usize,
        result: &Value,
    ) -> Result<(), Error> {
        let result =
            result.as_message().ok_or_else(|| Error::internal("a result is not a message"))?;
        if let Some(error) = status_of(result) {
            return write_error(out, Some(number), &self.translate_to_line(error, index), None);
        }
        let text = write::message(result)?;
        let fields = text.strip_prefix(b"{").unwrap_or_default();
        out.extend_from_slice(format!("{{\"line\":{number}").as_bytes());
        if fields != b"}" {
            out.push(b',');
        }
        out.extend_from_slice(fields);
        out.push(b'\n');
        Ok(())
    }

    /// A role names fields by their path in its request and with proto names. Translates both to
    /// the line.
    fn translate_to_line(&self, mut error: Error, index: usize) -> Error {
        if error.violations.is_empty() {
            return error;
        }
        let prefix = format!("{}[{index}].", self.rule.request.name());
        for violation in &mut error.violations {
            let field = violation.field.strip_prefix(&prefix).unwrap_or(&violation.field);
            violation.field =
                payload::rename(&self.rule.entry, field).unwrap_or_else(|| field.to_owned());
        }
        Error {
            reason: error.reason,
            retry_after: error.retry_after,
            ..Error::fields(error.violations)
        }
    }
}

/// Returns the error of a result, if it has one.
fn status_of(result: &DynamicMessage) -> Option<Error> {
    let is_status = |field: &prost_reflect::FieldDescriptor| {
        field.kind().as_message().is_some_and(|message| message.full_name() == "google.rpc.Status")
    };
    let field =
        result.descriptor().fields().find(|field| is_status(field) && result.has_field(field))?;
    let status = result.get_field(&field).as_message()?.transcode_to().ok()?;
    Some(from_message(&status))
}

/// Writes a line that says why a line was refused, or, without a number, why the upload ended
/// early.
pub(super) fn write_error(
    out: &mut Vec<u8>,
    number: Option<u64>,
    error: &Error,
    request_id: Option<&str>,
) -> Result<(), Error> {
    if number.is_none() && error.reason == Reason::Internal {
        tracing::error!(error = %error.message, "an upload ended because of an internal fault");
    }
    out.push(b'{');
    if let Some(number) = number {
        out.extend_from_slice(format!("\"line\":{number},").as_bytes());
    }
    out.extend_from_slice(b"\"error\":");
    serde_json::to_writer(&mut *out, &ErrorObject::of(error, request_id))
        .map_err(fault("the answer cannot be written as JSON"))?;
    out.extend_from_slice(b"}\n");
    Ok(())
}
